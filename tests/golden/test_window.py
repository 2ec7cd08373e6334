"""The window of BF16 sums: its edges, and both of the ways in which it is computed."""

from fractions import Fraction

import numpy as np
import pytest

from deepseek.sim.golden import window
from deepseek.sim.golden.exact import gemm
from deepseek.sim.golden.slow import SlowSum, dot

MINUS = 0x8000


def bf16(value):
    """Bits of a number that is exact in BF16."""
    bits = int(np.float32(value).view(np.uint32))
    assert bits & 0xFFFF == 0
    return bits >> 16


def one_sum(a, x, anchor):
    sums = gemm(np.array([a], np.uint16), np.array([x], np.uint16), "bf16", anchor=anchor)
    total = (int(sums.high[0, 0]) << 64) + int(sums.low[0, 0])
    assert -(1 << 95) <= total < 1 << 95
    names = ("nan", "inf_pos", "inf_neg", "below", "above")
    flags = (bool(getattr(sums, name)[0, 0]) for name in names)
    return SlowSum(total * Fraction(2) ** anchor, *flags)


@pytest.mark.parametrize("sign", [0, MINUS])
def test_bottom_truncates_toward_zero(sign):
    """1.9921875^2 has 16 bits; one by one they fall below the window."""
    value, minus = bf16(255 / 128), -1 if sign else 1
    for anchor in range(-14, 4):
        whole = 255 * 255 >> anchor + 14
        want = SlowSum(whole * minus * Fraction(2) ** anchor, below=anchor > -14)
        assert one_sum([value | sign], [value], anchor) == want


def test_below_needs_a_bit_that_is_set():
    one, three = bf16(1.0), bf16(3.0)
    assert one_sum([one], [one], 0) == SlowSum(Fraction(1))
    assert one_sum([three], [one], 0) == SlowSum(Fraction(3))
    assert one_sum([three], [one], 1) == SlowSum(Fraction(2), below=True)
    assert one_sum([three], [one], 2) == SlowSum(Fraction(0), below=True)
    # Each product by itself, before it is added.
    assert one_sum([one, one, one | MINUS], [one] * 3, 1) == SlowSum(Fraction(0), below=True)


@pytest.mark.parametrize("sign", [0, MINUS])
def test_top_is_64_bits_above_the_bottom(sign):
    """What counts is the exponents, not the product: 64 is in, 65 is out."""
    for anchor in (-126, -60, 32):
        for significand in (1.0, 255 / 128):
            inside = anchor + 64 + 14
            exponents = (inside // 2, inside - inside // 2)
            a, x = (bf16(significand * 2.0**e) for e in exponents)
            minus = -1 if sign else 1
            want = Fraction(significand) ** 2 * Fraction(2) ** inside * minus
            assert one_sum([a | sign], [x], anchor) == SlowSum(want)
            got = one_sum([a | sign], [x + 0x80], anchor)
            assert got == SlowSum(Fraction(0), False, not sign, bool(sign), above=True)


def test_both_infinities_from_above():
    large = bf16(2.0**100)
    got = one_sum([large, large | MINUS], [large, large], 0)
    assert got == SlowSum(Fraction(0), inf_pos=True, inf_neg=True, above=True)


@pytest.mark.parametrize("anchor", [-126, 32])
def test_largest_sum_fits(anchor):
    k, inside = 32768, anchor + 64 + 14
    a, x = (bf16(255 / 128 * 2.0**e) for e in (inside // 2, inside - inside // 2))
    want = Fraction(255 * 255 * k) * Fraction(2) ** (anchor + 64)
    assert one_sum([a] * k, [x] * k, anchor) == SlowSum(want)
    assert one_sum([a | MINUS] * k, [x] * k, anchor) == SlowSum(-want)


def test_subnormal_numbers_have_the_smallest_exponent():
    tiny, one = 1, bf16(2.0**100)  # 2^-133
    assert one_sum([tiny], [one], -33) == SlowSum(Fraction(1, 1 << 33))
    assert one_sum([tiny], [one], -32) == SlowSum(Fraction(0), below=True)
    assert one_sum([tiny], [one], -104) == SlowSum(Fraction(1, 1 << 33))
    # -126 + 100 is 79 above -105, though the number itself is not.
    assert one_sum([tiny], [one], -105) == SlowSum(Fraction(0), inf_pos=True, above=True)


@pytest.mark.parametrize("anchor", [-30, -14, 0, 20])
def test_numbers_far_apart_are_worked_on_one_by_one(anchor, monkeypatch):
    """Few or many of them, in one operand or in both, in several parts."""
    monkeypatch.setattr(window, "PRODUCTS", 50)
    rng = np.random.default_rng(anchor + 30)
    for share in (0.0, 0.05, 0.5):
        arrays = []
        for rows in (6, 7):
            value = rng.normal(size=(rows, 40))
            far = rng.random(value.shape) < share
            value *= np.where(far, np.exp2(rng.uniform(-60, 60, value.shape)), 1)
            arrays.append((value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16))
        sums = gemm(*arrays, "bf16", anchor=anchor)
        for m, n in np.ndindex(6, 7):
            total = (int(sums.high[m, n]) << 64) + int(sums.low[m, n])
            names = ("nan", "inf_pos", "inf_neg", "below", "above")
            flags = (bool(getattr(sums, name)[m, n]) for name in names)
            got = SlowSum(total * Fraction(2) ** anchor, *flags)
            assert got == dot(arrays[0][m].tolist(), arrays[1][n].tolist(), "bf16", "bf16", anchor)
