"""Tiles of a staged product: which ones fit the scratchpad, and about how long they take."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, Format
from .estimate import DRAIN, DRAIN_SIZE, END, ISSUE, PIECE, START, STORE, iteration_cycles
from .sources import Source
from .streams import DIRECTORY_ENTRY_BYTES, MAX_BLOB_BYTES
from .tiling import CREDITS, LOOP_LIMIT, Problem, Tiling, align

__all__ = ["COLUMN_BYTES", "Layout", "Shape", "best_shape", "layout_of"]

COLUMN_BYTES = 8
"""Of a column's bias and scale."""

VECTOR = 40
"""Cycles of an iteration of the vector unit in addition to its work."""

ALIKE = 4
"""Degree of the norm of what goes on side by side."""

FINISH = 1.0
"""Cycles in which the vector unit scales a number by its column: 12 bytes are read for it."""

Buffers = tuple[int, int, int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of tiles and numbers of buffers.

    Parameters
    ----------
    tile, part : int
        Rows of a tile, and columns of a part.
    tiles, parts : int
    buffers : (int, int, int, int, int)
        Of tiles as they were loaded, of ready ones, of parts as they were loaded, of ready ones,
        and of results. There are 1 or 2 of each; or one for every part: then parts stay.
    cycles : int
        Estimate of the whole job.
    """

    tile: int
    part: int
    tiles: int
    parts: int
    buffers: Buffers = (1, 1, 1, 1, 1)
    cycles: int = 0

    @property
    def parts_stay(self) -> bool:
        """Whether all parts are loaded and made ready once, and not for each tile."""
        return self.buffers[3] >= self.parts


@dataclasses.dataclass(frozen=True)
class Layout:
    """Bytes in the scratchpad: of the table, of a directory, and of a buffer of each kind.

    Kinds are counted as in `Shape.buffers`.
    """

    table: int
    directory: int
    result_pitch: int
    sizes: Buffers

    def total(self, buffers: tuple[int, ...]) -> int:
        """Return the bytes of all."""
        return self.base(len(self.sizes), buffers)

    def base(self, kind: int, buffers: tuple[int, ...]) -> int:
        """Return where the buffers of a kind begin."""
        pairs = zip(self.sizes[:kind], buffers[:kind], strict=True)
        return self.table + sum(size * count for size, count in pairs)


def layout_of(a: Source, b: Source, problem: Problem, shape: Shape, *, table: bool) -> Layout:
    """Return what a shape takes in the scratchpad, with or without a table of columns."""
    directory = problem.slices * shape.tile * DIRECTORY_ENTRY_BYTES
    pitch = align(shape.part * BITS[problem.out_format] // 8, GRANULE)
    return Layout(
        table=shape.parts * shape.part * COLUMN_BYTES if table else 0,
        directory=directory,
        result_pitch=pitch,
        sizes=(
            a.transfer(shape.tile).nbytes if a.staged else 0,
            directory + shape.tile * a.pitch(problem.slice),
            b.transfer(shape.part).nbytes if b.staged else 0,
            shape.part * b.pitch(b.k),
            shape.tile * pitch,
        ),
    )


def best_shape(
    a: Source, b: Source, problem: Problem, out_format: Format, *, table: bool
) -> Shape | None:
    """Return the shape with the fewest cycles of those that fit, or None if none does."""
    shapes = _shapes(a, b, problem, out_format)
    found = [
        fitted
        for shape in shapes
        if (fitted := _fitted(a, b, problem, shape, out_format, table)) is not None
    ]
    return min(found, key=lambda shape: shape.cycles, default=None)


def _shapes(a: Source, b: Source, problem: Problem, out_format: Format) -> Iterator[Shape]:
    """Yield sizes of tiles and parts, whether they fit or not."""
    row_unit = math.lcm(problem.config.rows, a.row_unit)
    column_unit = math.lcm(problem.block, b.row_unit, 8 * GRANULE // BITS[out_format])
    for tile in _steps(a.rows, row_unit):
        if tile > problem.max_rows:
            continue
        for part in _steps(b.rows, column_unit):
            yield Shape(tile=tile, part=part, tiles=-(-a.rows // tile), parts=-(-b.rows // part))


def _steps(total: int, unit: int) -> list[int]:
    """Return sizes, in units, that cut ``total`` into pieces of about one size."""
    units = -(-total // unit)
    return sorted({unit * -(-units // pieces) for pieces in range(1, units + 1)})


def _fitted(
    a: Source, b: Source, problem: Problem, shape: Shape, out_format: Format, finished: bool
) -> Shape | None:
    """Return a shape with as many buffers as there is room for, and its cycles; None if none."""
    layout = layout_of(a, b, problem, shape, table=finished)
    if layout.sizes[1] > MAX_BLOB_BYTES or max(shape.tiles, shape.parts) > LOOP_LIMIT:
        return None
    iterations = shape.tiles * shape.parts
    tiles, uses = {1, min(2, shape.tiles)}, {1, min(2, iterations)}
    kept = {shape.parts} if shape.parts <= CREDITS else set()
    best = None
    for buffers in itertools.product(tiles, tiles, uses, uses | kept, uses):
        if layout.total(buffers) <= problem.config.scratchpad_bytes:
            chosen = dataclasses.replace(shape, buffers=buffers)
            cycles = _estimate(a, b, problem, chosen, out_format, finished)
            if best is None or cycles < best.cycles:
                best = dataclasses.replace(chosen, cycles=cycles)
    return best


def _estimate(
    a: Source, b: Source, problem: Problem, shape: Shape, out_format: Format, finished: bool
) -> int:
    """Return the cycles from the doorbell to the completion record."""
    config, memory = problem.config, problem.memory
    tiling = Tiling(
        tile=shape.tile,
        first=shape.tile,
        part=shape.part,
        tiles=shape.tiles,
        parts=shape.parts,
        stay="rows",
        panels=1,
    )
    multiply, _ = iteration_cycles(problem, tiling, 0, min(shape.tile, problem.rows))
    lines = [source.transfer(size) for source, size in ((a, shape.tile), (b, shape.part))]
    load_tile, load_part = (memory.cycles(line.y, line.x_bytes) + PIECE for line in lines)
    make_tile, make_part = (
        source.cycles(size, config.row_lanes) + VECTOR if source.staged else 0.0
        for source, size in ((a, shape.tile), (b, shape.part))
    )
    finish = shape.tile * shape.part * FINISH + VECTOR if finished else 0.0
    store = memory.cycles(shape.tile, shape.part * BITS[out_format] // 8)
    beside = store + shape.tile * memory.turn_cycles
    drain = DRAIN + DRAIN_SIZE * (config.rows + config.cols)
    # What a single buffer keeps from going on side by side is added.
    one = [count == 1 < shape.tiles * shape.parts for count in shape.buffers]
    one[3] &= not shape.parts_stay
    step = multiply
    if one[3] or one[4]:
        step += drain
    if one[3]:
        step += make_part if b.staged else load_part
    if one[4]:
        step += store + finish + STORE
    if one[2] and b.staged and not shape.parts_stay:
        step = max(step, load_part + make_part)
    again = 0 if shape.parts_stay else shape.parts
    finished_sums = shape.parts * finish
    stored = shape.parts * beside
    # Units that are busy for about as long wait for each other now and then.
    turn, first_turn = (
        _beside(
            shape.parts * step,
            parts * make_part + finished_sums + make_tile,
            parts * load_part + stored + load_tile,
        )
        for parts in (again, shape.parts)
    )
    if shape.tiles > 1 and shape.buffers[1] == 1:
        turn += make_tile if a.staged else load_tile
        first_turn += make_tile if a.staged else load_tile
    first = max(load_tile + make_tile, load_part) + make_part
    last = drain + finish + STORE + store + END
    turns = first_turn + (shape.tiles - 1) * turn
    return math.ceil(START + first + ISSUE + turns + last)


def _beside(*cycles: float) -> float:
    """Return how long units take that work side by side."""
    return sum(one**ALIKE for one in cycles) ** (1 / ALIKE)
