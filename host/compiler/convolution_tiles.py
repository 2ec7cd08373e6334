"""Tiles of a convolution: which ones fit the scratchpad, and how many cycles they should take.

Output rows are cut into tiles, and so are the filters of each group. An iteration multiplies the
weights of a tile of filters by the windows of a tile of rows. The rows' loop is the outer one: each
tile of rows is loaded once, with the rows that its windows share with the next tile's. The weights
of all filters either stay in the scratchpad, or are loaded anew for each tile of rows.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import LANES, Encoding, Mode
from .convolution_shape import ConvLayout
from .convolution_streams import Streams
from .streams import DIRECTORY_ENTRY_BYTES, MAX_BLOB_BYTES
from .tiling import CREDITS, LOOP_LIMIT, MemorySpeed, align

__all__ = ["ConvProblem", "ConvTiling", "tilings"]

MOST_COMMANDS = 1000
"""Commands of a plan."""

# Measured on the RTL for GEMMs (`estimate`).
START, ISSUE, END = 21, 30, 22
DRAIN, DRAIN_SIZE = 50, 1.6
STORE = 36
FILL_LOSS = 1.066
LATENCY, LATENCY_SIZE = 30, 4.0

CONTENTION = 0.01
"""Part of the transfers' time that is lost although the array works meanwhile: what is needed next
waits for what is needed later."""

HBM_CONTENTION, TURN_CONTENTION = 0.6, 0.06
"""The same with HBM, where the array leaves no time over; and where loads and stores take turns."""

TURN = 190
"""From a load to a store and back to a load, where they take turns."""

STORE_LOSS = 1.3
"""Stores read the scratchpad last of all, while the array works."""

ITERATION = 3
"""Cycles that are lost from an iteration to the next."""

MERGED_LANES = 4
"""Results that leave in one write where engines do not keep step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvProblem:
    """A convolution on one card."""

    config: CardConfig
    layout: ConvLayout
    mode: Mode
    memory: MemorySpeed

    @property
    def block(self) -> int:
        """Columns of a block."""
        return self.config.cols * LANES[self.mode]

    def blocks(self, rows: int) -> int:
        """Column blocks of so many output rows."""
        return -(-rows * self.layout.columns // self.block)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvTiling:
    """Sizes and loops.

    Parameters
    ----------
    streams : Streams
    rows, passes : int
        Output rows of a tile, and tiles of rows; the last one may be smaller.
    tile, tiles : int
        Filters of a tile, and tiles of all groups.
    kept : bool
        All weights stay in the scratchpad.
    inputs, blobs, results : int
        Scratchpad buffers of tiles of rows, of weights, and of results: 1 or 2; all if kept.
    blob_bytes : int
        Bytes of a buffer of weights.
    turns : bool
        Loads and stores take turns.
    cycles : int
        Estimate of the whole job.
    """

    streams: Streams
    rows: int
    passes: int
    tile: int
    tiles: int
    kept: bool
    inputs: int
    blobs: int
    results: int
    blob_bytes: int
    turns: bool
    cycles: int = 0

    def scratchpad(self, layout: ConvLayout) -> int:
        """Return the bytes of scratchpad that all buffers take."""
        return (
            self.inputs * layout.rows_in(self.rows) * layout.row_bytes
            + self.blobs * self.blob_bytes
            + self.results * self.rows * layout.out_row_bytes
        )


def tilings(problem: ConvProblem, streams: Streams) -> Iterator[ConvTiling]:
    """Yield the tilings that fit the scratchpad, with their estimates."""
    config, layout = problem.config, problem.layout
    height = layout.shape.outputs[0]
    limit = min(streams.most, LOOP_LIMIT)
    total = np.concatenate(([0], np.cumsum(streams.granules)))
    for tile in _steps(min(streams.filters, limit), config.rows):
        starts, stops = streams.starts(tile), streams.stops(tile)
        entries = tile
        if streams.encoding is not Encoding.DENSE:
            # What dealing rows of unequal length may need.
            entries = align(tile, config.rows)
            entries += config.rows if entries < limit else 0
        size = GRANULE * int((total[stops] - total[starts]).max())
        size += streams.slices * entries * DIRECTORY_ENTRY_BYTES
        if size > MAX_BLOB_BYTES:
            continue
        tiles = len(starts)
        work = _Work(problem, streams, tile)
        choices = [(False, 2), (False, 1)] if tiles > 1 else []
        if tiles <= CREDITS:
            choices.insert(0, (True, tiles))
        for rows in _heights(height, problem.block // math.gcd(problem.block, layout.columns)):
            if rows * layout.columns > LOOP_LIMIT:
                break
            passes = -(-height // rows)
            last = height - (passes - 1) * rows
            if streams.groups > 1 and tiles > streams.groups:
                commands = 2 + passes * streams.groups
                if commands > MOST_COMMANDS:
                    continue
            for (kept, blobs), inputs, results in itertools.product(
                choices, (2, 1) if passes > 1 else (1,), (2, 1) if passes > 1 else (1,)
            ):
                tiling = ConvTiling(
                    streams=streams,
                    rows=rows,
                    passes=passes,
                    tile=tile,
                    tiles=tiles,
                    kept=kept,
                    inputs=inputs,
                    blobs=blobs,
                    results=results,
                    blob_bytes=size,
                    turns=False,
                )
                if tiling.scratchpad(layout) > config.scratchpad_bytes:
                    continue
                # HBM is slow where loads and stores compete.
                several = kept and inputs == results == 2 < passes
                both = several and problem.memory.turn_cycles
                for turns in (False, True) if both else (False,):
                    each = dataclasses.replace(tiling, turns=turns)
                    cycles = estimate(problem, each, work.cycles(rows), work.cycles(last))
                    yield dataclasses.replace(each, cycles=cycles)


def estimate(problem: ConvProblem, tiling: ConvTiling, compute: float, tail: float) -> int:
    """Return the cycles from the doorbell to the completion record.

    Loads and stores share the port of card memory, and run beside the array where there are two
    buffers.

    Parameters
    ----------
    compute, tail : float
        Cycles of the array in a pass, and in the last one.
    """
    config, layout, memory = problem.config, problem.layout, problem.memory
    height = layout.shape.outputs[0]
    last = height - (tiling.passes - 1) * tiling.rows
    blob = memory.cycles(1, tiling.blob_bytes)
    store, load = [], []
    for rows in (tiling.rows, last):
        store.append(memory.cycles(1, rows * layout.out_row_bytes))
        load.append(memory.cycles(1, layout.rows_in(rows) * layout.row_bytes))
    full = tiling.passes - 1
    drain = DRAIN + DRAIN_SIZE * (config.rows + config.cols)
    weights = 0.0 if tiling.kept else tiling.tiles * blob
    first = START + ISSUE + load[0] + blob
    transfers = load[0] + store[0] + weights
    contention = CONTENTION
    if tiling.turns:
        transfers, contention = load[0] + STORE_LOSS * store[0] + TURN, TURN_CONTENTION
    elif memory.turn_cycles:
        contention = HBM_CONTENTION
    if memory.turn_cycles:
        # Where the array takes longer, most of what competition delays is made up for.
        contention *= min(1.0, transfers / compute) ** 3
    step = max(compute, transfers) + contention * min(compute, transfers)
    step, tail = step + ITERATION * tiling.tiles, tail + ITERATION * tiling.tiles
    if tiling.passes > 1:
        # The results before the last ones are stored meanwhile.
        tail = max(tail, store[0]) + (TURN if tiling.turns else 0)
        # What has one buffer only is moved while the array is idle.
        alone = load[1] + drain if tiling.inputs == 1 else 0.0
        alone += store[0] + STORE + drain if tiling.results == 1 else 0.0
        step, tail = step + alone, tail + alone
    if not tiling.kept and tiling.blobs == 1:
        step, tail = (time + tiling.tiles * (blob + drain) for time in (step, tail))
    cycles = first + full * step + max(tail, weights) + drain + STORE + store[1] + END
    moved = tiling.passes * (load[0] + store[0])
    moved += tiling.tiles * blob * (1 if tiling.kept else tiling.passes)
    return math.ceil(max(cycles, moved))


class _Work:
    """What the array does in all iterations of a tile of rows, with some tiles of filters."""

    def __init__(self, problem: ConvProblem, streams: Streams, tile: int) -> None:
        self._problem, self._streams, self._tile = problem, streams, tile
        sums = np.concatenate(([0], np.cumsum(streams.cost)))
        self._totals = sums[streams.stops(tile)] - sums[streams.starts(tile)]
        self._longest = float(streams.cost.max())
        self._known: dict[int, float] = {}

    def cycles(self, rows: int) -> float:
        """Return the cycles for so many output rows."""
        if rows not in self._known:
            self._known[rows] = self._cycles(rows)
        return self._known[rows]

    def _cycles(self, rows: int) -> float:
        problem, streams, tile = self._problem, self._streams, self._tile
        config = problem.config
        blocks = problem.blocks(rows)
        chunks = streams.runs * -(-streams.run_bytes // config.fill_bytes)
        fill = blocks * max(streams.k, chunks * problem.block * FILL_LOSS)
        idle = LATENCY + LATENCY_SIZE * (config.rows + config.cols)
        if streams.encoding is Encoding.DENSE:
            work = max(-(-tile * blocks // config.rows) * self._longest, fill)
            return len(self._totals) * (work + max(0.0, (idle - work) / 2))
        least = max(fill, tile * rows * problem.layout.columns / MERGED_LANES)
        each = blocks * (self._totals / config.rows + 0.25 * self._longest)
        each = np.maximum(each, least)
        return float((each + np.maximum(0.0, (idle - each) / 2)).sum())


def _steps(total: int, unit: int) -> list[int]:
    """Sizes of a tile of filters: small ones, whole rounds of the engines, and equal parts."""
    steps = {size for size in range(1, unit) if size <= total} | {total}
    rounds = -(-total // unit)
    count = 1
    while count <= rounds:
        steps.add(min(total, count * unit))
        steps.add(min(total, align(-(-total // count), unit)))
        count += 1 if count < 8 else count // 4
    return sorted(steps)


def _heights(height: int, unit: int) -> list[int]:
    """Rows of a tile: equal parts, and those that fill whole column blocks."""
    whole = {unit * (count << power) for count in (1, 3) for power in range(12)}
    heights = {-(-height // count) for count in range(1, height + 1)}
    return sorted(heights | {rows for rows in whole if rows < height})
