"""Exact sums against rational numbers and Python's integers."""

from fractions import Fraction

import numpy as np
import pytest

from deepseek.sim.golden.exact import CHUNK, FixedSums, IntSums, gemm
from deepseek.sim.golden.slow import dot_fp16

NAN, INF, ONE, ZERO, MAX, TINY, MINUS = 0x7E01, 0x7C00, 0x3C00, 0, 0x7BFF, 1, 0x8000


def random_fp16(rng, shape, specials=0.0):
    """Random bits: all exponents, with zeros, and a share of infinities and NaNs."""
    bits = rng.integers(0, 1 << 16, shape, dtype=np.uint16)
    finite = np.where((bits & INF) == INF, bits & 0x83FF, bits)
    finite = np.where(rng.random(shape) < 0.2, finite & MINUS, finite)
    special = rng.choice(np.array([INF, INF | MINUS, NAN, 0xFFFF], np.uint16), shape)
    return np.where(rng.random(shape) < specials, special, finite).astype(np.uint16)


def value_of(sums, index):
    total = (int(sums.high[index]) << 64) + int(sums.low[index])
    return Fraction(total, 1 << 48)


def check(a, b):
    sums = gemm(a, b, "fp16")
    assert isinstance(sums, FixedSums)
    for index in np.ndindex(sums.high.shape):
        want = dot_fp16(a[index[0]], b[index[1]])
        flags = (sums.nan[index], sums.inf_pos[index], sums.inf_neg[index])
        assert (value_of(sums, index), *flags) == want


@pytest.mark.parametrize("k", [1, 2, 7, 64, 300])
@pytest.mark.parametrize("specials", [0.0, 0.02])
def test_fp16_equals_fractions(k, specials):
    rng = np.random.default_rng([k, int(specials * 100)])
    check(random_fp16(rng, (5, k), specials), random_fp16(rng, (4, k), specials))


def test_fp16_largest_and_smallest():
    k = 32768
    largest = np.full((1, k), MAX, np.uint16)
    both = np.concatenate([largest, largest | MINUS])
    sums = gemm(both, largest, "fp16")
    assert value_of(sums, (0, 0)) == 65504**2 * k
    assert value_of(sums, (1, 0)) == -(65504**2) * k
    assert -(1 << 31) <= int(sums.high[1, 0]) and int(sums.high[0, 0]) < 1 << 31
    tiny = np.full((1, k), TINY, np.uint16)
    assert value_of(gemm(tiny, tiny, "fp16"), (0, 0)) == Fraction(k, 1 << 48)


def test_fp16_across_chunks_keeps_the_smallest_bit():
    k = 2 * CHUNK + 3
    a = np.full((1, k), MAX, np.uint16)
    a[0, 1::2] |= MINUS
    a[0, -1] = TINY
    b = np.full((1, k), MAX, np.uint16)
    b[0, -1] = TINY
    assert value_of(gemm(a, b, "fp16"), (0, 0)) == Fraction(1, 1 << 48)


def test_products_with_zero_contribute_nothing():
    for other in (INF, INF | MINUS, NAN, 0xFE00, MAX):
        for zero in (ZERO, MINUS):
            for a, b in ((zero, other), (other, zero)):
                check(np.array([[a, ONE]], np.uint16), np.array([[b, ONE]], np.uint16))
                sums = gemm(np.array([[a]], np.uint16), np.array([[b]], np.uint16), "fp16")
                assert not (sums.nan | sums.inf_pos | sums.inf_neg).any()
                assert value_of(sums, (0, 0)) == 0


@pytest.mark.parametrize("k", [1, 100, 1024, 1025, 4096])
def test_int8_equals_integers(k):
    rng = np.random.default_rng(k)
    a, b = (rng.integers(-128, 128, (m, k), dtype=np.int8) for m in (5, 7))
    a[0] = b[0] = -128
    b[1] = 127
    sums = gemm(a, b, "int8")
    assert isinstance(sums, IntSums)
    np.testing.assert_array_equal(sums.value, a.astype(np.int64) @ b.astype(np.int64).T)
    assert sums.value[0, 0] == 16384 * k


@pytest.mark.parametrize(
    "a, b, fmt, match",
    [
        (np.zeros((1, 2), np.int8), np.zeros((1, 2), np.int8), "int4", "fmt"),
        (np.zeros((1, 2), np.int8), np.zeros((1, 2), np.uint16), "fp16", "operands"),
        (np.zeros((1, 2), np.int8), np.zeros((1, 3), np.int8), "int8", "operands"),
        (np.zeros((1, 0), np.int8), np.zeros((1, 0), np.int8), "int8", "K must"),
        (np.zeros((1, 32769), np.int8), np.zeros((1, 32769), np.int8), "int8", "K must"),
    ],
)
def test_gemm_refuses(a, b, fmt, match):
    with pytest.raises(ValueError, match=match):
        gemm(a, b, fmt)
