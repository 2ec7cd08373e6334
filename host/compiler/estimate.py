"""How many cycles a tiled GEMM takes, from the doorbell to the completion record.

Loads and stores share the port of card memory, and run beside the array. The estimate follows the
iterations of the first pass over each panel one by one, and the other passes as a whole.
"""

import dataclasses
import math

import numpy as np

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, COMMAND_BYTES, ENTRIES, Encoding
from .tiling import Problem, Tiling, buffer_bytes, candidates, entries_of, tile_sizes

__all__ = ["estimate", "iteration_cycles", "tilings"]

MOST = 200
"""Tilings that are estimated; the others have higher lower bounds."""

# Measured on the RTL, on all presets.
START = 13
"""Cycles from the doorbell until the first load has ended, in addition to its and its command's
beats."""

COMMAND = 17
"""Cycles that a queue of loads is idle between two commands."""

PIECE = 10
"""Cycles of a short load at least."""

ISSUE = 30
"""Cycles from the arrival of an iteration's operands to the first weight."""

DRAIN, DRAIN_SIZE = 50, 1.6
"""Cycles from an iteration's last weight to its end: also for each row and column of the array."""

STORE = 36
"""Cycles of a store in addition to its beats."""

END = 22
"""Cycles from the end of the last command to the completion record."""

LATE = 1.035
"""Cycles of a compressed weight: granules and operands are late now and then."""

REFILL = 1.2
"""Drains that an iteration with compressed streams waits for its operands."""

LATENCY, LATENCY_SIZE = 45, 2.5
"""Cycles of a small iteration in addition to its work, also for each row and column: two of them
are under way at a time."""

FILL_LOSS = 0.4
"""How often a read of the fill path waits for one of a dense stream that wants the same bank."""


@dataclasses.dataclass(frozen=True)
class _Pace:
    """Cycles of what happens again and again."""

    compute: list[float]
    """Of an iteration, by tile."""
    stay: float
    move: list[float]
    """Loads of an item."""
    store: float
    """Of an iteration's results."""
    beside: float
    """What such a store takes from loads beside it."""
    idle: float
    """Cycles of the last iteration that are only lost before another one."""


def iteration_cycles(
    problem: Problem, tiling: Tiling, start: int, rows: int
) -> tuple[float, float]:
    """Return the cycles from one iteration to the next, and what the array is idle in them."""
    engines = problem.config.rows
    blocks = -(-tiling.part // problem.block)
    cost = problem.row_cycles[start : start + rows]
    if problem.encoding is Encoding.DENSE:
        visits = -(-rows // engines) * blocks
        if rows == tiling.tile and rows % engines:
            visits = -(-rows * blocks // engines)
        busy = float(visits * cost.max())
    else:
        busy = blocks * (float(cost.sum()) / engines * LATE + 0.25 * float(cost.max()))
    config = problem.config
    # Words go down a column one a cycle; each read brings some of one column.
    reads = problem.block * -(-problem.column_bytes // config.fill_bytes) * _read_cycles(problem)
    fill = blocks * max(problem.k, reads)
    writes = min(rows, tiling.tile) * tiling.part * BITS[problem.out_format] / (8 * GRANULE)
    work = max(busy, fill, writes)
    idle = max(0.0, (LATENCY + LATENCY_SIZE * (config.rows + config.cols) - work) / 2)
    if problem.encoding is not Encoding.DENSE:
        # Measured: short visits wait for the first operands of an iteration, and longer where an
        # iteration has one block only.
        idle += REFILL * _drain(problem) * (2 if blocks == 1 else 1)
    return work + idle, idle


def _read_cycles(problem: Problem) -> float:
    """Cycles of one of the fill path's reads, which the streams' reads hold up."""
    config = problem.config
    lanes = ENTRIES[problem.encoding][BITS[problem.stream_format]]
    # A read takes all of its banks or none.
    granules = config.fill_bytes // GRANULE + (problem.column_bytes % GRANULE != 0)
    share = granules / config.scratchpad_banks
    if problem.encoding is Encoding.DENSE:
        return 1 + FILL_LOSS * share * config.rows / lanes
    # Streams that are not in step ask for any of them.
    return (1 - share) ** -min(config.rows / lanes, config.stream_ports)


def _drain(problem: Problem) -> float:
    return DRAIN + DRAIN_SIZE * (problem.config.rows + problem.config.cols)


def _pace(problem: Problem, tiling: Tiling) -> _Pace:
    memory = problem.memory
    sizes = tile_sizes(problem.rows, tiling.tile, tiling.first, tiling.tiles)
    blob, part, _ = buffer_bytes(problem, tiling)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    cache: dict[int, tuple[float, float]] = {}
    dense = problem.encoding is Encoding.DENSE
    compute, blobs = [], []
    whole = problem.blob_bytes(min(tiling.tile, problem.rows), entries_of(problem, tiling))
    for start, rows in zip(starts, sizes, strict=True):
        if not dense or rows not in cache:
            cache[rows] = iteration_cycles(problem, tiling, int(start), rows)
        compute.append(cache[rows][0])
        blobs.append(
            memory.cycles(1, math.ceil(blob if rows == tiling.tile else whole * rows / tiling.tile))
        )
    idle = cache[sizes[-1]][1]
    part_cycles = memory.cycles(1, part)
    if problem.stream == "a":
        lines, line = tiling.tile, problem.out_bytes(tiling.part)
    else:
        lines, line = tiling.part, problem.out_bytes(tiling.tile)
    store = beside = 0.0
    if not tiling.gather:
        store = memory.cycles(lines, line)
        beside = store + lines * memory.turn_cycles
    if tiling.stay == "columns":
        # Pieces of a moving item are not shorter than a small load takes.
        pieces = PIECE * tiling.inner if tiling.passes > 1 else 0
        return _Pace(
            compute, part_cycles, [max(cycles, pieces) for cycles in blobs], store, beside, idle
        )
    return _Pace(compute, max(blobs), [part_cycles] * tiling.movers, store, beside, idle)


def estimate(problem: Problem, tiling: Tiling) -> int:
    """Return the cycles of a GEMM with these tiles."""
    pace = _pace(problem, tiling)
    memory = problem.memory
    columns_stay = tiling.stay == "columns"
    inner, movers = tiling.inner, tiling.movers
    drain = _drain(problem)
    halted = tiling.results == 1 < tiling.passes * tiling.inner and not tiling.gather

    def iteration(mover: int, panel: int, item: int) -> float:
        cycles = pace.compute[mover if columns_stay else panel * inner + item]
        if halted:  # the only buffer of results is stored before the next iteration
            return cycles + drain + STORE + pace.store
        return max(cycles, pace.store)

    if columns_stay:
        whole = [[inner * iteration(mover, 0, 0) for mover in range(movers)]]
    else:
        of_panel = [
            sum(iteration(0, panel, item) for item in range(inner))
            for panel in range(tiling.panels)
        ]
        whole = [[cycles] * movers for cycles in of_panel]

    mean = sum(pace.compute) / len(pace.compute)
    slow = 1 / max(0.2, 1 - pace.beside / max(mean, 1.0))  # loads lose what stores take
    start = START + COMMAND_BYTES / problem.config.bus_bytes
    loaded = start + pace.move[0] + pace.stay
    now = loaded + ISSUE  # when the array has issued all so far
    ends: list[float] = []
    items: list[float] = []  # ends of the iterations of the first pass
    for panel in range(tiling.panels):
        begun = ends[-1] if ends else 0.0
        step = (now - begun) / inner
        loaded += COMMAND
        for item in range(inner):
            # Items that stay take the places of the last panel's, one after the other.
            if panel:
                free = begun + (item + 1) * step + drain
                loaded = max(loaded, free) + pace.stay * slow
            elif item:
                if item >= tiling.kept:
                    loaded = max(loaded, items[item - tiling.kept] + drain)
                loaded += pace.stay * slow
            if panel or item:
                now = max(now, loaded + ISSUE)
            now += iteration(0, panel, item)
            if not panel:
                items.append(now)
        ends.append(now)
        cycles = whole[panel % len(whole)]
        loaded += COMMAND
        for mover in range(1, movers):
            if tiling.moving <= len(ends):
                loaded = max(loaded, ends[-tiling.moving] + drain)
            loaded += pace.move[mover] * slow
            now = max(now, loaded + ISSUE) + cycles[mover]
            ends.append(now)
    iterations = tiling.passes * tiling.inner
    loads = tiling.panels * (tiling.inner * pace.stay + sum(pace.move))
    busy = start + loads + iterations * pace.store
    last = memory.cycles(1, buffer_bytes(problem, tiling)[2]) if tiling.gather else pace.store
    # Of two iterations that are under way together, only the first one has waited.
    now -= pace.idle * (2 - iterations % 2)
    return math.ceil(max(now + drain, busy) + STORE + last + END)


def tilings(problem: Problem) -> list[Tiling]:
    """Return tilings that fit the scratchpad, fewest cycles first."""
    likely = sorted(candidates(problem), key=lambda tiling: _lower_bound(problem, tiling))[:MOST]
    found = [dataclasses.replace(t, cycles=estimate(problem, t)) for t in likely]
    return sorted(found, key=lambda tiling: tiling.cycles)


def _lower_bound(problem: Problem, tiling: Tiling) -> float:
    """Return what a GEMM takes at least: the first loads, then the array or memory."""
    pace = _pace(problem, tiling)
    if tiling.stay == "columns":
        compute = sum(pace.compute) * tiling.parts
    else:
        compute = sum(pace.compute) * tiling.movers
    loads = tiling.panels * (tiling.inner * pace.stay + sum(pace.move))
    stores = tiling.passes * tiling.inner * pace.store
    return pace.move[0] + pace.stay + max(compute, loads + stores - pace.move[0] - pace.stay)
