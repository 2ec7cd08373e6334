"""Exact sums of every pair of formats, against rational numbers and Python's integers."""

from fractions import Fraction

import numpy as np
import pytest

from deepseek.sim.golden.epilogue import fixed_to_fp32
from deepseek.sim.golden.exact import FixedSums, IntSums, add, gemm
from deepseek.sim.golden.formats import DTYPES, FLOATS, fp32_to_bits, round_fp32, to_float
from deepseek.sim.golden.slow import SlowSum, dot

NAN, INF, ONE, ZERO, MAX, TINY, MINUS = 0x7E01, 0x7C00, 0x3C00, 0, 0x7BFF, 1, 0x8000

INPUTS = ["int4", "int8", "fp16", "bf16", "e4m3", "e5m2"]
PAIRS = [(w, x) for w in INPUTS for x in INPUTS if {w, x} != {"fp16", "bf16"}]


def random_raw(rng, shape, fmt, specials=0.0, spread=None):
    """Random bits, all exponents, or numbers near 1; a share of zeros, infinities and NaNs."""
    if fmt in ("int4", "int8"):
        half = 8 if fmt == "int4" else 128
        return rng.integers(-half, half, shape, dtype=np.int8)
    kind = FLOATS[fmt]
    if spread is None:
        bits = rng.integers(0, 1 << kind.bits, shape)
    else:
        values = rng.normal(size=shape) * np.exp2(rng.normal(size=shape) * spread)
        bits = round_fp32(values.astype(np.float32).view(np.uint32), fmt).astype(np.int64)
    sign = 1 << kind.bits - 1
    bits = np.where((bits & sign - 1) > kind.largest, bits & sign, bits)
    bits = np.where(rng.random(shape) < 0.1, bits & sign, bits)
    odd = np.array([kind.too_large, kind.nan, kind.largest]) | rng.choice([0, sign], 3)
    return np.where(rng.random(shape) < specials, rng.choice(odd, shape), bits).astype(DTYPES[fmt])


def slow_of(sums, index):
    """One of the sums as `slow.dot` gives it."""
    if isinstance(sums, IntSums):
        return SlowSum(Fraction(int(sums.value[index])))
    total = (int(sums.high[index]) << 64) + int(sums.low[index])
    names = ("nan", "inf_pos", "inf_neg", "below", "above")
    flags = (bool(np.broadcast_to(getattr(sums, name), sums.high.shape)[index]) for name in names)
    return SlowSum(total * Fraction(2) ** sums.unit, *flags)


def shape_of(sums):
    return sums.value.shape if isinstance(sums, IntSums) else sums.high.shape


def check(a, x, stream_fmt, in_fmt, anchor=0):
    sums = gemm(a, x, stream_fmt, in_fmt, anchor=anchor)
    for index in np.ndindex(*shape_of(sums)):
        want = dot(a[index[0]].tolist(), x[index[1]].tolist(), stream_fmt, in_fmt, anchor)
        assert slow_of(sums, index) == want, (stream_fmt, in_fmt, anchor, index)
    return sums


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_sums_equal_fractions(pair):
    rng = np.random.default_rng(PAIRS.index(pair))
    for specials in (0.0, 0.05):
        for spread in (None, 0.0, 6.0):
            k = int(rng.integers(1, 24))
            a = random_raw(rng, (4, k), pair[0], specials, spread)
            x = random_raw(rng, (5, k), pair[1], specials, spread)
            anchor = int(rng.integers(-126, 33)) if spread is None else int(rng.integers(-40, 8))
            check(a, x, *pair, anchor=anchor)


@pytest.mark.parametrize("k", [64, 300])
def test_longer_fp16_sums_equal_fractions(k):
    rng = np.random.default_rng(k)
    for specials in (0.0, 0.02):
        a, x = (random_raw(rng, (m, k), "fp16", specials) for m in (3, 4))
        check(a, x, "fp16", "fp16")


@pytest.mark.parametrize("pair", [p for p in PAIRS if p[0] <= p[1]], ids="-".join)
def test_slices_in_any_order_give_the_same(pair):
    rng = np.random.default_rng(PAIRS.index(pair))
    k = 200
    a, x = (random_raw(rng, (4, k), fmt, 0.01, 3.0) for fmt in pair)
    whole = gemm(a, x, *pair, anchor=-12)
    order = rng.permutation(k)
    cuts = np.sort(rng.choice(np.arange(1, k), 6, replace=False))
    total = None
    for places in rng.permutation(np.array(np.split(order, cuts), dtype=object)):
        places = places.astype(np.int64)
        part = gemm(a[:, places], x[:, places], *pair, anchor=-12)
        total = part if total is None else add(total, part)
    for index in np.ndindex(*shape_of(whole)):
        assert slow_of(total, index) == slow_of(whole, index)


def test_sums_of_different_kinds_do_not_add():
    rng = np.random.default_rng(1)
    integers, halves, window = (
        gemm(random_raw(rng, (1, 2), fmt), random_raw(rng, (1, 2), fmt), fmt)
        for fmt in ("int8", "fp16", "bf16")
    )
    for first, second in ((integers, halves), (halves, integers), (halves, window)):
        with pytest.raises(ValueError, match="sums must"):
            add(first, second)


def test_16_million_fp16_products_equal_float64():
    """Sampled pairs, among them all pairs of specials; a product of FP16 numbers fits FP32."""
    rng = np.random.default_rng(2)
    specials = [0, 1, 2, 0x3FF, 0x400, 0x401, ONE, MAX - 1, MAX, INF, 0x7C01, 0x7E00, 0x7FFF]
    specials = np.array(specials + [word | MINUS for word in specials], np.uint16)
    a, x = (
        np.concatenate([specials, rng.integers(0, 1 << 16, 4096 - len(specials), np.uint16)])
        for _ in range(2)
    )
    x_value = to_float(x, "fp16")
    for start in range(0, len(a), 256):
        rows = a[start : start + 256]
        got = fixed_to_fp32(gemm(rows[:, np.newaxis], x[:, np.newaxis], "fp16"))
        factor = to_float(rows, "fp16")[:, np.newaxis]
        with np.errstate(invalid="ignore"):
            want = (factor * x_value).astype(np.float32)
        zero = (factor == 0) | (x_value == 0)
        np.testing.assert_array_equal(got, fp32_to_bits(np.where(zero, np.float32(0), want)))


def test_fp16_largest_and_smallest():
    k = 32768
    largest = np.full((1, k), MAX, np.uint16)
    both = np.concatenate([largest, largest | MINUS])
    sums = gemm(both, largest, "fp16")
    assert slow_of(sums, (0, 0)).value == 65504**2 * k
    assert slow_of(sums, (1, 0)).value == -(65504**2) * k
    assert -(1 << 31) <= int(sums.high[1, 0]) and int(sums.high[0, 0]) < 1 << 31
    tiny = np.full((1, k), TINY, np.uint16)
    assert slow_of(gemm(tiny, tiny, "fp16"), (0, 0)).value == Fraction(k, 1 << 48)


def test_fp16_keeps_the_smallest_bit_beside_the_largest():
    k = 16387
    a = np.full((1, k), MAX, np.uint16)
    a[0, 1::2] |= MINUS
    a[0, -1] = TINY
    x = np.full((1, k), MAX, np.uint16)
    x[0, -1] = TINY
    assert slow_of(gemm(a, x, "fp16"), (0, 0)).value == Fraction(1, 1 << 48)


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "e5m2"])
def test_products_with_zero_contribute_nothing(fmt):
    kind = FLOATS[fmt]
    sign = 1 << kind.bits - 1
    for other in (kind.too_large, kind.too_large | sign, kind.nan, kind.nan | sign, kind.largest):
        for zero in (0, sign):
            for a, x in ((zero, other), (other, zero)):
                arrays = (np.array([[word]], DTYPES[fmt]) for word in (a, x))
                sums = gemm(*arrays, fmt, anchor=32 if fmt == "bf16" else 0)
                assert slow_of(sums, (0, 0)) == SlowSum(Fraction(0))


@pytest.mark.parametrize("k", [1, 100, 1024, 1025, 32768])
def test_int8_equals_integers(k):
    rng = np.random.default_rng(k)
    a, x = (rng.integers(-128, 128, (m, k), dtype=np.int8) for m in (5, 7))
    a[0] = x[0] = -128
    x[1] = 127
    sums = gemm(a, x, "int8")
    assert isinstance(sums, IntSums)
    np.testing.assert_array_equal(sums.value, a.astype(np.int64) @ x.astype(np.int64).T)
    assert sums.value[0, 0] == 16384 * k < 1 << 47
    low = gemm(np.full((1, k), -8, np.int8), np.full((1, k), -8, np.int8), "int4")
    assert low.value[0, 0] == 64 * k < 1 << 23


EIGHTS, BYTES, HALVES = (np.zeros((1, 2), dtype) for dtype in (np.int8, np.uint8, np.uint16))


@pytest.mark.parametrize(
    "a, x, fmt, match",
    [
        (EIGHTS, EIGHTS, ("int32",), "fmt"),
        (HALVES, HALVES, ("fp16", "bf16"), "fmt"),
        (EIGHTS, HALVES, ("fp16",), "operands"),
        (EIGHTS, BYTES, ("int8", "int8"), "operands"),
        (EIGHTS, np.zeros((1, 3), np.int8), ("int8",), "operands"),
        (EIGHTS + 8, EIGHTS, ("int4", "int8"), "operands"),
        (np.zeros((1, 0), np.int8), np.zeros((1, 0), np.int8), ("int8",), "K must"),
        (np.zeros((1, 32769), np.int8), np.zeros((1, 32769), np.int8), ("int8",), "K must"),
    ],
)
def test_gemm_refuses(a, x, fmt, match):
    with pytest.raises(ValueError, match=match):
        gemm(a, x, *fmt)


def test_gemm_refuses_anchors():
    for anchor in (-127, 33):
        with pytest.raises(ValueError, match="anchor"):
            gemm(HALVES, HALVES, "bf16", anchor=anchor)
    assert isinstance(gemm(HALVES, HALVES, "bf16", anchor=-126), FixedSums)
