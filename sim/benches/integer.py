"""Bench of `IntegerToFp32`: all integers of a narrow unit, every leading bit of a wide one."""

import cocotb
import numpy as np

from ...rtl.numerics.integer import IntegerToFp32
from .lib import rng
from .numerics import compare, run_unit


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def integers(dut: object, stall: float) -> None:
    """FP32 holds what NumPy's does; zero is +0."""
    r = rng()
    width = len(dut.integer)  # type: ignore[attr-defined]
    limit = 1 << (width - 1)
    if width <= 10:
        numbers = np.arange(-limit, limit)
    else:
        powers = 1 << np.arange(width - 1)
        heads = np.concatenate([powers, powers - 1, powers + 1, r.integers(limit, size=500)])
        masked = r.integers(limit, size=500) & (powers[r.integers(width - 1, size=500)] - 1)
        numbers = np.concatenate([heads, masked])
        numbers = numbers[numbers < limit]
        numbers = np.concatenate([numbers, -numbers])
    cases = {"integer": (numbers & (2 * limit - 1)).tolist()}
    expected = numbers.astype(np.float32).view(np.uint32).tolist()
    results = await run_unit(dut, cases, latency=IntegerToFp32.LATENCY, stall=stall, rng=r)
    compare(cases, results, expected)
