"""The commands of a tiled GEMM.

One MATMUL runs all iterations, so that the array never drains in between. Around it, loads and
stores are ordered by semaphores:

- ``READY``: a credit for each iteration that may start as far as what stays is concerned.
- ``MOVED``: a credit for each item that moves, when all of it has arrived.
- ``PASSED``: a credit for each pass that has ended; what moved in it may be overwritten.
- ``FREE``: a credit for each iteration that has ended; needed where there are several panels.
- ``ROOM``, ``DONE``: buffers of results that are free, and that are full.

In the first pass over a panel each item that stays gives the READY of its iteration when it
arrives. In the passes behind it the item is there already, and the *moving* item gives the credits:
it is loaded in as many pieces as the panel has items. In the same way these pieces take the FREE
credits of the pass before the last; those of the last pass over a panel are taken by the items of
the next panel, which overwrite the items that stay. One queue runs all these loads, so that credits
are given and taken in the order of iterations. Only the first item that moves comes by the other
queue, beside the first one that stays; whatever comes next waits for FIRST, so that it neither
passes that one nor takes its share of the memory's time.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...rtl.isa import BITS, Format, Function, Queue
from . import commands
from .commands import Operand, Signal, Wait
from .tiling import Problem, Tiling, buffer_bytes

__all__ = ["Epilogue", "Group", "Schedule", "turns"]

READY, MOVED, PASSED, FREE, ROOM, DONE, FIRST = range(7)


class Group(NamedTuple):
    """Tiles of one size: the first one's number and row, how many, and where their blobs lie."""

    tile: int
    row: int
    rows: int
    tiles: int
    offset: int
    blob_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epilogue:
    """What the card does with sums: see `commands.matmul`."""

    function: Function = Function.NONE
    zero_point: int = 0
    clamp: tuple[int, int] | None = None
    anchor: int = 0
    block_scale: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Writes the commands of a problem with a tiling.

    Parameters
    ----------
    entries : int
        Directory entries of a slice, the same in all tiles.
    groups : sequence of Group
        Tiles in the stream operand's image.
    part_bytes : int
        Bytes of a part.
    c_pitch : int
        Bytes from a row of C to the next.
    """

    problem: Problem
    tiling: Tiling
    entries: int
    groups: tuple[Group, ...]
    part_bytes: int
    c_pitch: int
    epilogue: Epilogue

    def commands(self, stream: int, resident: int, c: int) -> list[bytes]:
        """Return the commands for operands at these addresses of card memory."""
        tiling = self.tiling
        memory = {"rows": stream, "columns": resident}
        staying = memory[tiling.stay]
        moving = memory["columns" if tiling.stay == "rows" else "rows"]
        # What the first iteration needs comes first, side by side.
        first, *others = self._load_staying(staying, 0)
        out = [*self._load_moving(moving, 0, 0, 1), first]
        if self._waits_for_room:
            out.append(commands.semaphore(ROOM, tiling.results))
        out.append(self._matmul())
        out += others
        for panel in range(tiling.panels):
            if panel:
                out += self._load_moving(moving, panel, 0, 1)
                out += self._load_staying(staying, panel)
            # Stores before loads: a full load queue must not keep them from being seen.
            out += self._stores(c, panel)
            out += self._load_moving(moving, panel, 1, tiling.movers)
        return out

    @property
    def _iterations(self) -> int:
        return self.tiling.passes * self.tiling.inner

    @property
    def _waits_for_room(self) -> bool:
        return not self.tiling.gather and self.tiling.results < self._iterations

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Bytes of a buffer of what stays, of what moves, and of results."""
        blob = max(group.blob_bytes for group in self.groups)
        _, _, result = buffer_bytes(self.problem, self.tiling)
        sizes = (self.part_bytes, blob)
        return (*(sizes if self.tiling.stay == "columns" else sizes[::-1]), result)

    @property
    def scratchpad_bytes(self) -> int:
        """Bytes of scratchpad that the plan uses."""
        stay, move, result = self._sizes
        tiling = self.tiling
        return tiling.kept * stay + tiling.moving * move + tiling.results * result

    @property
    def _move_base(self) -> int:
        return self.tiling.kept * self._sizes[0]

    @property
    def _result_base(self) -> int:
        return self._move_base + self.tiling.moving * self._sizes[1]

    def _moving_pad(self, number: int) -> Operand:
        """Buffers of what moves, from the pass ``number`` on, for a loop over passes."""
        size = self._sizes[1]
        if self.tiling.moving == self.tiling.passes:
            return Operand(self._move_base + number * size, outer=size)
        return dataclasses.replace(
            turns(self._move_base, size, self.tiling.moving, number), pong_outer=True
        )

    def _result_pad(self, number: int) -> Operand:
        """Buffers of results, from iteration ``number`` on."""
        size = self._sizes[2]
        if self.tiling.gather:
            problem, part = self.problem, self.tiling.part
            bits = BITS[problem.out_format] if problem.stream == "a" else 8 * self.c_pitch
            return Operand(self._result_base, inner=part * bits // 8)
        if self.tiling.results == self._iterations:
            return Operand(
                self._result_base + number * size, inner=size, outer=self.tiling.inner * size
            )
        return turns(self._result_base, size, self.tiling.results, number)

    def _staying_pad(self, number: int) -> Operand:
        """Buffers of what stays, from item ``number`` on."""
        size = self._sizes[0]
        if self.tiling.kept == self.tiling.inner:
            return Operand(number * size, inner=size)
        return turns(0, size, self.tiling.kept, number)

    def _load_moving(self, base: int, panel: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield the loads of items ``start`` to ``stop`` for one panel."""
        tiling = self.tiling
        if tiling.stay == "columns":
            spans = [(g.tile, g.tiles, g.offset, g.blob_bytes) for g in self.groups]
        else:
            spans = [(0, tiling.parts, 0, self.part_bytes)]
        # The first items of a panel may find free buffers: then they are commands of their own.
        edges = [0, 1, tiling.movers]
        if tiling.movers > 2 and self._around(panel, 1) != self._around(panel, 2):
            edges.insert(2, 2)
        for first, count, offset, size in spans:
            for low, high in itertools.pairwise(edges):
                begin, end = max(first, low, start), min(first + count, high, stop)
                if begin >= end:
                    continue
                number = panel * tiling.movers + begin
                pieces = 1 if number == 0 else tiling.inner
                wait, signal = self._around(panel, begin)
                yield commands.load(
                    Operand(
                        base + offset + (begin - first) * size, inner=size // pieces, outer=size
                    ),
                    dataclasses.replace(self._moving_pad(number), inner=size // pieces),
                    x_bytes=size // pieces,
                    queue=Queue.LOAD0 if number == 0 else Queue.LOAD1,
                    inner=pieces,
                    outer=end - begin,
                    wait=wait,
                    signal=signal,
                )

    def _around(self, panel: int, item: int) -> tuple[list[Wait], list[Signal]]:
        """Return what the load of an item that moves waits for, and what it signals."""
        tiling = self.tiling
        number = panel * tiling.movers + item
        wait = [Wait(FIRST, outer=True)] if number == 1 and tiling.inner == 1 else []
        signal = [Signal(MOVED, outer=True)]
        if item:
            signal.append(Signal(READY))
        elif not panel:
            signal.append(Signal(FIRST))
        before = number - tiling.moving  # the pass that used the buffer
        if before >= 0:
            wait.append(Wait(PASSED, outer=True))
            if tiling.panels > 1 and before % tiling.movers != tiling.movers - 1:
                wait.append(Wait(FREE))
        return wait, signal

    def _load_staying(self, base: int, panel: int) -> Iterator[bytes]:
        tiling, size = self.tiling, self._sizes[0]
        edges = (0, tiling.kept, tiling.inner) if panel else (0, 1, tiling.kept, tiling.inner)
        for start, stop in itertools.pairwise(edges):
            wait = []
            if start == 1 and not panel:
                wait.append(Wait(FIRST, outer=True))
            if panel or start >= tiling.kept:
                wait.append(Wait(FREE))
            if start < stop:
                yield commands.load(
                    Operand(base + (panel * tiling.inner + start) * size, inner=size),
                    self._staying_pad(start),
                    x_bytes=size,
                    queue=Queue.LOAD1,
                    inner=stop - start,
                    wait=wait,
                    signal=[Signal(READY)],
                )

    def _matmul(self) -> bytes:
        problem, tiling, epilogue = self.problem, self.tiling, self.epilogue
        staying, moving = self._staying_pad(0), self._moving_pad(0)
        by_columns = tiling.stay == "columns"
        wait = [Wait(READY), Wait(MOVED, outer=True)]
        signal = [Signal(DONE, outer=tiling.gather)]
        if self._waits_for_room:
            wait.append(Wait(ROOM))
        if tiling.moving < tiling.passes:
            signal.append(Signal(PASSED, outer=True))
        if tiling.panels > 1 or tiling.kept < tiling.inner:
            signal.append(Signal(FREE))
        pitch = problem.column_bytes
        columns: dict[str, Any] = {"x_inner_stride": pitch}
        if problem.stream == "b":
            columns |= {"out_inner_stride": problem.out_bytes(tiling.tile)}
        elif problem.out_format is Format.INT4:
            columns |= {"n_inner": 2, "x_outer_stride": 2 * pitch, "out_outer_stride": 1}
        k_bytes = problem.k * BITS[problem.resident_format] // 8
        if k_bytes > 0xFFFF:
            columns |= {"run_bytes": k_bytes // 2, "x_run_stride": k_bytes // 2}
        return commands.matmul(
            moving if by_columns else staying,
            staying if by_columns else moving,
            self._result_pad(0),
            k=problem.k,
            n=tiling.part,
            entries=self.entries,
            slice=problem.slice,
            stream_format=problem.stream_format,
            encoding=problem.encoding,
            in_format=problem.resident_format,
            out_format=problem.out_format,
            block_scale=epilogue.block_scale,
            function=epilogue.function,
            anchor=epilogue.anchor,
            zero_point=epilogue.zero_point,
            clamp=epilogue.clamp,
            inner=tiling.inner,
            outer=tiling.passes,
            wait=wait,
            signal=signal,
            **columns,
        )

    def _stores(self, base: int, panel: int) -> Iterator[bytes]:
        """Yield the stores of the results of one panel, in the order of the iterations."""
        tiling = self.tiling
        if tiling.gather:
            yield commands.store(
                Operand(base), Operand(self._result_base), x_bytes=self._sizes[2], wait=[Wait(DONE)]
            )
            return
        done = panel * tiling.movers * tiling.inner
        if tiling.stay == "rows":
            row = panel * tiling.inner * tiling.tile
            yield self._store(base, done, row, 0, tiling.tile, tiling.movers)
            return
        column = panel * tiling.inner * tiling.part
        for group in self.groups:
            yield self._store(base, done, group.row, column, group.rows, group.tiles)
            done += group.tiles * tiling.inner

    def _store(self, base: int, done: int, row: int, column: int, rows: int, outer: int) -> bytes:
        """Return the store of ``outer`` passes, whose first result lies at ``row`` and ``column``.

        Rows are those of the stream operand, columns those of the resident one.
        """
        problem, tiling = self.problem, self.tiling
        bits = BITS[problem.out_format]
        if problem.stream == "a":
            row_step, column_step = 8 * self.c_pitch, bits
            lines, line, pitch = (
                rows,
                problem.out_bytes(tiling.part),
                problem.out_bytes(tiling.part),
            )
        else:
            row_step, column_step = bits, 8 * self.c_pitch
            lines, line, pitch = (
                tiling.part,
                problem.out_bytes(rows),
                problem.out_bytes(tiling.tile),
            )
        tile_step, part_step = rows * row_step // 8, tiling.part * column_step // 8
        by_columns = tiling.stay == "columns"
        # Lines that follow each other in both places are one long line.
        whole = line == pitch == self.c_pitch
        return commands.store(
            Operand(
                base + (row * row_step + column * column_step) // 8,
                inner=(part_step if by_columns else tile_step) if tiling.inner > 1 else 0,
                outer=(tile_step if by_columns else part_step) if outer > 1 else 0,
            ),
            self._result_pad(done),
            x_bytes=lines * line if whole else line,
            y=1 if whole else lines,
            memory_y_stride=self.c_pitch,
            scratchpad_y_stride=pitch,
            inner=tiling.inner,
            outer=outer,
            wait=[Wait(DONE)],
            signal=[Signal(ROOM)] if self._waits_for_room else [],
        )


def turns(base: int, size: int, buffers: int, number: int) -> Operand:
    """Return buffers that iterations use in turn, from the one of iteration ``number`` on."""
    if buffers == 1:
        return Operand(base)
    first = number % 2
    return Operand(base + first * size, pong=size - 2 * first * size)
