"""Stream blobs: the rows of a matrix in the form that the row engines eat.

A blob is a directory (an entry for each visit of each engine) followed by one stream a row, each
from a granule boundary on (`isa.DirectoryEntry`). Rows are dealt to the engines here, so that all
engines end at about the same time.
"""

import dataclasses
import heapq

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import DirectoryEntry
from .packing import Packer

__all__ = [
    "DIRECTORY_ENTRY_BYTES",
    "MAX_BLOB_BYTES",
    "Blob",
    "count_entries",
    "deal",
    "encode_blob",
    "stream_bytes",
]

_ENTRY = Packer(DirectoryEntry)
DIRECTORY_ENTRY_BYTES = _ENTRY.size // 8
MAX_BLOB_BYTES = GRANULE << 16
"""Reach of a directory entry's 16-bit stream address."""

_DIRECTORY_TYPE = np.dtype(
    {
        "names": list(_ENTRY.fields),
        "formats": [f"<u{field.width // 8}" for field in _ENTRY.fields.values()],
        "offsets": [field.offset // 8 for field in _ENTRY.fields.values()],
        "itemsize": DIRECTORY_ENTRY_BYTES,
    }
)

_MAX_DELTA = 255
_DENSE_PER_GRANULE = {1: 16, 2: 8}
_SPARSE_PER_GRANULE = {1: 8, 2: 5}
_DELTA_OFFSET = {1: 8, 2: 10}


@dataclasses.dataclass(frozen=True)
class Blob:
    """A stream blob for one card configuration.

    Parameters
    ----------
    data : uint8 array
        What is copied to the scratchpad; whole granules.
    visits : int
        Directory entries of each engine, the longest engine's; for `commands.matmul`.
    counts : int64 array of shape [rows of the matrix]
        Entries of each row's stream.
    engine_cycles : int64 array of shape [engines]
        Cycles in which each engine is busy for one column block, the drain's limit included.
    sparse : bool
    """

    data: npt.NDArray[np.uint8]
    visits: int
    counts: npt.NDArray[np.int64]
    engine_cycles: npt.NDArray[np.int64]
    sparse: bool


def count_entries(weights: npt.NDArray, *, sparse: bool) -> npt.NDArray[np.int64]:
    """Return the entries that each row of ``weights`` takes in its stream, escapes included."""
    if not sparse:
        return np.full(weights.shape[0], weights.shape[1], np.int64)
    row, _, gap = _gaps(weights)
    entries = np.bincount(row, weights=1 + gap // (_MAX_DELTA + 1), minlength=weights.shape[0])
    return np.maximum(entries.astype(np.int64), 1)


def stream_bytes(
    counts: npt.NDArray[np.int64], itemsize: int, *, sparse: bool
) -> npt.NDArray[np.int64]:
    """Return the bytes that each row's stream takes in a blob, from its entries."""
    granules = -(-counts // (_SPARSE_PER_GRANULE if sparse else _DENSE_PER_GRANULE)[itemsize])
    return granules * GRANULE


def deal(
    counts: npt.ArrayLike, engines: int, *, min_visit: int, sparse: bool
) -> list[npt.NDArray[np.int64]]:
    """Deal rows to engines: the rows of each engine, in the order of its visits.

    Dense rows are all equally long and go round; sparse ones go longest first, each to the engine
    with the least work so far.

    Parameters
    ----------
    counts : array of int
        Entries of each row.
    min_visit : int
        Cycles that a visit takes at least (`CardConfig.min_visit`).
    """
    cost = np.maximum(np.asarray(counts, np.int64), min_visit)
    if not sparse:
        return [np.arange(engine, len(cost), engines) for engine in range(engines)]
    hands: list[list[int]] = [[] for _ in range(engines)]
    # Among engines with equal work, the one with fewer rows keeps the directory short.
    heap = [(0, 0, engine) for engine in range(engines)]
    for row in np.argsort(-cost, kind="stable"):
        load, length, engine = heap[0]
        hands[engine].append(int(row))
        heapq.heapreplace(heap, (load + int(cost[row]), length + 1, engine))
    return [np.array(hand, np.int64) for hand in hands]


def encode_blob(
    config: CardConfig,
    weights: npt.NDArray,
    *,
    sparse: bool = False,
    scale: npt.ArrayLike = 1.0,
    bias: npt.ArrayLike = 0,
    out_offset: npt.ArrayLike,
    visits: int = 1,
) -> Blob:
    """Encode the rows of a matrix as streams.

    Parameters
    ----------
    weights : int8 or float16 array of shape [rows, K]
        Row-major; K up to ``config.operand_depth``.
    sparse : bool
        Send only non-zero values, with their index. A row without any sends one zero.
    scale : float32, a number or [rows]
        Factor of each row's results; finite and normal.
    bias : a number or [rows]
        int32 for int8 weights, added to the exact sum; float32 for float16 weights, added after
        the scale.
    out_offset : int, a number or [rows]
        Bytes from the output operand to each row's result of column 0.
    visits : int
        Directory entries of each engine at least, so that the tiles of one command can agree.

    Returns
    -------
    Blob

    Raises
    ------
    ValueError
        If a value has no place in the format; names the argument.
    """
    weights = np.asarray(weights)
    if weights.dtype not in (np.int8, np.float16):
        raise ValueError(f"weights must be int8 or float16, not {weights.dtype.name!r}")
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"weights must have the shape [rows, K], not {weights.shape!r}")
    rows, k = weights.shape
    if k > config.operand_depth:
        raise ValueError(
            f"K must be at most {config.operand_depth} (operand_depth of preset {config.name}), "
            f"not {k!r}"
        )
    counts = count_entries(weights, sparse=sparse)
    hands = deal(counts, config.rows, min_visit=config.min_visit, sparse=sparse)
    visits = max(visits, *(len(hand) for hand in hands))

    size = weights.dtype.itemsize
    granules = stream_bytes(counts, size, sparse=sparse) // GRANULE
    directory_granules = visits * config.rows * DIRECTORY_ENTRY_BYTES // GRANULE
    total = directory_granules + int(granules.sum())
    if total * GRANULE > MAX_BLOB_BYTES:
        raise ValueError(
            f"a stream blob has at most {MAX_BLOB_BYTES} bytes, not {total * GRANULE!r}; "
            "split the rows"
        )
    # Streams lie in the order in which the engines visit them.
    order = np.array([hand[v] for v in range(visits) for hand in hands if v < len(hand)], np.int64)
    start = np.empty(rows, np.int64)
    start[order] = directory_granules + np.cumsum(granules[order]) - granules[order]

    image = np.zeros(total * GRANULE, np.uint8)
    if sparse:
        _put_sparse(image, weights, start, counts)
    else:
        padded = np.zeros((rows, int(granules[0]) * GRANULE // size), weights.dtype)
        padded[:, :k] = weights
        streams = padded.view(np.uint8)
        image[directory_granules * GRANULE :].reshape(rows, -1)[:] = streams[order]

    directory = image[: directory_granules * GRANULE].view(_DIRECTORY_TYPE)
    directory = directory.reshape(visits, config.rows)
    scales = _per_row("scale", scale, np.float32, rows)
    if not np.all(np.isfinite(scales) & (np.abs(scales) >= np.finfo(np.float32).tiny)):
        raise ValueError("scale must be finite and normal (not zero, not subnormal) in every row")
    biases = _per_row("bias", bias, np.int32 if size == 1 else np.float32, rows)
    offsets = _per_row("out_offset", out_offset, np.uint32, rows)
    for engine, hand in enumerate(hands):
        entries = directory[: len(hand), engine]
        entries["stream"] = start[hand]
        entries["count"] = counts[hand]
        entries["out_offset"] = offsets[hand]
        entries["bias"] = biases[hand].view(np.uint32)
        entries["scale"] = scales[hand].view(np.uint32)
    busy = np.array([np.maximum(counts[hand], config.min_visit).sum() for hand in hands], np.int64)
    return Blob(data=image, visits=visits, counts=counts, engine_cycles=busy, sparse=sparse)


def _gaps(
    weights: npt.NDArray,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row, column, and zeros skipped before it, of every non-zero weight."""
    row, column = np.nonzero(weights)
    before = np.empty_like(column)
    if len(column):
        before[0] = -1
        before[1:] = np.where(row[1:] == row[:-1], column[:-1], -1)
    return row, column, column - before - 1


def _put_sparse(
    image: npt.NDArray[np.uint8],
    weights: npt.NDArray,
    start: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    size = weights.dtype.itemsize
    row, column, gap = _gaps(weights)
    # Entry number of each weight over all rows: after its escapes. Rows without a weight have one
    # zero entry (value 0, delta 0) that nothing is written to.
    first = np.cumsum(counts) - counts
    escapes = gap // (_MAX_DELTA + 1)
    weight_first = np.searchsorted(row, np.arange(len(counts)))
    spent = np.cumsum(escapes + 1)
    before_row = np.concatenate(([0], spent))[weight_first]
    place = first[row] + spent - 1 - before_row[row]

    total = int(counts.sum())
    values = np.zeros(total, weights.dtype)
    deltas = np.full(total, _MAX_DELTA, np.uint8)
    deltas[first[~np.isin(np.arange(len(counts)), row)]] = 0
    values[place] = weights[row, column]
    deltas[place] = gap % (_MAX_DELTA + 1)

    per_granule = _SPARSE_PER_GRANULE[size]
    entry_row = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(total) - first[entry_row]
    granule = (start[entry_row] + within // per_granule) * GRANULE
    lane = within % per_granule
    image[granule + _DELTA_OFFSET[size] + lane] = deltas
    for byte, plane in enumerate(values.view(np.uint8).reshape(total, size).T):
        image[granule + lane * size + byte] = plane


def _per_row(name: str, value: npt.ArrayLike, dtype: npt.DTypeLike, rows: int) -> npt.NDArray:
    given = np.asarray(value)
    converted = given.astype(dtype)
    if np.issubdtype(np.dtype(dtype), np.integer) and not np.array_equal(converted, given):
        raise ValueError(f"{name} must be {np.dtype(dtype).name} in every row, not {value!r}")
    if given.ndim and given.shape != (rows,):
        raise ValueError(f"{name} must be a number or have the shape [{rows}], not {given.shape!r}")
    return np.ascontiguousarray(np.broadcast_to(converted, (rows,)))
