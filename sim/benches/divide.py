"""Bench of `Fp32Reciprocal` and `Fp32Root`, which take one number at a time."""

import os
from typing import Any

import cocotb
import numpy as np

from ...rtl.numerics.divide import Fp32Reciprocal
from ...rtl.numerics.root import Fp32Root
from .lib import rng, sample, start, tick
from .numerics import SPECIAL, compare

ROOT = os.environ.get("UNIT") == "root"


def reference(words: np.ndarray) -> list[int]:
    """Return the rounded results: a float64 is precise enough to be rounded once more."""
    normal = (words >> 23 & 0xFF) != 0
    numbers = np.where(normal, words, words & np.uint32(1 << 31)).view(np.float32)
    with np.errstate(all="ignore"):
        wide = numbers.astype(np.float64)
        results = (np.sqrt(wide) if ROOT else 1 / wide).astype(np.float32)
    bits = results.view(np.uint32)
    bits = np.where((bits >> 23 & 0xFF) == 0, bits & np.uint32(1 << 31), bits)
    return [int(word) for word in np.where(np.isnan(results), np.uint32(0x7FC00000), bits)]


@cocotb.test()
async def numbers(dut: Any) -> None:
    """Special numbers, every exponent, significands around powers of two, random ones."""
    r = rng()
    dut.start.value = 0
    await start(dut)
    exponents = np.arange(1, 255) << 23
    words = np.concatenate(
        [
            *(SPECIAL, exponents, exponents + 1, exponents + 0x7FFFFF, exponents + 2),
            r.integers(0, 1 << 32, 500),
            (r.integers(126, 129, 1500) << 23) + r.integers(0, 1 << 23, 1500),
        ]
    ).astype(np.uint32)
    # Squares of short numbers: exact roots, and the neighbours of those in the middle.
    short = (r.integers(1 << 11, 1 << 12, 200) | 1).astype(np.float32) ** 2
    squares = short.view(np.uint32)
    words = np.concatenate([words, squares, squares - 1, squares + 1]).astype(np.uint32)
    unit = Fp32Root if ROOT else Fp32Reciprocal
    results = []
    for word in words:
        dut.start.value = 1
        dut.number.value = int(word)
        await tick(dut)
        dut.start.value = 0
        dut.number.value = int(r.integers(1 << 32))
        for cycle in range(1, unit.LATENCY + 1):
            await sample(dut)
            assert int(dut.done.value) == (cycle == unit.LATENCY), f"done in cycle {cycle}"
            results += [int(dut.result.value)] if cycle == unit.LATENCY else []
            if cycle < unit.LATENCY:
                await tick(dut)
        await tick(dut)
        if r.random() < 0.1:
            await sample(dut)
            assert int(dut.result.value) == results[-1] and not int(dut.done.value)
            await tick(dut)
    compare({"number": words.tolist()}, results, reference(words))
