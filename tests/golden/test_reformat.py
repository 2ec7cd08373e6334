"""The golden model of REFORMAT: against ml_dtypes, rational numbers, and the streams' decoder."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from deepseek.rtl.isa import Encoding, Format
from deepseek.sim.functional.streams import read_streams
from deepseek.sim.golden.formats import DTYPES, FLOATS
from deepseek.sim.golden.reformat import compress, expand, transpose
from deepseek.sim.golden.slow import number, round_to

MX = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "int8": np.int8,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
STREAMS = ("int8", "e4m3", "e5m2", "fp16", "bf16")


def codes(fmt):
    return np.arange(16 if fmt == "e2m1" else 256, dtype=np.uint8)


def every_pair(fmt):
    """Return all numbers with all scales: numbers [256, 32 n], scales [256, n]."""
    x = codes(fmt)
    if fmt == "e2m1":
        x = np.tile(x, 2)
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], x.size // 32, axis=1)
    return np.tile(x, (256, 1)).view(DTYPES.get(fmt, np.uint8)), scales


@pytest.mark.parametrize("fmt", MX)
def test_expand_equals_ml_dtypes(fmt):
    x, scales = every_pair(fmt)
    numbers = x.view(MX[fmt]).astype(np.float64) * (1 / 64 if fmt == "int8" else 1)
    factors = scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    with np.errstate(over="ignore"):
        want = (numbers * np.repeat(factors, 32, axis=1)).astype(ml_dtypes.bfloat16)
    bits = np.where(np.isnan(want), np.uint16(0x7FC0), want.view(np.uint16))
    np.testing.assert_array_equal(expand(x, scales, fmt), bits)


@pytest.mark.parametrize("fmt", MX)
def test_expand_equals_fractions(fmt):
    """Every number with the scales at both ends of BF16, where it rounds and overflows."""
    e2m1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
    for code in codes(fmt).tolist():
        raw = np.full((1, 1), code, np.uint8).view(DTYPES.get(fmt, np.uint8))
        value = e2m1[code & 7] * (-1) ** (code >> 3) if fmt == "e2m1" else number(raw[0, 0], fmt)
        if not abs(value) < np.inf:
            continue
        unit = Fraction(1, 64 if fmt == "int8" else 1)
        for scale in (*range(12), 115, 127, *range(240, 255)):
            product = Fraction(value) * unit * Fraction(2) ** (scale - 127)
            want = round_to(product, 8, -133, 120)
            got = int(expand(raw, np.array([[scale]], np.uint8), fmt)[0, 0])
            if want is None:
                assert got == (0xFF80 if product < 0 else 0x7F80)
            else:
                assert number(got, "bf16") == want
                assert got >> 15 == code >> (3 if fmt == "e2m1" else 7)


def test_expand_takes_each_number_with_its_own_scale():
    rng = np.random.default_rng(3)
    for length in (1, 31, 32, 33, 97):
        x = rng.integers(0, 256, (2, 3, length), np.uint8)
        scales = rng.integers(100, 140, (2, 3, -(-length // 32)), np.uint8)
        got = expand(x, scales, "e4m3").view(ml_dtypes.bfloat16)
        for place in np.ndindex(x.shape):
            value = float(x[place].view(ml_dtypes.float8_e4m3fn))
            want = value * 2.0 ** (int(scales[(*place[:2], place[2] // 32)]) - 127)
            np.testing.assert_equal(float(got[place]), want)


@pytest.mark.parametrize("fmt", STREAMS)
@pytest.mark.parametrize("length", [1, 7, 255, 256, 257, 511, 512, 513, 1500])
@pytest.mark.parametrize("density", [0, 0.004, 0.1, 0.9, 1])
def test_compressed_rows_decode_to_themselves(fmt, length, density):
    rng = np.random.default_rng([length, int(1000 * density)])
    dtype = np.dtype(DTYPES[fmt])
    rows = np.frombuffer(rng.bytes(5 * length * dtype.itemsize), dtype).reshape(5, length).copy()
    rows[rng.random(rows.shape) >= density] = 0
    if fmt != "int8":  # zeros of the other sign
        minus = dtype.type(1 << FLOATS[fmt].bits - 1)
        rows[(rows == 0) & (rng.random(rows.shape) < 0.5)] = minus
        wanted = np.where(rows == minus, dtype.type(0), rows)
    else:
        wanted = rows
    streams = [compress(row, fmt) for row in rows]
    granules = np.cumsum([0] + [len(stream.granules) for stream in streams])
    decoded = read_streams(
        np.concatenate([stream.granules for stream in streams]).reshape(-1),
        16 * granules[:-1],
        np.array([stream.entries for stream in streams]),
        length,
        Format[fmt.upper()],
        Encoding.DELTA,
    )
    np.testing.assert_array_equal(decoded, wanted)
    for row, stream in zip(wanted, streams, strict=True):
        # No entry but for numbers and whole gaps of 256, and one at least.
        numbers = np.flatnonzero(row)
        gaps = np.diff([-1, *numbers, length]) - 1
        assert stream.entries == max(1, numbers.size + int(np.sum(gaps // 256)))
        per_granule = 8 if dtype.itemsize == 1 else 5
        assert len(stream.granules) == -(-stream.entries // per_granule)


def test_compress_by_hand():
    row = np.zeros(600, np.int8)
    assert compress(row, "int8").entries == 2  # whole gaps only
    row[[0, 3, 300]] = [5, -1, 7]
    stream = compress(row, "int8")
    # The gap of 296 is one of 256 and one of 40; that of 299 behind the last number one of 256.
    assert stream.entries == 5
    assert stream.granules.tolist() == [[5, 255, 0, 7, 0, 0, 0, 0, 0, 2, 255, 40, 255, 0, 0, 0]]
    words = np.array([0, 0x8000, 0x1234, 0x8001, 9, 9, 9], np.uint16)
    stream = compress(words, "fp16")
    assert stream.entries == 5
    assert stream.granules.tolist() == [
        [0x34, 0x12, 1, 0x80, 9, 0, 9, 0, 9, 0, 2, 0, 0, 0, 0, 0],
    ]
    lone = compress(np.zeros(255, np.uint16), "bf16")
    assert (lone.entries, lone.granules.tolist()) == (1, [[0] * 16])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_transpose(dtype):
    x = np.random.default_rng(1).integers(0, 256, (3, 5, 7), dtype)
    got = transpose(x)
    for z, y, n in np.ndindex(x.shape):
        assert got[z, n, y] == x[z, y, n]
    np.testing.assert_array_equal(got, np.einsum("zyx->zxy", x))


def test_refuses():
    with pytest.raises(ValueError, match="fmt must"):
        compress(np.zeros(4, np.int8), "int4")
    with pytest.raises(ValueError, match="row must"):
        compress(np.zeros(4, np.int8), "e4m3")
    with pytest.raises(ValueError, match="row must"):
        compress(np.zeros((0,), np.uint16), "fp16")
    with pytest.raises(ValueError, match="fmt must"):
        expand(np.zeros((1, 4), np.uint16), np.zeros((1, 1), np.uint8), "fp16")
    with pytest.raises(ValueError, match="scales must"):
        expand(np.zeros((1, 33), np.uint8), np.zeros((1, 1), np.uint8), "e4m3")
