"""Facts about FP16 and FP32 as bit patterns.

FP16 travels as ``uint16``, FP32 as ``uint32``. Every NaN that the card makes is the canonical one.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "FP16_INF",
    "FP16_NAN",
    "FP32_INF",
    "FP32_NAN",
    "Fp16Fields",
    "bits_to_fp32",
    "decode_fp16",
    "encode_fp16",
    "fp16_is_inf",
    "fp16_is_nan",
    "fp16_is_zero",
    "fp32_to_bits",
]

FP16_NAN = 0x7E00
"""The canonical FP16 NaN."""
FP16_INF = 0x7C00
FP32_NAN = 0x7FC00000
"""The canonical FP32 NaN."""
FP32_INF = 0x7F800000


class Fp16Fields(NamedTuple):
    """A finite FP16 number: ``(-1)**negative * significand * 2**exponent``."""

    negative: npt.NDArray[np.bool_]
    exponent: npt.NDArray[np.int64]
    """Weight of the significand's lowest bit: -24 (also of subnormals) to 5."""
    significand: npt.NDArray[np.int64]
    """11 bits; the hidden one is set if the number is normal."""


def decode_fp16(bits: npt.ArrayLike) -> Fp16Fields:
    """Return sign, exponent and significand of FP16 numbers; infinities and NaNs give zero."""
    word = np.asarray(bits, dtype=np.uint16).astype(np.int64)
    field = (word >> 10) & 31
    significand = (word & 0x3FF) | np.where(field == 0, 0, 0x400)
    special = field == 31
    return Fp16Fields(
        negative=(word >> 15) != 0,
        exponent=np.where(special, -24, np.maximum(field, 1) - 25),
        significand=np.where(special, 0, significand),
    )


def encode_fp16(
    negative: npt.ArrayLike, exponent: npt.ArrayLike, significand: npt.ArrayLike
) -> npt.NDArray[np.uint16]:
    """Return the bits of finite FP16 numbers: the inverse of `decode_fp16`.

    Raises
    ------
    ValueError
        If a significand below 1024 has another exponent than -24, or anything is out of range.
    """
    power = np.asarray(exponent, dtype=np.int64)
    digits = np.asarray(significand, dtype=np.int64)
    normal = digits >= 0x400
    fits = (digits >= 0) & (digits < 0x800) & (power >= -24) & (power <= 5)
    if not np.all(fits & (normal | (power == -24))):
        raise ValueError("exponent and significand must be those of FP16 numbers")
    sign = np.asarray(negative, dtype=bool).astype(np.int64) << 15
    word = sign | (np.where(normal, power + 25, 0) << 10) | (digits & 0x3FF)
    return word.astype(np.uint16)


def fp16_is_nan(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return where FP16 numbers are NaN."""
    return (bits & 0x7FFF) > FP16_INF


def fp16_is_inf(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return where FP16 numbers are infinite."""
    return (bits & 0x7FFF) == FP16_INF


def fp16_is_zero(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return where FP16 numbers are zero of either sign."""
    return (bits & 0x7FFF) == 0


def bits_to_fp32(bits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return FP32 numbers whose bits are given as ``uint32``."""
    return np.ascontiguousarray(bits, dtype=np.uint32).view(np.float32)


def fp32_to_bits(value: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the bits of FP32 numbers, every NaN canonical."""
    number = np.ascontiguousarray(value, dtype=np.float32)
    return np.where(np.isnan(number), np.uint32(FP32_NAN), number.view(np.uint32))
