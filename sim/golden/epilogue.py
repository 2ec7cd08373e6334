"""From exact sums to output bits: the rounding unit, the epilogue and the PLU.

The specification
-----------------
Every step rounds to nearest even (RNE) and, apart from scales, treats subnormal numbers like any
others. Every NaN that leaves a step is canonical: ``0x7FC00000`` in FP32, ``0x7E00`` in FP16.

1. *Integer inputs only:* the INT32 bias is added to the exact sum, exactly.
2. *INT32 output* (integer inputs only): that number saturates to INT32 and is the result. Scale,
   function, zero point and clamp have no effect. FP16 inputs have no INT32 output.
3. The number is rounded, once, to FP32. Fixed-point sums: NaN if flagged ``nan`` or with both
   infinities, otherwise the flagged infinity. An exact zero is +0.
4. It is multiplied by the row's FP32 scale (IEEE 754). A subnormal scale counts as the zero of its
   sign; infinities and NaNs are what they are.
5. *FP16 inputs only:* the row's FP32 bias, any FP32 number, is added (IEEE 754; +0 is the sum of
   two opposite numbers). For integer inputs this step does not exist: not even -0 changes.
6. The function. ``none``: the value. ``relu``: the value if it is above 0, NaN if it is NaN,
   otherwise +0 (also for -0). Its parameters have no effect.
7. The output. *FP32:* the value. *FP16:* rounded once, with subnormals; too large becomes
   infinite. *INT8:* rounded to an integer (NaN becomes 0, infinities the largest of their sign),
   plus the zero point, then raised to ``clamp_low`` if below, then lowered to ``clamp_high`` if
   above. The low 8 bits of that are stored.

With a bias that holds the zero-point correction this is the order of onnxruntime's QLinear
operators: ``clamp(RNE(float(sum) * scale) + zero_point)``.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .exact import FRACTION_BITS, ExactSums, FixedSums, IntSums
from .formats import FP16_NAN, FP32_INF, FP32_NAN, bits_to_fp32, fp32_to_bits

__all__ = [
    "Function",
    "OutFormat",
    "finish",
    "fixed_to_fp32",
    "fp32_add",
    "fp32_mul",
    "fp32_to_fp16",
    "fp32_to_int",
    "int_to_fp32",
    "plu",
    "quantize",
]

OutFormat = Literal["int8", "fp16", "int32", "fp32"]
Function = Literal["none", "relu"]

FP32_SIGN = 1 << 31
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def finish(
    sums: ExactSums,
    *,
    bias: npt.NDArray[np.uint32],
    scale: npt.NDArray[np.uint32],
    function: Function = "none",
    parameter: Sequence[int] = (0, 0, 0, 0),
    out_format: OutFormat,
    zero_point: int = 0,
    clamp_low: int = -128,
    clamp_high: int = 127,
) -> npt.NDArray:
    """Return the results of the sums [M, N], as ``int8``, ``uint16``, ``int32`` or ``uint32``.

    Parameters
    ----------
    sums : IntSums or FixedSums
    bias, scale : ndarray
        Bits of each row's bias (INT32 for integer inputs, FP32 otherwise) and FP32 scale.
    function : "none" or "relu"
    parameter : sequence of int
        The function's four parameters. Neither function has any.
    out_format : "int8", "fp16", "int32" or "fp32"
    zero_point, clamp_low, clamp_high : int
        Of INT8 results.

    Raises
    ------
    ValueError
        If a format or function is unknown, or INT32 is asked of fixed-point sums.
    """
    if out_format not in ("int8", "fp16", "int32", "fp32"):
        raise ValueError(f"out_format must be int8, fp16, int32 or fp32, not {out_format!r}")
    if len(parameter) != 4:
        raise ValueError(f"parameter must have four words, not {len(parameter)!r}")
    bias = np.ascontiguousarray(bias, dtype=np.uint32)[:, np.newaxis]
    scale = np.ascontiguousarray(scale, dtype=np.uint32)[:, np.newaxis]
    scale = np.where(scale & FP32_INF, scale, scale & FP32_SIGN)
    if isinstance(sums, IntSums):
        total = sums.value + bias.view(np.int32)
        if out_format == "int32":
            return np.clip(total, INT32_MIN, INT32_MAX).astype(np.int32)
        value = fp32_mul(int_to_fp32(total), scale)
    else:
        if out_format == "int32":
            raise ValueError("out_format must not be int32 for fixed-point sums")
        value = fp32_add(fp32_mul(fixed_to_fp32(sums), scale), bias)
    value = plu(value, function)
    if out_format == "fp32":
        return value
    if out_format == "fp16":
        return fp32_to_fp16(value)
    return quantize(value, zero_point=zero_point, clamp_low=clamp_low, clamp_high=clamp_high)


def int_to_fp32(value: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the FP32 bits of integers of up to 54 bits, rounded once."""
    return fp32_to_bits(value.astype(np.float64).astype(np.float32))


def fixed_to_fp32(sums: FixedSums) -> npt.NDArray[np.uint32]:
    """Return the FP32 bits of fixed-point sums (step 3)."""
    negative = sums.high < 0
    low = np.where(negative, ~sums.low + np.uint64(1), sums.low)
    high = np.where(negative, ~sums.high + (low == 0), sums.high).astype(np.uint64)
    # The magnitude as at most 53 bits, the lowest of which also says whether any bit below was
    # set. At least 33 bits are left where some were dropped, so rounding these to 24 is exact.
    wide = high != 0
    top = np.where(wide, (high << np.uint64(32)) | _fold(low, 32), low)
    exponent = np.where(wide, 32, 0) - FRACTION_BITS
    long = top >= np.uint64(1 << 53)
    top = np.where(long, _fold(top, 11), top)
    exponent = np.where(long, exponent + 11, exponent)
    value = np.ldexp(top.astype(np.float64), exponent).astype(np.float32)
    bits = np.where(negative, -value, value).view(np.uint32)
    bits = np.where(sums.inf_pos, np.uint32(FP32_INF), bits)
    bits = np.where(sums.inf_neg, np.uint32(FP32_INF | FP32_SIGN), bits)
    return np.where(sums.nan | (sums.inf_pos & sums.inf_neg), np.uint32(FP32_NAN), bits)


def _fold(value: npt.NDArray[np.uint64], shift: int) -> npt.NDArray[np.uint64]:
    """Return ``value >> shift`` with the lowest bit set if a dropped bit was."""
    dropped = value & np.uint64((1 << shift) - 1)
    return (value >> np.uint64(shift)) | (dropped != 0).astype(np.uint64)


def fp32_mul(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the bits of FP32 products."""
    with np.errstate(all="ignore"):
        return fp32_to_bits(bits_to_fp32(a) * bits_to_fp32(b))


def fp32_add(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the bits of FP32 sums."""
    with np.errstate(all="ignore"):
        return fp32_to_bits(bits_to_fp32(a) + bits_to_fp32(b))


def plu(value: npt.NDArray[np.uint32], function: Function) -> npt.NDArray[np.uint32]:
    """Return the function's FP32 bits (step 6)."""
    if function == "none":
        return value
    if function != "relu":
        raise ValueError(f"function must be 'none' or 'relu', not {function!r}")
    number = bits_to_fp32(value)
    return fp32_to_bits(np.where((number > 0) | np.isnan(number), number, np.float32(0)))


def fp32_to_fp16(value: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """Return the FP16 bits of FP32 numbers."""
    with np.errstate(all="ignore"):
        number = bits_to_fp32(value).astype(np.float16)
    return np.where(np.isnan(number), np.uint16(FP16_NAN), number.view(np.uint16))


def fp32_to_int(value: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return FP32 numbers as integers, saturated to INT32; NaN becomes 0."""
    with np.errstate(invalid="ignore"):
        number = bits_to_fp32(value).astype(np.float64)
    return np.clip(np.rint(np.nan_to_num(number, nan=0.0)), INT32_MIN, INT32_MAX).astype(np.int64)


def quantize(
    value: npt.NDArray[np.uint32], *, zero_point: int, clamp_low: int, clamp_high: int
) -> npt.NDArray[np.int8]:
    """Return the INT8 results of FP32 bits (step 7)."""
    number = fp32_to_int(value) + zero_point
    return np.minimum(np.maximum(number, clamp_low), clamp_high).astype(np.int8)
