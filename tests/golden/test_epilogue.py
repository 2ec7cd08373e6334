"""The epilogue as a whole: results and their flags, against rational numbers."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from deepseek.sim.golden import epilogue
from deepseek.sim.golden.epilogue import ABOVE, BELOW, NAN, OVERFLOW, finish
from deepseek.sim.golden.exact import FixedSums, IntSums, gemm
from deepseek.sim.golden.formats import bits_to_fp32, to_float
from deepseek.sim.golden.slow import round_to

INF, MINUS, ONE = 0x7F800000, 1 << 31, 0x3F800000
NARROW = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}


def fp32(value):
    """A rational number rounded to FP32."""
    return round_to(Fraction(value), 24, -149, 104)


def bits_of(values):
    return np.asarray(values, np.float32).view(np.uint32)


def fixed(total, **flags):
    """FixedSums [1, N] of integers in units of 1."""
    names = ("nan", "inf_pos", "inf_neg", "below", "above")
    off = [False] * len(total)
    return FixedSums(
        np.array([[value >> 64 for value in total]], np.int64),
        np.array([[value & (1 << 64) - 1 for value in total]], np.uint64),
        **{name: np.array([flags.get(name, off)]) for name in names},
        unit=0,
    )


@pytest.mark.parametrize("zero_point, low, high", [(0, -128, 127), (-7, -7, 90), (100, -128, 127)])
def test_int8_results_follow_qlinear(zero_point, low, high):
    rng = np.random.default_rng(6)
    total = rng.integers(-(1 << 20), 1 << 20, (6, 50))
    bias = rng.integers(-(1 << 31), 1 << 31, 6)
    bias[:4] >>= 12
    scale = np.ldexp(rng.random(6) + 0.5, [-12, -13, -14, -15, -24, -26]).astype(np.float32)
    got = finish(
        IntSums(total),
        bias=bias.astype(np.uint32),
        scale=scale.view(np.uint32),
        out_format="int8",
        zero_point=zero_point,
        clamp_low=low,
        clamp_high=high,
    ).values
    assert got.dtype == np.int8
    for (m, n), value in np.ndenumerate(total + bias[:, np.newaxis]):
        product = fp32(fp32(int(value)) * Fraction(float(scale[m])))
        assert got[m, n] == min(max(round(product) + zero_point, low), high)


def test_quantize_cuts_to_8_bits_after_the_clamp():
    values = np.array([-200.0, 200.0, 1e9, -np.inf, np.inf, np.nan], np.float32)
    bits = values.view(np.uint32)
    wide = epilogue.quantize(bits, zero_point=1, clamp_low=-300, clamp_high=257)
    assert wide.tolist() == [57, -55, 1, -44, 1, 1]
    crossed = epilogue.quantize(bits, zero_point=0, clamp_low=50, clamp_high=40)
    assert crossed.tolist() == [40] * 6


def test_int32_results_saturate_and_ignore_the_rest():
    total = np.array([[1, -1, (1 << 40), -(1 << 40)], [5, 6, 7, 8]])
    bias = np.array([2**31 - 1, -9], np.int64).astype(np.uint32)
    got = finish(
        IntSums(total),
        bias=bias,
        scale=np.array([ONE, MINUS | ONE], np.uint32),
        function="relu",
        out_format="int32",
        zero_point=3,
    ).values
    high, low = 2**31 - 1, -(2**31)
    assert got.tolist() == [[high, 2**31 - 2, high, low], [-4, -3, -2, -1]]


def test_integer_results_of_zero_keep_the_scale_sign():
    sums = IntSums(np.array([[0], [0]]))
    scale = np.array([ONE, ONE | MINUS], np.uint32)
    zeros = np.zeros(2, np.uint32)
    got = finish(sums, bias=zeros, scale=scale, out_format="fp32").values
    assert got.tolist() == [[0], [MINUS]]
    got = finish(sums, bias=zeros, scale=scale, out_format="fp16").values
    assert got.tolist() == [[0], [0x8000]]


def test_chain_of_steps():
    rng = np.random.default_rng(7)
    a, b = (rng.normal(size=(m, 40)).astype(np.float16) for m in (5, 6))
    sums = gemm(a.view(np.uint16), b.view(np.uint16), "fp16")
    scale, bias = (rng.normal(size=5).astype(np.float32) for _ in range(2))
    kwargs = {"bias": bits_of(bias), "scale": bits_of(scale)}
    single = np.empty((5, 6), np.float32)
    for m, n in np.ndindex(5, 6):
        pairs = zip(a[m].tolist(), b[n].tolist(), strict=True)
        total = fp32(sum(Fraction(x) * Fraction(y) for x, y in pairs))
        single[m, n] = float(
            fp32(fp32(total * Fraction(float(scale[m]))) + Fraction(float(bias[m])))
        )
    got = finish(sums, out_format="fp32", **kwargs).values
    np.testing.assert_array_equal(got, single.view(np.uint32))
    positive = np.maximum(single, 0)
    for fmt, kind in NARROW.items():
        got = finish(sums, out_format=fmt, function="relu", **kwargs).values
        np.testing.assert_array_equal(got, positive.astype(kind).view(got.dtype))
    got = finish(sums, out_format="int8", **kwargs).values
    np.testing.assert_array_equal(got, np.rint(single).astype(np.int8))


def test_block_scales_add_from_the_first_slice_on():
    rng = np.random.default_rng(8)
    bias = rng.normal(size=3).astype(np.float32)
    scale = rng.normal(size=(4, 3)).astype(np.float32)
    for fmt in ("int8", "int4", "fp16", "bf16"):
        if fmt in ("int8", "int4"):
            a, x = (rng.integers(-8, 8, (m, 64), dtype=np.int8) for m in (3, 5))
        else:
            kind = np.float16 if fmt == "fp16" else ml_dtypes.bfloat16
            a, x = (rng.normal(size=(m, 64)).astype(kind).view(np.uint16) for m in (3, 5))
        parts = [slice(16 * s, 16 * s + 16) for s in range(4)]
        sums = [gemm(a[:, p], x[:, p], fmt, anchor=-60) for p in parts]
        got = finish(sums, bias=bits_of(bias), scale=bits_of(scale), out_format="fp32").values
        a_value, x_value = (to_float(array, fmt) for array in (a, x))
        for m, n in np.ndindex(3, 5):
            want = Fraction(float(bias[m]))
            for s, part in enumerate(parts):
                pairs = zip(a_value[m, part].tolist(), x_value[n, part].tolist(), strict=True)
                total = fp32(sum(Fraction(p) * Fraction(q) for p, q in pairs))
                want = fp32(want + fp32(total * Fraction(float(scale[s, m]))))
            assert Fraction(float(bits_to_fp32(got)[m, n])) == want


def test_block_scale_of_one_slice_differs_from_none():
    """With integers the bias is another one, and added after the scale."""
    sums = IntSums(np.array([[3]]))
    kwargs = {"bias": bits_of([0.5]), "out_format": "fp32"}
    got = finish([sums], scale=bits_of([[2.0]]), **kwargs).values
    assert bits_to_fp32(got).tolist() == [[6.5]]
    got = finish(sums, scale=bits_of([2.0]), **kwargs).values
    assert bits_to_fp32(got).tolist() == [[2 * float(fp32(3 + 0x3F000000))]]


def flags_of(sums, out_format, *, bias=0.0, scale=1.0, **kwargs):
    scale = bits_of(scale if isinstance(scale, list) else [scale])
    done = finish(sums, bias=bits_of([bias]), scale=scale, out_format=out_format, **kwargs)
    return done.flags[0].tolist()


def test_flags_of_windows():
    sums = fixed(
        [1] * 4,
        below=[False, True, False, True],
        above=[False, False, True, True],
        inf_pos=[False, False, True, True],
    )
    assert flags_of(sums, "fp32") == [0, BELOW, ABOVE, BELOW | ABOVE]
    assert flags_of(sums, "int8") == [0, BELOW, ABOVE, BELOW | ABOVE]
    # An infinity is no number of E4M3, but it was not finite before.
    assert flags_of(sums, "e4m3") == [0, BELOW, ABOVE | NAN, BELOW | ABOVE | NAN]
    scales = [[1.0], [1.0]]
    assert flags_of([fixed([1] * 4), sums], "fp32", scale=scales)[1:3] == [BELOW, ABOVE]
    assert flags_of([sums, fixed([1] * 4)], "fp32", scale=scales)[1:3] == [BELOW, ABOVE]


@pytest.mark.parametrize(
    "fmt, largest, too_large",
    [
        ("fp16", 65504 + 15, 65520),
        ("bf16", 255 << 120, (255 << 120) + (1 << 119)),
        ("e4m3", 464, 465),
        ("e5m2", 57344 + 4095, 57344 + 4096),
    ],
)
def test_overflow_of_narrow_results(fmt, largest, too_large):
    lost = OVERFLOW | NAN if fmt == "e4m3" else OVERFLOW
    sums = fixed([largest >> 100, -(largest >> 100)] if fmt == "bf16" else [largest, -largest])
    scale = 2.0**100 if fmt == "bf16" else 1.0
    assert flags_of(sums, fmt, scale=scale) == [0, 0]
    sums = fixed(
        [too_large >> 100, -(too_large >> 100)] if fmt == "bf16" else [too_large, -too_large]
    )
    assert flags_of(sums, fmt, scale=scale) == [lost, lost]
    assert flags_of(sums, fmt, scale=scale, function="relu") == [lost, 0]
    special = fixed([0, 0, 0], inf_pos=[True, False, False], nan=[False, True, False])
    infinite = NAN if fmt == "e4m3" else 0
    assert flags_of(special, fmt) == [infinite, NAN, 0]


def test_overflow_before_the_output():
    big = 1 << 94
    assert flags_of(fixed([big, 1, -big]), "int8", scale=2.0**40) == [OVERFLOW, 0, OVERFLOW]
    # The product is infinite; ReLU makes 0 of it, and the flag stays.
    assert flags_of(fixed([-big]), "fp32", scale=2.0**40, function="relu") == [OVERFLOW]
    # Only the sum of both is too large.
    almost = float(np.finfo(np.float32).max)
    assert flags_of(fixed([big]), "fp32", scale=2.0**33, bias=almost) == [OVERFLOW]
    assert flags_of(fixed([big]), "fp32", scale=2.0**33, bias=0.0) == [0]
    assert flags_of(fixed([big]), "fp32", scale=2.0**33, bias=math.inf) == [0]
    scales = [[2.0**33], [-(2.0**33)], [2.0**33]]
    assert flags_of([fixed([big])] * 3, "fp32", scale=scales) == [0]
    scales[1] = [2.0**33]
    assert flags_of([fixed([big])] * 3, "fp32", scale=scales) == [OVERFLOW]
    # Infinite and back: NaN.
    scales = [[2.0**40], [-(2.0**40)]]
    assert flags_of([fixed([big])] * 2, "int8", scale=scales) == [OVERFLOW | NAN]
    assert flags_of(IntSums(np.array([[1 << 40]])), "fp32", scale=2.0**90) == [OVERFLOW]


def test_integer_clamps_do_not_flag_but_int32_does():
    sums = IntSums(np.array([[1 << 40, -(1 << 40), (1 << 31) - 1, -(1 << 31)]]))
    for fmt in ("int8", "int4"):
        assert flags_of(sums, fmt) == [0] * 4
    assert flags_of(sums, "int32") == [OVERFLOW, OVERFLOW, 0, 0]


@pytest.mark.parametrize("values", [range(-40, 40)])
def test_int4_results_are_the_low_bits(values):
    sums = IntSums(np.array([list(values)]))
    kwargs = {"bias": np.zeros(1, np.uint32), "scale": bits_of([1.0]), "out_format": "int4"}
    got = finish(sums, **kwargs).values
    want = np.clip(list(values), -8, 7).astype(ml_dtypes.int4).astype(np.int8)
    np.testing.assert_array_equal(got[0], want)
    wide = finish(sums, clamp_low=-128, clamp_high=127, zero_point=3, **kwargs).values
    np.testing.assert_array_equal(wide[0], [(v + 3 + 8) % 16 - 8 for v in values])


@pytest.mark.parametrize("scale", [0, MINUS, 1, 0x7FFFFF, INF, INF | MINUS, 0x7FC00000])
def test_finish_refuses_scales(scale):
    with pytest.raises(ValueError, match="scale"):
        finish(fixed([0]), bias=bits_of([0]), scale=np.array([scale]), out_format="fp32")


@pytest.mark.parametrize(
    "sums, change, match",
    [
        (fixed([0]), {"out_format": "int32"}, "int32"),
        ([IntSums(np.array([[0]]))], {"out_format": "int32", "scale": bits_of([[1]])}, "int32"),
        (fixed([0]), {"out_format": "int16"}, "out_format"),
        (fixed([0]), {"out_format": "fp32", "function": "tanh"}, "function"),
        (fixed([0]), {"out_format": "fp32", "parameter": (1, 2, 3, 4)}, "parameter"),
    ],
)
def test_finish_refuses(sums, change, match):
    one = bits_of([1.0])
    with pytest.raises(ValueError, match=match):
        finish(sums, **{"bias": one, "scale": one, **change})
