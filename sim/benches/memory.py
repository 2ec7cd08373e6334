"""Bench of `MemorySystem`: four requesters with random traffic against an array of bytes.

All traffic and the storage are driven by one loop a cycle, which also watches every port.
"""

import collections
import os

import cocotb

from ...rtl.memory.arbiter import REQUESTERS, WRITERS
from ...rtl.memory.bus import (
    BURST_BYTES,
    STORAGE_LATENCY,
    burst_beats,
    request_layout,
    write_layout,
)
from .lib import bench_config, pack, rng, sample, start, tick

AREA = 1 << 18
"""Bytes that random traffic touches at each of the places in memory that it uses."""


class Requester:
    """One requester: what it will ask for, and what it expects to come back.

    Requests leave `plan`, and write beats `beats`; each side stalls on its own. Expected read
    data are worked out when the memory accepts a burst, since that is its order of execution.
    """

    def __init__(self, dut, name, config, generator, stall) -> None:
        self.request = {
            part: getattr(dut, f"{name}__request__{part}") for part in ("payload", "valid", "ready")
        }
        self.write = {
            part: getattr(dut, f"{name}__write__{part}") for part in ("payload", "valid", "ready")
        }
        self.read_valid = getattr(dut, f"{name}__read__valid")
        self.read_payload = getattr(dut, f"{name}__read__payload")
        self.written = getattr(dut, f"{name}__written")
        self.config, self.rng, self.stall, self.name = config, generator, stall, name
        self.plan: collections.deque[tuple[int, int, list[tuple[int, int]] | None]]
        self.plan = collections.deque()
        self.beats: collections.deque[tuple[int, int]] = collections.deque()
        self.expected: collections.deque[tuple[int, int | None]] = collections.deque()
        self.unwritten = 0
        self.offered = self.offered_beat = False
        self.request["valid"].value = 0
        self.write["valid"].value = 0

    def ask(self, address: int, beats: int, data: list[tuple[int, int]] | None = None) -> None:
        """Plan a burst; a write has pairs of data and mask."""
        self.plan.append((address, beats, data))
        if data is not None:
            self.beats.extend(data)

    @property
    def quiet(self) -> bool:
        return not (self.plan or self.beats or self.expected or self.unwritten)

    def drive(self) -> None:
        """Set the inputs of this cycle."""
        if self.plan and not self.offered and self.rng.random() >= self.stall:
            address, beats, data = self.plan[0]
            self.request["payload"].value = pack(
                request_layout(self.config),
                address=address,
                last_beat=beats - 1,
                write=data is not None,
            )
            self.request["valid"].value = 1
            self.offered = True
        if self.beats and not self.offered_beat and self.rng.random() >= self.stall:
            value, mask = self.beats[0]
            self.write["payload"].value = pack(write_layout(self.config), data=value, mask=mask)
            self.write["valid"].value = 1
            self.offered_beat = True

    def accepted(self):
        """Return the burst that the memory accepts in this cycle, if it does."""
        if self.offered and int(self.request["ready"].value):
            return self.plan[0]
        return None

    def check(self, cycle: int) -> int | None:
        """Compare read data; return the cycle of acceptance of a burst whose first beat came."""
        if int(self.written.value):
            assert self.unwritten, f"{self.name}: written without a write"
            self.unwritten -= 1
        if not int(self.read_valid.value):
            return None
        assert self.expected, f"{self.name}: read data that nobody asked for"
        value, asked = self.expected.popleft()
        got = int(self.read_payload.value)
        assert got == value, f"{self.name}, cycle {cycle}: read {got:#x}, not {value:#x}"
        return asked

    def advance(self, taken: bool, taken_beat: bool) -> None:
        """Drop what was taken at the clock edge that just passed."""
        if taken:
            self.plan.popleft()
            self.offered = False
            self.request["valid"].value = 0
        if taken_beat:
            self.beats.popleft()
            self.offered_beat = False
            self.write["valid"].value = 0


class Bench:
    """The four requesters, the storage behind the memory system, and the model of its bytes."""

    def __init__(self, dut, config, generator, stall) -> None:
        self.dut, self.config, self.rng = dut, config, generator
        self.requesters = [Requester(dut, name, config, generator, stall) for name in REQUESTERS]
        # What the storage holds, and what it must hold when all that was accepted is done.
        self.stored: dict[int, bytes] = {}
        self.answers = collections.deque([0] * (STORAGE_LATENCY - 1))
        self.model: dict[int, bytes] = {}
        self.seen: collections.Counter[str] = collections.Counter()
        self.cycle = 0
        self.latencies: collections.Counter[int] = collections.Counter()
        dut.halt.value = 0
        dut.flush.value = 0

    def _initial(self, beat: int) -> bytes:
        word = (beat * 0x9E3779B97F4A7C15 + 1) & (2**64 - 1)
        return (word.to_bytes(8, "little") * 8)[: self.config.bus_bytes]

    def _read(self, memory: dict[int, bytes], beat: int) -> bytes:
        return memory.get(beat) or self._initial(beat)

    def _write(self, memory: dict[int, bytes], beat: int, value: int, mask: int) -> None:
        width = self.config.bus_bytes
        old, new = self._read(memory, beat), value.to_bytes(width, "little")
        memory[beat] = bytes(new[i] if mask >> i & 1 else old[i] for i in range(width))

    def _accept(self, requester: Requester, burst) -> None:
        address, beats, data = burst
        first = address // self.config.bus_bytes
        self.seen["accepted"] += 1
        if data is None:
            requester.expected.extend(
                (
                    int.from_bytes(self._read(self.model, first + i), "little"),
                    self.cycle if i == 0 else None,
                )
                for i in range(beats)
            )
            return
        requester.unwritten += 1
        for i, (value, mask) in enumerate(data):
            self._write(self.model, first + i, value, mask)

    async def step(self) -> None:
        """Run one cycle."""
        dut = self.dut
        for requester in self.requesters:
            requester.drive()
        await sample(dut)
        assert not int(dut.illegal.value), "a DRAM command was illegal"
        accepted = [requester.accepted() for requester in self.requesters]
        assert sum(burst is not None for burst in accepted) <= 1
        beats = [
            requester.offered_beat and int(requester.write["ready"].value) == 1
            for requester in self.requesters
        ]
        if int(dut.halt.value):
            assert not any(accepted), "accepted in spite of halt"
        for requester in self.requesters:
            asked = requester.check(self.cycle)
            if asked is not None:
                self.latencies[self.cycle - asked] += 1
        for requester, burst in zip(self.requesters, accepted, strict=True):
            if burst is not None:
                self._accept(requester, burst)
        for event in ("read_beat", "write_beat", "row_hit", "activate", "refresh"):
            self.seen[event] += int(getattr(dut, event).value)
        answer = int.from_bytes(self.rng.bytes(8), "little")
        if int(dut.storage__enable.value):
            address = int(dut.storage__address.value)
            if int(dut.storage__write.value):
                self._write(
                    self.stored,
                    address,
                    int(dut.storage__write_data.value),
                    int(dut.storage__write_mask.value),
                )
            else:
                answer = int.from_bytes(self._read(self.stored, address), "little")
        outstanding = any(r.expected or r.unwritten for r in self.requesters)
        if int(dut.idle.value):
            # The last `written` and the last beat are still on their way while it is not idle.
            assert not outstanding or any(accepted), "idle with a burst outstanding"
        await tick(dut)
        self.cycle += 1
        self.answers.append(answer)
        dut.storage__read_data.value = self.answers.popleft()
        for requester, burst, beat in zip(self.requesters, accepted, beats, strict=True):
            requester.advance(burst is not None, beat)

    async def finish(self, cycles: int) -> None:
        """Run until all that was planned is done; then compare the storage with the model."""
        deadline = self.cycle + cycles
        while not all(requester.quiet for requester in self.requesters):
            assert self.cycle < deadline, f"traffic did not end within {cycles} cycles"
            await self.step()
        for _ in range(2):
            await self.step()
        assert int(self.dut.idle.value), "not idle after all traffic"
        assert self.stored == self.model

    def burst(self, requester: Requester, address: int, beats: int, write: bool) -> None:
        """Plan a burst; a write gets random data, with gaps in half of the cases."""
        width = self.config.bus_bytes
        data = None
        if write:
            whole = (1 << width) - 1
            sparse = self.rng.random() < 0.5
            data = []
            for _ in range(beats):
                mask = int.from_bytes(self.rng.bytes(width // 8), "little") if sparse else whole
                data.append((int.from_bytes(self.rng.bytes(width), "little"), mask))
        requester.ask(address, beats, data)

    def writes(self, requester: Requester) -> bool:
        """Return whether the next burst writes: half of a writer's do."""
        return requester.name in WRITERS and bool(self.rng.random() < 0.5)

    def random_bursts(self, count: int) -> None:
        """Plan random bursts for every requester: full, short and single; near and far."""
        config, r = self.config, self.rng
        most = burst_beats(config)
        places = [
            0,
            config.memory_bytes - AREA,
            int(r.integers(config.memory_bytes // AREA)) * AREA,
        ]
        for requester in self.requesters:
            block = 0
            place = places[0]
            for _ in range(count):
                if r.random() < 0.3:
                    place = places[int(r.integers(3))]
                    # A few hot blocks, so that requesters meet; otherwise anywhere.
                    block = int(r.integers(4 if r.random() < 0.5 else AREA // BURST_BYTES))
                beats = most if r.random() < 0.4 else int(r.integers(1, most + 1))
                first = int(r.integers(most - beats + 1))
                address = place + block * BURST_BYTES + first * config.bus_bytes
                self.burst(requester, address, beats, self.writes(requester))
                block = (block + 1) % (AREA // BURST_BYTES)


async def begin(dut, *, ideal: bool, stall: float) -> Bench:
    """Reset, choose the kind of memory, and return the bench."""
    dut.ideal.value = int(ideal)
    dut.halt.value = 1
    bench = Bench(dut, bench_config(), rng(), stall)
    await start(dut)
    return bench


@cocotb.test()
@cocotb.parametrize(ideal=[False, True], stall=[0.0, 0.5])
async def random_traffic(dut, ideal, stall):
    """Every byte read is right, whatever the order and the stalls; nothing is lost."""
    bench = await begin(dut, ideal=ideal, stall=stall)
    bench.random_bursts(int(os.environ.get("MEMORY_BURSTS", "40")))
    planned = sum(len(requester.plan) for requester in bench.requesters)
    await bench.finish(60_000)
    assert bench.seen["accepted"] == planned
    if ideal:
        assert set(bench.latencies) == {8}
        assert not bench.seen["activate"] and not bench.seen["refresh"]
    else:
        assert bench.seen["activate"] and min(bench.latencies) > 31 + 20


@cocotb.test()
async def halt_and_flush(dut):
    """`halt` stops new bursts only; `flush` drops write data that no burst took."""
    bench = await begin(dut, ideal=True, stall=0.3)
    for ideal in (True, False):
        dut.ideal.value = int(ideal)
        bench.random_bursts(12)
        for _ in range(150):
            await bench.step()
        dut.halt.value = 1
        for _ in range(1500):
            await bench.step()
        assert int(dut.idle.value)
        assert not any(r.expected or r.unwritten for r in bench.requesters)
        # The requesters are reset: what they offered and what was gathered is gone.
        for requester in bench.requesters:
            requester.plan.clear()
            requester.beats.clear()
            requester.offered = requester.offered_beat = False
            requester.request["valid"].value = requester.write["valid"].value = 0
        dut.flush.value = 1
        await bench.step()
        dut.flush.value = 0
        dut.halt.value = 0
        bench.random_bursts(6)
        await bench.finish(20_000)


@cocotb.test()
@cocotb.parametrize(ideal=[True, False])
async def writes_wait_for_their_data(dut, ideal):
    """A write is not accepted before all of its data are here, right behind another one either."""
    bench = await begin(dut, ideal=ideal, stall=0.0)
    for requester in bench.requesters:
        if requester.name not in WRITERS:
            continue
        for beats in (1, 2, 4):
            bench.burst(requester, 0, 1, True)
            bench.burst(requester, 256, beats, True)
            missing = requester.beats.pop()
            for _ in range(100):
                await bench.step()
            assert len(requester.plan) == 1, "accepted without its data"
            requester.beats.append(missing)
            await bench.finish(1000)


class Streams:
    """Requesters that read or write full blocks in order, each in its own area, without end."""

    def __init__(self, bench: Bench, kinds: dict[str, bool]) -> None:
        self.bench = bench
        area = bench.config.memory_bytes // len(REQUESTERS)
        self.running = {
            requester: (number * area, kinds[requester.name])
            for number, requester in enumerate(bench.requesters)
            if requester.name in kinds
        }

    async def run(self, cycles: int) -> float:
        """Run, and return the bytes moved in each cycle."""
        bench = self.bench
        before = bench.seen["read_beat"] + bench.seen["write_beat"]
        for _ in range(cycles):
            for requester, (address, write) in self.running.items():
                if len(requester.plan) < 4:
                    bench.burst(requester, address, burst_beats(bench.config), write)
                    self.running[requester] = (address + BURST_BYTES, write)
            await bench.step()
        moved = bench.seen["read_beat"] + bench.seen["write_beat"] - before
        return moved * bench.config.bus_bytes / cycles


@cocotb.test()
@cocotb.parametrize(write=[False, True])
async def ideal_bandwidth(dut, write):
    """Ideal memory moves a beat in every cycle."""
    bench = await begin(dut, ideal=True, stall=0.0)
    streams = Streams(bench, {"store": write})
    await streams.run(200)
    assert await streams.run(1000) == bench.config.bus_bytes
    await bench.finish(1000)


@cocotb.test()
async def ideal_short_bursts(dut):
    """Bursts of one beat, reads and writes of all requesters mixed, also fill every cycle."""
    bench = await begin(dut, ideal=True, stall=0.0)
    for requester in bench.requesters:
        for i in range(100):
            bench.burst(requester, i * bench.config.bus_bytes, 1, bench.writes(requester))
    for _ in range(60):
        await bench.step()
    before = bench.seen["read_beat"] + bench.seen["write_beat"]
    for _ in range(200):
        await bench.step()
    assert bench.seen["read_beat"] + bench.seen["write_beat"] - before == 200
    await bench.finish(1000)
