"""Choice of tiles for a convolution with swapped roles: what fits, and what it should take."""

import dataclasses
import itertools
from collections.abc import Iterator

from ...rtl.config import GRANULE
from .convolution_swapped_tiles import (
    Piece,
    Strip,
    SwappedProblem,
    SwappedTiling,
    uses,
)
from .streams import MAX_BLOB_BYTES
from .tiling import CREDITS, LOOP_LIMIT, align

__all__ = ["candidates", "tilings"]

MOST = 60
"""Tilings that are estimated; the others have higher lower bounds."""

LONG = 4
"""K may be cut where so many parts do not fit the scratchpad."""

BEST = 6
"""Of these other lengths of a slice are tried, too."""

MOST_ITERATIONS = 180
"""Each takes up to five commands, of which the ring holds about a thousand."""

# Cycles, as `estimate` and `convolution_tiles` have them.
START = 21
ISSUE = 30
"""From the arrival of what an iteration needs to its first product."""
GAP = 5
"""Between two MATMULs, which overlap."""
DRAIN, DRAIN_SIZE = 50, 1.6
LOAD = 20
"""Of a load beside its beats."""
STORE = 36
END = 22
FINISH = 60
"""Of a command that finishes sums, beside its numbers."""
FINISH_BYTES = 12
"""Of a number's sum and table, through a port of a granule a cycle."""


def tilings(problem: SwappedProblem) -> list[SwappedTiling]:
    """Return tilings that fit the scratchpad, fewest cycles first."""
    sizes = problem.slice_sizes()
    likely = sorted(candidates(problem), key=lambda tiling: _lower_bound(problem, tiling))[:MOST]
    found = _estimated(problem, likely)
    for size, tiling in itertools.product(sizes[1:], found[:BEST]):
        cut = tiling.cut * tiling.slice // size
        again = _roomiest(problem, dataclasses.replace(tiling, slice=size, cut=cut))
        found += _estimated(problem, [again] if again is not None else [])
    return sorted(found, key=lambda tiling: tiling.cycles)


def _estimated(problem: SwappedProblem, tilings: list[SwappedTiling]) -> list[SwappedTiling]:
    found = [dataclasses.replace(t, cycles=estimate(problem, t)) for t in tilings]
    return sorted(found, key=lambda tiling: tiling.cycles)


def candidates(problem: SwappedProblem) -> Iterator[SwappedTiling]:
    """Yield the tilings that fit the scratchpad, with the longest slices."""
    height = problem.layout.shape.outputs[0]
    units = problem.filters // GRANULE
    size = problem.slice_sizes()[0]
    for strips in _strips(problem, height):
        pixels = max(map(problem.pixels, strips))
        partial = problem.config.rows * problem.config.partial_rows
        if pixels > LOOP_LIMIT or (problem.k > size and pixels > partial):
            continue
        for parts in _parts(problem, units):
            if len(strips) * len(parts) > MOST_ITERATIONS:
                continue
            for by_strips, cut in _orders(problem, strips, parts, size):
                tiling = _roomiest(
                    problem,
                    SwappedTiling(
                        strips=strips,
                        parts=parts,
                        slice=size,
                        cut=cut,
                        by_strips=by_strips,
                        strip_slots=1,
                        part_slots=1,
                    ),
                )
                if tiling is not None:
                    yield tiling


def _orders(
    problem: SwappedProblem, strips: tuple[Strip, ...], parts: tuple[int, ...], size: int
) -> Iterator[tuple[bool, int]]:
    """Yield orders of iterations, and how K may be cut."""
    yield True, 0
    if min(len(strips), len(parts)) > 1:
        yield False, 0
    slices = problem.k // size
    long = LONG * max(parts) * problem.k > problem.config.scratchpad_bytes
    equal = len(set(parts)) == 1 and len(parts) > 1
    # All sums of an iteration are one row of the command that finishes them.
    row = max(map(problem.pixels, strips)) * max(parts) <= LOOP_LIMIT
    if long and equal and row and slices > 1 and 0 < problem.biases <= size:
        yield True, slices // 2


def _roomiest(problem: SwappedProblem, tiling: SwappedTiling) -> SwappedTiling | None:
    """Return the tiling with as many buffers as fit, or None."""
    strips, parts = len(tiling.strips), len(tiling.parts)
    strip_slots = sorted({min(strips, 2), 1}, reverse=True)
    part_slots = sorted({min(parts, 2), 1}, reverse=True)
    if tiling.by_strips and strips > 1 and not tiling.cut:
        part_slots.insert(0, min(parts, CREDITS))
    if not tiling.by_strips and parts > 1:
        strip_slots.insert(0, min(strips, CREDITS))
    inner, outer = (part_slots, strip_slots) if tiling.by_strips else (strip_slots, part_slots)
    # What the inner loop loads again and again needs two buffers most.
    for sums, fast, slow in itertools.product((2, 1) if strips * parts > 1 else (1,), inner, outer):
        found = dataclasses.replace(
            tiling,
            strip_slots=slow if tiling.by_strips else fast,
            part_slots=fast if tiling.by_strips else slow,
            sum_slots=sums,
            result_slots=sums,
        )
        strip, *_ = found.buffers(problem)[0]
        used = found.scratchpad(problem)
        if problem.biases > tiling.slice and tiling.cut:
            return None
        if strip <= MAX_BLOB_BYTES and used <= problem.config.scratchpad_bytes:
            return found
    return None


def _strips(problem: SwappedProblem, height: int) -> Iterator[tuple[Strip, ...]]:
    """Yield ways to cut the output rows: equal strips, and a small first one."""
    rows = problem.config.rows
    width = problem.layout.shape.outputs[1]
    sizes = {-(-height // count) for count in range(1, min(height, 32) + 1)}
    if width == 1:
        sizes |= {align(size, rows) for size in sizes}
    seen = set()
    for size, first in itertools.product(sorted(sizes), (0, 1, 2)):
        lead = min(first * -(-rows // width), height)
        starts = sorted({0, lead, *range(lead + size, height, size)} - {height})
        if lead >= size or tuple(starts) in seen:
            continue
        seen.add(tuple(starts))
        stops = [*starts[1:], height]
        yield tuple(
            problem.strip(start, stop - start)
            for start, stop in zip(starts, stops, strict=True)
            if stop > start
        )


def _parts(problem: SwappedProblem, units: int) -> Iterator[tuple[int, ...]]:
    """Yield ways to cut the filters: equal parts of whole granules, and a small first one."""
    step = max(1, problem.block // GRANULE)
    sizes = {units} | {step << power for power in range(12)} | {3 * step << p for p in range(8)}
    for size, lead in itertools.product(sorted(sizes), (0, step)):
        if size > units or lead >= size:
            continue
        counts = [lead] if lead else []
        while sum(counts) < units:
            counts.append(min(size, units - sum(counts)))
        yield tuple(count * GRANULE for count in counts)


def estimate(problem: SwappedProblem, tiling: SwappedTiling) -> int:
    """Return the cycles from the doorbell to the completion record.

    Iterations are followed one by one; loads and stores share the port of card memory.
    """
    config, memory = problem.config, problem.memory
    drain = DRAIN + DRAIN_SIZE * (config.rows + config.cols)
    order, pieces = tiling.iterations(), tiling.pieces(problem)
    strip_uses = uses([strip for strip, *_ in order], tiling.strip_slots)
    part_uses = uses([use[1:] for use in order], tiling.part_slots)
    table = LOAD + memory.cycles(1, tiling.table_bytes(problem))
    port = START + (0.0 if tiling.cut else table)
    engines = _Engines(problem, tiling.slice)
    finisher = stored = 0.0
    strip_here: list[float] = []
    part_here: list[float] = []
    strip_left: dict[int, float] = {}
    part_left: dict[int, float] = {}
    finished: list[float] = []
    stores: list[float] = []
    for index, (strip_number, part_number, piece_number) in enumerate(order):
        piece = pieces[piece_number]
        done = index // len(pieces)  # iterations whose sums are complete
        strip, filters = tiling.strips[strip_number], tiling.parts[part_number]
        pixels = problem.pixels(strip)
        use = strip_uses[index]
        if use.loads:
            free = strip_left.get(use.number - tiling.strip_slots, 0.0)
            port = max(port, free) + LOAD + _strip_cycles(problem, tiling, strip)
            strip_here.append(port)
        ready = strip_here[use.number]
        use_part = part_uses[index]
        if use_part.loads:
            free = part_left.get(use_part.number - tiling.part_slots, 0.0)
            port = max(port, free) + LOAD + memory.cycles(1, filters * piece.k)
            part_here.append(port)
        ready = max(ready, part_here[use_part.number])
        if tiling.cut and piece_number == 0:
            port += table
            ready = max(ready, port)
        if done >= tiling.sum_slots:
            ready = max(ready, finished[done - tiling.sum_slots])
        ended = engines.run(ready + ISSUE, pixels, filters, piece) + drain
        if use.leaves:
            strip_left[use.number] = ended
        if use_part.leaves:
            part_left[use_part.number] = ended
        if piece_number < len(pieces) - 1:
            continue
        room = stores[done - tiling.result_slots] if done >= tiling.result_slots else 0.0
        numbers = pixels * filters * FINISH_BYTES / GRANULE
        finisher = max(ended, finisher, room) + FINISH + numbers
        finished.append(finisher)
        lines = 1 if filters == problem.filters else pixels
        moved = memory.cycles(lines, pixels // lines * filters)
        stored = max(finisher, stored) + STORE + moved
        port += moved + lines * memory.turn_cycles
        stores.append(stored)
    return int(max(stored, port) + END)


def _lower_bound(problem: SwappedProblem, tiling: SwappedTiling) -> float:
    """Return about what a convolution takes: the first loads, the array or another unit, the end.

    What has one buffer only is loaded while the array is idle.
    """
    memory = problem.memory
    order = tiling.iterations()
    strips = [_strip_cycles(problem, tiling, strip) for strip in tiling.strips]
    pieces = tiling.pieces(problem)
    parts = [
        memory.cycles(1, part * piece.k) for part, piece in itertools.product(tiling.parts, pieces)
    ]
    first = strips[order[0][0]] + parts[0]
    loads = idle = 0.0
    for items, slots, cycles in (
        ([strip for strip, *_ in order], tiling.strip_slots, strips),
        ([part * len(pieces) + piece for _, part, piece in order], tiling.part_slots, parts),
    ):
        taken = sum(
            cycles[item] for item, use in zip(items, uses(items, slots), strict=True) if use.loads
        )
        loads += taken
        idle += taken - cycles[items[0]] if slots == 1 else 0.0
    pixels = sum(map(problem.pixels, tiling.strips))
    blocks = sum(-(-part // problem.block) for part in tiling.parts)
    k = sum(piece.k for piece in pieces)
    compute = pixels * blocks * k / problem.config.rows + GAP * len(order) + idle
    finish = FINISH * len(order) + pixels * problem.filters * FINISH_BYTES / GRANULE
    last = problem.pixels(tiling.strips[-1]) * tiling.parts[-1] * FINISH_BYTES / GRANULE
    return first + max(compute, finish, loads - first) + last


class _Engines:
    """When each engine has done its rows, which are dealt on from iteration to iteration."""

    def __init__(self, problem: SwappedProblem, size: int) -> None:
        self._problem = problem
        self._ahead = problem.config.operand_depth - size
        """Words of the ring that an engine may be ahead of the slowest."""
        self._size = size
        self._ends = [0.0] * problem.config.rows
        self._dealt = 0
        self._filled = 0.0

    def run(self, start: float, pixels: int, filters: int, piece: Piece) -> float:
        """Return when the last engine has done an iteration that may start at ``start``."""
        problem, engines = self._problem, len(self._ends)
        blocks = -(-filters // problem.block)
        each, more = divmod(pixels * blocks, engines)
        shortest = problem.config.min_visit
        visit = piece.slices * max(self._size, shortest) + max(piece.biases, shortest)
        visit -= 0 if piece.biases else shortest
        fill = blocks * piece.k * max(1, problem.block // problem.config.fill_bytes)
        self._filled = max(self._filled, start) + fill
        for engine, end in enumerate(self._ends):
            rows = each + ((engine - self._dealt) % engines < more)
            if rows:
                self._ends[engine] = max(end + GAP, start) + rows * visit
        last = max(self._ends)
        if each < blocks:
            last = max(last, self._filled)
        visits = -(-pixels // engines)
        self._ends = [max(end, last - self._ahead * visits) for end in self._ends]
        self._dealt = (self._dealt + pixels * blocks) % engines
        return last


def _strip_cycles(problem: SwappedProblem, tiling: SwappedTiling, strip: Strip) -> float:
    memory = problem.memory
    cycles = memory.cycles(1, tiling.directory_bytes(problem, strip))
    if problem.padded:
        cycles += LOAD + memory.cycles(1, problem.channels)
    if problem.picks:
        cycles += memory.cycles(strip.lines * problem.line_pixels, problem.channels)
    else:
        cycles += memory.cycles(strip.lines, problem.line_pixels * problem.channels)
    return cycles + LOAD
