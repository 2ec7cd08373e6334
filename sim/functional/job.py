"""A job while it runs: its queues, its semaphores, and the modelled time of both."""

import bisect
import collections
import dataclasses

from ...rtl.config import CardConfig
from ...rtl.isa import SEMAPHORES, Opcode, Queue, Status, Unit
from .work import Fields, Work

__all__ = ["Failure", "Job", "Running"]

SEMAPHORE_LIMIT = 255
"""A semaphore stays at this value."""

DISPATCH_CYCLES = 8
START_CYCLES = 10
COMPUTE_LATENCY = 40
HBM_LATENCY = 40
IDEAL_LATENCY = 8
HBM_CHANNEL_BYTES = 16
"""The model of time: cycles from one dispatch to the next, from a command's dispatch to its first
iteration, from the last weight to the last result, and of card memory; bytes per cycle and channel.
"""


@dataclasses.dataclass(frozen=True)
class Failure:
    """The first error of a job."""

    status: Status
    unit: Unit
    command: int


@dataclasses.dataclass
class Running:
    """A command in its queue.

    ``index`` counts within the job. ``done`` is the number of iterations executed so far.
    """

    index: int
    opcode: Opcode
    command: Fields
    body: Fields
    ready: int
    done: int = 0

    @property
    def finished(self) -> bool:
        return self.done == self.command["inner"] * self.command["outer"]

    def operands(self) -> list[int]:
        """Return the three addresses of the next iteration."""
        outer, inner = divmod(self.done, self.command["inner"])
        addresses = []
        for bit, operand in enumerate(self.command["operand"]):
            parity = (outer if self.command["pong_outer"] >> bit & 1 else self.done) & 1
            address = operand["base"] + outer * operand["outer"] + inner * operand["inner"]
            addresses.append((address + parity * operand["pong"]) & 0xFFFFFFFF)
        return addresses

    def waits(self) -> collections.Counter[int]:
        """Return how much the next iteration takes from each semaphore."""
        return self._references("wait", self.done % self.command["inner"] == 0)

    def signals(self) -> collections.Counter[int]:
        """Return how much the next iteration adds to each semaphore."""
        return self._references("signal", (self.done + 1) % self.command["inner"] == 0)

    def _references(self, name: str, edge: bool) -> collections.Counter[int]:
        return collections.Counter(
            reference["index"]
            for reference in self.command[name]
            if reference["enable"] and (edge or not reference["outer"])
        )


class Job:
    """Queues and semaphores of one job.

    Parameters
    ----------
    config : CardConfig
    started : int
        Modelled cycle of the first command's fetch.
    ideal : bool
        Card memory of fixed latency instead of HBM.

    Attributes
    ----------
    taken : int
        Commands taken from the ring so far.
    dispatcher : int
        Modelled cycle from which the next one can be taken.
    failure : Failure or None
    flags, flagged : int
        Bits of `Flag` that results have raised, and the command that was the first to.
    queues : dict of Queue to deque of Running
    """

    def __init__(self, config: CardConfig, started: int, *, ideal: bool) -> None:
        self.config = config
        self.started = started
        self.dispatcher = started
        self.taken = 0
        self.failure: Failure | None = None
        self.flags = self.flagged = 0
        self.queues: dict[Queue, collections.deque[Running]] = {
            queue: collections.deque() for queue in Queue
        }
        self._semaphores: list[list[int]] = [[] for _ in range(SEMAPHORES)]
        self._next = dict.fromkeys(Queue, started)
        self._end = dict.fromkeys(Queue, started)
        self._bus = started
        ideal = ideal or not config.hbm_channels
        self._latency = IDEAL_LATENCY if ideal else HBM_LATENCY
        hbm_bytes = HBM_CHANNEL_BYTES * config.hbm_channels
        self._bandwidth = config.bus_bytes if ideal else min(config.bus_bytes, hbm_bytes)

    @property
    def idle(self) -> bool:
        """Whether all queues are empty."""
        return not any(self.queues.values())

    @property
    def quiet(self) -> int:
        """The cycle in which the dispatcher and all units are done with what they began."""
        return max(self.dispatcher, *self._end.values())

    def fail(self, status: Status, unit: Unit, command: int) -> None:
        """Note the error if it is the first, and forget all commands."""
        if self.failure is None:
            self.failure = Failure(status, unit, command)
        for queue in self.queues.values():
            queue.clear()

    def raised(self, flags: int, command: int) -> None:
        """Note flags of a command's results."""
        if flags and not self.flags:
            self.flagged = command
        self.flags |= flags

    def dispatched(self, cycle: int) -> None:
        """Note that a command was taken from the ring."""
        self.taken += 1
        fetch = -(-128 // self._bandwidth)
        self.dispatcher = cycle + max(DISPATCH_CYCLES, fetch)

    def room(self, queue: Queue) -> int | None:
        """Return the cycle from which the queue has room for one more command, if it has."""
        # One command has left the queue for the unit.
        if len(self.queues[queue]) > self.config.queue_depth:
            return None
        return max(self.dispatcher, self._next[queue]) if self.queues[queue] else self.dispatcher

    def put(self, queue: Queue, running: Running) -> None:
        """Add a command."""
        running.ready += START_CYCLES
        self.queues[queue].append(running)

    def missing(self, queue: Queue) -> list[int]:
        """Return the semaphores that hold too little for the queue's next iteration."""
        if not self.queues[queue]:
            return []
        waits = self.queues[queue][0].waits()
        return sorted(s for s, need in waits.items() if len(self._semaphores[s]) < need)

    def start(self, queue: Queue) -> int | None:
        """Return the cycle in which the queue's next iteration can start, if it can."""
        if not self.queues[queue] or self.missing(queue):
            return None
        running = self.queues[queue][0]
        free = self._next[queue] if running.done else self._end[queue]
        given = [self._semaphores[s][need - 1] for s, need in running.waits().items()]
        return max(free, running.ready, *given)

    def take(self, queue: Queue) -> None:
        """Take from the semaphores what the queue's next iteration waits for."""
        for semaphore, need in self.queues[queue][0].waits().items():
            del self._semaphores[semaphore][:need]

    def done(self, queue: Queue, cycle: int, work: Work) -> None:
        """Note the queue's iteration that started in ``cycle``, and give its signals."""
        running = self.queues[queue][0]
        self._next[queue] = cycle + work.busy
        latency = COMPUTE_LATENCY
        moved = work.read + work.written
        if moved:
            self._bus = max(self._bus, cycle) + -(-moved // self._bandwidth)
            self._next[queue] = max(self._next[queue], self._bus)
            latency = self._latency
        self._end[queue] = self._next[queue] + latency
        for semaphore, value in running.signals().items():
            self.add(semaphore, value, self._end[queue])
        running.done += 1
        if running.finished:
            self.queues[queue].popleft()

    def add(self, semaphore: int, value: int, cycle: int) -> None:
        """Add to a semaphore."""
        credits = self._semaphores[semaphore]
        for _ in range(min(value, SEMAPHORE_LIMIT - len(credits))):
            bisect.insort(credits, cycle)

    def clear(self) -> None:
        """Clear all semaphores."""
        for credits in self._semaphores:
            credits.clear()
