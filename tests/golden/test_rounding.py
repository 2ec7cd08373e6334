"""The steps of the epilogue, one by one, against rational numbers."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from deepseek.sim.golden import epilogue
from deepseek.sim.golden.exact import FixedSums
from deepseek.sim.golden.formats import FP32_NAN
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


def fixed(total, unit=-48, **flags):
    """FixedSums of a list of integers in units of 2**unit."""
    off = np.zeros(len(total), np.bool_)
    return FixedSums(
        np.array([value >> 64 for value in total], np.int64),
        np.array([value & (1 << 64) - 1 for value in total], np.uint64),
        **{name: np.array(flags.get(name, off)) for name in ("nan", "inf_pos", "inf_neg")},
        unit=unit,
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
    for unit in (-48, -126, -1, 32):
        bits = epilogue.fixed_to_fp32(fixed(totals, unit))
        assert [int(word) for word in bits] == [
            fp32_bits(total * Fraction(2) ** unit, False) for total in totals
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
