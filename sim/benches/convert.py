"""Bench of `NarrowFp32`: the borders of both formats, all of them."""

import cocotb
import numpy as np

from ...rtl.numerics.convert import NarrowFp32
from ..golden.epilogue import fp32_to_fp16, quantize
from .lib import rng
from .numerics import SPECIAL, compare, run_unit

__all__ = ["fp16", "int8"]


@cocotb.test()
async def fp16(dut: object) -> None:
    """Every FP16 number, every tie between two of them, and the FP32 neighbours of both."""
    r = rng()
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    upper = np.append(halves[1:], np.float32(65536))
    exact = halves.view(np.uint32)
    ties = ((halves + upper) / 2).view(np.uint32)
    numbers = np.concatenate([exact, ties - 1, ties, ties + 1, SPECIAL])
    numbers |= (r.integers(2, size=len(numbers)) << 31).astype(np.uint32)
    r.shuffle(numbers)
    cases = {"number": numbers.tolist()}
    results = await run_unit(
        dut, cases, latency=NarrowFp32.LATENCY, stall=0, rng=r, constants={"fp16": 1}
    )
    # A NaN that is not canonical never gets here, but is no special case.
    compare(cases, results, fp32_to_fp16(numbers).tolist())


@cocotb.test()
@cocotb.parametrize(
    (
        ("zero_point", "clamp_low", "clamp_high"),
        [
            (0, -128, 127),
            (-128, -128, 127),
            (127, -128, 127),
            (7, 0, 100),
            (0, 50, -50),
            (-32768, -32768, 32767),
            (32767, -32768, 32767),
        ],
    )
)
async def int8(dut: object, zero_point: int, clamp_low: int, clamp_high: int) -> None:
    """Every integer and half around the clamps, their neighbours, and numbers of any size."""
    r = rng()
    steps = np.concatenate([np.arange(0, 260, 0.5), 2.0 ** np.arange(-149, 128)])
    points = steps.astype(np.float32).view(np.uint32)
    numbers = np.concatenate([points, points + 1, np.maximum(points, 1) - 1, SPECIAL])
    numbers = np.concatenate([numbers, numbers | np.uint32(1 << 31)])
    cases = {"number": numbers.tolist()}
    clamps = {"zero_point": zero_point, "clamp_low": clamp_low, "clamp_high": clamp_high}
    constants = {name: value & 0xFFFF for name, value in clamps.items()}
    results = await run_unit(
        dut,
        cases,
        latency=NarrowFp32.LATENCY,
        stall=0.1,
        rng=r,
        constants={"fp16": 0, **constants},
    )
    compare(cases, results, quantize(numbers, **clamps).view(np.uint8).tolist())
