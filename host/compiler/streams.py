"""Stream blobs: the rows of a matrix in the form that the row engines eat.

A blob is a directory (an entry for each row in each slice of K) followed by the streams, each from
a granule boundary on (`isa.DirectoryEntry`). The card deals the rows to its engines in turn and
runs on from one column block to the next; the order in which the directory names them is chosen
here, so that all engines end at about the same time.
"""

import dataclasses
import heapq
import math

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, MAX_K, CardConfig
from ...rtl.isa import BITS, ENTRIES, LANES, DirectoryEntry, Encoding, Format, Mode, array_mode
from .formats import format_of, raw_bits
from .packing import Packer
from .sparsity import (
    PATTERNS,
    count_entries,
    encode_streams,
    fits_pattern,
    nonzero,
    slice_lengths,
)

__all__ = [
    "DIRECTORY_ENTRY_BYTES",
    "DIRECTORY_TYPE",
    "MAX_BLOB_BYTES",
    "Blob",
    "Dealing",
    "best_encoding",
    "deal",
    "encode_blob",
    "min_visit",
    "stream_granules",
]

_ENTRY = Packer(DirectoryEntry)
DIRECTORY_ENTRY_BYTES = _ENTRY.size // 8
MAX_BLOB_BYTES = GRANULE << 16
"""Reach of a directory entry's 16-bit stream address."""

_LATE = 0.15
"""Cycles that each granule of a compressed stream costs: they come often, and sometimes late."""

DIRECTORY_TYPE = np.dtype(
    {
        "names": list(_ENTRY.fields),
        "formats": [f"<u{field.width // 8}" for field in _ENTRY.fields.values()],
        "offsets": [field.offset // 8 for field in _ENTRY.fields.values()],
        "itemsize": DIRECTORY_ENTRY_BYTES,
    }
)


@dataclasses.dataclass(frozen=True)
class Blob:
    """A stream blob for one card configuration.

    Parameters
    ----------
    data : uint8 array
        What is copied to the scratchpad; whole granules.
    entries : int
        Directory entries of each slice, for `commands.matmul`.
    counts : int64 array of shape [slices, rows of the matrix]
        Entries of each stream.
    engine_cycles : int64 array of shape [engines]
        Cycles in which each engine is busy over all column blocks, the drain's limit included.
    format : Format
        Of the stream's values.
    encoding : Encoding
    slice : int
        Numbers in a slice of K.
    """

    data: npt.NDArray[np.uint8]
    entries: int
    counts: npt.NDArray[np.int64]
    engine_cycles: npt.NDArray[np.int64]
    format: Format
    encoding: Encoding
    slice: int


@dataclasses.dataclass(frozen=True)
class Dealing:
    """An order of rows in the directory.

    Parameters
    ----------
    order : int64 array [entries]
        The row of each entry of a slice; -1 where the entry is empty.
    engine_cycles : int64 array [engines]
        Busy cycles of each engine over all column blocks.
    """

    order: npt.NDArray[np.int64]
    engine_cycles: npt.NDArray[np.int64]


def min_visit(config: CardConfig, mode: Mode) -> int:
    """Return the cycles that a visit takes at least, in the long run."""
    return config.min_visit * (2 if mode is Mode.INT4 else 1)


def stream_granules(counts: npt.NDArray[np.int64], fmt: Format, encoding: Encoding) -> npt.NDArray:
    """Return the granules that streams of so many entries take."""
    return -(-counts // ENTRIES[encoding][BITS[fmt]])


def deal(
    cost: npt.NDArray[np.int64], engines: int, *, blocks: int = 1, entries: int = 0
) -> Dealing:
    """Order rows so that the busiest engine has the least work over all column blocks.

    Rows of equal cost stay in order. Else there are two candidates: rows by cost without padding,
    where the dealing that runs on from block to block evens the engines out; and rows assigned
    longest first, each to the engine with the least work so far, with empty entries that make
    every block the same.

    Parameters
    ----------
    cost : int64 array [rows]
        Cycles of each row in one column block.
    engines, blocks : int
        Row engines, and column blocks.
    entries : int
        Directory entries at least; the rest is empty.
    """
    rows = len(cost)
    length = max(rows, entries)
    straight = np.full(length, -1, np.int64)
    straight[:rows] = np.arange(rows)
    if np.all(cost == cost[0]):
        return _dealt(cost, straight, engines, blocks)
    straight[:rows] = np.argsort(-cost, kind="stable")
    candidates = [_dealt(cost, straight, engines, blocks)]

    hands: list[list[int]] = [[] for _ in range(engines)]
    # Among engines with equal work, the one with fewer rows keeps the directory short.
    heap = [(0, 0, engine) for engine in range(engines)]
    for row in straight[:rows]:
        load, count, engine = heap[0]
        hands[engine].append(int(row))
        heapq.heapreplace(heap, (load + int(cost[row]), count + 1, engine))
    visits = max(max(map(len, hands)), -(-entries // engines))
    if entries in (0, visits * engines):
        padded = np.full((visits, engines), -1, np.int64)
        for engine, hand in enumerate(hands):
            padded[: len(hand), engine] = hand
        candidates.append(_dealt(cost, padded.reshape(-1), engines, blocks))
    return min(candidates, key=lambda dealing: int(dealing.engine_cycles.max()))


def _dealt(
    cost: npt.NDArray[np.int64], order: npt.NDArray[np.int64], engines: int, blocks: int
) -> Dealing:
    entries = len(order)
    work = np.where(order < 0, 0, cost[order])
    of_block = np.zeros(engines, np.int64)
    np.add.at(of_block, np.arange(entries) % engines, work)
    # Engine of row 0 by block: it repeats after `period` blocks.
    period = engines // math.gcd(engines, entries)
    total = np.zeros(engines, np.int64)
    for block in range(min(period, blocks)):
        times = -(-(blocks - block) // period)
        total += times * np.roll(of_block, block * entries % engines)
    return Dealing(order, total)


def row_cost(config: CardConfig, mode: Mode, counts: npt.NDArray[np.int64]) -> npt.NDArray:
    """Return the cycles of each row in one column block from its entries [slices, rows]."""
    return np.maximum(counts, min_visit(config, mode)).sum(0)


def best_encoding(
    config: CardConfig,
    weights: npt.NDArray,
    *,
    format: Format | None = None,
    resident: Format | None = None,
    slice: int | None = None,
    n: int = 1 << 16,
    bytes_per_cycle: float | None = None,
) -> Encoding:
    """Choose how to send a matrix: the encoding that takes the fewest cycles.

    What limits the card is the busiest engine, the operands' way into the array, or memory. A
    compressed encoding is taken only where it saves some percent of the dense one's cycles.

    Parameters
    ----------
    weights : array [rows, K]
        Of an input format.
    format, resident : Format
        Of the weights, and of the other operand; the weights' own if not given.
    slice : int
        Numbers in a slice of K; `CardConfig.operand_depth` if not given.
    n : int
        Columns of the other operand that pass by the weights while they are in the scratchpad.
    bytes_per_cycle : float
        Speed of card memory; the bus's width if not given.
    """
    fmt = format_of("weights", weights, format)
    mode = _mode(fmt, resident or fmt)
    size = min(slice or config.operand_depth, weights.shape[1])
    filled = nonzero(raw_bits(weights, fmt), fmt)
    blocks = -(-n // (config.cols * LANES[mode]))
    speed = bytes_per_cycle or float(config.bus_bytes)
    best, lowest = Encoding.DENSE, math.inf
    for encoding in Encoding:
        if encoding in PATTERNS and not fits_pattern(filled, size, encoding):
            continue
        counts = count_entries(filled, size, encoding)
        busy = deal(row_cost(config, mode, counts), config.rows, blocks=blocks).engine_cycles.max()
        traffic = int(stream_granules(counts, fmt, encoding).sum()) * GRANULE / speed
        # A block is never done before its operands are filled.
        cycles = max(float(busy), blocks * weights.shape[1], traffic)
        if encoding is not Encoding.DENSE:
            cycles *= 1 + _LATE / ENTRIES[encoding][BITS[fmt]]
        if cycles < lowest:
            best, lowest = encoding, cycles
    return best


def encode_blob(
    config: CardConfig,
    weights: npt.NDArray,
    *,
    out_offset: npt.ArrayLike,
    format: Format | None = None,
    resident: Format | None = None,
    encoding: Encoding = Encoding.DENSE,
    slice: int | None = None,
    block_scale: bool = False,
    scale: npt.ArrayLike = 1.0,
    bias: npt.ArrayLike = 0,
    blocks: int = 1,
    entries: int = 0,
) -> Blob:
    """Encode the rows of a matrix as streams.

    Parameters
    ----------
    weights : array of shape [rows, K]
        Of an input format (`formats.DTYPES`).
    out_offset : int, a number or [rows]
        Bytes from the output operand to each row's result of column 0.
    format : Format
        INT4 where the weights are int8 from -8 to 7; else that of their type.
    resident : Format
        Of the other operand; the weights' own if not given.
    encoding : Encoding
        DELTA sends only values that are not zero; a row without any sends one zero.
    slice : int
        Numbers in a slice of K: a multiple of 16. All of K if not given.
    block_scale : bool
        Each slice has its own scale (`isa.MatmulFlag.BLOCK_SCALE`).
    scale : float32, a number, [rows], or with ``block_scale`` [rows, slices]
        Factor of each row's results; finite and normal.
    bias : a number or [rows]
        int32, added to the exact sum, if both operands are integers and not ``block_scale``; else
        float32, added after the scale.
    blocks : int
        Column blocks that pass by the streams, to balance the engines.
    entries : int
        Directory entries at least, so that the tiles of one command can agree.

    Returns
    -------
    Blob

    Raises
    ------
    ValueError
        If a value has no place in the format; names the argument.
    """
    weights = np.asarray(weights)
    fmt = format_of("weights", weights, format)
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"weights must have the shape [rows, K], not {weights.shape!r}")
    mode = _mode(fmt, resident or fmt)
    rows, k = weights.shape
    if k > MAX_K:
        raise ValueError(f"K must be at most {MAX_K}, not {k!r}")
    size = k if slice is None else min(slice, k)
    if size < 1 or (size < k and size % GRANULE):
        raise ValueError(f"slice must be a positive multiple of {GRANULE}, not {slice!r}")
    lengths = slice_lengths(k, size)

    streams, counts = encode_streams(raw_bits(weights, fmt), fmt, size, encoding)
    dealing = deal(row_cost(config, mode, counts), config.rows, blocks=blocks, entries=entries)
    entries = len(dealing.order)
    granules = stream_granules(counts, fmt, encoding).reshape(-1)
    directory_granules = len(lengths) * entries * DIRECTORY_ENTRY_BYTES // GRANULE
    total = directory_granules + len(streams)
    if total * GRANULE > MAX_BLOB_BYTES:
        raise ValueError(
            f"a stream blob has at most {MAX_BLOB_BYTES} bytes, not {total * GRANULE!r}; "
            "split the rows"
        )
    # Streams lie in the order in which the engines visit them.
    at = np.flatnonzero(dealing.order >= 0)
    row = dealing.order[at]
    order = (np.arange(len(lengths))[:, None] * rows + row).reshape(-1)
    start = np.cumsum(granules[order]) - granules[order]
    source = (np.cumsum(granules) - granules)[order]
    within = np.arange(len(streams)) - np.repeat(start, granules[order])
    image = np.zeros((total, GRANULE), np.uint8)
    image[directory_granules:] = streams[np.repeat(source, granules[order]) + within]

    directory = image[:directory_granules].reshape(-1).view(DIRECTORY_TYPE)
    scales = _scales(scale, rows, len(lengths), block_scale=block_scale)
    integer = mode in (Mode.INT8, Mode.INT4) and not block_scale
    biases = per_row("bias", bias, np.int32 if integer else np.float32, rows)
    offsets = per_row("out_offset", out_offset, np.uint32, rows)
    filled = np.zeros((len(lengths), len(at)), DIRECTORY_TYPE)
    filled["stream"] = start.reshape(len(lengths), -1) + directory_granules
    filled["count"] = counts[:, row]
    filled["out_offset"] = offsets[row]
    filled["bias"] = biases[row].view(np.uint32)
    filled["scale"] = scales.T[:, row].view(np.uint32)
    directory.reshape(len(lengths), entries)[:, at] = filled
    return Blob(
        data=image.reshape(-1),
        entries=entries,
        counts=counts,
        engine_cycles=dealing.engine_cycles,
        format=fmt,
        encoding=encoding,
        slice=size,
    )


def _mode(stream: Format, resident: Format) -> Mode:
    mode = array_mode(stream, resident)
    if mode is None:
        raise ValueError(f"the card has no path for {stream.name} with {resident.name} inputs")
    return mode


def _scales(
    scale: npt.ArrayLike, rows: int, slices: int, *, block_scale: bool
) -> npt.NDArray[np.float32]:
    """Return the scale [rows, slices] of every directory entry."""
    given = np.asarray(scale)
    if block_scale and given.ndim == 2:
        if given.shape != (rows, slices):
            raise ValueError(
                f"scale must have the shape [{rows}, {slices}] with block scales, "
                f"not {given.shape!r}"
            )
        scales = given.astype(np.float32)
    else:
        scales = np.repeat(per_row("scale", scale, np.float32, rows)[:, None], slices, axis=1)
    if not np.all(np.isfinite(scales) & (np.abs(scales) >= np.finfo(np.float32).tiny)):
        raise ValueError("scale must be finite and normal (not zero, not subnormal) in every row")
    return np.ascontiguousarray(scales)


def per_row(name: str, value: npt.ArrayLike, dtype: npt.DTypeLike, rows: int) -> npt.NDArray:
    """Return a number or [rows] as an array [rows] of a type that holds it."""
    given = np.asarray(value)
    converted = given.astype(dtype)
    if np.issubdtype(np.dtype(dtype), np.integer) and not np.array_equal(converted, given):
        raise ValueError(f"{name} must be {np.dtype(dtype).name} in every row, not {value!r}")
    if given.ndim and given.shape != (rows,):
        raise ValueError(f"{name} must be a number or have the shape [{rows}], not {given.shape!r}")
    return np.ascontiguousarray(np.broadcast_to(converted, (rows,)))
