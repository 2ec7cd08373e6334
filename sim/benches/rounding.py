"""Bench of `SumToFp32`: all leading positions, ties, signs, flags, integers."""

from fractions import Fraction

import cocotb
import numpy as np

from ...rtl.isa import MAX_ANCHOR, MIN_ANCHOR
from ...rtl.numerics.rounding import SumToFp32
from ..golden.epilogue import fixed_to_fp32, int_to_fp32
from ..golden.exact import FixedSums
from .lib import rng
from .numerics import compare, run_unit

__all__ = ["fixed_point", "integers"]


def _fixed_sums(r: np.random.Generator) -> list[int]:
    """Return 96-bit sums: below each leading bit a significand, and tails around the tie."""
    sums = [0, 1, -1, -(1 << 95), (1 << 95) - 1, 1 << 94]
    for top in range(95):
        for significand in (0, (1 << 23) - 1, int(r.integers(1 << 23)), int(r.integers(1 << 23))):
            head = ((1 << 23) | significand) << top >> 23
            below = top - 23
            tails = [0]
            if below > 0:
                half = 1 << (below - 1)
                noise = int.from_bytes(r.bytes(12), "little") % (1 << below)
                tails += [half, half - 1, min(half + 1, (1 << below) - 1), 1, noise]
                tails += [half + (1 << int(r.integers(below))) % (1 << below) & ~half]
                tails += [(1 << below) - 1]
            sums += [sign * (head + tail) for tail in tails for sign in (1, -1)]
    return sums


@cocotb.test()
@cocotb.parametrize(
    (("stall", "weight"), [(0.0, -48), (0.3, MIN_ANCHOR), (0.0, MAX_ANCHOR), (0.2, -60)])
)
async def fixed_point(dut: object, stall: float, weight: int) -> None:
    """96-bit sums with and without flags are rounded once, to nearest even."""
    r = rng()
    sums = _fixed_sums(r)
    flags = np.where(r.random(len(sums)) < 0.2, r.integers(8, size=len(sums)), 0)
    nan, inf_pos, inf_neg = ((flags >> bit) & 1 for bit in range(3))
    cases = {
        "whole": [(value >> 48) & ((1 << 48) - 1) for value in sums],
        "part": [value & ((1 << 48) - 1) for value in sums],
        "nan": nan.tolist(),
        "inf_pos": inf_pos.tolist(),
        "inf_neg": inf_neg.tolist(),
    }
    expected = fixed_to_fp32(
        FixedSums(
            high=np.array([value >> 64 for value in sums], np.int64),
            low=np.array([value & ((1 << 64) - 1) for value in sums], np.uint64),
            nan=nan != 0,
            inf_pos=inf_pos != 0,
            inf_neg=inf_neg != 0,
            unit=weight,
        )
    )
    results = await run_unit(
        dut,
        cases,
        latency=SumToFp32.LATENCY,
        stall=stall,
        rng=r,
        constants={"weight": weight & 0xFF},
    )
    compare(cases, results, expected.tolist())
    for case in range(0, len(sums), 7):  # the golden model, against exact fractions
        if not flags[case]:
            number = int(expected[case])
            exponent, fraction = number >> 23 & 0xFF, number & 0x7FFFFF
            assert not sums[case] or 1 <= exponent <= 254, "subnormal or too large"
            value = Fraction(fraction + (1 << 23 if exponent else 0)) * Fraction(2) ** (
                exponent - 150
            )
            error = abs(abs(sums[case]) * Fraction(2) ** weight - value)
            unit = Fraction(2) ** (exponent - 150)
            assert error < unit / 2 or (error == unit / 2 and number % 2 == 0), sums[case]


@cocotb.test()
async def integers(dut: object) -> None:
    """Integers of up to 48 bits."""
    r = rng()
    values = [0, 1, -1, (1 << 47) - 1, -(1 << 47), (1 << 24) + 1, -(1 << 24) - 3]
    for bits in range(1, 47):
        values += r.integers(-(1 << bits), 1 << bits, 20).tolist()
    number = np.array(values, np.int64)
    cases = {"whole": [value & ((1 << 48) - 1) for value in values], "part": [0] * len(values)}
    for flag in ("nan", "inf_pos", "inf_neg"):
        cases[flag] = [0] * len(values)
    results = await run_unit(
        dut,
        cases,
        latency=SumToFp32.LATENCY,
        stall=0.2,
        rng=r,
        constants={"weight": -48 & 0xFF},
    )
    compare(cases, results, int_to_fp32(number).tolist())
