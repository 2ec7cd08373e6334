"""The card's control: registers, ring, checks, queues, completion and errors."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import CardConfig
from ..hostport.csr import CsrBank, Events, HostPort
from ..isa import Flag, Queue
from ..memory.bus import Bus
from ..tech.spread import Spread
from .bank import UNITS, QueueBank
from .dispatch import Dispatcher
from .fetch import RingFetch
from .ports import UnitPort
from .queue import STALL_SEMAPHORE, STALL_UNIT
from .supervisor import Supervisor

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """Runs jobs out of the command ring.

    Parameters
    ----------
    config : CardConfig
    build_hash : int
        64 bits that `Csr.BUILD_LOW` and `Csr.BUILD_HIGH` show.

    Members
    -------
    host : ``In(HostPort)``
    irq : ``Out(1)``
    bus : ``Out(Bus)``
        Ring reads and completion records.
    load0, load1, compute, vector, store : ``Out(UnitPort)``
    flags : ``In(4)``
        `Flag` bits that the results of the compute queue's command raise.
    events : ``In(Events)``
    count_engine : ``Out(8)``
        `Csr.COUNT_ENGINE`: whose cycles ``events`` shows three cycles later.
    progress : ``In(1)``
        Some unit moved data: the watchdog starts again.
    halt : ``Out(1)``
        An error or a reset: the memory system takes no new request and finishes those it has.
    memory_idle : ``In(1)``
        The memory system has nothing under way.
    memory_illegal : ``In(1)``
        The memory system was given an illegal command sequence: the job fails.
    core_reset : ``Out(1)``
        Resets all units, the memory system and what they share, for 4 cycles after ``halt``.
        ``halt`` falls with it.
    ideal : ``Out(1)``
        `Csr.MEMORY_MODE`.
    running, failed : ``Out(1)``
        A job runs; one has failed since the last reset (`Csr.ERROR`).
    """

    def __init__(self, config: CardConfig, build_hash: int = 0) -> None:
        self.config = config
        self._csr = CsrBank(config, build_hash)
        super().__init__(
            {name: Out(UnitPort()) for name in UNITS}
            | {
                "host": In(HostPort()),
                "irq": Out(1),
                "bus": Out(Bus(config)),
                "flags": In(len(Flag)),
                "events": In(Events(config)),
                "count_engine": Out(8),
                "progress": In(1),
                "halt": Out(1),
                "memory_idle": In(1),
                "memory_illegal": In(1),
                "core_reset": Out(1),
                "ideal": Out(1),
                "running": Out(1),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        supervisor = Supervisor()
        bank = QueueBank(self.config)
        fetch = RingFetch(self.config)
        dispatcher = Dispatcher(self.config)
        m.submodules.csr = csr = self._csr
        m.submodules.supervisor = supervisor
        # What is reset after an error: by one register, a cycle later, as the units are.
        m.domains.queues = queues = ClockDomain(local=True)
        m.submodules.spread = spread = Spread()
        reset = Signal(init=1)
        m.d.sync += reset.eq(supervisor.core_reset)
        m.d.comb += [
            queues.clk.eq(ClockSignal()),
            spread.bit.eq(reset),
            queues.rst.eq(spread.everywhere),
        ]
        for name, part in (("bank", bank), ("fetch", fetch), ("dispatcher", dispatcher)):
            m.submodules[name] = DomainRenamer("queues")(part)

        connect(m, flipped(self.host), csr.host)
        connect(m, flipped(self.events), csr.events)
        for name in UNITS:
            connect(m, getattr(bank, name), flipped(getattr(self, name)))
        connect(m, dispatcher.write, bank.write)
        connect(m, fetch.beats, dispatcher.beats)
        connect(m, dispatcher.record, flipped(self.bus.write))
        self._share_request(m, fetch, dispatcher, supervisor.hold)

        # What comes from the queues and units, which lie far away, a cycle later; but that all are
        # at rest, which END waits for.
        state, moving = Signal.like(bank.state), Signal()
        units = [getattr(self, name) for name in UNITS]
        m.d.sync += [
            state.eq(bank.state),
            moving.eq(bank.moving),
            supervisor.result_flags.eq(self.flags),
        ]
        m.d.comb += [
            supervisor.unit_error.eq(Cat(unit.error for unit in units)),
            *(supervisor.unit_status[n].eq(unit.status) for n, unit in enumerate(units)),
        ]
        busy = Cat(queue.busy for queue in state)
        can_move = Cat(queue.busy & (queue.stall != STALL_SEMAPHORE) for queue in state)
        transfers = (Queue.LOAD0, Queue.LOAD1, Queue.STORE)
        took = Signal()
        # No command is dispatched for some cycles before it is asked for.
        m.d.sync += [
            dispatcher.stuck.eq(~can_move.any() & ~moving),
            dispatcher.idle.eq(~Cat(queue.busy for queue in bank.state).any()),
        ]
        m.d.comb += [
            took.eq(dispatcher.took & ~supervisor.hold),
            # registers
            self.irq.eq(csr.irq),
            self.ideal.eq(csr.ideal),
            csr.running.eq(supervisor.running),
            self.running.eq(supervisor.running),
            self.failed.eq(supervisor.error.status.as_value().any()),
            csr.start.eq(supervisor.start),
            csr.took.eq(supervisor.advanced),
            csr.transferring.eq(Cat(state[q].stall == STALL_UNIT for q in transfers).any()),
            self.count_engine.eq(csr.count_engine),
            csr.busy.eq(Cat(busy, supervisor.running, ~self.memory_idle)),
            csr.ring_head.eq(supervisor.taken),
            csr.completed.eq(supervisor.completed),
            csr.error.eq(Cat(supervisor.error.status, supervisor.error.unit)),
            csr.error_command.eq(supervisor.error.command),
            csr.stall.eq(supervisor.stall),
            csr.stall_semaphore.eq(supervisor.stall_semaphore),
            # ring
            fetch.base.eq(csr.ring_base),
            fetch.size.eq(csr.ring_size),
            fetch.tail.eq(csr.ring_tail),
            fetch.taken.eq(supervisor.taken),
            fetch.took.eq(took),
            fetch.hold.eq(supervisor.hold),
            fetch.read.payload.eq(self.bus.read.payload),
            fetch.read.valid.eq(self.bus.read.valid),
            # dispatch
            dispatcher.bad_address.eq(fetch.bad),
            dispatcher.run.eq(supervisor.running),
            dispatcher.hold.eq(supervisor.hold),
            dispatcher.skip.eq(supervisor.failed),
            dispatcher.pause.eq(csr.pause),
            dispatcher.index.eq(supervisor.index),
            dispatcher.adding.eq(bank.adding),
            dispatcher.written.eq(self.bus.written),
            dispatcher.result.flags.eq(supervisor.flags),
            dispatcher.result.command.eq(
                Mux(supervisor.flags.any(), supervisor.flagged, supervisor.index)
            ),
            dispatcher.result.cycles.eq(csr.cycles),
            bank.add.eq(dispatcher.add),
            bank.add_index.eq(dispatcher.add_index),
            bank.add_value.eq(dispatcher.add_value),
            bank.clear.eq(dispatcher.clear),
            # supervision
            supervisor.tail.eq(csr.ring_tail),
            supervisor.watchdog.eq(csr.watchdog),
            supervisor.reset.eq(csr.reset),
            supervisor.abort.eq(csr.abort),
            supervisor.took.eq(dispatcher.took),  # in its state RUN nothing is held
            supervisor.closing.eq(dispatcher.closing),
            supervisor.ended.eq(dispatcher.ended),
            supervisor.fault.eq(dispatcher.fault),
            supervisor.fault_ring.eq(dispatcher.fault_ring),
            supervisor.fault_status.eq(dispatcher.fault_status),
            supervisor.queue.eq(state),
            bank.named.eq(supervisor.named),
            supervisor.command.eq(bank.command),
            bank.ask.eq(supervisor.ask),
            bank.ask_queue.eq(supervisor.ask_queue),
            supervisor.lacks.eq(bank.lacks),
            supervisor.lacks_index.eq(bank.lacks_index),
            supervisor.memory_idle.eq(self.memory_idle),
            supervisor.memory_illegal.eq(self.memory_illegal),
            supervisor.fetch_quiet.eq(fetch.quiet),
            supervisor.moved.eq(
                Cat(self.progress, bank.moved, took, dispatcher.paused).any()
                | self.bus.read.valid
                | self.bus.written
            ),
            self.halt.eq(supervisor.halt),
            self.core_reset.eq(supervisor.core_reset),
        ]
        with m.If(supervisor.failed):
            m.d.comb += [
                dispatcher.result.status.eq(supervisor.error.status),
                dispatcher.result.unit.eq(supervisor.error.unit),
                dispatcher.result.flags.eq(0),
                dispatcher.result.command.eq(supervisor.error.command),
            ]
        return m

    def _share_request(
        self, m: Module, fetch: RingFetch, dispatcher: Dispatcher, hold: Value
    ) -> None:
        """Ask the bus from a register: for the completion record first, and for nothing in hold.

        Neither asks again so soon that it would wait for the register.
        """
        request, record = self.bus.request, dispatcher.request
        free = Signal(init=1)  # that there is none has its own register: memory's choice is long
        m.d.comb += [
            record.ready.eq(free),
            fetch.request.ready.eq(free & ~record.valid),
        ]
        with m.If(free):
            asks = record.valid | fetch.request.valid
            m.d.sync += [
                request.valid.eq(asks),
                free.eq(~asks),
                request.payload.eq(
                    Mux(record.valid, record.payload.as_value(), fetch.request.payload.as_value())
                ),
            ]
        with m.Else():
            stays = ~request.ready & ~hold
            m.d.sync += [request.valid.eq(stays), free.eq(~stays)]
