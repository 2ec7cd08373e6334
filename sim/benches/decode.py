"""Bench of `DecodeFp32`: every FP16 pattern, integers around all roundings."""

from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.numerics.decode import DecodeFp32
from .lib import rng
from .numerics import SPECIAL, compare, run_unit

# Amaranth's enums look like integers to a type checker.
Format: Any = isa.Format


def integers(r: np.random.Generator, bits: int) -> np.ndarray:
    """Return integers of every size, also in the middle between FP32 numbers and beside it."""
    if bits == 8:
        return np.arange(-128, 128)
    powers = 1 << np.arange(31)
    near = np.concatenate([powers + step for step in (-129, -128, -2, -1, 0, 1, 2, 127, 128)])
    heads = r.integers(1 << 23, 1 << 24, 600)
    ties = [((2 * heads + 1) << shift) + step for shift in range(6) for step in (-1, 0, 1)]
    random = r.integers(1 << 31, size=1000) >> r.integers(31, size=1000)
    numbers = np.concatenate([near, *ties, random])
    numbers = np.concatenate([numbers, -numbers, [-(1 << 31), (1 << 31) - 1]])
    return numbers[(numbers >= -(1 << 31)) & (numbers < 1 << 31)]


async def check(dut: Any, form: Any, numbers: np.ndarray, stall: float, zero: int = 0) -> None:
    """Compare the results for some numbers, given as their bits, or as integers."""
    r = rng()
    word = numbers.astype(np.int64) & 0xFFFFFFFF
    if form in (Format.INT8, Format.INT32):
        bias = np.where(r.random(len(numbers)) < 0.5, 0, r.integers(-300, 300, len(numbers)))
        far = r.random(len(numbers)) < 0.2
        bias = np.where(far, r.choice(integers(r, 32), len(numbers)), bias)
        # The sum has less than the 53 bits of a float64, which is then rounded once.
        total = numbers - zero + bias
        expected = total.astype(np.float64).astype(np.float32).view(np.uint32)
    else:
        bias = r.integers(-(1 << 31), 1 << 31, len(numbers))
        if form is Format.FP16:
            expected = word.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
        else:
            expected = (word << 16 if form is Format.BF16 else word).astype(np.uint32)
    if form in (Format.INT8, Format.FP16, Format.BF16):
        # What lies above the number does not matter.
        bits = isa.BITS[form]
        noise = r.integers(1 << 32, size=len(word)) & ~((1 << bits) - 1)
        word = word & ((1 << bits) - 1) | noise
    cases = {"number": word.tolist(), "bias": bias.tolist()}
    results = await run_unit(
        *(dut, cases),
        latency=DecodeFp32.LATENCY,
        stall=stall,
        rng=r,
        constants={"format": form.value, "zero": zero},
    )
    # A NaN stays one, but perhaps another.
    given = np.array(results, np.uint32)
    both = np.isnan(given.view(np.float32)) & np.isnan(expected.view(np.float32))
    compare(cases, np.where(both, 0, given).tolist(), np.where(both, 0, expected).tolist())


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def int8(dut: Any, stall: float) -> None:
    """All INT8 numbers, with the largest zero and biases of 32 bits."""
    await check(dut, Format.INT8, np.tile(integers(rng(), 8), 4), stall, -128)


@cocotb.test()
@cocotb.parametrize(zero=[-128, 0, 127])
async def int32(dut: Any, zero: int) -> None:
    """INT32 numbers whose sum with a bias is rounded."""
    await check(dut, Format.INT32, integers(rng(), 32), 0.0, zero)


@cocotb.test()
async def fp16(dut: Any) -> None:
    """Every FP16 pattern."""
    await check(dut, Format.FP16, np.arange(1 << 16), 0.0)


@cocotb.test()
async def bf16(dut: Any) -> None:
    """BF16 keeps its bits, above zeros."""
    await check(dut, Format.BF16, rng().integers(0, 1 << 16, 2000), 0.2)


@cocotb.test()
async def fp32(dut: Any) -> None:
    """FP32 keeps its bits."""
    words = np.concatenate([SPECIAL.astype(np.int64), rng().integers(0, 1 << 32, 1000)])
    await check(dut, Format.FP32, words, 0.2)
