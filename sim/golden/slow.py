"""The exact sums once more, one product at a time, in rational numbers. For tests only."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

__all__ = ["SlowSum", "dot_fp16", "round_to"]


class SlowSum(NamedTuple):
    """The sum of the finite products, and the sticky flags."""

    value: Fraction
    nan: bool
    inf_pos: bool
    inf_neg: bool


def dot_fp16(a: Sequence[int], b: Sequence[int]) -> SlowSum:
    """Return the exact sum of the products of FP16 numbers, given as bits."""
    total = Fraction(0)
    nan = inf_pos = inf_neg = False
    for a_bits, b_bits in zip(a, b, strict=True):
        x, y = (struct.unpack("<e", struct.pack("<H", int(bits)))[0] for bits in (a_bits, b_bits))
        if x == 0 or y == 0:
            continue
        product = x * y  # a Python float: only its class and sign are used where not finite
        if product != product:
            nan = True
        elif abs(x) == float("inf") or abs(y) == float("inf"):
            inf_pos |= product > 0
            inf_neg |= product < 0
        else:
            total += Fraction(x) * Fraction(y)
    return SlowSum(total, nan, inf_pos, inf_neg)


def round_to(value: Fraction, digits: int, low: int, high: int) -> Fraction | None:
    """Return a number rounded to nearest even in a binary format, or None where it overflows.

    Parameters
    ----------
    value : Fraction
    digits : int
        Bits of a significand: 24 for FP32, 11 for FP16.
    low, high : int
        Weight of the lowest bit of subnormal numbers and of the largest numbers: -149 and 104 for
        FP32, -24 and 5 for FP16.
    """
    if value == 0:
        return Fraction(0)
    length = abs(value.numerator).bit_length() - value.denominator.bit_length()
    power = max(low, length - digits)  # right, or one too small
    if abs(value) >= Fraction(2) ** (power + digits):
        power += 1
    unit = Fraction(2) ** power
    rounded = round(value / unit) * unit  # Python rounds a Fraction to nearest even
    return rounded if abs(rounded) < Fraction(2) ** (high + digits) else None
