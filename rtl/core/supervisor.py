"""The running job: where it stands, what ends it early, and how the card is cleaned up then."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from ..isa import SEMAPHORES, Flag, Queue, Status, Unit
from .queue import STALL_SEMAPHORE, STALL_UNIT, QueueState

__all__ = ["ErrorReport", "Supervisor"]

_DRAIN_LIMIT = 4096
_RESET_CYCLES = 4
_SETTLE_CYCLES = 3


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
    unit_error, unit_status : ``In``
        Each unit's ``error`` and ``status``.
    result_flags : ``In(4)``
        `Flag` bits that results of the command of the compute queue raise in this cycle.
    memory_idle, memory_illegal : ``In(1)``
        The memory system has nothing to do; it was given an illegal command sequence.
    fetch_quiet : ``In(1)``
        No ring reads are on their way.
    moved : ``In(1)``
        Something made progress.
    running, failed : ``Out(1)``
        A job runs; it has failed, and its commands are to be skipped.
    start : ``Out(1)``
        A job begins: counters clear.
    taken, index, completed : ``Out(32)``
        Commands taken since reset; commands taken of this job; jobs ended.
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
        self._abort_early = Signal()  # the abort came as the job began
        expired = self._elaborate_watchdog(m)
        cause, found = self._elaborate_cause(m, expired)

        state = Signal(_State)
        watched = Signal()  # the error is the watchdog's
        closed = Signal()  # the job's END has been taken
        lost = Signal()  # the job ends without a record
        wait = Signal(range(_DRAIN_LIMIT + 1))
        m.d.comb += [
            self.hold.eq(state != _State.RUN),
            self.halt.eq((state == _State.DRAIN) | (state == _State.RESET)),
            self.core_reset.eq(state == _State.RESET),
            self.start.eq((state == _State.RUN) & ~self.running & (self.taken != self.tail)),
        ]
        m.d.sync += [wait.eq(wait + 1), self._abort_early.eq(self.abort & self.start)]

        def end_job() -> None:
            m.d.sync += [
                self.completed.eq(self.completed + 1),
                self.running.eq(0),
                self.failed.eq(0),
            ]

        def enter(following: _State) -> None:
            m.d.sync += [state.eq(following), wait.eq(0)]

        m.d.sync += self.flags.eq(self.flags | self.result_flags)
        with m.If(~self.flags.any()):
            m.d.sync += self.flagged.eq(self.queue[Queue.COMPUTE].command)
        with m.Switch(state):
            with m.Case(_State.RUN):
                with m.If(self.start):
                    m.d.sync += [self.running.eq(1), self.index.eq(0), self.flags.eq(0)]
                with m.If(self.running & found):
                    m.d.sync += [
                        watched.eq(expired),
                        closed.eq(self.closing),
                        lost.eq(self.failed | self.closing | (self.fault & self.fault_ring)),
                        self.failed.eq(1),
                    ]
                    with m.If(~self.failed):
                        m.d.sync += self.error.eq(cause)
                    with m.If(expired):
                        m.d.sync += [
                            self.stall[4 * n : 4 * n + 4].eq(self.queue[n].stall)
                            for n in range(len(Queue))
                        ]
                    enter(_State.NAME)
                with m.Else():
                    with m.If(self.took):
                        m.d.sync += [
                            self.taken.eq(self.taken + 1),
                            self.index.eq(self.index + 1),
                        ]
                    with m.If(self.ended):
                        end_job()
            with m.Case(_State.NAME):
                with m.If(watched):
                    self._name_semaphore(m, wait)
                with m.If(wait == len(Queue) - 1):
                    enter(_State.DRAIN)
            with m.Case(_State.DRAIN):
                # A few cycles for the memory system to see what it was asked for last.
                drained = self.memory_idle & self.fetch_quiet & (wait >= _SETTLE_CYCLES)
                with m.If(drained | (wait == _DRAIN_LIMIT)):
                    enter(_State.RESET)
            with m.Case(_State.RESET):
                with m.If(wait == _RESET_CYCLES - 1):
                    enter(_State.RUN)
                    m.d.sync += lost.eq(0)
                    with m.If(lost):
                        end_job()
                        with m.If(~closed):
                            m.d.sync += self.taken.eq(self.tail)

        with m.If(self.reset):
            m.d.sync += [
                signal.eq(0)
                for signal in (
                    *(self.running, self.failed, self.taken, self.index, self.completed),
                    *(self.error.as_value(), self.stall, self.stall_semaphore, lost),
                )
            ]
            enter(_State.DRAIN)
        return m

    def _elaborate_watchdog(self, m: Module) -> Signal:
        """Return a signal that is high when a working job has stood still for too long."""
        working = Signal()
        timer = Signal(32)
        expired = Signal()
        m.d.comb += working.eq(
            self.running
            & ~self.hold
            & (Cat(queue.busy for queue in self.queue).any() | ~self.fetch_quiet | self.closing)
        )
        with m.If(working & ~self.moved):
            m.d.sync += [
                timer.eq(timer + 1),
                expired.eq((self.watchdog != 0) & (timer >= self.watchdog)),
            ]
        with m.Else():
            m.d.sync += [timer.eq(0), expired.eq(0)]
        return expired

    def _elaborate_cause(self, m: Module, expired: Signal) -> tuple[data.View, Signal]:
        """Return the error of this cycle, and whether there is one."""
        cause = Signal(ErrorReport)
        found = Signal()

        def blame(status: object, unit: Unit, command: object) -> None:
            m.d.comb += [
                found.eq(1),
                cause.status.eq(status),
                cause.unit.eq(unit),
                cause.command.eq(command),
            ]

        stuck, starved = (
            [queue.stall == kind for queue in self.queue] for kind in (STALL_UNIT, STALL_SEMAPHORE)
        )
        for n, queue in enumerate(self.queue):
            with m.If(self.unit_error[n]) if n == 0 else m.Elif(self.unit_error[n]):
                blame(self.unit_status[n], Unit(n), queue.command)
        with m.Elif(self.memory_illegal & ~self.ended):
            blame(Status.MEMORY_FAULT, Unit.MEMORY, self.index)
        with m.Elif(self.fault):
            blame(self.fault_status, Unit.SEQUENCER, self.index)
        with m.Elif(expired & ~self.ended):
            blame(Status.WATCHDOG, Unit.MEMORY, self.index)
            for kind in (starved, stuck):  # the later assignment wins
                for n, queue in reversed(list(enumerate(self.queue))):
                    with m.If(kind[n]):
                        m.d.comb += [cause.unit.eq(Unit(n)), cause.command.eq(queue.command)]
        with m.Elif((self.abort | self._abort_early) & ~self.closing):
            blame(Status.ABORTED, Unit.SEQUENCER, self.index)
        return cause, found

    def _name_semaphore(self, m: Module, turn: Signal) -> None:
        """Latch the first semaphore that a queue lacks: one queue a cycle, for one encoder."""
        missing = Signal(SEMAPHORES)
        first = Signal(range(SEMAPHORES))
        with m.Switch(turn):
            for n, queue in enumerate(self.queue):
                with m.Case(n):
                    m.d.comb += missing.eq(queue.missing)
                    m.d.sync += self.stall_semaphore[4 * n : 4 * n + 4].eq(first)
        for s in reversed(range(SEMAPHORES)):
            with m.If(missing[s]):
                m.d.comb += first.eq(s)
