"""Number formats against ml_dtypes and NumPy, on all patterns of bits."""

import math

import ml_dtypes
import numpy as np
import pytest

from deepseek.sim.golden import formats
from deepseek.sim.golden.slow import number

TYPES = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}
INPUTS = ["int4", "int8", *TYPES]
PAIRS = [(w, x) for w in INPUTS for x in INPUTS if {w, x} != {"fp16", "bf16"}]


def all_bits(fmt):
    if fmt in ("int4", "int8"):
        half = 8 if fmt == "int4" else 128
        return np.arange(-half, half).astype(np.int8)
    return np.arange(1 << formats.FLOATS[fmt].bits).astype(formats.DTYPES[fmt])


def values_of(bits, fmt):
    with np.errstate(invalid="ignore"):
        return bits.view(TYPES[fmt]).astype(np.float64)


def same(got, want):
    """Equal numbers, and zeros of equal signs."""
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])


@pytest.mark.parametrize("fmt", TYPES)
def test_floats_equal_ml_dtypes(fmt):
    bits = all_bits(fmt)
    want = values_of(bits, fmt)
    same(formats.to_float(bits, fmt), want)
    fields = formats.decode(bits, fmt)
    np.testing.assert_array_equal(fields.nan, np.isnan(want))
    np.testing.assert_array_equal(fields.inf, np.isinf(want))
    np.testing.assert_array_equal(fields.significand == 0, (want == 0) | ~np.isfinite(want))
    assert fields.significand.max() == 2 ** formats.FLOATS[fmt].digits - 1
    assert fields.exponent.min() == formats.FLOATS[fmt].lowest
    largest = formats.FLOATS[fmt].largest
    assert want[largest] == np.nanmax(np.where(np.isinf(want), 0, want))
    assert math.isnan(want[formats.FLOATS[fmt].nan])


@pytest.mark.parametrize("fmt", INPUTS)
def test_slow_numbers_equal_fast_ones(fmt):
    bits = all_bits(fmt)
    same(formats.to_float(bits, fmt), np.array([number(b, fmt) for b in bits.tolist()]))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_widening_keeps_every_number(pair):
    """The mode is the narrowest that can."""
    mode = formats.array_mode(*pair)
    for fmt in pair:
        bits = all_bits(fmt)
        wide = formats.widen(bits, fmt, mode)
        same(formats.to_float(wide, mode), formats.to_float(bits, fmt))
    order = ["int4", "int8", "fp16", "bf16"]
    numbers = {x for fmt in pair for x in formats.to_float(all_bits(fmt), fmt) if x == x}
    for narrower in order[: order.index(mode)]:
        assert numbers - set(formats.to_float(all_bits(narrower), narrower))
    assert formats.array_mode(*pair[::-1]) == mode


def test_bf16_to_fp16_has_no_mode():
    for pair in (("fp16", "bf16"), ("bf16", "fp16"), ("int32", "int8"), ("int8", "fp32")):
        with pytest.raises(ValueError, match="fmt"):
            formats.array_mode(*pair)


@pytest.mark.parametrize("fmt", TYPES)
def test_rounding_equals_ml_dtypes(fmt):
    """All numbers, all ties between them, what is next to these, and random bits."""
    kind = formats.FLOATS[fmt]
    numbers = values_of(all_bits(fmt), fmt)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    beyond = 2 * numbers[-1] - numbers[-2]
    numbers = np.append(numbers, beyond)
    ties = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    with np.errstate(over="ignore"):
        near = np.concatenate([ties, numbers.astype(np.float32)]).view(np.uint32)
    rng = np.random.default_rng(1)
    anything = rng.integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    special = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000, 1, 0x807FFFFF]
    bits = np.concatenate([near, near - 1, near + 1, anything, np.array(special)])
    bits = bits.astype(np.uint32)
    values = bits.view(np.float32)
    with np.errstate(all="ignore"):
        want = values.astype(TYPES[fmt]).view(formats.DTYPES[fmt])
    want = np.where(np.isnan(values), kind.nan, want)
    got = formats.round_fp32(bits, fmt)
    assert got.dtype == formats.DTYPES[fmt]
    np.testing.assert_array_equal(got, want)


def test_rounding_keeps_exact_numbers():
    for fmt in TYPES:
        bits = all_bits(fmt)
        values = formats.to_float(bits, fmt).astype(np.float32)
        got = formats.round_fp32(values.view(np.uint32), fmt)
        np.testing.assert_array_equal(got[~np.isnan(values)], bits[~np.isnan(values)])


def test_fp32_bits_keep_everything_but_nans():
    bits = np.array([0, 1 << 31, 1, 0x3F800000, 0x7F800000, 0xFF800001, 0x7FC12345], np.uint32)
    want = [*bits[:5], formats.FP32_NAN, formats.FP32_NAN]
    assert formats.fp32_to_bits(formats.bits_to_fp32(bits)).tolist() == want
