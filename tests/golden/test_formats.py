"""FP16 facts against NumPy's float16, on all 65,536 patterns."""

import numpy as np
import pytest

from deepseek.sim.golden import formats

ALL = np.arange(1 << 16, dtype=np.uint16)
FINITE = ALL[np.isfinite(ALL.view(np.float16))]


def test_decode_equals_float16():
    fields = formats.decode_fp16(FINITE)
    value = np.ldexp(fields.significand.astype(np.float64), fields.exponent)
    value = np.where(fields.negative, -value, value)
    np.testing.assert_array_equal(value, FINITE.view(np.float16).astype(np.float64))
    assert fields.exponent.min() == -24
    assert fields.exponent.max() == 5


def test_encode_is_the_inverse():
    np.testing.assert_array_equal(formats.encode_fp16(*formats.decode_fp16(FINITE)), FINITE)


@pytest.mark.parametrize("exponent, significand", [(-23, 5), (6, 1024), (-25, 1), (0, 2048)])
def test_encode_refuses(exponent, significand):
    with pytest.raises(ValueError, match="exponent and significand"):
        formats.encode_fp16(False, exponent, significand)


def test_classes_equal_float16():
    number = ALL.view(np.float16)
    np.testing.assert_array_equal(formats.fp16_is_nan(ALL), np.isnan(number))
    np.testing.assert_array_equal(formats.fp16_is_inf(ALL), np.isinf(number))
    np.testing.assert_array_equal(formats.fp16_is_zero(ALL), number == 0)


def test_fp32_bits_keep_everything_but_nans():
    bits = np.array([0, 1 << 31, 1, 0x3F800000, 0x7F800000, 0xFF800001, 0x7FC12345], np.uint32)
    want = [*bits[:5], formats.FP32_NAN, formats.FP32_NAN]
    assert formats.fp32_to_bits(formats.bits_to_fp32(bits)).tolist() == want
