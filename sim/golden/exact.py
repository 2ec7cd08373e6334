"""Exact dot products: what the array computes.

The specification
-----------------
Integers: the sum of the INT8 products, exact.

FP16: the sum of the exact products, as a 96-bit two's complement number in units of 2^-48, and
three sticky flags. A sum has at most 32,768 products, so it never overflows.

- A product with a zero of either sign contributes nothing, even if the other factor is an infinity
  or a NaN. So a stream may leave zero weights out without changing any result.
- Otherwise a product with a NaN sets ``nan``.
- Otherwise a product with an infinity sets ``inf_pos`` or ``inf_neg``, by the product's sign.
- A sum with ``nan``, or with both infinities, is NaN; with one infinity it is that infinity.

The number of a sum whose flags are set is the sum of its finite products.
"""

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from .formats import decode_fp16, fp16_is_inf, fp16_is_nan, fp16_is_zero

__all__ = [
    "FRACTION_BITS",
    "MAX_K",
    "ExactSums",
    "FixedSums",
    "InFormat",
    "IntSums",
    "gemm",
]

FRACTION_BITS = 48
"""The unit of a fixed-point sum is 2^-48, the product of the two smallest FP16 numbers."""

MAX_K = 32768
"""Longest dot product."""

InFormat = Literal["int8", "fp16"]

SLICE_BITS = 20
"""An FP16 number is a fixed-point number of 40 bits and a sign: two slices of this many bits."""

CHUNK = 1 << (53 - 2 * SLICE_BITS)
"""Longest dot product of slices whose float64 sums are all exact."""


@dataclasses.dataclass(frozen=True)
class IntSums:
    """Exact integer sums, ``int64``, of any one shape."""

    value: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class FixedSums:
    """Exact fixed-point sums in units of 2^-48: ``high * 2**64 + low``, and the sticky flags.

    All arrays have the same shape. ``high`` has the sign and is in the range of an ``int32``.
    """

    high: npt.NDArray[np.int64]
    low: npt.NDArray[np.uint64]
    nan: npt.NDArray[np.bool_]
    inf_pos: npt.NDArray[np.bool_]
    inf_neg: npt.NDArray[np.bool_]


ExactSums = IntSums | FixedSums


def gemm(a: npt.NDArray, b: npt.NDArray, fmt: InFormat) -> ExactSums:
    """Return the exact sums ``C[m, n] = sum over k of A[m, k] * X[n, k]``.

    Parameters
    ----------
    a, b : ndarray
        A[M, K] and X[N, K], K innermost in both; ``int8``, or ``uint16`` bits of FP16.
    fmt : "int8" or "fp16"

    Raises
    ------
    ValueError
        If a type, a shape or K does not fit.
    """
    dtypes = {"int8": np.int8, "fp16": np.uint16}
    if fmt not in dtypes:
        raise ValueError(f"fmt must be 'int8' or 'fp16', not {fmt!r}")
    for operand in (a, b):
        if operand.dtype != dtypes[fmt]:
            raise ValueError(f"operands must be {np.dtype(dtypes[fmt])}, not {operand.dtype}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"operands must be A[M, K] and X[N, K], not {a.shape} and {b.shape}")
    if not 1 <= a.shape[1] <= MAX_K:
        raise ValueError(f"K must be from 1 to {MAX_K}, not {a.shape[1]!r}")
    return _gemm_int8(a, b) if fmt == "int8" else _gemm_fp16(a, b)


def _gemm_int8(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> IntSums:
    # All partial sums stay within K * 2^14: exact in float32 up to 2^24, in float64 up to 2^53.
    if a.shape[1] <= 1024:
        return IntSums((a.astype(np.float32) @ b.astype(np.float32).T).astype(np.int64))
    return IntSums((a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int64))


def _gemm_fp16(a: npt.NDArray[np.uint16], b: npt.NDArray[np.uint16]) -> FixedSums:
    shape = (a.shape[0], b.shape[0])
    high = np.zeros(shape, np.int64)
    low = np.zeros(shape, np.uint64)
    for start in range(0, a.shape[1], CHUNK):
        a_slices = _slices(a[:, start : start + CHUNK])
        b_slices = _slices(b[:, start : start + CHUNK])
        for i, a_slice in enumerate(a_slices):
            for j, b_slice in enumerate(b_slices):
                if a_slice is not None and b_slice is not None:
                    part = (a_slice @ b_slice.T).astype(np.int64)
                    high, low = _add_shifted(high, low, part, SLICE_BITS * (i + j))
    nan, inf_pos, inf_neg = _flags(a, b)
    return FixedSums(high, low, nan, inf_pos, inf_neg)


def _slices(bits: npt.NDArray[np.uint16]) -> list[npt.NDArray[np.float64] | None]:
    """Split FP16 numbers, in units of 2^-24, into signed slices, lowest first; None is zeros."""
    negative, exponent, significand = decode_fp16(bits)
    magnitude = significand << (exponent + 24)
    sign = np.where(negative, -1.0, 1.0)
    slices: list[npt.NDArray[np.float64] | None] = []
    for part in (magnitude & ((1 << SLICE_BITS) - 1), magnitude >> SLICE_BITS):
        slices.append(part.astype(np.float64) * sign if part.any() else None)
    return slices


def _add_shifted(
    high: npt.NDArray[np.int64],
    low: npt.NDArray[np.uint64],
    part: npt.NDArray[np.int64],
    shift: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return ``high:low + (part << shift)`` for a shift from 0 to 63."""
    low_part = part.astype(np.uint64) << np.uint64(shift)
    high_part = part >> min(64 - shift, 63)
    low_sum = low + low_part
    return high + high_part + (low_sum < low_part), low_sum


def _flags(
    a: npt.NDArray[np.uint16], b: npt.NDArray[np.uint16]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the sticky flags ``nan``, ``inf_pos`` and ``inf_neg``."""
    shape = (a.shape[0], b.shape[0])
    nan, inf_pos, inf_neg = (np.zeros(shape, np.bool_) for _ in range(3))
    a_nan, b_nan = fp16_is_nan(a), fp16_is_nan(b)
    if a_nan.any() or b_nan.any():
        nan = _any(a_nan, ~fp16_is_zero(b)) | _any(~fp16_is_zero(a), b_nan)
    a_inf, b_inf = fp16_is_inf(a), fp16_is_inf(b)
    if a_inf.any() or b_inf.any():
        a_number = ~fp16_is_zero(a) & ~a_nan
        b_number = ~fp16_is_zero(b) & ~b_nan
        for flag, same_sign in ((inf_pos, True), (inf_neg, False)):
            for a_sign in (False, True):
                a_signed = (a >> 15 != 0) == a_sign
                b_signed = (b >> 15 != 0) == (a_sign == same_sign)
                flag |= _any(a_inf & a_signed, b_number & b_signed)
                flag |= _any(a_number & a_signed, b_inf & b_signed)
    return nan, inf_pos, inf_neg


def _any(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return for every pair of rows whether both are true at some k."""
    return (a.astype(np.float32) @ b.astype(np.float32).T) > 0
