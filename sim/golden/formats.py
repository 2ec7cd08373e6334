"""Number formats as bit patterns.

The specification
-----------------
Floats are IEEE 754 binary numbers: FP16 (5 bits of exponent, 10 of fraction), BF16 (8 and 7), E5M2
(5 and 2). E4M3 (4 and 3) is that of OCP: no infinities, NaN is all ones, the largest number 448.
Subnormal numbers count like any others. Every NaN that the card makes is the canonical one.

Both inputs of a product are widened to the array's mode, which holds them exactly:

- INT4 with INT4: mode INT4. INT4 or INT8 with INT8: mode INT8.
- BF16 with anything but FP16: mode BF16.
- The others, except FP16 with BF16: mode FP16.

FP32 rounds to a narrower float to nearest even, once. What is then larger than the largest number
becomes infinite, or in E4M3, like infinities, a NaN of its sign.

Arrays of raw numbers: ``int8`` for INT4 (from -8 to 7) and INT8, ``int32`` for INT32, otherwise
unsigned integers of the format's size that hold the bits.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "DTYPES",
    "FLOATS",
    "FP16_NAN",
    "FP32_INF",
    "FP32_NAN",
    "FP32_SIGN",
    "Fields",
    "FloatFormat",
    "Format",
    "InFormat",
    "Mode",
    "NarrowFloat",
    "array_mode",
    "bits_to_fp32",
    "decode",
    "fp32_to_bits",
    "round_fp32",
    "to_float",
    "widen",
]

InFormat = Literal["int4", "int8", "fp16", "bf16", "e4m3", "e5m2"]
Format = Literal["int4", "int8", "int32", "fp16", "bf16", "e4m3", "e5m2", "fp32"]
Mode = Literal["int8", "fp16", "int4", "bf16"]
NarrowFloat = Literal["fp16", "bf16", "e4m3", "e5m2"]

DTYPES: dict[str, type[np.generic]] = {
    "int4": np.int8,
    "int8": np.int8,
    "int32": np.int32,
    "fp16": np.uint16,
    "bf16": np.uint16,
    "e4m3": np.uint8,
    "e5m2": np.uint8,
    "fp32": np.uint32,
}
"""Type of an array of raw numbers."""

FP16_NAN = 0x7E00
"""The canonical FP16 NaN."""
FP32_NAN = 0x7FC00000
"""The canonical FP32 NaN."""
FP32_INF = 0x7F800000
FP32_SIGN = 1 << 31


@dataclasses.dataclass(frozen=True)
class FloatFormat:
    """A float narrower than FP32.

    Parameters
    ----------
    bits, digits : int
        Of a number, and of its significand with the hidden bit.
    lowest : int
        Weight of the lowest bit of the smallest numbers: 2**lowest.
    largest, too_large, nan : int
        Bits of the largest number, of what is too large, and of the canonical NaN.
    """

    bits: int
    digits: int
    lowest: int
    largest: int
    too_large: int
    nan: int


FLOATS: dict[str, FloatFormat] = {
    "fp16": FloatFormat(16, 11, -24, 0x7BFF, 0x7C00, FP16_NAN),
    "bf16": FloatFormat(16, 8, -133, 0x7F7F, 0x7F80, 0x7FC0),
    "e4m3": FloatFormat(8, 4, -9, 0x7E, 0x7F, 0x7F),
    "e5m2": FloatFormat(8, 3, -16, 0x7B, 0x7C, 0x7E),
}


class Fields(NamedTuple):
    """Floats taken apart: ``(-1)**negative * significand * 2**exponent`` where finite."""

    negative: npt.NDArray[np.bool_]
    exponent: npt.NDArray[np.int16]
    """Weight of the significand's lowest bit; the same for subnormals and the next binade."""
    significand: npt.NDArray[np.int16]
    """The hidden bit is set if the number is normal; 0 for infinities and NaNs."""
    inf: npt.NDArray[np.bool_]
    nan: npt.NDArray[np.bool_]


def array_mode(stream: str, resident: str) -> Mode:
    """Return the mode for a pair of input formats; raise `ValueError` where there is none."""
    pair = {stream, resident}
    for fmt in pair:
        if fmt not in ("int4", "int8", "fp16", "bf16", "e4m3", "e5m2"):
            raise ValueError(f"fmt must be a format of inputs, not {fmt!r}")
    if pair == {"fp16", "bf16"}:
        raise ValueError(f"fmt must not pair FP16 with BF16, not {stream!r} and {resident!r}")
    if "bf16" in pair:
        return "bf16"
    if pair == {"int4"}:
        return "int4"
    return "int8" if pair <= {"int4", "int8"} else "fp16"


def decode(bits: npt.NDArray, fmt: NarrowFloat | Mode) -> Fields:
    """Return the fields of floats."""
    kind = FLOATS[fmt]
    word = bits.astype(np.int32)
    size = word & (1 << kind.bits - 1) - 1
    hidden = 1 << kind.digits - 1
    field = size >> kind.digits - 1
    special = size > kind.largest
    inf = (size == kind.too_large) & (kind.too_large != kind.nan)
    significand = (size & hidden - 1) | np.where(field == 0, 0, hidden)
    return Fields(
        negative=word >> kind.bits - 1 != 0,
        exponent=(np.maximum(field, 1) - 1 + kind.lowest).astype(np.int16),
        significand=np.where(special, 0, significand).astype(np.int16),
        inf=inf,
        nan=special & ~inf,
    )


def to_float(bits: npt.NDArray, fmt: InFormat) -> npt.NDArray[np.float64]:
    """Return raw numbers of an input format as ``float64``, which holds them exactly."""
    if fmt in ("int4", "int8"):
        return bits.astype(np.float64)
    fields = decode(bits, fmt)
    value = np.ldexp(fields.significand.astype(np.float64), fields.exponent)
    value = np.where(fields.inf, np.inf, np.where(fields.nan, np.nan, value))
    return np.where(fields.negative, -value, value)


def widen(bits: npt.NDArray, fmt: InFormat, mode: Mode) -> npt.NDArray:
    """Return raw numbers of an input format as the mode's: every one stays what it is.

    NaNs keep their sign, and so stay NaNs. Integers stay ``int8`` in the modes of integers.
    """
    if fmt == mode or mode in ("int4", "int8"):
        return bits
    if fmt == "e5m2" and mode == "fp16":
        return bits.astype(np.uint16) << 8
    number = to_float(bits, fmt)
    if mode == "fp16":
        wide = number.astype(np.float16).view(np.uint16)
    else:
        wide = (number.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    nan = FLOATS[mode].nan | np.signbit(number).astype(np.uint16) << 15
    return np.where(np.isnan(number), nan, wide).astype(np.uint16)


def round_fp32(value: npt.NDArray[np.uint32], fmt: NarrowFloat) -> npt.NDArray:
    """Return the bits of FP32 numbers in a narrower format."""
    kind = FLOATS[fmt]
    word = np.asarray(value, dtype=np.uint32)
    size = bits_to_fp32(word & np.uint32(FP32_SIGN - 1))
    finite = np.isfinite(size)
    number = np.where(finite, size, 0).astype(np.float64)
    # The weight of the last digit that is kept. Codes count up with the numbers that they stand
    # for, so a significand that rounds up to the next power of two has the right code, too.
    unit = np.maximum(np.frexp(number)[1] - kind.digits, kind.lowest)
    unit = np.where(number == 0, kind.lowest, unit)
    digits = np.rint(np.ldexp(number, -unit)).astype(np.int64)
    code = ((unit - kind.lowest).astype(np.int64) << kind.digits - 1) + digits
    code = np.where(finite & (code <= kind.largest), code, kind.too_large)
    code |= (word >> np.uint32(31)).astype(np.int64) << kind.bits - 1
    return np.where(np.isnan(size), kind.nan, code).astype(DTYPES[fmt])


def bits_to_fp32(bits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return FP32 numbers whose bits are given as ``uint32``."""
    return np.ascontiguousarray(bits, dtype=np.uint32).view(np.float32)


def fp32_to_bits(value: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the bits of FP32 numbers, every NaN canonical."""
    number = np.ascontiguousarray(value, dtype=np.float32)
    return np.where(np.isnan(number), np.uint32(FP32_NAN), number.view(np.uint32))
