"""Benches of `Fp32Multiply` and `Fp32Add`: a test for each."""

import cocotb
import numpy as np
import numpy.typing as npt

from ...rtl.numerics.fp32 import Fp32Add, Fp32Multiply
from ..golden.epilogue import fp32_add, fp32_mul
from .lib import rng
from .numerics import SPECIAL, compare, run_unit

__all__ = ["add", "multiply"]

Words = npt.NDArray[np.uint32]


def _pairs(r: np.random.Generator, count: int) -> tuple[Words, Words]:
    """Return every pair of special numbers, and random pairs of related exponents."""
    a, b = (grid.ravel() for grid in np.meshgrid(SPECIAL, SPECIAL))
    exponent_a = r.integers(0, 256, count)
    near = exponent_a + r.integers(-30, 31, count)
    opposite = 254 - exponent_a + r.integers(-30, 31, count)
    kind = r.integers(4, size=count)
    exponent_b = np.select(
        [kind == 0, kind == 1, kind == 2],
        [near, opposite, 127 - exponent_a + r.integers(-28, 4, count)],
        r.integers(0, 256, count),
    ).clip(0, 255)
    # Few bits set, or few clear, make ties and carries.
    words = []
    for exponent in (exponent_a, exponent_b):
        fraction = r.integers(1 << 23, size=count)
        sparse = fraction & r.integers(1 << 23, size=count) & r.integers(1 << 23, size=count)
        chosen = np.select(
            [kind == 3, r.random(count) < 0.5], [fraction, sparse], sparse ^ ((1 << 23) - 1)
        )
        words.append((r.integers(2, size=count) << 31) | (exponent << 23) | chosen)
    return (
        np.concatenate([a, words[0].astype(np.uint32)]),
        np.concatenate([b, words[1].astype(np.uint32)]),
    )


async def _binary(dut: object, a: Words, b: Words, expected: Words, latency: int) -> None:
    r = rng()
    cases = {"a": a.tolist(), "b": b.tolist()}
    infinite = [(words & 0x7FFFFFFF) == 0x7F800000 for words in (a, b, expected)]
    overflow = infinite[2] & ~infinite[0] & ~infinite[1]
    outputs = ("result", "overflow")
    results = await run_unit(dut, cases, latency=latency, stall=0.1, rng=r, outputs=outputs)
    compare(cases, results, (expected | overflow.astype(np.uint64) << 32).tolist())


@cocotb.test()
async def multiply(dut: object) -> None:
    """Products, with subnormal operands as zeros: the accumulator and the scales have none."""
    a, b = _pairs(rng(), 20000)
    flushed = [np.where(x & 0x7F800000, x, x & np.uint32(1 << 31)) for x in (a, b)]
    await _binary(dut, a, b, fp32_mul(*flushed), Fp32Multiply.LATENCY)


@cocotb.test()
async def add(dut: object) -> None:
    """Sums of any two numbers."""
    a, b = _pairs(rng(), 20000)
    # Cancellation: neighbours of opposite sign.
    c = a ^ np.uint32(1 << 31)
    d = c + rng().integers(-2, 3, len(c)).astype(np.uint32)
    a, b = np.concatenate([a, a]), np.concatenate([b, d])
    await _binary(dut, a, b, fp32_add(a, b), Fp32Add.LATENCY)
