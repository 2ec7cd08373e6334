"""Captures of random probes, compared with the golden model."""

from typing import Any

import cocotb
import numpy as np

from ...rtl.hostport.csr import HOST_READ_LATENCY
from ...rtl.isa.link import CaptureControl, ShellCsr
from ..golden.capture import record
from .lib import rng, sample, start, tick


async def write(dut: Any, register: ShellCsr, value: int) -> None:
    """Write a register in the cycle that begins now."""
    dut.address.value, dut.write.value, dut.write_data.value = register, 1, value
    await tick(dut)
    dut.write.value = 0


async def read(dut: Any, register: ShellCsr) -> int:
    dut.address.value = register
    await tick(dut)
    dut.address.value = 0
    await tick(dut, HOST_READ_LATENCY - 1)
    await sample(dut)
    value = int(dut.read_data.value)
    await tick(dut)
    return value


async def setup(dut: Any, *, mask: int, value: int, after: int) -> None:
    for register, number in (
        (ShellCsr.CAPTURE_MASK, mask & 0xFFFFFFFF),
        (ShellCsr.CAPTURE_MASK_HIGH, mask >> 32),
        (ShellCsr.CAPTURE_VALUE, value & 0xFFFFFFFF),
        (ShellCsr.CAPTURE_VALUE_HIGH, value >> 32),
        (ShellCsr.CAPTURE_AFTER, after),
    ):
        await write(dut, register, number)


async def check(dut: Any, trace: np.ndarray, force: int | None, **trigger: int) -> None:
    """Drive the probe with ``trace``, armed in its first cycle, and compare what is kept."""
    await setup(dut, **trigger)
    for cycle, probe in enumerate(trace.tolist()):
        dut.probe.value = probe
        dut.write.value = 0
        if cycle in (0, force):
            dut.address.value, dut.write.value = ShellCsr.CAPTURE_CONTROL, 1
            dut.write_data.value = CaptureControl.TRIGGER if cycle else CaptureControl.ARM
        await tick(dut)
    dut.write.value = 0
    await tick(dut, 2)  # the last of them are stored
    await write(dut, ShellCsr.CAPTURE_CONTROL, CaptureControl.STOP)
    # What was stored until the stop came is of the last value, and new only by its age.
    depth = await read(dut, ShellCsr.CAPTURE_DEPTH)
    expected = record(trace, depth=depth, force=force, **trigger)
    state = await read(dut, ShellCsr.CAPTURE_CONTROL)
    assert state == (2 if expected.trigger is not None else 0)
    count = await read(dut, ShellCsr.CAPTURE_COUNT)
    first = await read(dut, ShellCsr.CAPTURE_FIRST)
    assert count == len(expected.values)
    if expected.trigger is not None:
        assert await read(dut, ShellCsr.CAPTURE_TRIGGER) == expected.trigger % depth
    for number in range(count):
        await write(dut, ShellCsr.CAPTURE_INDEX, (first + number) % depth)
        await tick(dut, 2)
        low = await read(dut, ShellCsr.CAPTURE_DATA)
        high = await read(dut, ShellCsr.CAPTURE_DATA_HIGH)
        age = await read(dut, ShellCsr.CAPTURE_AGE)
        assert low | high << 32 == expected.values[number], number
        assert age == expected.ages[number], number


def random_trace(r: np.random.Generator, cycles: int) -> np.ndarray:
    """A probe that changes now and then, in a few bits."""
    few = r.integers(0, 1 << 63, 4, np.uint64)
    steady = r.random(cycles) < r.choice([0.0, 0.5, 0.95])
    steady[0] = False
    trace = few[r.integers(0, 4, cycles)]
    last = np.maximum.accumulate(np.where(steady, 0, np.arange(cycles)))
    return trace[last]


@cocotb.test()
async def random_captures(dut: Any) -> None:
    await start(dut)
    dut.write.value = 0
    r = rng()
    for _ in range(60):
        trace = random_trace(r, int(r.integers(2, 200)))
        mask = int(r.integers(0, 1 << 63)) if r.random() < 0.8 else 0
        value = int(trace[r.integers(len(trace))]) & mask
        if r.random() < 0.3:
            value ^= mask & -mask  # mostly no value of the trace
        force = int(r.integers(1, len(trace))) if r.random() < 0.3 else None
        await check(dut, trace, force, mask=mask, value=value, after=int(r.integers(0, 12)))


@cocotb.test()
async def long_silence(dut: Any) -> None:
    """A probe that never changes is recorded again before its age overflows."""
    await start(dut)
    dut.write.value = 0
    trace = np.full(140_000, 5, np.uint64)
    trace[131_080:] = 6
    await check(dut, trace, None, mask=0xF, value=6, after=2)
