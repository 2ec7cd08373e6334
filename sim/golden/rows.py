"""What the vector unit makes of rows: scaling by column, softmax, norms, dynamic quantization.

The specification
-----------------
``u`` is a number of a row in FP32: of an integer ``x - in_zero``, rounded to nearest even; of a
float itself. Every operation on FP32 rounds to nearest even, and multiplications take subnormal
operands, not results, for zeros of their sign. Factors are multiplied from the left to the right.

* `affine`: ``v = u * a_scale * b_scale + 0``. With a table of columns
  ``v = u * a_scale * scale + bias``; for integers its INT32 bias is added to ``x - in_zero``
  instead, exactly, before that is rounded.
* `softmax`: ``e = exp2((u - m) * a_scale)`` with ``m`` the largest ``u`` that is a number (-inf if
  none is). ``s`` is the FP32 of the exact sum of the ``e``, each cut to a multiple of 2^-32, and
  ``r = 1 / s``. ``v = e * (r * b_scale) + 0``; deferred ``v = e * b_scale + 0``, and the row's
  scale is ``r * c_scale``. Only a row's first ``valid`` numbers take part; the others have
  ``e = 0``.
* `normalize`: with ``2^h`` the power of two in a row's largest magnitude, but at least 2^-111, and
  ``P = 2^(h - 15)``, ``q`` is ``u / P`` rounded to nearest, ties away from zero. ``S1`` (0 for RMS)
  and ``S2`` are the exact sums of ``q`` and ``q * q``, and ``V = length * S2 - S1 * S1``.
  ``mean = fp32(S1) * c_scale * P``, ``w = fp32(V) * c_scale * c_scale * P * P + epsilon``,
  ``r = 1 / sqrt(w)`` with both operations rounded. ``v = (u - mean) * r * b_scale + 0``, with a
  table ``v = (u - mean) * r * scale + bias``. NaNs if a number of the row is not finite.
* `quantize`: with ``m`` a row's largest magnitude, ``s = m * b_scale``, but at least 2^-126, and
  ``v = u * (1 / s) + 0``; the row's scale is ``s * c_scale``. NaNs, also for the scale, if a number
  of the row is NaN.

`exp2` of t, 0 or less: with ``T = floor(t * 2^16) = n * 2^16 + i * 2^8 + d`` and
``p(i) = round(2^(23 + i / 256))`` it is 2^(n - 23) times
``p(i) + floor((p(i + 1) - p(i)) * d / 2^8)``, or 0 where n is below -126.

Results are ``v`` in ``out_format``, as those of a MATMUL (step 6 of `epilogue`).
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .epilogue import int_to_fp32
from .epilogue import quantize as to_integer
from .formats import DTYPES, FLOATS, Format, bits_to_fp32, fp32_to_bits, round_fp32

__all__ = [
    "IN_FORMATS",
    "OUT_FORMATS",
    "Output",
    "Table",
    "affine",
    "exp2",
    "normalize",
    "quantize",
    "softmax",
]

IN_FORMATS = ("int8", "int32", "fp16", "bf16", "fp32")
OUT_FORMATS = ("int8", "int4", "fp16", "bf16", "e4m3", "e5m2", "fp32")

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]

TINY = np.float32(2.0**-126)
"""The smallest normal number."""
CUT = 32
"""Sums of softmax are in units of 2^-32."""
QUANTUM = 15
"""The largest magnitude of a row that is normalized is below 2^(QUANTUM + 1) units."""
LOWEST = -111
"""The least exponent of the largest magnitude."""

POWERS = np.rint(np.exp2(23 + np.arange(257) / 256)).astype(np.int64)
"""``p(i)`` of `exp2`. No power is near enough to a tie for its last bits in FP64 to matter."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Format of results, and what is done to integers after their rounding."""

    fmt: Format
    zero_point: int = 0
    clamp_low: int | None = None
    clamp_high: int | None = None

    def __post_init__(self) -> None:
        if self.fmt not in OUT_FORMATS:
            raise ValueError(f"fmt must be one of {OUT_FORMATS}, not {self.fmt!r}")

    def finish(self, value: Floats) -> npt.NDArray:
        """Return the results of FP32 numbers, raw numbers of the format."""
        bits = fp32_to_bits(value)
        if self.fmt == "fp32":
            return bits
        if self.fmt in FLOATS:
            return round_fp32(bits, self.fmt)  # type: ignore[arg-type]
        width = 8 if self.fmt == "int8" else 4
        half = 1 << width - 1
        return to_integer(
            bits,
            zero_point=self.zero_point,
            clamp_low=-half if self.clamp_low is None else self.clamp_low,
            clamp_high=half - 1 if self.clamp_high is None else self.clamp_high,
            bits=width,
        )


class Table(NamedTuple):
    """Bits of the bias and of the scale of every column: ``uint32`` [length] each."""

    bias: Words
    scale: Words


def affine(
    x: npt.NDArray,
    in_format: Format,
    output: Output,
    *,
    in_zero: int = 0,
    a_scale: int,
    b_scale: int | None = None,
    table: Table | None = None,
) -> npt.NDArray:
    """Return rows, scaled: raw numbers of the output's format, of the shape of ``x``.

    Parameters
    ----------
    x : ndarray
        Raw numbers (`formats`) [..., length].
    in_format : str
        One of `IN_FORMATS`.
    output : Output
    in_zero : int
        Zero point of integers.
    a_scale, b_scale : int
        Bits of normal FP32 numbers; ``b_scale`` if there is no table.
    table : Table
        Its bias is INT32 for integers, else FP32. Its scale may be any FP32 number.

    Raises
    ------
    ValueError
        If a format or a type does not fit, or a scale is not a normal number.
    """
    whole = in_format in ("int8", "int32")
    bias: npt.NDArray[np.int64] | int = 0
    if whole and table is not None:
        bias = np.asarray(table.bias, np.uint32).view(np.int32).astype(np.int64)
    value = _mul(_load(x, in_format, in_zero, bias), _scale("a_scale", a_scale))
    if table is None:
        value = _mul(value, _scale("b_scale", b_scale))
        return output.finish(_add(value, 0))
    value = _mul(value, bits_to_fp32(table.scale))
    return output.finish(_add(value, 0 if whole else bits_to_fp32(table.bias)))


def softmax(
    x: npt.NDArray,
    in_format: Format,
    output: Output,
    *,
    in_zero: int = 0,
    a_scale: int,
    b_scale: int,
    c_scale: int | None = None,
    valid: npt.ArrayLike | None = None,
) -> tuple[npt.NDArray, Words]:
    """Return the softmax of rows, and the bits of the scales of rows.

    Parameters
    ----------
    x, in_format, output, in_zero
        See `affine`.
    a_scale, b_scale : int
        Bits of normal FP32 numbers; ``a_scale`` is positive.
    c_scale : int
        Given, the division is deferred.
    valid : array of int
        How many of a row's numbers take part, broadcast to the rows of ``x``. Default: all.

    Returns
    -------
    ndarray, ndarray
        Results as those of `affine`, and scales, ``uint32`` [...]: ``r * c_scale`` if deferred,
        else ``r``.
    """
    u = _load(x, in_format, in_zero)
    length = u.shape[-1]
    count = length if valid is None else np.minimum(np.asarray(valid), length)
    part = np.arange(length) < np.asarray(count)[..., np.newaxis]
    part = np.broadcast_to(part, u.shape)
    numbers = np.where(part & ~np.isnan(u), u, np.float32(-np.inf))
    largest = numbers.max(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        below = u - largest
    e = exp2(_mul(np.where(part, below, np.float32(0)), _scale("a_scale", a_scale, positive=True)))
    e = np.where(part, e, np.float32(0))
    nan = np.isnan(e).any(axis=-1)
    with np.errstate(invalid="ignore"):
        cut = np.floor(np.ldexp(np.where(np.isnan(e), 0, e).astype(np.float64), CUT))
    total = cut.astype(np.int64).sum(axis=-1)
    s = np.ldexp(bits_to_fp32(int_to_fp32(total)), -CUT)
    with np.errstate(divide="ignore"):
        r = np.where(nan, np.float32(np.nan), np.float32(1) / s)
    b = _scale("b_scale", b_scale)
    if c_scale is not None:
        values = output.finish(_add(_mul(e, b), 0))
        return values, fp32_to_bits(_mul(r, _scale("c_scale", c_scale)))
    values = output.finish(_add(_mul(e, _mul(r, b)[..., np.newaxis]), 0))
    return values, fp32_to_bits(r)


def normalize(
    x: npt.NDArray,
    in_format: Format,
    output: Output,
    *,
    in_zero: int = 0,
    b_scale: int | None = None,
    c_scale: int,
    epsilon: int,
    table: Table | None = None,
    rms: bool = False,
) -> npt.NDArray:
    """Return the layer norm of rows, or with ``rms`` their root mean square norm (see `affine`).

    Parameters
    ----------
    x, in_format, output, in_zero
        See `affine`.
    b_scale, c_scale, epsilon : int
        Bits of normal FP32 numbers; ``epsilon`` is positive, and ``b_scale`` given if there is no
        table.
    table : Table
        Bias and scale are FP32 for all formats.
    """
    u = _load(x, in_format, in_zero)
    length = u.shape[-1]
    finite = np.asarray(np.isfinite(u).all(axis=-1))
    safe = np.where(finite[..., np.newaxis], u, np.float32(0)).astype(np.float64)
    exponent = np.frexp(np.abs(safe).max(axis=-1))[1] - 1
    zero = ~(safe != 0).any(axis=-1)
    lowest = np.maximum(np.where(zero, LOWEST, exponent), LOWEST) - QUANTUM
    size = np.ldexp(np.abs(safe), -lowest[..., np.newaxis])
    q = np.where(safe < 0, -1, 1) * np.floor(size + 0.5).astype(np.int64)
    s1 = np.zeros(q.shape[:-1], np.int64) if rms else q.sum(axis=-1)
    s2 = (q * q).sum(axis=-1)
    # Below 2^64, though a product may not be below 2^63.
    v = np.uint64(length) * s2.astype(np.uint64) - np.abs(s1).astype(np.uint64) ** 2
    c, p = _scale("c_scale", c_scale), np.ldexp(np.float32(1), lowest)
    mean = _mul(_mul(bits_to_fp32(int_to_fp32(s1)), c), p)
    w = _mul(_mul(_mul(_mul(v.astype(np.float32), c), c), p), p)
    w = _add(w, _scale("epsilon", epsilon, positive=True))
    r = np.float32(1) / np.sqrt(w)
    r = np.where(finite, r, np.float32(np.nan))
    with np.errstate(all="ignore"):
        value = _mul(u - mean[..., np.newaxis], r[..., np.newaxis])
    if table is None:
        return output.finish(_add(_mul(value, _scale("b_scale", b_scale)), 0))
    return output.finish(_add(_mul(value, bits_to_fp32(table.scale)), bits_to_fp32(table.bias)))


def quantize(
    x: npt.NDArray,
    in_format: Format,
    output: Output,
    *,
    in_zero: int = 0,
    b_scale: int,
    c_scale: int,
) -> tuple[npt.NDArray, Words]:
    """Return rows over scales of their own, and the bits of the scales times ``c_scale``.

    Parameters
    ----------
    x, in_format, output, in_zero
        See `affine`.
    b_scale, c_scale : int
        Bits of normal FP32 numbers; ``b_scale`` is positive.

    Returns
    -------
    ndarray, ndarray
        Results as those of `affine`, and scales, ``uint32`` [...].
    """
    u = _load(x, in_format, in_zero)
    nan = np.isnan(u)
    s = _mul(np.where(nan, 0, np.abs(u)).max(axis=-1), _scale("b_scale", b_scale, positive=True))
    s = np.where(nan.any(axis=-1), np.float32(np.nan), np.maximum(s, TINY))
    r = np.float32(1) / s
    values = output.finish(_add(_mul(u, r[..., np.newaxis]), 0))
    values = np.where(np.isnan(s)[..., np.newaxis], output.finish(np.full_like(u, np.nan)), values)
    return values, fp32_to_bits(_mul(s, _scale("c_scale", c_scale)))


def exp2(t: Floats) -> Floats:
    """Return powers of two with exponents of at most 0, as the card approximates them."""
    nan = np.isnan(t)
    fixed = np.floor(np.ldexp(np.where(nan, 0, t).astype(np.float64), 16))
    whole = np.maximum(fixed, -(127 << 16)).astype(np.int64)
    n, i, d = whole >> 16, whole >> 8 & 255, whole & 255
    p = POWERS[i] + ((POWERS[i + 1] - POWERS[i]) * d >> 8)
    e = np.ldexp(p.astype(np.float32), n - 23)
    return np.where(nan, np.float32(np.nan), np.where(n < -126, np.float32(0), e))


def _load(x: npt.NDArray, fmt: Format, zero: int, bias: npt.NDArray[np.int64] | int = 0) -> Floats:
    """Return ``u``, with ``bias`` added to integers."""
    if fmt not in IN_FORMATS:
        raise ValueError(f"in_format must be one of {IN_FORMATS}, not {fmt!r}")
    if x.dtype != DTYPES[fmt] or x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(
            f"x must be {np.dtype(DTYPES[fmt])} [..., length], not {x.dtype} {x.shape}"
        )
    if fmt == "fp32":
        return bits_to_fp32(x)
    if fmt == "bf16":
        return bits_to_fp32(x.astype(np.uint32) << np.uint32(16))
    if fmt == "fp16":
        return x.view(np.float16).astype(np.float32)
    return bits_to_fp32(int_to_fp32(x.astype(np.int64) - zero + bias))


def _mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    with np.errstate(all="ignore"):
        return np.asarray(_flush(a) * _flush(b), np.float32)


def _flush(a: npt.ArrayLike) -> Floats:
    """Return FP32 numbers, with zeros for those that are subnormal."""
    number = np.asarray(a, np.float32)
    small = np.abs(number) < TINY
    return np.where(small, np.copysign(np.float32(0), number), number) if small.any() else number


def _add(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    with np.errstate(all="ignore"):
        return np.asarray(np.asarray(a, np.float32) + np.asarray(b, np.float32), np.float32)


def _scale(name: str, bits: int | None, *, positive: bool = False) -> Floats:
    kind = "positive normal" if positive else "normal"
    if bits is None or not 0 < (bits >> 23 & 0xFF) < 0xFF or (positive and bits >> 31):
        raise ValueError(f"{name} must be the bits of a {kind} FP32 number, not {bits!r}")
    return bits_to_fp32(bits)
