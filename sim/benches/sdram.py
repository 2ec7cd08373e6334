"""Bench of `SdramController` with the model of a chip, against a model of the bytes.

The chip's model says whether a command came too early; the bench, whether refreshes come too late,
and whether data are right and fast.
"""

import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles
from cocotb.utils import get_sim_time

from ...rtl.memory.sdram import sdram_request_layout
from ..sdram import sdram_faults
from .lib import CLOCK_NS, StreamSink, StreamSource, pack, rng, sample, start, tick, within

BEAT_BYTES, BYTES = int(os.environ["BEAT_BYTES"]), int(os.environ["BYTES"])
ROW_BEATS = int(os.environ["ROW_BYTES"]) // BEAT_BYTES
BEATS = BYTES // BEAT_BYTES
BURST = BEAT_BYTES // 2
REFRESH = int(os.environ["REFRESH"])
"""Cycles from one refresh to the next, on average."""

LEAST_SHARE = 0.95
"""Of the pins' cycles that move data, where addresses are consecutive."""

MEMORY = np.tile(np.array([0xAD, 0xDE], np.uint8), BYTES // 2).reshape(BEATS, -1)
"""What is in the chip, from test to test; what was never written is a pattern of the model's."""

LAYOUT = sdram_request_layout(bytes=BYTES, beat_bytes=BEAT_BYTES)


class Bench:
    """The controller's streams, and the bytes that the chip must hold."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.rng = dut, rng()
        self.source = StreamSource(dut, "request", rng=self.rng)
        self.sink = StreamSink(dut, "read", rng=self.rng)
        self.bytes = MEMORY
        self.expected: list[tuple[int, int]] = []

    def read(self, address: int) -> None:
        self.expected.append((address, int.from_bytes(self.bytes[address].tobytes(), "little")))
        noise = int.from_bytes(self.rng.bytes(BEAT_BYTES), "little")
        mask = int(self.rng.integers(1 << BEAT_BYTES))
        self.source.put(pack(LAYOUT, address=address, data=noise, mask=mask))

    def write(self, address: int, mask: np.ndarray | None = None) -> None:
        written = self.rng.integers(256, size=BEAT_BYTES, dtype=np.uint8)
        if mask is None:
            mask = np.ones(BEAT_BYTES, bool)
        self.bytes[address] = np.where(mask, written, self.bytes[address])
        fields = {
            "address": address,
            "write": 1,
            "data": int.from_bytes(written.tobytes(), "little"),
            "mask": int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little"),
        }
        self.source.put(pack(LAYOUT, fields))

    async def settle(self, cycles: int) -> None:
        """Wait until all is done, compare what was read, and look for faults."""
        await within(cycles, self.source.drain(), "requests accepted")
        count = len(self.expected)
        await within(100, self.sink.wait(count), "data of all reads")
        await tick(self.dut, 40)
        for (address, value), got in zip(self.expected, self.sink.items, strict=True):
            assert got == value, f"beat {address:#x} is {got:#x}, not {value:#x}"
        self.expected, self.sink.items = [], []
        await sample(self.dut)
        fault = int(self.dut.fault.value)
        names = {code: name for name, code in sdram_faults().items()}
        assert fault == 0, f"the chip found {names[fault]}"
        # A burst, its recovery and a row being opened may be under way when a refresh is due.
        worst = int(self.dut.worst.value)
        assert worst <= REFRESH + BURST + 16, f"{worst} cycles without a refresh"
        await tick(self.dut)


async def begin(dut: Any) -> Bench:
    await start(dut)
    bench = Bench(dut)
    return bench


@cocotb.test()
async def random(dut: Any) -> None:
    """Reads and writes, with masks and pauses, to few rows of all banks, to one bank, to anything;
    then all that was written."""
    bench = await begin(dut)
    r = bench.rng
    for rows, columns, stall in ((2, 2, 0.0), (3, ROW_BEATS, 0.0), (2, 8, 0.7), (0, 0, 0.1)):
        bench.source.stall = stall
        share = r.choice([0.3, 0.5])
        for _ in range(500):
            address = int(r.integers(BEATS))
            if rows:
                # The lowest rows or the highest, four banks each.
                place = int(r.integers(4 * rows)) * int(r.choice([1, 4 if rows == 3 else 1]))
                place %= BEATS // ROW_BEATS
                if r.random() < 0.5:
                    place = BEATS // ROW_BEATS - 1 - place
                address = place * ROW_BEATS + int(r.integers(columns))
            if r.random() < share:
                mask = r.random(BEAT_BYTES) < r.choice([0.0, 0.2, 0.8, 1.0])
                bench.write(address, mask)
            else:
                bench.read(address)
        await bench.settle(200_000)
    bench.source.stall = 0.0
    for address in range(0, BEATS, max(1, BEATS // 256)):
        bench.read(address)
    await bench.settle(100_000)


async def _sequence(bench: Bench, way: str, first: int, beats: int) -> None:
    await tick(bench.dut, int(bench.rng.integers(REFRESH)))
    for address in range(first, first + beats):
        getattr(bench, way)(address)
    begun = get_sim_time("ns")
    await within(20 * BURST * beats, bench.source.drain(), way)
    cycles = (get_sim_time("ns") - begun) / CLOCK_NS
    share = beats * BURST / cycles
    cocotb.log.info("%s of %d beats: %.1f %% of the pins' cycles", way, beats, 100 * share)
    assert share >= LEAST_SHARE, f"{way}: {share:.3f} of the pins' cycles"
    await bench.settle(100)


@cocotb.test()
async def sequences(dut: Any) -> None:
    """Long sequential writes and reads, across rows, where other rows are open."""
    bench = await begin(dut)
    bench.write(0)
    await bench.settle(100_000)
    beats = 12_000 // BEAT_BYTES
    for way in ("write", "read"):
        for bank in range(4):
            bench.read((BEATS - (bank + 1) * ROW_BEATS) % BEATS)
        await bench.settle(1000)
        await _sequence(bench, way, int(bench.rng.integers(BEATS - beats - 4 * ROW_BEATS)), beats)


@cocotb.test()
async def idle(dut: Any) -> None:
    """Nothing is accepted before the chip is initialised, and data stay without traffic."""
    bench = await begin(dut)
    addresses = [int(address) for address in bench.rng.integers(BEATS, size=20)]
    for address in addresses:
        bench.write(address)
    while int(dut.refreshes.value) < 7:
        assert bench.source.sent == 0, "accepted before the chip was initialised"
        await ClockCycles(dut.clk, 50)
    await bench.settle(10_000)
    before = int(dut.refreshes.value)
    await ClockCycles(dut.clk, 40 * REFRESH)
    assert abs(int(dut.refreshes.value) - before - 40) <= 1
    for address in addresses:
        bench.read(address)
    await bench.settle(10_000)


@cocotb.test()
async def around_refresh(dut: Any) -> None:
    """A request for a row that was open comes in each cycle around a refresh."""
    bench = await begin(dut)
    address = 2 * ROW_BEATS + 1
    for late in range(20):
        bench.write(address)
        await bench.settle(100_000)
        await ClockCycles(dut.clk, 2 * REFRESH - 100)
        bench.read(address)  # opens the row after the refresh in between
        await bench.settle(100)
        before = int(dut.refreshes.value)
        while int(dut.refreshes.value) == before:
            await tick(dut)
            await sample(dut)
        await tick(dut, late + 1)
        bench.read(address)
        await bench.settle(100)
