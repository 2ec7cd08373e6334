"""The exact sums once more, one product at a time, in rational numbers. For tests only."""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

__all__ = ["SlowSum", "dot", "number", "round_to"]


class SlowSum(NamedTuple):
    """The sum of the products that are numbers, and the sticky flags."""

    value: Fraction
    nan: bool = False
    inf_pos: bool = False
    inf_neg: bool = False
    below: bool = False
    above: bool = False


def number(bits: int, fmt: str) -> float:
    """Return a raw number of an input format as a Python float."""
    bits = int(bits)
    if fmt in ("int4", "int8"):
        return float(bits)
    if fmt == "fp16":
        return struct.unpack("<e", struct.pack("<H", bits))[0]
    if fmt == "bf16":
        return struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    if fmt == "e5m2":
        return struct.unpack("<e", struct.pack("<H", bits << 8))[0]
    if fmt != "e4m3":
        raise ValueError(f"fmt must be a format of inputs, not {fmt!r}")
    sign, field, fraction = -1 if bits >> 7 else 1, bits >> 3 & 15, bits & 7
    if (field, fraction) == (15, 7):
        return math.nan
    if field == 0:
        return sign * (fraction / 512)
    return sign * (8 + fraction) / 8 * 2.0 ** (field - 7)


def dot(
    a: Sequence[int], x: Sequence[int], stream_fmt: str, in_fmt: str, anchor: int = 0
) -> SlowSum:
    """Return the sum of the products of raw numbers."""
    total = Fraction(0)
    nan = inf_pos = inf_neg = below = above = False
    window = "bf16" in (stream_fmt, in_fmt)
    for a_bits, x_bits in zip(a, x, strict=True):
        p, q = number(a_bits, stream_fmt), number(x_bits, in_fmt)
        if p == 0 or q == 0:
            continue
        if math.isnan(p) or math.isnan(q):
            nan = True
            continue
        positive = (p > 0) == (q > 0)
        if math.isinf(p) or math.isinf(q):
            inf_pos |= positive
            inf_neg |= not positive
            continue
        product = Fraction(p) * Fraction(q)
        if window:
            # Exponents of BF16 numbers: subnormals have that of the smallest normal numbers.
            powers = (max(math.frexp(value)[1] - 1, -126) for value in (p, q))
            if sum(powers) - 14 - anchor > 64:
                above = True
                inf_pos |= positive
                inf_neg |= not positive
                continue
            unit = Fraction(2) ** anchor
            whole = math.trunc(product / unit) * unit
            below |= whole != product
            product = whole
        total += product
    return SlowSum(total, nan, inf_pos, inf_neg, below, above)


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
