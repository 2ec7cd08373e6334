"""Bench of the serial line's two ends, at several rates side by side.

The line is driven and looked at by time alone: its edges fall anywhere in a clock.
"""

import collections
import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import Timer, ValueChange, gather
from cocotb.utils import get_sim_time

from .lib import CLOCK_NS, StreamSink, StreamSource, rng, start, within

CLOCKS = [float(text) for text in os.environ.get("CLOCKS_A_BIT", "16").split()]
"""Clocks a bit, of each pair of ends."""

LINES = range(len(CLOCKS))


async def hold(pin: Any, level: int, ns: float) -> None:
    """Hold a pin at a level for a time."""
    pin.value = level
    if ns > 0:
        await Timer(ns, "ns", round_mode="round")


async def send(
    pin: Any, byte: int, bit_ns: float, r: np.random.Generator, jitter: float, stop: int = 1
) -> None:
    """Send a byte whose edges are up to ``jitter`` bits off."""
    at = 0.0
    levels = [0, *(byte >> n & 1 for n in range(8)), stop]
    for n, level in enumerate(levels):
        until = (n + 1 + (jitter * (2 * r.random() - 1) if n < 9 else 0.0)) * bit_ns
        await hold(pin, level, until - at)
        at = until


def margin(clocks: float) -> tuple[float, float]:
    """Return how wrong a sender's clock may be, and how far its edges may be off, in bits.

    A bit is looked at within a clock and a half of its middle.
    """
    if clocks < 3:
        return 0.0, 0.0
    return (0.02, 0.1) if clocks >= 16 else (0.01, 0.05)


async def receive_some(dut: Any, line: int, r: np.random.Generator) -> int:
    pin = getattr(dut, f"rx__{line}")
    sink = StreamSink(dut, f"received__{line}")
    bit_ns = CLOCKS[line] * CLOCK_NS
    mismatch, jitter = margin(CLOCKS[line])
    wanted: list[int] = []
    for way in (1 - mismatch, 1, 1 + mismatch):
        await hold(pin, 1, bit_ns * (12 + r.random()))
        for _ in range(30 if CLOCKS[line] < 50 else 10):
            byte = int(r.choice([int(r.integers(256)), 0, 255, 0x55]))
            kind = r.random()
            if kind < 0.1 and CLOCKS[line] >= 8:
                # Too short for a start bit.
                await hold(pin, 0, bit_ns * 0.3 * r.random())
                await hold(pin, 1, bit_ns * (1 + r.random()))
            elif kind < 0.2:
                await send(pin, byte, bit_ns * way, r, jitter, stop=0)
                await hold(pin, 0, bit_ns * float(r.choice([0, 3, 25])))
                await hold(pin, 1, bit_ns * (1 + r.random()))
                continue
            elif kind < 0.4:
                await hold(pin, 1, bit_ns * 5 * r.random())
            wanted.append(byte)
            await send(pin, byte, bit_ns * way, r, jitter)
        await hold(pin, 1, 2 * bit_ns)
        assert sink.items == wanted, f"{CLOCKS[line]} clocks a bit, clock {way}"
    return len(wanted)


@cocotb.test()
async def receive(dut: Any) -> None:
    """Clocks that differ, edges that jitter, bad stop bits, glitches and breaks."""
    for line in LINES:
        getattr(dut, f"rx__{line}").value = 1
    await start(dut)
    r = rng()
    seeds = r.integers(1 << 32, size=len(CLOCKS))
    tasks = [receive_some(dut, line, np.random.default_rng(seeds[line])) for line in LINES]
    counts = await gather(*(cocotb.start_soon(task) for task in tasks))
    assert min(counts) > 15


async def transmit_some(dut: Any, line: int, r: np.random.Generator) -> None:
    pin = getattr(dut, f"tx__{line}")
    source = StreamSource(dut, f"sent__{line}")
    bit_ns = CLOCKS[line] * CLOCK_NS
    edges: collections.deque[float] = collections.deque()

    async def watch() -> None:
        while True:
            await ValueChange(pin)
            edges.append(get_sim_time("ns"))

    watcher = cocotb.start_soon(watch())
    assert int(pin.value) == 1
    for count in (1, 30 if CLOCKS[line] < 50 else 6, 1, 3):
        data = [int(byte) for byte in r.choice([0, 255, *r.integers(256, size=4)], size=count)]
        for byte in data:
            source.put(byte)
        await within(int(12 * (count + 2) * CLOCKS[line]), source.drain(), "bytes sent")
        await Timer(float(12 + r.random()) * bit_ns, "ns", round_mode="round")
        # The whole run, without a pause, has its edges where they belong.
        levels = [bit for byte in data for bit in [0, *(byte >> n & 1 for n in range(8)), 1]]
        first = edges[0]
        before = 1
        for n, level in enumerate(levels):
            if level != before:
                off = (edges.popleft() - first) - n * bit_ns
                assert abs(off) <= CLOCK_NS + n * bit_ns * 1e-3, f"edge of bit {n} is off {off} ns"
            before = level
        assert not edges and int(pin.value) == 1
    watcher.cancel()


@cocotb.test()
async def transmit(dut: Any) -> None:
    """Each edge within a clock of its time, and no pause between bytes that are there."""
    await start(dut)
    r = rng()
    seeds = r.integers(1 << 32, size=len(CLOCKS))
    tasks = [transmit_some(dut, line, np.random.default_rng(seeds[line])) for line in LINES]
    await gather(*(cocotb.start_soon(task) for task in tasks))
