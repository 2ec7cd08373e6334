"""Wait for a card's jobs, and find out why one does not end."""

import time
from collections.abc import Callable

from ..rtl.isa import Completion, Csr, Flag, Status, Unit
from .compiler.packing import Packer
from .counters import Counters
from .errors import CardError, CardTimeoutError, job_error, stalls
from .job import Job, JobResult
from .ring import Ring
from .transport import Transport

__all__ = ["COMPLETION_BYTES", "Waiter"]

RUN_CYCLES = 100_000
"""Cycles between two looks at the clock on the wall."""

RUN_S = 0.25
"""The same, in seconds, for a card that runs by itself."""

ROOM_CYCLES = 1000
"""Cycles between two looks at a full ring."""

JOB_S = 60
"""Seconds at its clock that such a card has for a job, if no other deadline is given."""

STUCK_CYCLES = 20_000_000
"""A simulated card with a full ring is stuck if nothing is seen to move for so long; a command may
work longer than that, but not unseen."""

STALLED_CYCLES = 1000
"""A job in which nothing moves for so long has stalled, and is not only slow."""

_MOVES = (Csr.RING_HEAD, Csr.STATE, Csr.MAC_ACTIVE, Csr.BYTES_READ, Csr.BYTES_WRITTEN)
"""Registers in which a card is seen to move, first that of the commands it has taken."""

_COMPLETION = Packer(Completion)
COMPLETION_BYTES = _COMPLETION.size // 8
"""Of the record that an END writes."""


class Waiter:
    """Lets a card run until something has ended.

    Parameters
    ----------
    transport : Transport
    ring : Ring
    reset : callable
        Resets the card when a job was late or lost.
    """

    def __init__(self, transport: Transport, ring: Ring, reset: Callable[[], None]) -> None:
        self._transport = transport
        self._ring = ring
        self._reset = reset

    def make_room(self) -> bool:
        """Let the card fetch, while its ring is full, until it has taken a command; False if it
        does not. The watchdog ends a job that blocks the ring; it may be off."""
        clock_hz = self._transport.clock_hz
        turn, most = RUN_CYCLES, STUCK_CYCLES
        if clock_hz is not None:
            turn, most = ROOM_CYCLES, JOB_S * clock_hz
        seen, still = self._transport.csr_read_many(_MOVES), 0
        while still <= most:
            ran = self._run(turn)
            before, seen = seen, self._transport.csr_read_many(_MOVES)
            if seen[0] != before[0]:
                return True
            if ran == 0:
                return False
            still = still + (ran or 0) if seen == before else 0
        return False

    def finish(self, job: Job, max_cycles: int | None, deadline_s: float | None) -> JobResult:
        """Run until a job has ended, and return how; see `Job.wait`."""
        start = time.monotonic()
        spent = 0
        turn, clock_hz = RUN_CYCLES, self._transport.clock_hz
        if clock_hz is not None:
            turn = round(RUN_S * clock_hz)
            if max_cycles is None and deadline_s is None:
                max_cycles = JOB_S * clock_hz
        while (record := self._completion(job)) is None:
            late = deadline_s is not None and time.monotonic() - start > deadline_s
            left = turn if max_cycles is None else min(turn, max_cycles - spent)
            if late or left <= 0:
                raise self._timeout(job, spent)
            ran = self._run(left, job)
            spent += ran or 0
            if self._completion(job) is None:
                # A card that runs by itself may have ended the job since.
                if self._idle() and self._completion(job) is None:
                    raise self._lost(job)
                if ran == 0:
                    raise self._timeout(job, spent)
        self.acknowledge()
        if record["status"] != Status.OK.value:
            raise self._failure(job, record)
        flags = Flag(record["flags"])
        return JobResult(
            cycles=record["cycles"],
            counters=Counters.read(self._transport.csr_read_many),
            flags=flags,
            flagged_command=record["command"] if flags else None,
        )

    def _idle(self) -> bool:
        head, state = self._transport.csr_read_many((Csr.RING_HEAD, Csr.STATE))
        return head == self._ring.tail and not state & 1

    def acknowledge(self) -> int:
        """Let the interrupt line fall; return how many jobs have ended (modulo 2^32)."""
        completed = self._csr(Csr.COMPLETED)
        self._transport.csr_write(Csr.ACK, completed)
        # Reading it back gives the interrupt the cycle that it takes to fall.
        return self._csr(Csr.ACK)

    def _run(self, max_cycles: int, job: Job | None = None) -> int | None:
        """Let the card run until a job ends; None if one had just ended, 0 if nothing moves."""
        # With the interrupt high the run would end at once.
        completed = self.acknowledge()
        # A card that runs by itself may have ended it before that, and would not say so again.
        if job is not None and self._completion(job) is not None:
            return None
        ran = self._transport.run(max_cycles)
        return ran or (0 if self._csr(Csr.COMPLETED) == completed else None)

    def _completion(self, job: Job) -> dict[str, int] | None:
        raw = self._transport.read_memory(job.record.address, COMPLETION_BYTES).tobytes()
        record = _COMPLETION.unpack(int.from_bytes(raw, "little"))
        return record if record["valid"] and record["tag"] == job.tag else None

    def _failure(self, job: Job, record: dict[str, int]) -> CardError:
        watchdog = record["status"] == Status.WATCHDOG.value
        return job_error(
            record["status"],
            record["unit"],
            record["command"],
            job.commands,
            self._stalls() if watchdog else "",
            job.labels,
        )

    def _timeout(self, job: Job, spent: int) -> CardTimeoutError:
        """Stop a job that is late, and find out whether it stalled or is only long."""
        state = self._csr(Csr.STATE)
        fetched = (self._ring.head() - job.first) % (1 << 32)
        self._transport.csr_write(Csr.WATCHDOG, STALLED_CYCLES)
        self._transport.run(4 * STALLED_CYCLES)
        record = self._completion(job)
        if record is not None and record["status"] == Status.WATCHDOG.value:
            why = f"it stalled: {self._stalls()}; next: check that every wait has a signal"
        elif record is None and self._starved():
            why = (
                "the card waits for more commands: the job has no END; next: end it with one, as "
                "Card.submit does"
            )
        else:
            busy = [unit.name for unit in Unit if state >> 8 + unit & 1]
            why = (
                f"it was still moving, busy: {', '.join(busy) if busy else 'no unit'}; "
                "next: raise the deadline"
            )
        self._reset()
        return CardTimeoutError(
            f"the job did not end within {spent} cycles and was stopped, with "
            f"{min(fetched, len(job.commands))} of {len(job.commands)} commands fetched; {why}",
            status=Status.WATCHDOG if record is not None else Status.ABORTED,
        )

    def _starved(self) -> bool:
        """Whether the card has done all commands of the newest job, and still runs it."""
        state = self._csr(Csr.STATE)
        queues = sum(1 << 8 + unit for unit in Unit if unit < Unit.SEQUENCER)
        fetched_all = self._ring.head() == self._ring.tail
        return bool(fetched_all and state & 1 and not state & queues)

    def _lost(self, job: Job) -> CardError:
        """The card is idle, yet the job has no completion record: its END was not reached."""
        error, index = self._csr(Csr.ERROR), self._csr(Csr.ERROR_COMMAND)
        stalled = self._stalls() if error & 0xFF == Status.WATCHDOG.value else ""
        self._reset()
        if error:
            return job_error(
                error & 0xFF, error >> 8 & 0xFF, index, job.commands, stalled, job.labels
            )
        return CardError(
            "the card is idle but the job has no completion record: it was lost in a reset; "
            "submit it again"
        )

    def _stalls(self) -> str:
        return stalls(self._csr(Csr.STALL), self._csr(Csr.STALL_SEMAPHORE))

    def _csr(self, address: Csr) -> int:
        return self._transport.csr_read(int(address))
