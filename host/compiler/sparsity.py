"""How rows of numbers become stream granules, in every `isa.Encoding`.

Rows are cut into slices of K; a stream is one row in one slice. Streams are numbered slice by
slice: ``s * rows + row``.
"""

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, ENTRIES, Encoding, Format

__all__ = ["PATTERNS", "count_entries", "encode_streams", "fits_pattern", "slice_lengths"]

PATTERNS: dict[Encoding, tuple[int, int]] = {
    Encoding.SPARSE_2_4: (2, 4),
    Encoding.SPARSE_1_4: (1, 4),
    Encoding.SPARSE_1_8: (1, 8),
}
"""N and M: so many values that may differ from zero, of so many."""

_MAX_DELTA = 255


def slice_lengths(k: int, size: int) -> list[int]:
    """Return the lengths of the slices of K: ``size``, but the last may be shorter."""
    return [min(size, k - start) for start in range(0, k, size)]


def nonzero(bits: npt.NDArray, fmt: Format) -> npt.NDArray[np.bool_]:
    """Return where numbers, given as bits, are not zero. A negative zero is one, too."""
    if fmt in (Format.INT8, Format.INT4):
        return bits != 0
    return (bits << 1).astype(bits.dtype) != 0


def fits_pattern(filled: npt.NDArray[np.bool_], size: int, encoding: Encoding) -> bool:
    """Return whether no group of M has more than N numbers that are not zero.

    Parameters
    ----------
    filled : bool array [rows, K]
        Where numbers are not zero.
    size : int
        Length of a slice: groups start anew with each.
    """
    most, group = PATTERNS[encoding]
    return all(int(_groups(part, group).sum(2).max()) <= most for part in _slices(filled, size))


def count_entries(
    filled: npt.NDArray[np.bool_], size: int, encoding: Encoding
) -> npt.NDArray[np.int64]:
    """Return the entries [slices, rows] of each stream, escapes included."""
    rows, k = filled.shape
    if encoding is Encoding.DELTA:
        return np.stack([_delta_counts(part) for part in _slices(filled, size)])
    counts = slice_lengths(k, size)
    if encoding is not Encoding.DENSE:
        most, group = PATTERNS[encoding]
        counts = [n // group * most + min(most, n % group) for n in counts]
    return np.repeat(np.array(counts, np.int64)[:, None], rows, axis=1)


def encode_streams(
    bits: npt.NDArray, fmt: Format, size: int, encoding: Encoding
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return all streams as granules [total, 16], and the entries [slices, rows] of each.

    Parameters
    ----------
    bits : unsigned array [rows, K]
        Numbers as their bits (`formats.raw_bits`).
    size : int
        Length of a slice.

    Raises
    ------
    ValueError
        If the numbers do not have the pattern of the encoding.
    """
    lanes = ENTRIES[encoding][BITS[fmt]]
    filled = nonzero(bits, fmt)
    counts = count_entries(filled, size, encoding)
    if encoding in PATTERNS and not fits_pattern(filled, size, encoding):
        most, group = PATTERNS[encoding]
        raise ValueError(f"weights must have at most {most} of {group} that are not zero")
    granules = []
    for part, part_filled, count in zip(
        _slices(bits, size), _slices(filled, size), counts, strict=True
    ):
        if encoding is Encoding.DELTA:
            values, places = _delta(part, part_filled, count, lanes)
        elif encoding is Encoding.DENSE:
            values, places = _in_granules(part, lanes), None
        else:
            chosen, at = _pattern(part, part_filled, encoding)
            keep = int(count[0])
            values = _in_granules(chosen[:, :keep], lanes)
            places = _in_granules(at[:, :keep], lanes)
        granules.append(_pack(values, places, BITS[fmt], encoding))
    return np.concatenate(granules), counts


def _slices(array: npt.NDArray, size: int) -> list[npt.NDArray]:
    return [array[:, start : start + size] for start in range(0, array.shape[1], size)]


def _in_granules(entries: npt.NDArray, lanes: int) -> npt.NDArray:
    """Return rows of entries [rows, n] as granules [rows * granules, lanes]."""
    rows, count = entries.shape
    padded = np.zeros((rows, -(-count // lanes) * lanes), entries.dtype)
    padded[:, :count] = entries
    return padded.reshape(-1, lanes)


def _pack(
    values: npt.NDArray, places: npt.NDArray | None, bits: int, encoding: Encoding
) -> npt.NDArray[np.uint8]:
    image = np.zeros((len(values), GRANULE), np.uint8)
    if bits == 4:
        raw = values[:, ::2] | values[:, 1::2] << 4
    else:
        raw = np.ascontiguousarray(values).view(np.uint8)
    width = raw.shape[1]
    image[:, :width] = raw
    if places is not None and encoding is Encoding.DELTA:
        image[:, width : width + places.shape[1]] = places
    elif places is not None:
        digits = 3 if encoding is Encoding.SPARSE_1_8 else 2
        spread = places[:, :, None] >> np.arange(digits, dtype=np.uint8) & 1
        packed = np.packbits(spread.reshape(len(places), -1), axis=1, bitorder="little")
        image[:, width : width + packed.shape[1]] = packed
    return image


def _groups(array: npt.NDArray, group: int) -> npt.NDArray:
    """Return rows [rows, n] as [rows, groups, group], with zeros behind them."""
    rows, count = array.shape
    padded = np.zeros((rows, -(-count // group) * group), array.dtype)
    padded[:, :count] = array
    return padded.reshape(rows, -1, group)


def _pattern(
    bits: npt.NDArray, filled: npt.NDArray[np.bool_], encoding: Encoding
) -> tuple[npt.NDArray, npt.NDArray[np.uint8]]:
    """Values and places [rows, groups * N] of an N of M pattern; the last ones may be too many."""
    most, group = PATTERNS[encoding]
    rows, count = bits.shape
    values, used = _groups(bits, group), _groups(filled, group)
    # Numbers that are not zero first, then the lowest places; those behind the row's end last.
    rank = np.where(used, 0, group) + np.arange(group)
    rank[:, count // group :, count % group :] += 2 * group * bool(count % group)
    places = np.sort(np.argsort(rank, axis=2)[:, :, :most], axis=2)
    chosen = np.take_along_axis(np.where(used, values, 0), places, axis=2)
    return (
        chosen.astype(bits.dtype).reshape(rows, -1),
        places.astype(np.uint8).reshape(rows, -1),
    )


def _gaps(
    filled: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row, column, and zeros skipped before it, of every number that is not zero."""
    row, column = np.nonzero(filled)
    before = np.empty_like(column)
    if len(column):
        before[0] = -1
        before[1:] = np.where(row[1:] == row[:-1], column[:-1], -1)
    return row, column, column - before - 1


def _delta_counts(filled: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    row, _, gap = _gaps(filled)
    entries = np.bincount(row, weights=1 + gap // (_MAX_DELTA + 1), minlength=len(filled))
    return np.maximum(entries.astype(np.int64), 1)


def _delta(
    bits: npt.NDArray,
    filled: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.int64],
    lanes: int,
) -> tuple[npt.NDArray, npt.NDArray[np.uint8]]:
    """Values and deltas [granules, lanes] of one slice."""
    row, column, gap = _gaps(filled)
    # Entry number of each value within its stream: behind its escapes. A row without any value has
    # one entry of value 0 and delta 0, which nothing is written to.
    escapes = gap // (_MAX_DELTA + 1)
    spent = np.cumsum(escapes + 1)
    row_first = np.searchsorted(row, np.arange(len(counts)))
    entry = spent - 1 - np.concatenate(([0], spent))[row_first][row]

    granules = -(-counts // lanes)
    first = (np.cumsum(granules) - granules) * lanes
    total = int(granules.sum()) * lanes
    values = np.zeros(total, bits.dtype)
    deltas = np.zeros(total, np.uint8)
    entry_row = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(int(counts.sum())) - (np.cumsum(counts) - counts)[entry_row]
    has_values = np.zeros(len(counts), np.bool_)
    has_values[row] = True
    deltas[(first[entry_row] + within)[has_values[entry_row]]] = _MAX_DELTA
    place = first[row] + entry
    values[place] = bits[row, column]
    deltas[place] = gap % (_MAX_DELTA + 1)
    return values.reshape(-1, lanes), deltas.reshape(-1, lanes)
