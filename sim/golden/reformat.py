"""What REFORMAT makes of rows: transposed ones, compressed streams, expanded MX numbers.

The specification
-----------------
TRANSPOSE only moves numbers.

COMPRESS leaves out zeros, of either sign. An entry is a value and a delta: the number of places
between it and the entry before it, or the start of the row. Whenever 256 places in a row have no
number, also behind the last one, an entry of value 0 and delta 255 stands for them. A row without
any entry gets one of value 0 and delta 0. A granule of 16 bytes has 8 entries of 8-bit or 5 of
16-bit numbers: first the values, then the deltas, a byte each; the rest is zeros.

EXPAND multiplies each 32 numbers of a row by a scale of their own: E8M0, 2^(byte - 127), NaN for
255. INT8 numbers count in units of 2^-6. E2M1 numbers have 1 bit of sign, 2 of exponent (with a
bias of 1) and 1 of fraction, and neither infinities nor NaNs. The product is rounded once to BF16,
to nearest even, with subnormal numbers; what is too large becomes infinite. Zeros keep their sign;
every NaN is the canonical one.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .formats import DTYPES, FLOATS, NarrowFloat, fp32_to_bits, round_fp32, to_float

__all__ = ["SCALED", "MxFormat", "Stream", "compress", "expand", "transpose"]

MxFormat = Literal["e4m3", "e5m2", "int8", "e2m1"]

SCALED = 32
"""Numbers that share a scale."""

FARTHEST = 256
"""Places without a number that make an entry of their own."""

GRANULE = 16

PER_GRANULE = {1: 8, 2: 5}
"""Entries of a granule, by bytes of a number."""

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
"""The numbers of E2M1 that are not negative, in the order of their codes."""

SCALE_NAN = 255


class Stream(NamedTuple):
    """A row as a stream: ``granules`` are ``uint8`` [granules, 16]; it has so many ``entries``."""

    granules: npt.NDArray[np.uint8]
    entries: int


def transpose(x: npt.NDArray) -> npt.NDArray:
    """Return raw numbers [..., rows, length] as [..., length, rows]."""
    return np.ascontiguousarray(np.swapaxes(x, -1, -2))


def compress(row: npt.NDArray, fmt: NarrowFloat | Literal["int8"]) -> Stream:
    """Return a row [length] of raw numbers as a stream without its zeros.

    Raises
    ------
    ValueError
        If the format has no such streams, or ``row`` is not of its type.
    """
    if fmt != "int8" and fmt not in FLOATS:
        raise ValueError(f"fmt must be int8 or one of {list(FLOATS)}, not {fmt!r}")
    if row.dtype != DTYPES[fmt] or row.ndim != 1 or not row.size:
        raise ValueError(
            f"row must be {DTYPES[fmt].__name__} [length], not {row.dtype} {row.shape}"
        )
    magnitude = row if fmt == "int8" else row & row.dtype.type((1 << FLOATS[fmt].bits - 1) - 1)
    index = np.flatnonzero(magnitude)
    # What is behind the last number counts like what is before a number at the row's end.
    gaps = np.diff(index, prepend=-1, append=row.size) - 1
    escapes, steps = np.divmod(gaps, FARTHEST)
    place = np.arange(gaps.size) + np.cumsum(escapes)
    count = max(1, int(place[-1]))
    size = row.itemsize
    per_granule = PER_GRANULE[size]
    values = np.zeros(-(-count // per_granule) * per_granule, row.dtype)
    deltas = np.zeros(values.size, np.uint8)
    deltas[: place[-1]] = FARTHEST - 1
    values[place[:-1]], deltas[place[:-1]] = row[index], steps[:-1]
    granules = np.zeros((values.size // per_granule, GRANULE), np.uint8)
    raw = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).view(np.uint8)
    granules[:, : per_granule * size] = raw.reshape(len(granules), -1)
    granules[:, per_granule * size : per_granule * (size + 1)] = deltas.reshape(len(granules), -1)
    return Stream(granules, count)


def expand(x: npt.NDArray, scales: npt.NDArray[np.uint8], fmt: MxFormat) -> npt.NDArray[np.uint16]:
    """Return numbers [..., length] with scales [..., ceil(length / 32)] as bits of BF16.

    Parameters
    ----------
    x : ndarray
        Raw numbers: ``int8`` for INT8, else ``uint8``; of E2M1 codes from 0 to 15.
    scales : ndarray
        ``uint8``.
    fmt : str

    Raises
    ------
    ValueError
        If the format has no scales, or shapes do not fit.
    """
    if fmt not in ("e4m3", "e5m2", "int8", "e2m1"):
        raise ValueError(f"fmt must be e4m3, e5m2, int8 or e2m1, not {fmt!r}")
    if scales.shape != (*x.shape[:-1], -(-x.shape[-1] // SCALED)):
        raise ValueError(f"scales must be one for {SCALED} of {x.shape}, not {scales.shape}")
    if fmt == "e2m1":
        number = np.copysign(E2M1[x & 7], np.where(x & 8, -1.0, 1.0))
    else:
        number = to_float(x, fmt) * (2.0**-6 if fmt == "int8" else 1)
    power = np.repeat(scales.astype(np.int32), SCALED, axis=-1)[..., : x.shape[-1]]
    product = np.where(power == SCALE_NAN, np.nan, np.ldexp(number, power - 127))
    # FP32 holds all of them exactly that BF16 does not take for infinities.
    with np.errstate(over="ignore"):
        return round_fp32(fp32_to_bits(product.astype(np.float32)), "bf16").astype(np.uint16)
