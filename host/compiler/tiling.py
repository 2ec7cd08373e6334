"""Tiles of a GEMM: which ones fit the scratchpad, and how many cycles they should take.

The stream operand has *rows*, the resident one *columns*. Rows are cut into tiles, columns into
parts; an iteration multiplies a tile by a part. One of the two stays in the scratchpad while the
other passes by: the inner loop runs over the items that *stay*, the outer one over those that
*move*. Where not all items fit, those that stay are worked through panel by panel.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, LANES, Encoding, Format, Mode
from .streams import DIRECTORY_ENTRY_BYTES, MAX_BLOB_BYTES

__all__ = [
    "SPARSE_SLICE",
    "MemorySpeed",
    "Problem",
    "Tiling",
    "align",
    "buffer_bytes",
    "candidates",
    "entries_of",
    "fit",
    "tile_sizes",
]

CREDITS = 240
"""A semaphore holds 255 credits; plans stay below."""

LOOP_LIMIT = 0xFFFF

SPARSE_SLICE = 512
"""Longest slice of compressed streams: the next one is filled while this one is used."""

LONG_COLUMN = 512
"""Bytes from which on a column is whole granules by itself."""

LONG_TILE = 1 << 14
"""Numbers of a tile with one row for each engine, from which on it may be too large."""


def align(value: int, unit: int) -> int:
    """Round ``value`` up to a multiple of ``unit``."""
    return -(-value // unit) * unit


@dataclasses.dataclass(frozen=True)
class MemorySpeed:
    """What card memory moves, as far as the choice of tiles needs it.

    Parameters
    ----------
    bytes_per_cycle : float
        Reads and writes together.
    burst_bytes : int
        A row of a transfer that is shorter takes as long as one of so many bytes.
    turn_cycles : float
        What each row of a store takes from loads beside it, in addition to its own time.
    """

    bytes_per_cycle: float
    burst_bytes: int = GRANULE
    turn_cycles: float = 0.0

    def cycles(self, rows: int, row_bytes: int) -> float:
        """Return what a transfer of ``rows`` rows takes."""
        return rows * max(row_bytes, self.burst_bytes) / self.bytes_per_cycle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A GEMM with its operands in their roles.

    Parameters
    ----------
    stream : str
        "a": rows of A are the streams, and columns of B the resident columns. "b": columns of B
        are the streams, and rows of A the resident columns.
    rows, columns, k : int
        Of the stream operand, of the resident one, and their common length.
    mode : Mode
    slice : int
        Numbers in a slice of K.
    row_cycles : int64 array [rows]
        Cycles of each row in a column block.
    row_granules : int64 array [rows]
        Granules of each row's streams.
    max_rows : int
        Rows of a tile at most, for the sake of partial sums.
    memory : MemorySpeed
    """

    config: CardConfig
    stream: str
    rows: int
    columns: int
    k: int
    mode: Mode
    stream_format: Format
    resident_format: Format
    out_format: Format
    encoding: Encoding
    slice: int
    row_cycles: npt.NDArray[np.int64]
    row_granules: npt.NDArray[np.int64]
    max_rows: int
    memory: MemorySpeed

    @property
    def block(self) -> int:
        """Columns of a block."""
        return self.config.cols * LANES[self.mode]

    @property
    def slices(self) -> int:
        return -(-self.k // self.slice)

    @property
    def column_bytes(self) -> int:
        """Bytes from one resident column to the next: blocks of columns are whole granules.

        Long columns are whole granules themselves, which costs little."""
        size = max(1, BITS[self.resident_format] // 8)
        unit = max(size, GRANULE // math.gcd(GRANULE, self.block))
        length = -(-self.k * BITS[self.resident_format] // 8)
        return align(length, unit if length < LONG_COLUMN else GRANULE)

    @property
    def row_unit(self) -> int:
        """Rows of a tile come in multiples of this, if there are several tiles."""
        if self.stream == "a":
            return self.config.rows
        return math.lcm(self.config.rows, 8 * GRANULE // BITS[self.out_format])

    @property
    def column_unit(self) -> int:
        """Columns of a part come in multiples of this."""
        if self.stream == "b":
            return self.block
        return math.lcm(self.block, 8 * GRANULE // BITS[self.out_format])

    def blob_bytes(self, rows: int, entries: int) -> int:
        """Bytes of a blob of the largest ``rows`` rows in a row, at most."""
        total = np.concatenate(([0], np.cumsum(self.row_granules)))
        streams = int((total[rows:] - total[: -rows or None]).max()) if rows else 0
        return self.slices * entries * DIRECTORY_ENTRY_BYTES + streams * GRANULE

    def out_bytes(self, count: int) -> int:
        """Bytes of ``count`` results side by side, in whole granules."""
        return align(-(-count * BITS[self.out_format] // 8), GRANULE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes and loops.

    Parameters
    ----------
    tile, first : int
        Rows of a tile, and of the first one.
    part : int
        Columns of a part.
    tiles, parts : int
    stay : str
        "columns": parts stay, tiles move. "rows": tiles stay, parts move.
    panels : int
        Panels of the items that stay; all have equally many.
    kept : int
        Scratchpad buffers of what stays: one for each item of a panel. If there is only one pass,
        1 or 2 will do.
    moving : int
        Scratchpad buffers of what moves: 1, 2, or one for each item.
    results : int
        Scratchpad buffers of results: 1, 2, or one for each iteration.
    gather : bool
        All results are gathered in one buffer and stored at the end; then parts need not be whole
        granules of results. Only with one tile, which moves.
    cycles : int
        Estimate of the whole job.
    """

    tile: int
    first: int
    part: int
    tiles: int
    parts: int
    stay: str
    panels: int
    kept: int = 1
    moving: int = 1
    results: int = 1
    gather: bool = False
    cycles: int = 0

    @property
    def inner(self) -> int:
        """Items of a panel."""
        return (self.parts if self.stay == "columns" else self.tiles) // self.panels

    @property
    def passes(self) -> int:
        """Outer iterations over all panels."""
        return self.panels * self.movers

    @property
    def movers(self) -> int:
        """Items that move past each panel."""
        return self.tiles if self.stay == "columns" else self.parts


def tile_sizes(rows: int, tile: int, first: int, tiles: int) -> list[int]:
    """Return the rows of each tile: the first one, full ones, and what is left."""
    sizes = [min(first, rows)]
    while len(sizes) < tiles:
        sizes.append(min(tile, rows - sum(sizes)))
    return sizes


def candidates(problem: Problem) -> Iterator[Tiling]:
    """Yield the tilings that fit the scratchpad and may be worth their while."""
    yield from _whole_blocks(problem)
    yield from _gathered(problem)


def entries_of(problem: Problem, tiling: Tiling) -> int:
    """Return the directory entries of a slice that a tile should need."""
    if problem.encoding is Encoding.DENSE:
        return tiling.tile
    return align(tiling.tile, problem.config.rows) + problem.config.rows


def buffer_bytes(problem: Problem, tiling: Tiling, blob: int | None = None) -> tuple[int, int, int]:
    """Return the bytes of the buffers of a tile, a part and a result."""
    if blob is None:
        blob = problem.blob_bytes(min(tiling.tile, problem.rows), entries_of(problem, tiling))
    if tiling.stay == "columns" and tiling.passes > 1:
        blob = tiling.inner * align(-(-blob // tiling.inner), GRANULE)
    part = tiling.part * problem.column_bytes
    if tiling.stay == "rows" and tiling.passes > 1:
        part = tiling.inner * align(-(-part // tiling.inner), GRANULE)
    part = align(part, GRANULE)
    if problem.stream == "a":
        columns = tiling.part * (tiling.parts if tiling.gather else 1)
        result = tiling.tile * problem.out_bytes(columns)
    else:
        result = (
            tiling.part * problem.out_bytes(tiling.tile) * (tiling.parts if tiling.gather else 1)
        )
    return blob, part, result


def fit(problem: Problem, tiling: Tiling, blob: int | None = None) -> Tiling | None:
    """Return a tiling with as many buffers as the scratchpad holds, or None if it does not fit."""
    blob, part, result = buffer_bytes(problem, tiling, blob)
    if blob > MAX_BLOB_BYTES:
        return None
    staying, moving = (part, blob) if tiling.stay == "columns" else (blob, part)
    iterations = 1 if tiling.gather else tiling.passes * tiling.inner
    if max(tiling.inner, tiling.passes) > LOOP_LIMIT:
        return None
    # Credits that may be given before any is taken.
    if tiling.passes > 1 and 3 * tiling.inner > CREDITS:
        return None
    bounded = iterations <= CREDITS
    keep = [tiling.inner]
    if tiling.passes == 1:
        keep = ([tiling.inner] if tiling.inner <= CREDITS else []) + [min(2, tiling.inner), 1]
    move = [min(2, tiling.movers), 1]
    give = [min(2, iterations), 1]
    if tiling.panels == 1 and bounded:
        move.insert(0, tiling.movers)
    if bounded:
        give.insert(0, iterations)
    # As many as possible; but a single one of several, which halts the array, only at last.
    wanted = (tiling.inner, tiling.movers, iterations)
    choices = sorted(
        itertools.product(keep, move, give),
        key=lambda have: any(h == 1 < w for h, w in zip(have, wanted, strict=True)),
    )
    for kept, movers, results in choices:
        used = kept * staying + movers * moving + results * result
        if used <= problem.config.scratchpad_bytes:
            return dataclasses.replace(tiling, kept=kept, moving=movers, results=results)
    return None


def _whole_blocks(problem: Problem) -> Iterator[Tiling]:
    blocks = -(-problem.columns // problem.column_unit)
    for tile, first, tiles in _tiles(problem):
        for part_blocks in _steps(blocks):
            part = min(part_blocks * problem.column_unit, problem.columns)
            parts = -(-problem.columns // part)
            for stay in ("columns", "rows"):
                items = parts if stay == "columns" else tiles
                # One tile may as well move; and tiles that stay are of one size.
                if stay == "rows" and (tiles == 1 or first != tile):
                    continue
                for panels in _steps(items):
                    if items % panels:
                        continue
                    tiling = Tiling(
                        tile=tile,
                        first=first,
                        part=part,
                        tiles=tiles,
                        parts=parts,
                        stay=stay,
                        panels=panels,
                    )
                    if panels > 1 and tiling.movers < 2:
                        continue
                    fitted = fit(problem, tiling)
                    if fitted is not None:
                        yield fitted


def _gathered(problem: Problem) -> Iterator[Tiling]:
    """Yield tilings whose parts are smaller than a block, for long columns and one tile of rows."""
    rows = problem.rows
    if rows > min(problem.max_rows, problem.config.rows):
        return
    for part in range(1, min(problem.block, problem.columns) + 1):
        if part * problem.column_bytes % GRANULE:
            continue
        if problem.stream == "a" and part * BITS[problem.out_format] % 8:
            continue
        tiling = Tiling(
            tile=rows,
            first=rows,
            part=part,
            tiles=1,
            parts=-(-problem.columns // part),
            stay="columns",
            panels=1,
            gather=True,
        )
        fitted = fit(problem, tiling)
        if fitted is not None:
            yield fitted


def _tiles(problem: Problem) -> Iterator[tuple[int, int, int]]:
    """Yield sizes of a tile and of the first tile, and the number of tiles."""
    limit = min(problem.max_rows, LOOP_LIMIT)
    seen = set()
    if problem.rows <= limit:
        seen.add((problem.rows, problem.rows))
    units = -(-problem.rows // problem.row_unit)
    for count in _steps(units):
        for tile in (count * problem.row_unit, align(-(-problem.rows // count), problem.row_unit)):
            if tile > limit or tile >= align(problem.rows, problem.row_unit):
                continue
            for first in (tile, problem.row_unit, 2 * problem.row_unit):
                if first <= tile:
                    seen.add((tile, first))
    if problem.stream == "a" and problem.k * problem.config.rows > LONG_TILE:
        # Long rows: where not one for each engine fits, some engines stay idle.
        seen |= {(rows, rows) for rows in _steps(min(problem.config.rows, problem.rows) - 1)}
    for tile, first in sorted(seen):
        yield tile, first, 1 + -(-max(0, problem.rows - first) // tile)


def _steps(total: int) -> Sequence[int]:
    """Numbers from 1 to ``total``, close together at first."""
    steps = {total}
    for power in range(total.bit_length()):
        steps |= {1 << power, 3 << power >> 1}
    return sorted(step for step in steps if 1 <= step <= total)
