"""Streams as bytes: packed from values and places, and read back as rows of a matrix."""

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, ENTRIES, Encoding, Format, Status
from .checks import Fault
from .work import Bytes

__all__ = ["DTYPES", "GROUPS", "entries_of", "pack_entries", "read_streams", "unpack_numbers"]

DTYPES: dict[Format, type[np.generic]] = {
    Format.INT4: np.int8,
    Format.INT8: np.int8,
    Format.FP16: np.uint16,
    Format.BF16: np.uint16,
    Format.E4M3: np.uint8,
    Format.E5M2: np.uint8,
}
"""Type of an array of raw numbers of each format of inputs, as the golden models take them."""

GROUPS: dict[Encoding, tuple[int, int, int]] = {
    Encoding.SPARSE_2_4: (2, 4, 2),
    Encoding.SPARSE_1_4: (1, 4, 2),
    Encoding.SPARSE_1_8: (1, 8, 3),
}
"""N, M and the bits of a place, of the encodings N of M."""

FARTHEST = 256
"""How far the index goes up at most, with one entry of `Encoding.DELTA`."""


def unpack_numbers(raw: Bytes, fmt: Format) -> npt.NDArray:
    """Return the numbers that the last axis of ``raw`` holds."""
    if BITS[fmt] == 4:
        low, high = raw << 4, raw & 0xF0
        pair = np.stack([low, high], axis=-1).view(np.int8) >> 4
        return pair.reshape(*raw.shape[:-1], 2 * raw.shape[-1])
    return np.ascontiguousarray(raw).view(np.dtype(DTYPES[fmt]).newbyteorder("<"))


def entries_of(
    weights: npt.NDArray, keep: npt.NDArray[np.bool_], encoding: Encoding
) -> tuple[npt.NDArray, npt.NDArray[np.int64]]:
    """Return the values of a stream, and its deltas or places.

    Parameters
    ----------
    weights : ndarray
        Raw numbers of one row in one slice.
    keep : ndarray
        Which of them the stream names; without effect on dense streams.
    encoding : Encoding

    Raises
    ------
    ValueError
        If a group of N of M has more than N numbers to keep.
    """
    if encoding is Encoding.DENSE:
        return weights, np.zeros(len(weights), np.int64)
    index = np.flatnonzero(keep)
    if encoding is Encoding.DELTA:
        gaps = np.diff(index, prepend=-1) - 1
        escapes = gaps // FARTHEST
        own = np.arange(len(index)) + np.cumsum(escapes)
        count = len(index) + int(escapes.sum())
        values, deltas = np.zeros(count, weights.dtype), np.full(count, FARTHEST - 1)
        values[own], deltas[own] = weights[index], gaps % FARTHEST
        return values, deltas
    most, size, _ = GROUPS[encoding]
    # In each group those that are kept come first, then others, then what is beyond the slice.
    rank = np.full((-(-len(weights) // size), size), 2)
    rank.reshape(-1)[: len(weights)] = np.where(keep, 0, 1)
    if np.any(np.sum(rank == 0, axis=1) > most):
        raise ValueError(f"weights must have at most {most} of {size} that are kept")
    places = np.sort(np.argsort(rank, axis=1, kind="stable")[:, :most], axis=1)
    index = (places + size * np.arange(len(rank))[:, np.newaxis]).reshape(-1)
    index = index[index < len(weights)]
    return np.where(keep[index], weights[index], weights.dtype.type(0)), index % size


def pack_entries(
    values: npt.NDArray,
    places: npt.NDArray[np.int64],
    fmt: Format,
    encoding: Encoding,
    rng: np.random.Generator | None = None,
) -> Bytes:
    """Return a stream's granules as bytes; bits that do not matter are zero, or from ``rng``."""
    bits, count = BITS[fmt], len(values)
    per_granule = ENTRIES[encoding][bits]
    shape = (-(-count // per_granule), 8 * GRANULE)
    stream = np.zeros(shape, np.uint8) if rng is None else rng.integers(0, 2, shape, np.uint8)
    granule, place = np.divmod(np.arange(count), per_granule)
    fields = [(values, bits, 0)]
    if encoding is not Encoding.DENSE:
        width = 8 if encoding is Encoding.DELTA else GROUPS[encoding][2]
        fields.append((places, width, -(-per_granule * bits // 8) * 8))
    for numbers, width, start in fields:
        steps = np.arange(width)
        at = start + place[:, np.newaxis] * width + steps
        stream[granule[:, np.newaxis], at] = numbers.astype(np.int64)[:, np.newaxis] >> steps & 1
    return np.packbits(stream, axis=1, bitorder="little").reshape(-1)


def read_streams(
    scratchpad: Bytes,
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    length: int,
    fmt: Format,
    encoding: Encoding,
) -> npt.NDArray:
    """Return streams as the rows of a matrix [streams, length].

    Parameters
    ----------
    starts : ndarray
        Byte addresses.
    counts : ndarray
        Entries of each; none is a row of zeros.
    length : int
        Of the slice.

    Raises
    ------
    Fault
        BAD_INDEX, if a dense count or an index does not fit. All granules are in the scratchpad.
    """
    weights = np.zeros((len(starts), length), DTYPES[fmt])
    if encoding is Encoding.DENSE and np.any((counts != length) & (counts != 0)):
        raise Fault(Status.BAD_INDEX)
    per_granule = ENTRIES[encoding][BITS[fmt]]
    granules = -(-counts // per_granule)
    # Every granule of every stream: its owner, and which one of the owner's it is.
    owner = np.repeat(np.arange(len(starts)), granules)
    first = np.cumsum(granules) - granules
    within = np.arange(len(owner)) - first[owner]
    raw = scratchpad.reshape(-1, GRANULE)[starts[owner] // GRANULE + within]
    size = -(-per_granule * BITS[fmt] // 8)
    values = unpack_numbers(raw[:, :size], fmt)[:, :per_granule]
    entry = within[:, np.newaxis] * per_granule + np.arange(per_granule)
    valid = entry < counts[owner, np.newaxis]
    if encoding is Encoding.DENSE:
        index = entry
    elif encoding is Encoding.DELTA:
        deltas = raw[:, size : size + per_granule].astype(np.int64)
        # One running sum over all streams; what it was before each stream is taken off again.
        steps = np.cumsum(np.where(valid, deltas + 1, 0)).reshape(valid.shape)
        before = np.concatenate([[0], steps[:, -1]])[first]
        index = steps - before[owner, np.newaxis] - 1
    else:
        most, group, width = GROUPS[encoding]
        bits = np.unpackbits(raw[:, size:], axis=1, bitorder="little")[:, : per_granule * width]
        places = bits.reshape(-1, per_granule, width) @ (1 << np.arange(width))
        index = group * (entry // most) + places
    owners = np.broadcast_to(owner[:, np.newaxis], valid.shape)[valid]
    index = index[valid]
    # The indices of a stream ascend, those of deltas by themselves.
    ascends = (np.diff(index) > 0) | (np.diff(owners) != 0)
    if np.any(index >= length) or not np.all(ascends):
        raise Fault(Status.BAD_INDEX)
    weights[owners, index] = values[valid]
    return weights
