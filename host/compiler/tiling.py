"""Tile sizes of a GEMM: what fits the scratchpad, and what takes the fewest cycles."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import Format
from .commands import FORMAT_BYTES
from .streams import DIRECTORY_ENTRY_BYTES

__all__ = ["GemmShape", "MemorySpeed", "Tiling", "align", "lanes", "tilings"]

ITERATION_CYCLES = 20
"""Cycles between two iterations of a MATMUL that no other work hides."""

MEMORY_LATENCY = 60
"""Cycles from a load's start to its first bytes."""

_LOOP_LIMIT = 0xFFFF


def align(value: int, unit: int) -> int:
    """Round ``value`` up to a multiple of ``unit``."""
    return -(-value // unit) * unit


def lanes(in_format: Format) -> int:
    """Return how many columns of the result a PE works on at once."""
    return 2 if in_format is Format.INT8 else 1


@dataclasses.dataclass(frozen=True)
class MemorySpeed:
    """What card memory moves, as far as the choice of tiles needs it.

    Parameters
    ----------
    bytes_per_cycle : float
        Reads and writes together.
    burst_bytes : int
        A row of a transfer that is shorter takes as long as one of so many bytes.
    """

    bytes_per_cycle: float
    burst_bytes: int = GRANULE

    def cycles(self, rows: int, row_bytes: int) -> float:
        """Return what a transfer of ``rows`` rows takes."""
        return rows * max(row_bytes, self.burst_bytes) / self.bytes_per_cycle


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmShape:
    """What a tiling depends on.

    Parameters
    ----------
    row_entries : float
        Mean entries of a row's stream: K if dense.
    row_bytes : float
        Mean bytes of a row's stream.
    memory : MemorySpeed
    """

    m: int
    n: int
    k: int
    in_format: Format
    out_format: Format
    row_entries: float
    row_bytes: float
    memory: MemorySpeed

    @property
    def b_pitch(self) -> int:
        """Bytes from one column of B to the next, in card memory and in the scratchpad."""
        return align(self.k * FORMAT_BYTES[self.in_format], GRANULE)

    @property
    def c_pitch(self) -> int:
        """Bytes from one row of C to the next in card memory."""
        return align(self.n * FORMAT_BYTES[self.out_format], GRANULE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles of ``tile_m`` rows by ``tile_n`` columns; the last ones may be smaller.

    Parameters
    ----------
    a_buffers, b_buffers, c_buffers : int
        Scratchpad buffers of each operand: 1 or 2.
    b_resident : bool
        All of B is loaded once, before the first tile of A.
    cycles : int
        Estimate of the whole job.
    """

    tile_m: int
    tile_n: int
    a_buffers: int
    b_buffers: int
    c_buffers: int
    b_resident: bool
    cycles: int


def tilings(config: CardConfig, shape: GemmShape) -> list[Tiling]:
    """Return the tilings that should fit the scratchpad, fewest cycles first."""
    return sorted(_candidates(config, shape), key=lambda t: t.cycles)


def _candidates(config: CardConfig, shape: GemmShape) -> Iterator[Tiling]:
    out_bytes = FORMAT_BYTES[shape.out_format]
    n_unit = math.lcm(config.cols * lanes(shape.in_format), GRANULE // out_bytes)
    for tile_m, tile_n in itertools.product(_sizes(shape.m, config.rows), _sizes(shape.n, n_unit)):
        tiles_m, tiles_n = -(-shape.m // tile_m), -(-shape.n // tile_n)
        if max(tiles_m, tiles_n, tile_m, tile_n) > _LOOP_LIMIT:
            continue
        a = _a_bytes(config, shape, tile_m)
        b = tile_n * shape.b_pitch
        c = tile_m * align(tile_n * out_bytes, GRANULE)
        choices = ((1, 2) if tiles > 1 else (1,) for tiles in (tiles_m, tiles_n, tiles_m * tiles_n))
        for a_buffers, b_buffers, c_buffers in itertools.product(*choices):
            for b_resident in (False, True):
                if b_resident:
                    if b_buffers > 1:
                        continue
                    b_total = shape.n * shape.b_pitch
                else:
                    b_total = b_buffers * b
                if a_buffers * a + b_total + c_buffers * c > config.scratchpad_bytes:
                    continue
                tiling = Tiling(
                    tile_m=tile_m,
                    tile_n=tile_n,
                    a_buffers=a_buffers,
                    b_buffers=b_buffers,
                    c_buffers=c_buffers,
                    b_resident=b_resident,
                    cycles=0,
                )
                cycles = _estimate(config, shape, tiling)
                yield dataclasses.replace(tiling, cycles=cycles)


def _sizes(total: int, unit: int) -> list[int]:
    """Tile sizes worth trying: every tile count that changes the size, in whole units."""
    units = -(-total // unit)
    sizes = {min(total, -(-units // tiles) * unit) for tiles in range(1, units + 1)}
    return sorted(sizes)


def _a_bytes(config: CardConfig, shape: GemmShape, rows: int) -> int:
    visits = -(-rows // config.rows)
    directory = visits * config.rows * DIRECTORY_ENTRY_BYTES
    return directory + align(math.ceil(rows * shape.row_bytes), GRANULE)


def _estimate(config: CardConfig, shape: GemmShape, tiling: Tiling) -> int:
    memory, out_bytes = shape.memory, FORMAT_BYTES[shape.out_format]
    width = config.cols * lanes(shape.in_format)
    visit = max(shape.row_entries, config.min_visit)
    # A column's words go down one a cycle at best, out of `fill_bytes` a cycle for all columns.
    fill = shape.k * max(1, 2 * config.cols // config.fill_bytes)
    # A dense row runs behind the fill of its columns, a short sparse one waits for its end.
    iteration = ITERATION_CYCLES + max(0, fill - shape.row_entries)
    full_m, rest_m = divmod(shape.m, tiling.tile_m)
    full_n, rest_n = divmod(shape.n, tiling.tile_n)
    column_tiles = ((tiling.tile_n, full_n), (rest_n, 1))
    row_tiles = ((tiling.tile_m, full_m), (rest_m, 1))

    cycles = 2.0 * MEMORY_LATENCY
    first_a = min(tiling.tile_m, shape.m)
    first_b = shape.n if tiling.b_resident else min(tiling.tile_n, shape.n)
    cycles += memory.cycles(1, _a_bytes(config, shape, first_a))
    cycles += memory.cycles(1, first_b * shape.b_pitch)
    last_c = 0.0
    for rows, outer in row_tiles:
        a_time = memory.cycles(1, _a_bytes(config, shape, rows))
        for columns, inner in column_tiles:
            if not rows * columns * outer * inner:
                continue
            blocks = -(-columns // width)
            compute = blocks * max(-(-rows // config.rows) * visit, fill) + iteration
            b_time = 0.0 if tiling.b_resident else memory.cycles(1, columns * shape.b_pitch)
            row_bytes = align(columns * out_bytes, GRANULE)
            whole = row_bytes == shape.c_pitch
            last_c = memory.cycles(1, rows * row_bytes) if whole else memory.cycles(rows, row_bytes)
            traffic = a_time / inner + b_time + last_c
            # A single buffer is loaded, or stored, while nothing is computed.
            compute += last_c if tiling.c_buffers == 1 else 0
            compute += b_time if tiling.b_buffers == 1 else 0
            compute += a_time / inner if tiling.a_buffers == 1 and full_m + bool(rest_m) > 1 else 0
            cycles += outer * inner * max(compute, traffic)
    return math.ceil(cycles + last_c + (MEMORY_LATENCY if last_c else 0))
