"""Bench of `QueueBank`: five queues, their semaphores, and units of random latency.

The model holds the credits of every semaphore at its ports' level: an iteration that starts takes
its waits' credits, one that ends gives its signals'. A start must never take credits that are not
there; a bank at rest must name exactly the semaphores that the model finds short; and then one
credit more must be enough. A take or an addition that is lost or made twice shows in either.
"""

import collections
import dataclasses
from typing import Any

import cocotb
import numpy as np

from ...rtl.core.bank import UNITS
from ...rtl.core.ports import iteration_layout
from ...rtl.core.queue import STALL_NONE, STALL_SEMAPHORE, STALL_UNIT, QueueState
from ...rtl.core.semaphore import WAITS
from ...rtl.isa import COMMAND_BYTES, SEMAPHORES, Command
from .lib import bench_config, pack, rng, sample, start, tick, unpack

MASK = 0xFFFFFFFF
OVERLAP = UNITS.index("compute")
"""The queue whose commands overlap."""
BODY_BITS = 512
TRANSFER_BITS = 192
TRANSFERS = ("load0", "load1", "store")


@dataclasses.dataclass
class Iteration:
    """What one iteration must look like and do."""

    operands: list[int]
    body: int
    waits: collections.Counter[int]
    signals: list[int]
    command: int
    first: bool
    last: bool


def used(unit: str, operands: list[int], body: int) -> tuple[list[int], int]:
    """Return what a unit gets of an iteration's operands and its command's body."""
    if unit in TRANSFERS:
        return operands[:2], body & ((1 << TRANSFER_BITS) - 1)
    return operands, body


def reference(semaphore: int, *, outer: bool = False) -> dict[str, int]:
    """Return the fields of a wait or a signal."""
    return {"index": semaphore, "outer": int(outer), "enable": 1}


def iterations(fields: dict[str, Any], number: int) -> list[Iteration]:
    """Return a command's iterations, from the definition in `Operand` and `SemaphoreRef`."""
    result: list[Iteration] = []
    inner_count, outer_count = fields["inner"], fields["outer"]
    for outer in range(outer_count):
        for inner in range(inner_count):
            operands = []
            for n, operand in enumerate(fields["operand"]):
                by_outer = fields["pong_outer"] >> n & 1
                parity = outer & 1 if by_outer else len(result) & 1
                address = operand["base"] + outer * operand["outer"] + inner * operand["inner"]
                operands.append((address + parity * operand["pong"]) & MASK)

            def chosen(name: str, turn: bool) -> list[int]:
                return [
                    item["index"]
                    for item in fields[name]
                    if item.get("enable") and (turn or not item.get("outer"))
                ]

            result.append(
                Iteration(
                    operands=operands,
                    body=fields["body"],
                    waits=collections.Counter(chosen("wait", inner == 0)),
                    signals=chosen("signal", inner == inner_count - 1),
                    command=number,
                    first=outer == inner == 0,
                    last=outer == outer_count - 1 and inner == inner_count - 1,
                )
            )
    return result


def random_command(r: np.random.Generator, *, semaphores: int) -> dict[str, Any]:
    """Return a command of up to 30 iterations that uses the first few semaphores."""

    def references() -> list[dict[str, int]]:
        return [
            {
                "index": int(r.integers(semaphores)),
                "outer": int(r.random() < 0.3),
                "enable": int(r.random() < 0.35),
            }
            for _ in range(4)
        ]

    def number() -> int:
        return int(r.choice([int(r.integers(1 << 32)), int(r.integers(256))]))

    return {
        "pong_outer": int(r.integers(8)),
        "wait": references(),
        "signal": references(),
        "inner": int(r.choice([1, 2, int(r.integers(1, 7))])),
        "outer": int(r.choice([1, 2, int(r.integers(1, 6))])),
        "operand": [
            {
                "base": number(),
                "inner": number() - (1 << 31),
                "outer": number() - (1 << 31),
                "pong": number(),
            }
            for _ in range(3)
        ],
        "body": int.from_bytes(r.bytes(BODY_BITS // 8), "little"),
    }


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
        self.named = 0
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
            dut.select.value = queue
        assert self.writing is not None
        queue = self.writing[0]
        dut.select.value = queue
        if self.room != (queue, 1) or self.rng.random() < self.stall:
            return
        if self.beats:
            number, value = self.beats[0]
            dut.write__beat.value = number
            dut.write__data.value = value
            dut.write__valid.value = 1
        else:
            dut.write__commit.value = 1
            dut.write__index.value = self.commands

    def _sample_write(self) -> None:
        dut = self.dut
        room = int(dut.write__room.value)
        self.room = (self.writing[0], room) if self.writing else None
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
        self.named = int(r.integers(len(UNITS)))
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
        if running:
            assert self.state[n]["busy"], f"{name} runs and is not busy"
            assert self.state[n]["stall"] == STALL_UNIT
            if n == self.named:
                assert int(self.dut.command.value) == running[0][0].command
        if not int(unit["valid"].value):
            if running and not (n == OVERLAP and running[-1][0].last):
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
            assert n != self.named or int(self.dut.command.value) == wanted.command
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
        dut.named.value = queue
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


async def _random(dut: Any, *, stall: float, latency: int, semaphores: int, commands: int) -> None:
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=stall, latency=latency)
    for _ in range(commands):
        queue = OVERLAP if r.random() < 0.2 else int(r.integers(len(UNITS)))
        bench.put(queue, random_command(r, semaphores=semaphores))
    await bench.run(limit=60_000)
    cocotb.log.info("%d commands began before the one before had ended", bench.overlaps)
    # What is left over must be exactly what the model says: take it all, and one more.
    left = list(bench.counts)
    for semaphore, count in enumerate(left):
        queue = semaphore % len(UNITS)
        drain = random_command(r, semaphores=1) | {"signal": [{}] * 4, "outer": 1}
        drain |= {"wait": [reference(semaphore)] + [{}] * 3, "inner": count + 1}
        bench.put(queue, drain)
        before = sum(map(len, bench.starts))
        await bench.run(limit=bench.cycle + 20_000, feed=False)
        assert sum(map(len, bench.starts)) == before + count
        bench.credits.append(semaphore)
        await bench.run(limit=bench.cycle + 2_000)
    assert not any(bench.counts)


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Few semaphores, slow units, stalls everywhere."""
    await _random(dut, stall=0.3, latency=30, semaphores=4, commands=60)


@cocotb.test()
async def fast_traffic(dut: Any) -> None:
    """Units that take a cycle or two, and no stalls: many takes and additions at once."""
    await _random(dut, stall=0.0, latency=2, semaphores=16, commands=100)


@cocotb.test()
async def contended_traffic(dut: Any) -> None:
    """One semaphore for all."""
    await _random(dut, stall=0.1, latency=4, semaphores=1, commands=40)


def _plain(r: np.random.Generator, **fields: Any) -> dict[str, Any]:
    nothing = [dict[str, int]()] * 4
    return random_command(r, semaphores=1) | {"wait": nothing, "signal": nothing} | fields


@cocotb.test()
async def latency(dut: Any) -> None:
    """From the commit to the start, from iteration to iteration, and from credit to start."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0, latency=1)
    bench.put(0, _plain(r, inner=6, outer=1))
    bench.put(0, _plain(r, inner=1, outer=1))
    await bench.run(limit=1000)
    first = bench.starts[0][0] - bench.commits[0]
    steps = np.diff(bench.starts[0][:6])
    cocotb.log.info("commit to start %d cycles, steps %s", first, steps.tolist())
    assert first <= 3
    assert steps.max() <= 6

    bench.put(1, _plain(r, inner=2, outer=1, wait=[reference(3)] + [{}] * 3))
    for _ in range(60):
        await bench.step()
    assert not bench.starts[1]
    for _ in range(2):
        given = bench.cycle
        bench.credits.append(3)
        count = len(bench.starts[1])
        while len(bench.starts[1]) == count:
            await bench.step()
        delay = bench.starts[1][-1] - given
        cocotb.log.info("credit to start %d cycles", delay)
        assert delay <= 5


@cocotb.test()
async def next_command(dut: Any) -> None:
    """A queued command starts soon after the one before it has ended, or has been started."""
    await start(dut)
    r = rng()
    for queue, latency in ((0, 1), (OVERLAP, 1), (OVERLAP, 10)):
        bench = Bench(dut, r, stall=0.0, latency=1)
        bench.held_back[queue] = True
        for _ in range(3):
            bench.put(queue, _plain(r, inner=1, outer=1))
        for _ in range(100):
            await bench.step()
        bench.held_back[queue] = False
        bench.slow = latency
        await bench.run(limit=1000)
        gaps = np.diff(bench.starts[queue]).tolist()
        cocotb.log.info("start to start of one-iteration commands: %s cycles", gaps)
        wide = bench.config.bus_bytes == 64
        if queue != OVERLAP:
            assert max(gaps) <= 4
        elif latency == 1:
            assert max(gaps) <= 5
        else:
            # The third one's body is loaded when the first one has ended.
            assert gaps[0] <= 5 and sum(gaps) == latency + 3 - wide


@cocotb.test()
@cocotb.parametrize(semaphores=[1, 4])
async def overlapping_commands(dut: Any, semaphores: int) -> None:
    """Short commands of the queue that mixes them, with signals that take longer than they do."""
    await start(dut)
    r = rng()
    for stall, slow in ((0.0, 1), (0.0, 30), (0.4, 50)):
        bench = Bench(dut, r, stall=stall, latency=slow)
        bench.slow = slow
        for _ in range(40):
            fields = random_command(r, semaphores=semaphores)
            fields |= {"inner": int(r.integers(1, 3)), "outer": int(r.integers(1, 3))}
            if r.random() < 0.7:
                fields["wait"] = [{}] * 4
            bench.put(OVERLAP, fields)
        await bench.run(limit=60_000)
        assert bench.overlaps > 10 or slow == 1, f"only {bench.overlaps} commands overlapped"
        await _clear(dut)


async def _clear(dut: Any) -> None:
    """Clear all semaphores."""
    dut.clear.value = 1
    await tick(dut)
    dut.clear.value = 0


@cocotb.test()
async def depth_and_unit_stall(dut: Any) -> None:
    """A queue holds ``queue_depth`` commands, and blames a unit that takes none."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0, latency=1)
    bench.held_back[4] = True
    depth = bench.config.queue_depth
    for _ in range(depth + 2):
        bench.put(4, _plain(r, inner=1, outer=1))
    for _ in range(20 * (depth + 3)):
        await bench.step()
    assert bench.commands == depth + 1, "one is out of the store, the rest in it"
    assert bench.state[4]["stall"] == STALL_UNIT
    bench.held_back[4] = False
    await bench.run(limit=2000)


@cocotb.test()
async def saturation(dut: Any) -> None:
    """A semaphore stays at 255, and clearing empties it."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0, latency=1)
    for value in (200, 255):
        dut.add.value = 1
        dut.add_index.value = 9
        dut.add_value.value = value
        await tick(dut)
        dut.add.value = 0
        for _ in range(value + 20):
            await tick(dut)
        assert not int(dut.moving.value)
    bench.counts[9] = 255
    bench.put(3, _plain(r, inner=256, outer=1, wait=[reference(9)] + [{}] * 3))
    await bench.run(limit=5000, feed=False)
    assert len(bench.starts[3]) == 255
    bench.credits.append(9)
    await bench.run(limit=bench.cycle + 100)

    dut.add.value = 1
    await tick(dut)
    dut.add.value = 0
    for _ in range(20):
        await tick(dut)
    await _clear(dut)
    bench.put(3, _plain(r, inner=1, outer=1, wait=[reference(9)] + [{}] * 3))
    await bench.run(limit=bench.cycle + 500, feed=False)
    assert len(bench.starts[3]) == 256
