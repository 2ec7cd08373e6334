"""The commands of a staged product: in which order what is loaded, made ready, multiplied, stored.

Of everything there are two buffers where the scratchpad has room; four queues work side by side:

- LOAD0 loads tiles and parts: to their ready places, or to where they wait to be made ready. Card
  memory is faster with one load at a time.
- VECTOR makes tiles and parts ready; afterwards it may finish sums, column by column.
- COMPUTE runs one MATMUL over all iterations; STORE stores its results.

Each buffer has two semaphores: one that it is full, one that it is free.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, Format
from . import commands
from .commands import Operand, Signal, Wait
from .schedule import turns
from .sources import Place, Source
from .staged_shapes import COLUMN_BYTES, Layout, Shape, layout_of
from .tiling import Problem, align

__all__ = ["StagedSchedule"]

(TILE_RAW, TILE_RAW_FREE, TILE, TILE_FREE, PART_RAW, PART_RAW_FREE, PART, PART_FREE) = range(8)
SUMS, DONE, ROOM = range(8, 11)

PIECES = 8
"""Most pieces in which a tile is made ready."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedSchedule:
    """Writes the commands of a product with its tiles.

    Parameters
    ----------
    a, b : Source
        [M, K] and [N, K].
    problem : Problem
        Formats, slices, and what rows cost.
    out_format : Format
        Of C; the array's own results are FP32 where sums are finished by column.
    anchor : int
        Of the window of BF16 sums.
    finished : bool
        Whether sums are finished by column.
    shape : Shape
    """

    a: Source
    b: Source
    problem: Problem
    out_format: Format
    anchor: int
    finished: bool
    shape: Shape

    @property
    def c_pitch(self) -> int:
        """Bytes from a row of C to the next."""
        return align(self.shape.parts * self.shape.part * BITS[self.out_format] // 8, GRANULE)

    @property
    def layout(self) -> Layout:
        """What lies in the scratchpad."""
        return layout_of(self.a, self.b, self.problem, self.shape, table=self.finished)

    @property
    def scratchpad_bytes(self) -> int:
        """Bytes of scratchpad that the plan uses."""
        return self.layout.total(self.shape.buffers)

    def commands(self, a: int, b: int, c: int) -> list[bytes]:
        """Return the commands, without an END, for operands at these addresses of card memory.

        They start with all semaphores at 0, leave credits behind, and use the whole scratchpad.
        """
        out = [
            commands.semaphore(free, count)
            for free, count in zip(
                (TILE_RAW_FREE, TILE_FREE, PART_RAW_FREE, PART_FREE, ROOM),
                self.shape.buffers,
                strict=True,
            )
        ]
        if self.layout.table:
            out.append(commands.load(Operand(b), Operand(0), x_bytes=self.layout.table))
        out += [*self._load_tile(a, 0), *self._matmuls(), self._store(c)]
        for tile in range(self.shape.tiles):
            out += self._turn(a, b, tile)
        return out

    def _pad(self, kind: int, number: int = 0) -> Operand:
        """Return the buffers of a kind, in turns, from the one of use ``number`` on."""
        layout, buffers = self.layout, self.shape.buffers
        base, size = layout.base(kind, buffers), layout.sizes[kind]
        if kind == 3 and self.shape.parts_stay:
            return Operand(base, inner=size if self.shape.parts > 1 else 0)
        return turns(base, size, buffers[kind], number)

    def _load_tile(self, memory: int, number: int) -> Iterator[bytes]:
        """Yield the loads of a tile, with its directory if its buffer has none yet."""
        layout, shape, a = self.layout, self.shape, self.a
        blob = self._pad(1, number).base
        if number < shape.buffers[1]:
            yield commands.load(Operand(memory), Operand(blob), x_bytes=layout.directory)
        lines = a.transfer(shape.tile)
        yield commands.load(
            Operand(memory + layout.directory + number * lines.step),
            Operand(self._pad(0, number).base if a.staged else blob + layout.directory),
            x_bytes=lines.x_bytes,
            y=lines.y,
            memory_y_stride=lines.memory_y_stride,
            scratchpad_y_stride=lines.scratchpad_y_stride,
            wait=[Wait(TILE_RAW_FREE if a.staged else TILE_FREE)],
            signal=[Signal(TILE_RAW if a.staged else TILE)],
        )

    def _load_parts(self, memory: int, tile: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield the load of some parts for a tile."""
        layout, shape, b = self.layout, self.shape, self.b
        if start == stop:
            return
        lines, first = b.transfer(shape.part), tile * shape.parts + start
        pad = self._pad(2 if b.staged else 3, first)
        if not b.staged and shape.parts_stay:
            pad = dataclasses.replace(pad, base=pad.base + start * pad.inner)
        yield commands.load(
            Operand(memory + layout.table + start * lines.step, inner=lines.step),
            pad,
            x_bytes=lines.x_bytes,
            y=lines.y,
            memory_y_stride=lines.memory_y_stride,
            scratchpad_y_stride=lines.scratchpad_y_stride,
            inner=stop - start,
            wait=[Wait(PART_RAW_FREE if b.staged else PART_FREE)],
            signal=[Signal(PART_RAW if b.staged else PART)],
        )

    def _loads(self, a: int, b: int, tile: int) -> Iterator[bytes]:
        """Yield the loads of a tile's parts and, early enough, of the next tile."""
        shape = self.shape
        loaded = 0 if tile and shape.parts_stay else shape.parts
        first = loaded if shape.parts_stay else min(2, loaded)
        yield from self._load_parts(b, tile, 0, first)
        if tile + 1 < shape.tiles:
            yield from self._load_tile(a, tile + 1)
        yield from self._load_parts(b, tile, first, loaded)

    def _turn(self, a: int, b: int, tile: int) -> Iterator[bytes]:
        """Yield the loads and the vector unit's commands for a tile.

        A queue that is full keeps all later commands back, so these come in an order in which no
        queue needs more than two places for commands that wait for later ones.
        """
        shape, sums = self.shape, self.finished
        # With two places the next tile is made ready while this one's sums are finished, piece by
        # piece, so that no sum waits for long.
        ahead = sums and shape.buffers[1] > 1
        if self.a.staged and (tile == 0 or not ahead):
            yield from self._make_tile(tile, range(shape.tile))
        if self.b.staged and not (tile and shape.parts_stay):
            yield from self._make_parts(tile)
        yield from self._loads(a, b, tile)
        if not sums:
            return
        pieces = min(PIECES, shape.parts, shape.tile) if self.a.divisible else 1
        for piece in range(pieces):
            if self.a.staged and ahead and tile + 1 < shape.tiles:
                yield from self._make_tile(tile + 1, _piece(shape.tile, piece, pieces))
            yield self._finish(tile, _piece(shape.parts, piece, pieces))

    def _make_tile(self, number: int, rows: range) -> list[bytes]:
        blob = self._pad(1, number).base
        place = Place(
            raw=Operand(self._pad(0, number).base),
            ready=Operand(blob + self.layout.directory),
            directory=Operand(blob),
            items=self.shape.tile,
            size=self.problem.slice,
            rows=rows,
        )
        first, last = rows.start == 0, rows.stop == self.shape.tile
        return self.a.prepare(
            place,
            inner=1,
            wait=[Wait(TILE_RAW), Wait(TILE_FREE)] if first else [],
            signal=[Signal(TILE_RAW_FREE), Signal(TILE)] if last else [],
        )

    def _make_parts(self, tile: int) -> list[bytes]:
        number = tile * self.shape.parts
        place = Place(
            raw=self._pad(2, number),
            ready=self._pad(3, number),
            directory=Operand(),
            items=self.shape.part,
            size=self.b.k,
            rows=range(self.shape.part),
        )
        return self.b.prepare(
            place,
            inner=self.shape.parts,
            wait=[Wait(PART_RAW), Wait(PART_FREE)],
            signal=[Signal(PART_RAW_FREE), Signal(PART)],
        )

    def _finish(self, tile: int, parts: range) -> bytes:
        """Return what makes results of a tile's sums with some parts, in their place."""
        shape, layout = self.shape, self.layout
        results = self._pad(4, tile * shape.parts + parts.start)
        rows = commands.Rows(
            length=shape.part,
            y=shape.tile,
            in_format=Format.FP32,
            out_format=self.out_format,
            in_y_stride=layout.result_pitch,
            out_y_stride=layout.result_pitch,
        )
        return commands.affine(
            results,
            results,
            rows,
            table=Operand(parts.start * shape.part * COLUMN_BYTES, inner=shape.part * COLUMN_BYTES),
            inner=len(parts),
            wait=[Wait(SUMS)],
            signal=[Signal(DONE)],
        )

    def _matmuls(self) -> list[bytes]:
        tiles = self.shape.tiles
        if not self.shape.parts_stay or tiles == 1:
            return [self._matmul(0, tiles, wait_for_parts=True)]
        # Parts are waited for once.
        return [
            self._matmul(0, 1, wait_for_parts=True),
            self._matmul(1, tiles - 1, wait_for_parts=False),
        ]

    def _matmul(self, tile: int, tiles: int, *, wait_for_parts: bool) -> bytes:
        shape, problem = self.shape, self.problem
        wait = [Wait(TILE, outer=True), Wait(ROOM), *([Wait(PART)] if wait_for_parts else [])]
        signal = [Signal(TILE_FREE, outer=True), Signal(SUMS if self.finished else DONE)]
        if not shape.parts_stay:
            signal.append(Signal(PART_FREE))
        pitch = self.b.pitch(self.b.k)
        columns: dict[str, Any] = {"x_inner_stride": pitch}
        k_bytes = problem.k * BITS[problem.resident_format] // 8
        if k_bytes > 0xFFFF:
            columns |= {"run_bytes": k_bytes // 2, "x_run_stride": k_bytes // 2}
        return commands.matmul(
            dataclasses.replace(self._pad(1, tile), pong_outer=True),
            self._pad(3),
            self._pad(4, tile * shape.parts),
            k=problem.k,
            n=shape.part,
            entries=shape.tile,
            slice=problem.slice,
            stream_format=problem.stream_format,
            encoding=problem.encoding,
            in_format=problem.resident_format,
            out_format=problem.out_format,
            block_scale=self.a.block is not None,
            anchor=self.anchor,
            inner=shape.parts,
            outer=tiles,
            wait=wait,
            signal=signal,
            **columns,
        )

    def _store(self, memory: int) -> bytes:
        shape, pitch = self.shape, self.c_pitch
        line = shape.part * BITS[self.out_format] // 8
        return commands.store(
            Operand(memory, inner=line, outer=shape.tile * pitch),
            self._pad(4),
            x_bytes=line,
            y=shape.tile,
            memory_y_stride=pitch,
            scratchpad_y_stride=self.layout.result_pitch,
            inner=shape.parts,
            outer=shape.tiles,
            wait=[Wait(DONE)],
            signal=[Signal(ROOM)],
        )


def _piece(total: int, number: int, pieces: int) -> range:
    """Return the numbers of one of several pieces of about one size."""
    return range(total * number // pieces, total * (number + 1) // pieces)
