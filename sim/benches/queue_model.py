"""A model of `QueueBank` for its bench: it drives all ports, and checks them in every cycle.

The model holds the credits of every semaphore at its ports' level: an iteration that starts takes
its waits' credits, one that ends gives its signals'. A start must never take credits that are not
there; a bank at rest must name exactly the semaphores that the model finds short; and then one
credit more must be enough. A take or an addition that is lost or made twice shows in either.
"""

import collections
from typing import Any

import numpy as np

from ...rtl.core.bank import UNITS
from ...rtl.core.ports import iteration_layout
from ...rtl.core.queue import STALL_NONE, STALL_SEMAPHORE, STALL_UNIT, QueueState
from ...rtl.core.semaphore import WAITS
from ...rtl.isa import COMMAND_BYTES, SEMAPHORES, Command
from .lib import bench_config, pack, sample, tick, unpack
from .queue_commands import (
    OVERLAP,
    Iteration,
    iterations,
    used,
)


class Bench:
    """Drives all ports of the bank and checks every cycle against the model."""

    def __init__(self, dut: Any, r: np.random.Generator, *, stall: float, latency: int) -> None:
        self.dut = dut
        self.config = bench_config()
        self.rng = r
        self.stall = stall
        self.latency = latency
        self.slow = 1
        self.cycle = 0
        queues = range(len(UNITS))
        self.units = [
            {
                "ready": getattr(dut, f"{name}__start__ready"),
                "valid": getattr(dut, f"{name}__start__valid"),
                "payload": getattr(dut, f"{name}__start__payload"),
                "done": getattr(dut, f"{name}__done"),
            }
            for name in UNITS
        ]
        self.expected: list[collections.deque[Iteration]] = [collections.deque() for _ in queues]
        self.running: list[collections.deque[tuple[Iteration, int]]] = [
            collections.deque() for _ in queues
        ]
        self.to_write: list[collections.deque[dict[str, Any]]] = [
            collections.deque() for _ in queues
        ]
        self.counts = [0] * SEMAPHORES
        self.credits: list[int] = []  # to be added by the host port, one a cycle
        self.starts: list[list[int]] = [[] for _ in queues]  # cycles
        self.overlaps = 0  # commands that began before the one before had ended
        self.commits: list[int] = []
        self.commands = 0
        self.moved_at = 0
        self.state: list[dict[str, int]] = []
        self.beats: collections.deque[tuple[int, int]] = collections.deque()
        self.writing: tuple[int, dict[str, Any]] | None = None
        self.room: tuple[int, int] | None = None  # queue, and whether it had room
        self.may_add = False
        self.named = self.named_before = 0
        self.oldest: list[int | None] = [None] * len(UNITS)  # commands, of the cycle before
        self.held_back = [False] * len(UNITS)  # queues whose unit takes nothing
        for unit in self.units:
            unit["ready"].value = 0
            unit["done"].value = 0
        for name in ("write__valid", "write__commit", "add", "clear", "ask"):
            getattr(dut, name).value = 0

    def put(self, queue: int, fields: dict[str, Any]) -> None:
        """Send a command to a queue, in order."""
        self.to_write[queue].append(fields)

    def finished(self) -> bool:
        """Return whether the model has nothing left to do."""
        return not (any(self.to_write) or any(self.expected) or any(self.running) or self.writing)

    def _drive_write(self) -> None:
        """Write one beat a cycle, with pauses."""
        dut = self.dut
        dut.write__valid.value = 0
        dut.write__commit.value = 0
        dut.write__chosen.value = int(self.rng.integers(1 << len(UNITS)))  # void without ``valid``
        if not self.beats and self.writing is None:
            waiting = [n for n, commands in enumerate(self.to_write) if commands]
            if not waiting:
                return
            queue = int(self.rng.choice(waiting))
            fields = self.to_write[queue][0]
            self.writing = queue, fields
            bits = 8 * self.config.bus_bytes
            image = pack(Command, fields | {"opcode": 1, "version": 1})
            count = 8 * COMMAND_BYTES // bits
            self.beats.extend((n, image >> (n * bits) & ((1 << bits) - 1)) for n in range(count))
        assert self.writing is not None
        queue = self.writing[0]
        if self.room != (queue, 1) or self.rng.random() < self.stall:
            return
        if self.beats:
            number, value = self.beats[0]
            dut.write__beat.value = number
            dut.write__data.value = value
            dut.write__valid.value = dut.write__chosen.value = 1 << queue
            dut.write__index.value = self.commands
        else:
            dut.write__commit.value = 1 << queue

    def _sample_write(self) -> None:
        dut = self.dut
        room = 0
        if self.writing:
            room = int(dut.write__room.value) >> self.writing[0] & 1
            self.room = (self.writing[0], room)
        if int(dut.write__valid.value):
            assert room, "room came and went"
            self.beats.popleft()
        elif int(dut.write__commit.value):
            assert self.writing is not None and room
            queue, fields = self.writing
            self.expected[queue].extend(iterations(fields, self.commands))
            self.to_write[queue].popleft()
            self.writing = self.room = None
            self.commands += 1
            self.commits.append(self.cycle)
            self.moved_at = self.cycle

    async def step(self) -> None:
        """One cycle: drive, settle, check."""
        dut, r = self.dut, self.rng
        self._drive_write()
        ending = []
        for n, unit in enumerate(self.units):
            unit["ready"].value = int(r.random() >= self.stall and not self.held_back[n])
            done = bool(self.running[n]) and self.running[n][0][1] <= self.cycle
            unit["done"].value = int(done)
            ending.append(done)
        adds = bool(self.credits) and self.may_add
        dut.add.value = int(adds)
        if adds:
            dut.add_index.value = self.credits[0]
            dut.add_value.value = 1
        self.named, self.named_before = int(r.integers(len(UNITS))), self.named
        dut.named.value = self.named
        await sample(dut)
        self._sample_write()
        packed = int(dut.state.value)
        width = QueueState.as_shape().size
        self.state = [unpack(QueueState, packed >> (n * width)) for n in range(len(UNITS))]
        for n, unit in enumerate(self.units):
            self._check_unit(n, unit)
        for n, done in enumerate(ending):
            if done:
                iteration, _ = self.running[n].popleft()
                for semaphore in iteration.signals:
                    self.counts[semaphore] = min(255, self.counts[semaphore] + 1)
                self.moved_at = self.cycle
        self.may_add = not adds and not int(dut.adding.value)
        if adds:
            semaphore = self.credits.pop(0)
            self.counts[semaphore] = min(255, self.counts[semaphore] + 1)
            self.moved_at = self.cycle
        await tick(dut)
        self.cycle += 1

    def _check_unit(self, n: int, unit: dict[str, Any]) -> None:
        name = UNITS[n]
        running = self.running[n]
        if n == self.named_before and self.oldest[n] is not None:
            assert int(self.dut.command.value) == self.oldest[n]
        self.oldest[n] = running[0][0].command if running else None
        if running:
            assert self.state[n]["busy"], f"{name} runs and is not busy"
            assert self.state[n]["stall"] == STALL_UNIT
        if not int(unit["valid"].value):
            recent = self.starts[n][-1:] == [self.cycle - 1]
            if running and (recent or not (n == OVERLAP and running[-1][0].last)):
                _, body = used(name, [], running[-1][0].body)
                got = unpack(iteration_layout(), int(unit["payload"].value))
                assert used(name, [], got["body"])[1] == body, f"{name}: body changed"
            return
        assert self.expected[n], f"{name} starts an iteration that nobody asked for"
        wanted = self.expected[n][0]
        got = unpack(iteration_layout(), int(unit["payload"].value))
        operands, body = used(name, got["operand"], got["body"])
        assert (operands, body) == used(name, wanted.operands, wanted.body), f"{name}: {operands}"
        assert got["first"] == wanted.first, f"{name}: first iteration not marked, or another"
        assert len(running) < 2, f"{name}: third iteration outstanding"
        if not running:
            self.oldest[n] = wanted.command
        elif n != OVERLAP:
            assert not wanted.first, f"{name}: command began before the last one ended"
        if int(unit["ready"].value):
            self.overlaps += bool(wanted.first and running)
            self.expected[n].popleft()
            ends = self.cycle + self.slow + int(self.rng.integers(self.latency))
            if running:
                ends = max(ends, running[-1][1] + 1)
            running.append((wanted, ends))
            self.starts[n].append(self.cycle)
            for semaphore, count in wanted.waits.items():
                self.counts[semaphore] -= count
                assert self.counts[semaphore] >= 0, f"{name}: took credits that are not there"
            self.moved_at = self.cycle

    async def ask(self, queue: int) -> set[int]:
        """Return the semaphores that a queue lacks, as the bank names them."""
        dut = self.dut
        named: set[int] = set()
        dut.ask_queue.value = queue
        for step in range(2 + WAITS):
            dut.ask.value = int(step == 0)
            await sample(dut)
            if step >= 2 and int(dut.lacks.value):
                named.add(int(dut.lacks_index.value))
            await tick(dut)
        return named

    async def check_rest(self) -> set[int]:
        """Compare the bank at rest with the model; return the semaphores that are short."""
        short_of = set()
        for n, state in enumerate(self.state):
            if self.held_back[n]:
                continue
            if not self.expected[n]:
                assert not state["busy"] and state["stall"] == STALL_NONE, UNITS[n]
                continue
            need = self.expected[n][0].waits
            short = {s for s, count in need.items() if self.counts[s] < count}
            assert short, f"{UNITS[n]} rests though {dict(need)} is there: {self.counts}"
            assert state["stall"] == STALL_SEMAPHORE and state["busy"], (UNITS[n], state)
            missing = await self.ask(n)
            assert missing == short, f"{UNITS[n]} misses {missing}, not {short}"
            short_of |= short
        return short_of

    async def run(self, *, limit: int, feed: bool = True) -> None:
        """Step until all is done; where all wait, check that they must, and give one credit."""
        self.moved_at = self.cycle
        while not self.finished():
            assert self.cycle < limit, "no end"
            await self.step()
            if self.cycle - self.moved_at > 30 + self.latency + self.slow:
                short_of = await self.check_rest()
                if not feed:
                    return
                self.credits.append(int(self.rng.choice(sorted(short_of))))
                self.moved_at = self.cycle
        for _ in range(24):
            await self.step()
        await self.check_rest()
