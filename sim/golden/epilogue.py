"""From exact sums to output bits: the rounding unit, the epilogue and the PLU.

The specification
-----------------
Every step rounds to nearest even (RNE) and treats subnormal numbers like any others. Every NaN that
leaves a step is canonical (`formats`). Scales are normal FP32 numbers.

1. *Both inputs integers, no block scales:* the INT32 bias is added to the exact sum, exactly. If
   the output is INT32, that number saturates to it and is the result.
2. The number is rounded, once, to FP32. Fixed-point sums: NaN if flagged ``nan`` or with both
   infinities, otherwise the flagged infinity. An exact zero is +0.
3. It is multiplied by the row's FP32 scale (IEEE 754).
4. *Other inputs:* the row's FP32 bias, any FP32 number, is added (IEEE 754; +0 is the sum of two
   opposite numbers). *Block scales:* steps 2 and 3 are done for each slice of K with its own scale,
   and the products are added to the bias one after the other, from the first slice on; for all
   inputs, integers too. Otherwise, for integers, this step does not exist: not even -0 changes.
5. The function. ``none``: the value. ``relu``: the value if it is above 0, NaN if it is NaN,
   otherwise +0 (also for -0). Its parameters have no effect.
6. The output. *FP32:* the value. *FP16, BF16, E4M3, E5M2:* rounded once (`formats`). *INT8, INT4:*
   rounded to an integer (NaN becomes 0, infinities the largest of their sign), plus the zero point,
   then raised to ``clamp_low`` if below, then lowered to ``clamp_high`` if above; the low 8 or 4
   bits of that are stored.

Flags of a result: `BELOW` and `ABOVE` if any of its sums has them. `OVERFLOW` if a finite number
became infinite, or NaN in E4M3, in any step from 2 to 6, or if an INT32 result saturated; the
clamps of INT8 and INT4 do not count. `NAN` if the result is NaN, or the value that step 6 makes an
integer of.

With a bias that holds the zero-point correction this is the order of onnxruntime's QLinear
operators: ``clamp(RNE(float(sum) * scale) + zero_point)``.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .exact import ExactSums, FixedSums, IntSums
from .formats import (
    DTYPES,
    FLOATS,
    FP32_INF,
    FP32_NAN,
    FP32_SIGN,
    Format,
    bits_to_fp32,
    fp32_to_bits,
    round_fp32,
)

__all__ = [
    "ABOVE",
    "BELOW",
    "NAN",
    "OVERFLOW",
    "Finished",
    "Function",
    "OutFormat",
    "finish",
    "fixed_to_fp32",
    "fp32_add",
    "fp32_mul",
    "fp32_to_int",
    "int_to_fp32",
    "plu",
    "quantize",
]

OutFormat = Format
Function = Literal["none", "relu"]

BELOW, ABOVE, OVERFLOW, NAN = 1, 2, 4, 8
"""Bits of a result's flags."""

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

Words = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Finished:
    """Results [M, N] and their flags, ``uint8`` of `BELOW`, `ABOVE`, `OVERFLOW` and `NAN`."""

    values: npt.NDArray
    flags: npt.NDArray[np.uint8]


def finish(
    sums: ExactSums | Sequence[ExactSums],
    *,
    bias: npt.NDArray[np.uint32],
    scale: npt.NDArray[np.uint32],
    function: Function = "none",
    parameter: Sequence[int] = (0, 0, 0),
    out_format: OutFormat,
    zero_point: int = 0,
    clamp_low: int | None = None,
    clamp_high: int | None = None,
) -> Finished:
    """Return the results of the sums [M, N], raw numbers of ``out_format`` (`formats`), and flags.

    Parameters
    ----------
    sums : IntSums or FixedSums, or a sequence of them
        A sequence has the sums of each slice of K, which get block scales.
    bias, scale : ndarray
        Bits of each row's bias (INT32 for integers without block scales, otherwise FP32) and FP32
        scale: [M], or [slices, M] for block scales.
    function : "none" or "relu"
    parameter : sequence of int
        The function's three parameters. Neither function has any.
    out_format : str
    zero_point, clamp_low, clamp_high : int
        Of INT8 and INT4 results; the bounds are those of the format if not given.

    Raises
    ------
    ValueError
        If a format or function is unknown, a scale is not a normal number, or INT32 is asked of
        other than exact sums of integers.
    """
    if out_format not in DTYPES:
        raise ValueError(f"out_format must be one of {list(DTYPES)}, not {out_format!r}")
    if len(parameter) != 3:
        raise ValueError(f"parameter must have three words, not {len(parameter)!r}")
    bias = np.ascontiguousarray(bias, dtype=np.uint32)[:, np.newaxis]
    scale = np.ascontiguousarray(scale, dtype=np.uint32)[..., np.newaxis]
    field = scale & np.uint32(FP32_INF)
    if np.any((field == 0) | (field == FP32_INF)):
        raise ValueError("scale must be normal numbers, not zero, subnormal, infinite or NaN")
    blocks = isinstance(sums, Sequence)
    slices: Sequence[ExactSums] = sums if isinstance(sums, Sequence) else [sums]
    flags = _window_flags(slices)

    if not blocks and isinstance(sums, IntSums):
        total = sums.value + bias.view(np.int32)
        if out_format == "int32":
            result = np.clip(total, INT32_MIN, INT32_MAX)
            return Finished(result.astype(np.int32), flags | _flag(result != total, OVERFLOW))
        value, over = _scaled(int_to_fp32(total), scale)
    elif out_format == "int32":
        raise ValueError("out_format must not be int32 but for exact sums of integers")
    else:
        value, over = np.broadcast_to(bias, flags.shape), np.zeros(flags.shape, np.bool_)
        for part, factor in zip(slices, scale if blocks else [scale], strict=True):
            product, too_large = _scaled(_to_fp32(part), factor)
            running = fp32_add(value, product)
            over |= too_large | (_infinite(running) & ~_infinite(value) & ~_infinite(product))
            value = running
    value = plu(value, function)
    flags = flags | _flag(over, OVERFLOW)
    result, lost = _output(value, out_format, zero_point, clamp_low, clamp_high)
    return Finished(result, flags | lost)


def _flag(condition: Bools, flag: int) -> npt.NDArray[np.uint8]:
    return np.where(condition, np.uint8(flag), np.uint8(0))


def _window_flags(slices: Sequence[ExactSums]) -> npt.NDArray[np.uint8]:
    first = slices[0]
    shape = first.value.shape if isinstance(first, IntSums) else first.high.shape
    flags = np.zeros(shape, np.uint8)
    for part in slices:
        if isinstance(part, FixedSums):
            flags |= _flag(part.below, BELOW) | _flag(part.above, ABOVE)
    return flags


def _infinite(value: Words) -> Bools:
    return (value & np.uint32(FP32_SIGN - 1)) == FP32_INF


def _scaled(value: Words, scale: Words) -> tuple[Words, Bools]:
    """Return products, and which of them are infinite though their number was finite."""
    product = fp32_mul(value, scale)
    return product, _infinite(product) & ~_infinite(value)


def _to_fp32(sums: ExactSums) -> Words:
    return int_to_fp32(sums.value) if isinstance(sums, IntSums) else fixed_to_fp32(sums)


def _output(
    value: Words, out_format: OutFormat, zero_point: int, low: int | None, high: int | None
) -> tuple[npt.NDArray, npt.NDArray[np.uint8]]:
    """Return the results of step 6, and which flags it adds."""
    size = value & np.uint32(FP32_SIGN - 1)
    flags = _flag(size > FP32_INF, NAN)
    if out_format == "fp32":
        return value, flags
    if out_format == "int8" or out_format == "int4":
        bits = 8 if out_format == "int8" else 4
        number = quantize(
            value,
            zero_point=zero_point,
            clamp_low=-(1 << bits - 1) if low is None else low,
            clamp_high=(1 << bits - 1) - 1 if high is None else high,
            bits=bits,
        )
        return number, flags
    assert out_format != "int32"
    kind = FLOATS[out_format]
    result = round_fp32(value, out_format)
    code = result & (1 << kind.bits - 1) - 1
    flags |= _flag((code > kind.largest) & (size < FP32_INF), OVERFLOW)
    nan_code = (code > kind.too_large) if kind.nan != kind.too_large else (code == kind.nan)
    return result, flags | _flag(nan_code, NAN)


def int_to_fp32(value: npt.NDArray[np.int64]) -> Words:
    """Return the FP32 bits of integers of up to 54 bits, rounded once."""
    return fp32_to_bits(value.astype(np.float64).astype(np.float32))


def fixed_to_fp32(sums: FixedSums) -> Words:
    """Return the FP32 bits of fixed-point sums (step 2)."""
    negative = sums.high < 0
    low = np.where(negative, ~sums.low + np.uint64(1), sums.low)
    high = np.where(negative, ~sums.high + (low == 0), sums.high).astype(np.uint64)
    # The magnitude as at most 53 bits, the lowest of which also says whether any bit below was
    # set. At least 33 bits are left where some were dropped, so rounding these to 24 is exact.
    wide = high != 0
    top = np.where(wide, (high << np.uint64(32)) | _fold(low, 32), low)
    exponent = np.where(wide, 32, 0) + sums.unit
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


def fp32_mul(a: Words, b: Words) -> Words:
    """Return the bits of FP32 products."""
    with np.errstate(all="ignore"):
        return fp32_to_bits(bits_to_fp32(a) * bits_to_fp32(b))


def fp32_add(a: Words, b: Words) -> Words:
    """Return the bits of FP32 sums."""
    with np.errstate(all="ignore"):
        return fp32_to_bits(bits_to_fp32(a) + bits_to_fp32(b))


def plu(value: Words, function: Function) -> Words:
    """Return the function's FP32 bits (step 5)."""
    if function == "none":
        return value
    if function != "relu":
        raise ValueError(f"function must be 'none' or 'relu', not {function!r}")
    number = bits_to_fp32(value)
    return fp32_to_bits(np.where((number > 0) | np.isnan(number), number, np.float32(0)))


def fp32_to_int(value: Words) -> npt.NDArray[np.int64]:
    """Return FP32 numbers as integers, saturated to INT32; NaN becomes 0."""
    with np.errstate(invalid="ignore"):
        number = bits_to_fp32(value).astype(np.float64)
    return np.clip(np.rint(np.nan_to_num(number, nan=0.0)), INT32_MIN, INT32_MAX).astype(np.int64)


def quantize(
    value: Words, *, zero_point: int, clamp_low: int, clamp_high: int, bits: int = 8
) -> npt.NDArray[np.int8]:
    """Return the INT8 or INT4 results of FP32 bits (step 6): ``bits`` is 8 or 4."""
    number = fp32_to_int(value) + zero_point
    number = np.minimum(np.maximum(number, clamp_low), clamp_high).astype(np.int8)
    return number << (8 - bits) >> (8 - bits)
