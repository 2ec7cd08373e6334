"""Bench of `HeldStorage`: a card and a host at random, before a memory that takes any time."""

import collections
from typing import Any

import cocotb
import numpy as np

from ...rtl.memory.bus import STORAGE_LATENCY
from .lib import bench_config, rng, sample, start, tick
from .storage import Access, drive_storage, number


def beat(value: int, width: int) -> np.ndarray:
    return np.frombuffer(value.to_bytes(width, "little"), np.uint8)


class Slow:
    """The memory: it keeps what it is given in the order in which it is given."""

    def __init__(self, dut: Any, r: np.random.Generator, words: np.ndarray) -> None:
        self.dut, self.rng, self.words = dut, r, words.copy()
        self.ready, self.latency = 0.5, (1, 20)
        self.pace = 1  # cycles from one access to the next
        self.accepted = 0
        self._wait = 0
        self._cycle = 0
        self._last = 0
        self._answers = collections.deque[tuple[int, np.ndarray]]()

    def drive(self) -> None:
        dut = self.dut
        dut.request__ready.value = int(self._wait == 0 and self.rng.random() < self.ready)
        due = bool(self._answers) and self._answers[0][0] <= self._cycle
        dut.read__valid.value = int(due)
        dut.read__payload.value = number(
            self._answers.popleft()[1]
            if due
            else self.rng.integers(256, size=self.words.shape[1], dtype=np.uint8)
        )

    def sample(self) -> None:
        dut = self.dut
        self._cycle += 1
        self._wait = max(self._wait - 1, 0)
        if not (int(dut.request__valid.value) and int(dut.request__ready.value)):
            return
        self.accepted += 1
        self._wait = self.pace - 1
        width = self.words.shape[1]
        asked = int(dut.request__payload.value)
        fields = []
        for bits in ((len(self.words) - 1).bit_length(), 1, 8 * width, width):
            fields.append(asked & ((1 << bits) - 1))
            asked >>= bits
        address, write, data, mask = fields
        if write:
            kept = np.unpackbits(beat(mask, -(-width // 8)), bitorder="little")[:width] == 1
            self.words[address] = np.where(kept, beat(data, width), self.words[address])
        else:
            self._last = max(self._last, self._cycle + int(self.rng.integers(*self.latency)) - 1)
            self._answers.append((self._last, self.words[address].copy()))
            self._last += 1


class Bench:
    """The ports, and the bytes that they must read."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.config, self.rng = dut, bench_config(), rng()
        self.width = self.config.bus_bytes
        beats = self.config.memory_bytes // self.width
        self.words = self.rng.integers(256, size=(beats, self.width), dtype=np.uint8)
        self.slow = Slow(dut, self.rng, self.words)
        self.busy, self.host_busy, self.span, self.writes = 0.5, 0.1, 8, 0.5
        self.card: Access | None = None
        self.due = collections.deque[np.ndarray | None]([None] * STORAGE_LATENCY)
        self.held: Access | None = None  # by the host
        self.shown: np.ndarray | None = None  # to the host, in this cycle
        self.cycles = self.lived = 0
        self.count: collections.Counter[str] = collections.Counter()

    def random(self, busy: float, other: Access | None) -> Access | None:
        """Return an access to another place than ``other``, or none."""
        r = self.rng
        address = int(r.choice((0, len(self.words) - self.span))) + int(r.integers(self.span))
        if r.random() >= busy or (other is not None and other[0] == address):
            return None
        mask = r.random(self.width) < r.choice([0.1, 0.5, 1.0])
        data = r.integers(256, size=self.width, dtype=np.uint8)
        return address, data if r.random() < self.writes else None, mask

    def drive(self, port: str, access: Access | None) -> None:
        drive_storage(self.dut, port, access, self.rng, self.width)

    def serve(self, port: str, access: Access) -> np.ndarray | None:
        """Do an access; return what it reads."""
        address, written, mask = access
        self.count[f"{port} {'reads' if written is None else 'writes'}"] += 1
        if written is None:
            return self.words[address].copy()
        self.words[address] = np.where(mask, written, self.words[address])
        return None

    async def step(self, *, fresh: bool) -> bool:
        """Run a cycle, with another one of the card if ``fresh``; return whether it was lived."""
        if fresh:
            self.card = self.random(self.busy, self.held)
        if self.held is None:
            self.held = self.random(self.host_busy, self.card)
        self.drive("card", self.card)
        self.drive("host", self.held)
        self.slow.drive()
        await sample(self.dut)
        self.slow.sample()
        self.cycles += 1
        dut = self.dut
        advance = bool(int(dut.advance.value))
        assert int(dut.gate.value) == advance
        if self.shown is not None:
            assert int(dut.host__read_data.value) == number(self.shown)
            self.shown = None
        if int(dut.host_ready.value):
            assert self.held is not None
            self.shown = self.serve("host", self.held)
            self.held = None
        if advance:
            self.lived += 1
            wanted = self.due.popleft()
            if wanted is not None:
                assert int(dut.card__read_data.value) == number(wanted)
            self.due.append(self.serve("card", self.card) if self.card is not None else None)
        await tick(dut)
        return advance

    async def run(self, cycles: int) -> None:
        fresh = True
        for _ in range(cycles):
            fresh = await self.step(fresh=fresh)
        while not fresh:
            fresh = await self.step(fresh=False)

    async def drain(self) -> None:
        """Wait until all is done, and compare the memories, and the numbers of accesses."""
        self.busy = self.host_busy = 0.0
        self.slow.ready = 1.0
        await self.run(200)
        assert self.held is None
        assert np.array_equal(self.slow.words, self.words)
        assert self.slow.accepted == sum(self.count.values())


async def begin(dut: Any) -> Bench:
    bench = Bench(dut)
    for port in ("card", "host"):
        bench.drive(port, None)
        getattr(dut, f"{port}__enable").value = 0
    dut.request__ready.value = 0
    dut.read__valid.value = 0
    await start(dut)
    return bench


@cocotb.test()
async def random_accesses(dut):
    """No access is lost or done twice, and data are there in time, the card's and the host's."""
    bench = await begin(dut)
    for part in range(40):
        bench.busy = float(bench.rng.choice([0.05, 0.5, 1.0]))
        bench.host_busy = float(bench.rng.choice([0.0, 0.05, 1.0]))
        bench.writes = float(bench.rng.choice([0.0, 0.5, 1.0]))
        bench.span = int(bench.rng.choice([2, 100]))
        bench.slow.ready = float(bench.rng.choice([0.1, 0.5, 1.0]))
        bench.slow.latency = [(1, 2), (1, 5), (1, 40), (12, 13)][part % 4]
        await bench.run(400)
    await bench.drain()
    assert len(bench.count) == 4 and min(bench.count.values()) > 50, bench.count


@cocotb.test()
async def nothing_stops_without_accesses(dut):
    """Also writes alone stop the card only where memory does not keep up."""
    bench = await begin(dut)
    bench.busy = bench.host_busy = 0.0
    await bench.run(100)
    assert bench.lived == bench.cycles
    bench.busy, bench.writes = 1.0, 1.0
    bench.slow.ready = 1.0
    await bench.run(100)
    assert bench.lived == bench.cycles
    await bench.drain()


@cocotb.test()
async def reads_follow_each_other(dut):
    """Where three reads on their way are enough, the card waits for nothing but memory's pace."""
    bench = await begin(dut)
    bench.busy, bench.host_busy, bench.writes = 1.0, 0.0, 0.0
    bench.slow.ready, bench.slow.pace, bench.slow.latency = 1.0, 4, (9, 10)
    await bench.run(100)
    before, cycles = bench.lived, bench.cycles
    await bench.run(1200)
    lived = bench.lived - before
    assert (bench.cycles - cycles) / lived <= 4.01, f"{bench.cycles - cycles} for {lived} beats"
    await bench.drain()


@cocotb.test()
async def memory_that_is_not_ready(dut):
    """The card stops when enough waits, and nothing is lost when memory takes it at last."""
    bench = await begin(dut)
    bench.busy, bench.writes = 1.0, 1.0
    bench.slow.ready = 0.0
    fresh = True
    for _ in range(300):
        fresh = await bench.step(fresh=fresh)
    assert 10 <= bench.lived < 20 and not fresh
    bench.slow.ready = 1.0
    while not fresh:
        fresh = await bench.step(fresh=False)
    await bench.drain()
