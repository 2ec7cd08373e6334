"""Rows: against rational numbers, number by number, and against softmax and norms in FP64."""

import functools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from deepseek.sim.golden import rows
from deepseek.sim.golden.formats import FP32_NAN
from deepseek.sim.golden.rows import IN_FORMATS, OUT_FORMATS, Output, Table
from deepseek.sim.golden.slow import round_to

FP32 = Output("fp32")
INF, NAN = math.inf, math.nan
TINY = 2.0**-126
CORNERS = [0.0, -0.0, 2.0**-149, -(2.0**-127), TINY, 1.0, -1.0, 3.4e38, -3.4e38, INF, -INF, NAN]


def bits(value):
    return int(np.float32(value).view(np.uint32))


def number(word):
    return float(np.uint32(word).view(np.float32))


# FP32 in Python floats, which hold it, and rational numbers.


def rounded(value, negative=False):
    """A rational number as FP32; ``negative`` is the sign of a result that is zero."""
    result = round_to(Fraction(value), 24, -149, 104)
    if result is None:
        return -INF if value < 0 else INF
    return float(result) if result else (-0.0 if negative else 0.0)


def mul(a, b):
    a, b = (math.copysign(0.0, x) if abs(x) < TINY else x for x in (a, b))
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b
    return rounded(Fraction(a) * Fraction(b), math.copysign(1, a) * math.copysign(1, b) < 0)


def product(*factors):
    result = factors[0]
    for factor in factors[1:]:
        result = mul(result, factor)
    return result


def add(a, b):
    if not (math.isfinite(a) and math.isfinite(b)):
        return a + b
    return rounded(Fraction(a) + Fraction(b), math.copysign(1, a) + math.copysign(1, b) < 0)


def inverse(a):
    if math.isnan(a):
        return a
    return 0.0 if math.isinf(a) else rounded(1 / Fraction(a))


def root(a):
    if not math.isfinite(a):
        return a
    square = Fraction(a) * 4**120
    assert square.denominator == 1
    whole = math.isqrt(square.numerator)
    # Half a unit more if it is not a square: no tie, and on the right side of every one.
    return rounded(Fraction(2 * whole + (whole * whole != square), 2 * 2**120))


# The operations, row by row; ``shown`` is how many of the row's results are wanted.


def loaded(row, fmt, zero, bias=None):
    """A row's numbers in FP32; ``bias``: what is added to integers."""
    if fmt in ("int8", "int32"):
        bias = bias or [0] * len(row)
        return [rounded(int(x) - zero + b) for x, b in zip(row, bias, strict=True)]
    if fmt == "fp16":
        return [float(x) for x in row.view(np.float16)]
    if fmt == "bf16":
        return [number(int(x) << 16) for x in row]
    return [number(x) for x in row]


@functools.cache
def power(i):
    """2^(23 + i / 256) rounded to an integer."""
    p = round(2.0 ** (23 + i / 256))
    assert (2 * p - 1) ** 256 < 2 ** (24 * 256 + i) < (2 * p + 1) ** 256
    return p


def exp2(t):
    if math.isnan(t):
        return t
    if t < -127:
        return 0.0
    scaled = math.floor(Fraction(t) * 2**16)
    n, i, d = scaled >> 16, scaled >> 8 & 255, scaled & 255
    if n < -126:
        return 0.0
    p, after = power(i), power(i + 1)
    return float(Fraction(p + ((after - p) * d >> 8)) * Fraction(2) ** (n - 23))


def slow_affine(row, fmt, zero, a, b, table):
    if table is None:
        return [add(product(u, a, b), 0.0) for u in loaded(row, fmt, zero)]
    scales = [number(x) for x in table.scale]
    if fmt in ("int8", "int32"):
        u = loaded(row, fmt, zero, [int(x) for x in table.bias.view(np.int32)])
        return [add(product(x, a, scale), 0.0) for x, scale in zip(u, scales, strict=True)]
    u, biases = loaded(row, fmt, zero), [number(x) for x in table.bias]
    return [add(product(*x[:1], a, x[1]), x[2]) for x in zip(u, scales, biases, strict=True)]


def slow_softmax(row, fmt, zero, a, b, c, valid, shown=None):
    u = loaded(row, fmt, zero)
    m = max((x for x in u[:valid] if not math.isnan(x)), default=-INF)
    e = [exp2(mul(add(x, -m), a)) for x in u[:valid]] + [0.0] * len(u[valid:])
    if any(math.isnan(x) for x in e):
        r = NAN
    else:
        total = sum((math.floor(Fraction(x) * 2**32) for x in e), 0)
        r = inverse(rounded(Fraction(total, 2**32)))
    if c is not None:
        return [add(mul(x, b), 0.0) for x in e[:shown]], mul(r, c)
    return [add(mul(x, mul(r, b)), 0.0) for x in e[:shown]], r


def slow_normalize(row, fmt, zero, b, c, epsilon, table, rms, shown=None):
    u = loaded(row, fmt, zero)
    if not all(map(math.isfinite, u)):
        return [NAN] * len(u)
    m = max(map(abs, u))
    h = max(math.frexp(m)[1] - 1 if m else -111, -111)
    p = 2.0 ** (h - 15)
    q = [math.copysign(math.floor(abs(Fraction(x)) / Fraction(p) + Fraction(1, 2)), x) for x in u]
    q = [int(x) for x in q]
    s1, s2 = 0 if rms else sum(q), sum(x * x for x in q)
    mean = product(rounded(s1), c, p)
    w = add(product(rounded(len(u) * s2 - s1 * s1), c, c, p, p), epsilon)
    r = inverse(root(w))
    scales = [b] * len(u) if table is None else [number(x) for x in table.scale]
    biases = [0.0] * len(u) if table is None else [number(x) for x in table.bias]
    terms = list(zip(u, scales, biases, strict=True))[:shown]
    return [add(product(add(x, -mean), r, scale), bias) for x, scale, bias in terms]


def slow_quantize(row, fmt, zero, b, c):
    u = loaded(row, fmt, zero)
    if any(map(math.isnan, u)):
        return [NAN] * len(u), NAN
    s = max(mul(max(map(abs, u)), b), TINY)
    return [add(mul(x, inverse(s)), 0.0) for x in u], mul(s, c)


# Random rows.


def noise(rng, fmt, shape):
    """Rows of raw numbers of many kinds."""
    if fmt == "int8":
        return rng.integers(-128, 128, shape, np.int8)
    if fmt == "int32":
        size = rng.integers(1, 32, (shape[0], 1))
        return (rng.integers(-(2**31), 2**31, shape) >> size).astype(np.int32)
    spread = {"fp16": 4, "bf16": 30, "fp32": 30}[fmt]
    value = rng.standard_normal(shape) * 2.0 ** rng.uniform(-spread, spread, (shape[0], 1))
    value[-2] = rng.choice(CORNERS[:-3], shape[1])  # finite ones
    value[-3] = rng.choice(CORNERS[:5], shape[1])  # about zero
    value[-4] = rng.choice([*CORNERS[:5], -INF], shape[1])
    value[-1] = rng.choice(CORNERS, shape[1])
    with np.errstate(over="ignore"):
        if fmt == "fp16":
            raw = value.astype(np.float16).view(np.uint16)
        elif fmt == "bf16":
            raw = (value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        else:
            raw = value.astype(np.float32).view(np.uint32)
    raw[0, -1] = {"fp16": 0xFC01, "bf16": 0xFF81, "fp32": 0xFF800001}[fmt]  # a signalling NaN
    return raw


def tables(rng, length, whole):
    scale = np.float32(rng.choice([*CORNERS, 0.3, 1.5, -7e-9], length)).view(np.uint32)
    value = np.float32(rng.choice([*CORNERS, 0.7, -120.1, 1e9], length)).view(np.uint32)
    return Table(rng.integers(0, 1 << 32, length, np.uint32) if whole else value, scale)


def same(got, want):
    """FP32 bits, every NaN canonical, of numbers."""
    want = np.float32(want)
    assert np.array_equal(got, np.where(np.isnan(want), np.uint32(FP32_NAN), want.view(np.uint32)))


def cases(fmt):
    rng = np.random.default_rng(IN_FORMATS.index(fmt))
    for length in (1, 2, 7, 33):
        x = noise(rng, fmt, (8, length))
        scales = (-1) ** rng.integers(0, 2, 3) * 2.0 ** rng.uniform(-9, 9, 3)
        if rng.random() < 0.3:
            scales *= 2.0 ** rng.integers(-110, 110, 3)
        a, b, c = (number(bits(value)) for value in scales)
        yield rng, x, int(rng.integers(-128, 128)), a, b, c


@pytest.mark.parametrize("fmt", IN_FORMATS)
def test_affine_is_rational_numbers_rounded(fmt):
    for rng, x, zero, a, b, _ in cases(fmt):
        for table in (None, tables(rng, x.shape[1], fmt in ("int8", "int32"))):
            pick = {"b_scale": bits(b)} if table is None else {"table": table}
            got = rows.affine(x, fmt, FP32, in_zero=zero, a_scale=bits(a), **pick)
            same(got, [slow_affine(row, fmt, zero, a, b, table) for row in x])


@pytest.mark.parametrize("fmt", IN_FORMATS)
def test_softmax_is_rational_numbers_rounded(fmt):
    for rng, x, zero, a, b, c in cases(fmt):
        a = abs(a)
        for valid in (None, 1, rng.integers(1, 2 * x.shape[1] + 1, len(x))):
            counts = [x.shape[1]] * len(x) if valid is None else np.broadcast_to(valid, len(x))
            for scale in (None, c):
                deferred = {} if scale is None else {"c_scale": bits(scale)}
                pick = {"a_scale": bits(a), "b_scale": bits(b), "valid": valid, **deferred}
                got, scales = rows.softmax(x, fmt, FP32, in_zero=zero, **pick)
                pairs = zip(x, counts, strict=True)
                want = [slow_softmax(row, fmt, zero, a, b, scale, int(n)) for row, n in pairs]
                same(got, [values for values, _ in want])
                same(scales, [r for _, r in want])


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("fmt", IN_FORMATS)
def test_normalize_is_rational_numbers_rounded(fmt, rms):
    for rng, x, zero, _, b, _ in cases(fmt):
        c, epsilon = number(bits(1 / x.shape[1])), number(bits(10.0 ** rng.integers(-37, 3)))
        for table in (None, tables(rng, x.shape[1], False)):
            pick = {"b_scale": bits(b)} if table is None else {"table": table}
            pick |= {"c_scale": bits(c), "epsilon": bits(epsilon), "rms": rms}
            got = rows.normalize(x, fmt, FP32, in_zero=zero, **pick)
            same(got, [slow_normalize(row, fmt, zero, b, c, epsilon, table, rms) for row in x])


@pytest.mark.parametrize("fmt", IN_FORMATS)
def test_quantize_is_rational_numbers_rounded(fmt):
    for _, x, zero, _, b, c in cases(fmt):
        b = abs(b)
        got, scales = rows.quantize(x, fmt, FP32, in_zero=zero, b_scale=bits(b), c_scale=bits(c))
        want = [slow_quantize(row, fmt, zero, b, c) for row in x]
        same(got, [values for values, _ in want])
        same(scales, [s for _, s in want])


def test_long_rows_have_exact_sums():
    rng = np.random.default_rng(5)
    length, shown = 65535, 100
    x = np.full((2, length), 127, np.int8)
    x[1] = rng.integers(-128, 128, length)
    c, epsilon = number(bits(1 / length)), number(bits(1e-5))
    pick = {"c_scale": bits(c), "epsilon": bits(epsilon), "rms": True}
    got = rows.normalize(x, "int8", FP32, in_zero=-128, b_scale=bits(1.0), **pick)
    part = [slow_normalize(row, "int8", -128, 1.0, c, epsilon, None, True, shown) for row in x]
    same(got[:, :shown], part)
    got, scales = rows.softmax(x, "int8", FP32, a_scale=bits(2.0**-7), b_scale=bits(1.0))
    want = [slow_softmax(row, "int8", 0, 2.0**-7, 1.0, None, length, shown) for row in x]
    same(got[:, :shown], [values for values, _ in want])
    same(scales, [r for _, r in want])


# Outputs.

FLOATS = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}


@pytest.mark.parametrize("fmt", OUT_FORMATS)
def test_results_are_rounded_once_more(fmt):
    rng = np.random.default_rng(6)
    x = noise(rng, "fp32", (9, 40))
    value = np.where(np.isnan(x.view(np.float32)), np.float32(NAN), x.view(np.float32)) + 0
    scales = {"a_scale": bits(1.0), "b_scale": bits(1.0)}
    value[np.abs(value) < TINY] = 0
    if fmt == "fp32":
        same(rows.affine(x, "fp32", FP32, **scales), value)
    elif fmt in FLOATS:
        got = rows.affine(x, "fp32", Output(fmt), **scales)
        with np.errstate(over="ignore"):
            want = value.astype(FLOATS[fmt])
        got = got.view(FLOATS[fmt]).astype(np.float64)
        assert np.array_equal(got, want.astype(np.float64), equal_nan=True)
    else:
        width = 8 if fmt == "int8" else 4
        for zero_point, low, high in ((0, None, None), (-3, -5, 4), (700, -9000, 9000), (1, 9, -9)):
            got = rows.affine(x, "fp32", Output(fmt, zero_point, low, high), **scales)
            low = -(1 << width - 1) if low is None else low
            high = (1 << width - 1) - 1 if high is None else high
            for item, result in zip(value.flat, got.flat, strict=True):
                item = 0.0 if math.isnan(item) else float(np.clip(item, -(2.0**31), 2**31 - 1))
                item = min(max(round(Fraction(item)) + zero_point, low), high)
                half = 1 << width - 1
                assert result == (item + half) % (2 * half) - half


def test_a_row_with_a_nan_is_zero_in_integers():
    x = np.float32([[1, 2, NAN], [1, 2, 3]]).view(np.uint32)
    got, scales = rows.quantize(
        x, "fp32", Output("int8", 5), b_scale=bits(1 / 127), c_scale=bits(1.0)
    )
    assert got.tolist() == [[5, 5, 5], [47, 90, 127]]
    assert scales[0] == FP32_NAN


# Against what the operations stand for.


def test_error_of_exp2():
    """At most 1.07e-5: 2^-16 of the exponent that are cut off weigh 1.06e-5."""
    t = -np.concatenate([np.linspace(0, 30, 3_000_001), np.linspace(30, 125, 500_001)])
    t = t.astype(np.float32)
    error = rows.exp2(t) / np.exp2(t.astype(np.float64)) - 1
    assert -1.07e-5 < error.min() < -1.05e-5
    assert error.max() < 1.0e-6
    assert not rows.exp2(np.float32([-126.001, -INF])).any()
    assert rows.exp2(np.float32([0.0, -0.0, -1.0, -126.0])).tolist() == [1, 1, 0.5, TINY]


@pytest.mark.parametrize("deferred", [False, True])
def test_softmax_is_softmax(deferred):
    rng = np.random.default_rng(8)
    x = np.float32(rng.standard_normal((64, 300)) * rng.uniform(0.1, 8, (64, 1)))
    valid = np.arange(64) * 5 + 1
    pick = {"c_scale": bits(1.0)} if deferred else {}
    got, scales = rows.softmax(
        x.view(np.uint32),
        "fp32",
        FP32,
        a_scale=bits(math.log2(math.e)),
        b_scale=bits(1.0),
        valid=valid,
        **pick,
    )
    got = got.view(np.float32).astype(np.float64)
    if deferred:
        got *= scales.view(np.float32)[:, np.newaxis]
    masked = np.where(np.arange(300) < valid[:, np.newaxis], x.astype(np.float64), -np.inf)
    want = np.exp(masked - masked.max(axis=1, keepdims=True))
    want /= want.sum(axis=1, keepdims=True)
    assert np.abs(got - want).max() < 1.3e-5
    part = want > 1e-6
    assert np.abs(got[part] / want[part] - 1).max() < 2.5e-5
    assert not got[want == 0].any()


@pytest.mark.parametrize("rms", [False, True])
def test_normalize_is_the_norm(rms):
    """The statistics are those of numbers with 16 bits of the row's largest magnitude."""
    rng = np.random.default_rng(9)
    shape, epsilon = (64, 256), 1e-5
    x = np.float32(
        rng.standard_normal(shape) * rng.uniform(0.1, 50, (64, 1)) + rng.normal(size=(64, 1))
    )
    gamma, beta = np.float32(rng.standard_normal((2, 256)))
    got = rows.normalize(
        x.view(np.uint32),
        "fp32",
        FP32,
        c_scale=bits(1 / 256),
        epsilon=bits(epsilon),
        table=Table(beta.view(np.uint32), gamma.view(np.uint32)),
        rms=rms,
    ).view(np.float32)
    wide = x.astype(np.float64)
    if not rms:
        wide -= wide.mean(axis=1, keepdims=True)
    normed = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + epsilon)
    error = np.abs(got - (normed * gamma + beta))
    assert error.max() < 1e-4
    # The mean is off by at most half a quantum, 2^-16 of the largest magnitude.
    assert error.max() < 2.0**-15 * np.abs(normed).max() * np.abs(gamma).max()


def test_quantize_is_division_by_the_largest():
    rng = np.random.default_rng(10)
    x = np.float32(rng.standard_normal((50, 77)) * 10.0 ** rng.uniform(-6, 6, (50, 1)))
    got, scales = rows.quantize(
        x.view(np.uint32), "fp32", Output("int8"), b_scale=bits(1 / 127), c_scale=bits(1.0)
    )
    scale = np.abs(x).max(axis=1).astype(np.float64) / 127
    assert np.allclose(scales.view(np.float32), scale, rtol=1.3e-7, atol=0)
    exact = x / scale[:, np.newaxis]
    off = got != np.rint(exact)
    # Only next to a tie.
    assert np.all(np.abs(np.abs(exact - np.floor(exact)) - 0.5)[off] < 1e-4)
    assert off.mean() < 1e-3
    assert np.abs(got).max(axis=1).tolist() == [127] * 50


def test_what_does_not_fit_is_named():
    x = np.zeros((2, 3), np.int8)
    one = bits(1.0)
    with pytest.raises(ValueError, match="x must be int8"):
        rows.affine(x.astype(np.int16), "int8", FP32, a_scale=one, b_scale=one)
    with pytest.raises(ValueError, match="in_format"):
        rows.affine(x, "e4m3", FP32, a_scale=one, b_scale=one)
    with pytest.raises(ValueError, match="fmt"):
        Output("int32")
    with pytest.raises(ValueError, match="b_scale"):
        rows.affine(x, "int8", FP32, a_scale=one)
    with pytest.raises(ValueError, match="a_scale must be the bits of a positive"):
        rows.softmax(x, "int8", FP32, a_scale=bits(-1.0), b_scale=one)
