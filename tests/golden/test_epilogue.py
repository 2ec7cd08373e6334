"""The epilogue, step by step, against rational numbers and integer arithmetic."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from deepseek.sim.golden import epilogue
from deepseek.sim.golden.exact import FixedSums, IntSums, gemm
from deepseek.sim.golden.formats import FP16_NAN, FP32_NAN
from deepseek.sim.golden.slow import round_to

INF, MINUS, ONE = 0x7F800000, 1 << 31, 0x3F800000
CORNERS = [0, 1, 2, 0x007FFFFF, 0x00800000, 0x00800001, ONE - 1, ONE, ONE + 1, 0x7F7FFFFF, INF]
NANS = [0x7F800001, 0x7FC00001, 0xFFFFFFFF]


def to_fraction(bits):
    return Fraction(struct.unpack("<f", struct.pack("<I", int(bits)))[0])


def fp32_bits(value, negative):
    """FP32 bits of a rational number; ``negative`` is the sign of a result that is zero."""
    rounded = round_to(value, 24, -149, 104)
    if rounded is None:
        return INF | (MINUS if value < 0 else 0)
    if rounded == 0:
        return MINUS if negative else 0
    return struct.unpack("<I", struct.pack("<f", float(rounded)))[0]


def random_fp32(rng, count, spread=24):
    """FP32 bits near 1, every exponent, and corners of both signs."""
    near = rng.integers(127 - spread, 127 + spread, count, dtype=np.uint32) << 23
    near |= rng.integers(0, 1 << 23, count, dtype=np.uint32)
    anything = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    bits = np.concatenate([near, anything, np.array(CORNERS + NANS, np.uint32)])
    return rng.permutation(np.concatenate([bits, bits ^ np.uint32(MINUS)]))


def fixed(total, **flags):
    """FixedSums of a list of integers in units of 2^-48."""
    off = np.zeros(len(total), np.bool_)
    return FixedSums(
        np.array([value >> 64 for value in total], np.int64),
        np.array([value & (1 << 64) - 1 for value in total], np.uint64),
        **{name: np.array(flags.get(name, off)) for name in ("nan", "inf_pos", "inf_neg")},
    )


def test_fixed_to_fp32_rounds_once():
    rng = np.random.default_rng(1)
    totals = [0, 1, -1, (1 << 95) - 1, -(1 << 95)]
    for _ in range(3000):
        length = int(rng.integers(1, 96))
        total = int.from_bytes(rng.bytes(12), "little") >> (96 - length)
        if length > 26 and rng.random() < 0.7:  # at and next to a tie
            keep = length - 25
            total = (total >> keep | 1) << keep
            total += int(rng.integers(-1, 2))
        totals.append(min(total, (1 << 95) - 1) * int(rng.choice([-1, 1])))
    bits = epilogue.fixed_to_fp32(fixed(totals))
    assert [int(word) for word in bits] == [
        fp32_bits(Fraction(total, 1 << 48), False) for total in totals
    ]


def test_fixed_to_fp32_flags():
    flags = np.array([[bool(i & 1), bool(i & 2), bool(i & 4)] for i in range(8)])
    sums = fixed([-5] * 8, nan=flags[:, 0], inf_pos=flags[:, 1], inf_neg=flags[:, 2])
    number, nan = int(fp32_bits(Fraction(-5, 1 << 48), False)), FP32_NAN
    assert epilogue.fixed_to_fp32(sums).tolist() == [number, nan, INF, nan, INF | MINUS] + [nan] * 3


def test_int_to_fp32_rounds_once():
    rng = np.random.default_rng(2)
    values = rng.integers(-(1 << 40), 1 << 40, 2000) >> rng.integers(0, 40, 2000)
    values = np.concatenate([values, [(1 << 24) + 1, (1 << 24) + 3, -(1 << 25) - 2, 0]])
    assert epilogue.int_to_fp32(values).tolist() == [
        fp32_bits(Fraction(int(value)), False) for value in values
    ]


@pytest.mark.parametrize("name", ["mul", "add"])
def test_fp32_arithmetic_equals_fractions(name):
    rng = np.random.default_rng(3)
    a, b = random_fp32(rng, 1500), random_fp32(rng, 1500)
    if name == "add":  # sums that cancel, exactly and nearly
        b[::7] = a[::7] ^ np.uint32(MINUS)
        b[1::7] = a[1::7] ^ np.uint32(MINUS | 1)
    got = epilogue.fp32_mul(a, b) if name == "mul" else epilogue.fp32_add(a, b)
    for x, y, result in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        x_sign, y_sign = x >> 31, y >> 31
        x_size, y_size = x & ~MINUS, y & ~MINUS
        if name == "mul":
            nan = max(x_size, y_size) > INF or (INF in (x_size, y_size) and 0 in (x_size, y_size))
            infinite = INF in (x_size, y_size)
            sign = zero_sign = x_sign ^ y_sign
        else:
            nan = max(x_size, y_size) > INF or (x_size == y_size == INF and x_sign != y_sign)
            infinite = INF in (x_size, y_size)
            sign = x_sign if x_size == INF else y_sign
            zero_sign = x_sign & y_sign
        if nan:
            want = FP32_NAN
        elif infinite:
            want = INF | sign << 31
        else:
            p, q = to_fraction(x), to_fraction(y)
            want = fp32_bits(p * q if name == "mul" else p + q, zero_sign)
        assert result == want, (hex(x), hex(y))


def test_fp32_to_fp16_equals_fractions():
    rng = np.random.default_rng(4)
    halves = rng.integers(0, 0x7C00, 2000, dtype=np.uint16).view(np.float16)
    exact = halves.astype(np.float32).view(np.uint32)
    ties = ((halves.astype(np.float64) + np.nextafter(halves, np.float16(np.inf))) / 2).astype("f4")
    ties = ties.view(np.uint32)
    bits = np.concatenate([random_fp32(rng, 1500, 26), exact, ties, ties + 1, ties - 1])
    bits = bits.astype(np.uint32)
    got = epilogue.fp32_to_fp16(bits)
    for word, result in zip(bits.tolist(), got.tolist(), strict=True):
        size, sign = word & ~MINUS, word >> 31 << 15
        if size > INF:
            want = FP16_NAN
        elif size == INF:
            want = 0x7C00 | sign
        else:
            rounded = round_to(to_fraction(size), 11, -24, 5)
            if rounded is None:
                want = 0x7C00 | sign
            else:
                want = struct.unpack("<H", struct.pack("<e", float(rounded)))[0] | sign
        assert result == want, hex(word)


def test_fp32_to_int_rounds_to_even():
    values = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 127.5, 1e30, -1e30, -0.0, 2147483648.0]
    want = [0, 2, 2, 0, -2, -2, 0, 128, 2**31 - 1, -(2**31), 0, 2**31 - 1]
    bits = np.array(values, np.float32).view(np.uint32)
    assert epilogue.fp32_to_int(bits).tolist() == want
    special = np.array([*NANS, INF, INF | MINUS], np.uint32)
    assert epilogue.fp32_to_int(special).tolist() == [0, 0, 0, 2**31 - 1, -(2**31)]


def test_fp32_to_int_equals_fractions():
    bits = random_fp32(np.random.default_rng(5), 2000)
    for word, result in zip(bits.tolist(), epilogue.fp32_to_int(bits).tolist(), strict=True):
        if word & ~MINUS < INF:
            assert result == max(-(2**31), min(2**31 - 1, round(to_fraction(word)))), hex(word)


def test_relu():
    bits = np.array([0, MINUS, 1, 1 | MINUS, ONE, ONE | MINUS, INF, INF | MINUS, *NANS], np.uint32)
    want = [0, 0, 1, 0, ONE, 0, INF, 0] + [FP32_NAN] * 3
    assert epilogue.plu(bits, "relu").tolist() == want


@pytest.mark.parametrize("zero_point, low, high", [(0, -128, 127), (-7, -7, 90), (100, -128, 127)])
def test_int8_results_follow_qlinear(zero_point, low, high):
    rng = np.random.default_rng(6)
    total = rng.integers(-(1 << 20), 1 << 20, (6, 50))
    bias = rng.integers(-(1 << 31), 1 << 31, 6)
    bias[:4] >>= 12
    scale = np.ldexp(rng.random(6) + 0.5, [-12, -13, -14, -15, -24, -26]).astype(np.float32)
    got = epilogue.finish(
        IntSums(total),
        bias=bias.astype(np.uint32),
        scale=scale.view(np.uint32),
        out_format="int8",
        zero_point=zero_point,
        clamp_low=low,
        clamp_high=high,
    )
    assert got.dtype == np.int8
    for (m, n), value in np.ndenumerate(total + bias[:, np.newaxis]):
        single = to_fraction(fp32_bits(Fraction(int(value)), False))
        product = to_fraction(fp32_bits(single * Fraction(float(scale[m])), False))
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
    got = epilogue.finish(
        IntSums(total),
        bias=bias,
        scale=np.array([0, 0], np.uint32),
        function="relu",
        out_format="int32",
        zero_point=3,
    )
    high, low = 2**31 - 1, -(2**31)
    assert got.tolist() == [[high, 2**31 - 2, high, low], [-4, -3, -2, -1]]


def test_integer_results_of_zero_keep_the_scale_sign():
    sums = IntSums(np.array([[0], [0]]))
    scale = np.array([ONE, ONE | MINUS], np.uint32)
    zeros = np.zeros(2, np.uint32)
    got = epilogue.finish(sums, bias=zeros, scale=scale, out_format="fp32")
    assert got.tolist() == [[0], [MINUS]]
    got = epilogue.finish(sums, bias=zeros, scale=scale, out_format="fp16")
    assert got.tolist() == [[0], [0x8000]]


@pytest.mark.parametrize("sign", [0, MINUS])
def test_scales_that_are_subnormal_count_as_zero(sign):
    """A normal scale, the largest and the smallest subnormal, an infinity and a NaN."""
    scale = np.array([1 << 23, (1 << 23) - 1, 1, 0x7F800000, 0x7F800001], np.uint32) | np.uint32(
        sign
    )
    sums = IntSums(np.array([[1, -1, 0]] * 5))
    got = epilogue.finish(sums, bias=np.zeros(5, np.uint32), scale=scale, out_format="fp32")
    plus, minus = sign, sign ^ MINUS
    infinite, nan = 0x7F800000, 0x7FC00000
    assert got.tolist() == [
        [1 << 23 | plus, 1 << 23 | minus, plus],
        [plus, minus, plus],
        [plus, minus, plus],
        [infinite | plus, infinite | minus, nan],
        [nan, nan, nan],
    ]


def test_fp16_chain_of_steps():
    rng = np.random.default_rng(7)
    a, b = (rng.normal(size=(m, 40)).astype(np.float16) for m in (5, 6))
    sums = gemm(a.view(np.uint16), b.view(np.uint16), "fp16")
    assert isinstance(sums, FixedSums)
    scale, bias = (rng.normal(size=5).astype(np.float32) for _ in range(2))
    kwargs = {"bias": bias.view(np.uint32), "scale": scale.view(np.uint32)}
    single = np.empty((5, 6), np.float32)
    for m, n in np.ndindex(5, 6):
        pairs = zip(a[m].tolist(), b[n].tolist(), strict=True)
        total = sum(Fraction(x) * Fraction(y) for x, y in pairs)
        product = to_fraction(fp32_bits(total, False)) * Fraction(float(scale[m]))
        total = to_fraction(fp32_bits(product, False)) + Fraction(float(bias[m]))
        single[m, n] = float(to_fraction(fp32_bits(total, False)))
    got = epilogue.finish(sums, out_format="fp32", **kwargs)
    np.testing.assert_array_equal(got, single.view(np.uint32))
    got = epilogue.finish(sums, out_format="fp16", function="relu", **kwargs)
    want = np.maximum(single, 0).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(got, want)
    got = epilogue.finish(sums, out_format="int8", **kwargs)
    np.testing.assert_array_equal(got, np.rint(single).astype(np.int8))


@pytest.mark.parametrize(
    "sums, change, match",
    [
        (fixed([0]), {"out_format": "int32"}, "int32"),
        (fixed([0]), {"out_format": "int4"}, "out_format"),
        (fixed([0]), {"out_format": "fp32", "function": "tanh"}, "function"),
        (fixed([0]), {"out_format": "fp32", "parameter": (1,)}, "parameter"),
    ],
)
def test_finish_refuses(sums, change, match):
    one = np.array([ONE], np.uint32)
    with pytest.raises(ValueError, match=match):
        epilogue.finish(sums, bias=one, scale=one, **change)
