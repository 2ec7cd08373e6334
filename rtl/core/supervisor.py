"""The running job: where it stands, what ends it early, and how the card is cleaned up then."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from ..isa import SEMAPHORES, Flag, Queue, Status, Unit
from .queue import STALL_SEMAPHORE, STALL_UNIT, QueueState
from .semaphore import WAITS

__all__ = ["ErrorReport", "Supervisor"]

_DRAIN_LIMIT = 4096
_RESET_CYCLES = 4
_SETTLE_CYCLES = 3
_NAME_BITS = 3
"""Of the cycles in which a queue is asked what it lacks; `_ASK` and `_ANSWER` are among them."""
_ASK = 1
_ANSWER = 3


class _State(enum.Enum):
    RUN = 0
    NAME = 1
    DRAIN = 2
    RESET = 3


class ErrorReport(data.Struct):
    """The first error of a job: `Status`, `Unit`, and the command's index within the job."""

    status: Status
    unit: Unit
    command: 32


class Supervisor(wiring.Component):
    """Starts jobs, latches the first error of each, and resets the core after an error.

    After an error: ``hold`` and ``halt`` rise, the memory system empties (at most 4096 cycles are
    given to it), ``core_reset`` pulses, and the job goes on in ``failed`` until the dispatcher has
    found its END. An error after that, or in the completion record itself, or in the ring's
    address, ends the job without a record and drops what the ring still holds.

    Members
    -------
    tail : ``In(32)``
        Commands written so far.
    watchdog : ``In(32)``
        Cycles without ``moved`` after which a working job is ended; 0 is never.
    reset, abort : ``In(1)``
        Host requests. ``reset`` acts at once on all counters.
    took, closing, ended, fault, fault_ring, fault_status : ``In``
        From the dispatcher.
    queue : ``In(ArrayLayout(QueueState))``
        What the queues did in the cycle before.
    named, command : ``Out``, ``In(32)``
        A unit, and in the next cycle the index of the command that its queue is at. The former is
        from a register.
    ask, ask_queue, lacks, lacks_index : ``Out(1)``, ``Out``, ``In(1)``, ``In``
        As in `SemaphoreFile`.
    unit_error, unit_status : ``In``
        Each unit's ``error`` and ``status``.
    result_flags : ``In(4)``
        `Flag` bits that results of the command of the compute queue raised in the cycle before.
    memory_idle, memory_illegal : ``In(1)``
        The memory system has nothing to do; it was given an illegal command sequence.
    fetch_quiet : ``In(1)``
        No ring reads are waited for.
    moved : ``In(1)``
        Something made progress.
    running, failed : ``Out(1)``
        A job runs; it has failed, and its commands are to be skipped.
    start : ``Out(1)``
        A job begins: counters clear.
    taken, index, completed : ``Out(32)``
        Commands taken since reset; commands taken of this job; jobs ended.
    advanced : ``Out(1)``
        ``taken`` has counted one in the cycle before.
    error : ``Out(ErrorReport)``
        Of the newest job that failed.
    flags, flagged : ``Out(4)``, ``Out(32)``
        All flags of this job so far, and the index of the first command that raised one.
    stall, stall_semaphore : ``Out``
        For `Csr.STALL` and `Csr.STALL_SEMAPHORE`, from the newest watchdog error.
    hold, halt, core_reset : ``Out(1)``
    """

    def __init__(self) -> None:
        queues = len(Queue)
        super().__init__(
            {
                "tail": In(32),
                "watchdog": In(32),
                "reset": In(1),
                "abort": In(1),
                "took": In(1),
                "closing": In(1),
                "ended": In(1),
                "fault": In(1),
                "fault_ring": In(1),
                "fault_status": In(Status),
                "queue": In(data.ArrayLayout(QueueState, queues)),
                "named": Out(Unit, init=Unit.COMPUTE),
                "command": In(32),
                "ask": Out(1),
                "ask_queue": Out(range(queues)),
                "lacks": In(1),
                "lacks_index": In(range(SEMAPHORES)),
                "unit_error": In(queues),
                "unit_status": In(data.ArrayLayout(Status, queues)),
                "result_flags": In(len(Flag)),
                "memory_idle": In(1),
                "memory_illegal": In(1),
                "fetch_quiet": In(1),
                "moved": In(1),
                "running": Out(1),
                "failed": Out(1),
                "start": Out(1),
                "taken": Out(32),
                "index": Out(32),
                "completed": Out(32),
                "advanced": Out(1),
                "error": Out(ErrorReport),
                "flags": Out(len(Flag)),
                "flagged": Out(32),
                "stall": Out(4 * queues),
                "stall_semaphore": Out(4 * queues),
                "hold": Out(1),
                "halt": Out(1),
                "core_reset": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        expired = self._elaborate_watchdog(m)
        unit_error = Signal.like(self.unit_error)  # of the cycle before, as the units lie far away
        m.d.sync += unit_error.eq(self.unit_error)
        status, unit, caused, found, late = self._elaborate_cause(m, expired, unit_error)

        state = Signal(_State)
        watched = Signal()  # the error is the watchdog's
        # It is the job's first one, and of no unit: its command is told two cycles later.
        first, named, told = Signal(), Signal(), Signal()
        closed = Signal()  # the job's END has been taken
        lost = Signal()  # the job ends without a record
        wait = Signal(range(_DRAIN_LIMIT + 1), reset_less=True)
        waits = Signal()  # there was a command in the ring
        m.d.sync += waits.eq(self.taken != self.tail)
        m.d.comb += self.start.eq((state == _State.RUN) & ~self.running & waits)
        ends, over = Signal(), Signal()  # the state is over in the next cycle, in this one
        m.d.sync += over.eq(ends & ~over & ~self.reset)
        entered, advance = Signal(), Signal()
        # While commands are taken the job runs, and does not end: what is caused is found.
        m.d.comb += advance.eq((state == _State.RUN) & self.took & ~caused)
        m.d.sync += [wait.eq(wait + 1), self.advanced.eq(advance)]
        with m.If((state == _State.RUN) | entered):
            m.d.sync += wait.eq(0)
        following = Signal(32)  # of what was taken; commands are some cycles apart
        m.d.sync += following.eq(self.taken + 1)
        with m.If(advance):
            m.d.sync += self.taken.eq(following)
        with m.If(self.advanced):
            m.d.sync += self.index.eq(self.index + 1)
        begun = Signal()  # a cycle later will do: the first command is not there yet
        m.d.sync += begun.eq(self.start)
        with m.If(begun):
            m.d.sync += self.index.eq(0)

        def end_job() -> None:
            m.d.sync += [
                self.completed.eq(self.completed + 1),
                self.running.eq(0),
                self.failed.eq(0),
            ]

        def enter(following: _State, *, fresh: bool = True) -> None:
            if fresh:  # ``wait`` is to begin anew; in the state RUN it does not count
                m.d.comb += entered.eq(1)
            m.d.sync += [
                state.eq(following),
                # Registers of their own: long paths begin here.
                self.hold.eq(following is not _State.RUN),
                self.halt.eq(following in (_State.DRAIN, _State.RESET)),
                self.core_reset.eq(following is _State.RESET),
            ]

        # A unit that fails is named at once: it may end another iteration two cycles later.
        reported = Signal()
        m.d.sync += [
            self.flags.eq(self.flags | self.result_flags),
            self.named.eq(Unit.COMPUTE),
            reported.eq(unit_error.any()),
            first.eq(0),
            named.eq(first),
            told.eq(named),
        ]
        for n in reversed(range(len(Queue))):
            with m.If(self.unit_error[n]):
                m.d.sync += self.named.eq(Unit(n))
        with m.If(first):
            m.d.sync += self.named.eq(self.error.unit)
        with m.If((reported & self.running & ~self.failed) | told):
            counted = told & (self.error.unit >= len(Queue))
            m.d.sync += self.error.command.eq(Mux(counted, self.index, self.command))
        with m.If(~self.flags.any() & ~self.hold & ~reported):
            m.d.sync += self.flagged.eq(self.command)
        with m.Switch(state):
            with m.Case(_State.RUN):
                with m.If(self.start):
                    m.d.sync += [self.running.eq(1), self.flags.eq(0)]
                with m.If(self.running & found):
                    m.d.sync += [
                        watched.eq(late),
                        closed.eq(self.closing),
                        lost.eq(self.failed | self.closing | (self.fault & self.fault_ring)),
                        self.failed.eq(1),
                        first.eq(~self.failed & ~reported),
                    ]
                    with m.If(~self.failed):
                        m.d.sync += [
                            self.error.status.eq(status),
                            self.error.unit.eq(unit),
                        ]
                    with m.If(late):
                        m.d.sync += [
                            self.stall[4 * n : 4 * n + 4].eq(self.queue[n].stall)
                            for n in range(len(Queue))
                        ]
                    enter(_State.NAME, fresh=False)
                with m.Elif(self.ended):
                    end_job()
            with m.Case(_State.NAME):
                queue, step = wait[_NAME_BITS:], wait[:_NAME_BITS]
                self._name_semaphore(m, queue, step, watched)
                m.d.comb += ends.eq(wait == (len(Queue) << _NAME_BITS) - 2)
                with m.If(over | ~watched):
                    enter(_State.DRAIN)
            with m.Case(_State.DRAIN):
                # A few cycles for the memory system to see what it was asked for last.
                drained = self.memory_idle & (wait >= _SETTLE_CYCLES)
                m.d.comb += ends.eq(drained | (wait == _DRAIN_LIMIT))
                with m.If(over):
                    enter(_State.RESET)
            with m.Case(_State.RESET):
                m.d.comb += ends.eq(wait == _RESET_CYCLES - 2)
                with m.If(over):
                    enter(_State.RUN)
                    m.d.sync += lost.eq(0)
                    with m.If(lost):
                        end_job()
                        with m.If(~closed):
                            m.d.sync += [self.taken.eq(self.tail), waits.eq(0)]

        with m.If(self.reset):
            m.d.sync += [
                signal.eq(0)
                for signal in (
                    *(self.running, self.failed, self.taken, self.completed),
                    *(self.error.as_value(), self.stall, self.stall_semaphore),
                    *(lost, first, named, told),
                )
            ]
            enter(_State.DRAIN)
        return m

    def _elaborate_watchdog(self, m: Module) -> Signal:
        """Return a signal that is high when a working job has stood still for too long."""
        working = Signal()
        timer = Signal(32)
        expired = Signal()
        moved = Signal()
        m.d.sync += moved.eq(self.moved)
        m.d.comb += working.eq(
            self.running
            & ~self.hold
            & (Cat(queue.busy for queue in self.queue).any() | ~self.fetch_quiet | self.closing)
        )
        with m.If(working & ~moved):
            m.d.sync += [
                timer.eq(timer + 1),
                expired.eq((self.watchdog != 0) & (timer >= self.watchdog)),
            ]
        with m.Else():
            m.d.sync += [timer.eq(0), expired.eq(0)]
        return expired

    def _elaborate_cause(
        self, m: Module, expired: Signal, unit_error: Signal
    ) -> tuple[Signal, Signal, Signal, Signal, Signal]:
        """Return status and unit of an error, whether there is one, whether it is found now, and
        whether it is ``expired``.

        All of the cycle before, as the cause is chosen among many; but not found if the job ends
        now.
        """
        unit_status = Signal.like(self.unit_status)
        m.d.sync += unit_status.eq(self.unit_status)
        cause_status, cause_unit = Signal(Status), Signal(Unit)
        cause, too_late, aborts = Signal(), Signal(), Signal()
        status, unit = Signal(Status, reset_less=True), Signal(Unit, reset_less=True)
        caused, found = Signal(), Signal()
        late, aborted = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += found.eq(caused & ~self.ended & ~(aborted & self.closing))
        m.d.sync += [
            *(caused.eq(cause), late.eq(too_late), aborted.eq(aborts)),
            *(status.eq(cause_status), unit.eq(cause_unit)),
        ]

        def blame(what: object, whom: Unit) -> None:
            m.d.comb += [cause.eq(1), cause_status.eq(what), cause_unit.eq(whom)]

        stuck, starved = (
            [queue.stall == kind for queue in self.queue] for kind in (STALL_UNIT, STALL_SEMAPHORE)
        )
        for n in range(len(Queue)):
            with m.If(unit_error[n]) if n == 0 else m.Elif(unit_error[n]):
                blame(unit_status[n], Unit(n))
        with m.Elif(self.memory_illegal):
            blame(Status.MEMORY_FAULT, Unit.MEMORY)
        with m.Elif(self.fault):
            blame(self.fault_status, Unit.SEQUENCER)
        with m.Elif(expired):
            blame(Status.WATCHDOG, Unit.MEMORY)
            m.d.comb += too_late.eq(1)
            for kind in (starved, stuck):  # the later assignment wins
                for n in reversed(range(len(Queue))):
                    with m.If(kind[n]):
                        m.d.comb += cause_unit.eq(Unit(n))
        with m.Elif(self.abort):
            blame(Status.ABORTED, Unit.SEQUENCER)
            m.d.comb += aborts.eq(1)
        return status, unit, caused, found, late

    def _name_semaphore(self, m: Module, queue: Value, step: Value, watched: Signal) -> None:
        """Latch the first semaphore that each queue lacks; its waits come one a cycle."""
        known = Signal()
        lowest = Signal(range(SEMAPHORES))
        m.d.comb += [self.ask.eq(step == _ASK), self.ask_queue.eq(queue)]
        with m.If(self.ask):
            m.d.sync += [known.eq(0), lowest.eq(0)]
        with m.Elif((step >= _ANSWER) & (step < _ANSWER + WAITS) & self.lacks):
            with m.If(~known | (self.lacks_index < lowest)):
                m.d.sync += [known.eq(1), lowest.eq(self.lacks_index)]
        with m.If(watched & (step == _ANSWER + WAITS)), m.Switch(queue):
            for n in range(len(Queue)):
                with m.Case(n):
                    m.d.sync += self.stall_semaphore[4 * n : 4 * n + 4].eq(lowest)
