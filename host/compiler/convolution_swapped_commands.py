"""The commands of a convolution with swapped roles.

Loads, iterations of the array, finishing and stores are ordered by semaphores:

- ``STRIP_READY``, ``STRIP_FREE``: strips that have arrived, and buffers for them; ``PART_READY``,
  ``PART_FREE`` of parts, piece by piece.
- ``TABLE_READY``, ``TABLE_FREE``: where K is cut, tables that have arrived, and buffers for them.
- ``SUMS``, ``SUM_ROOM``: sums that are complete, and buffers for them.
- ``DONE``, ``ROOM``: results, and buffers for them.

Every command comes behind those that it waits for, so that no full queue keeps one from being seen.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ...rtl.isa import Format, Queue
from . import commands
from .commands import Operand, Signal, Wait
from .convolution_swapped_tiles import (
    SUM_BYTES,
    TABLE_BYTES,
    Piece,
    SwappedProblem,
    SwappedTiling,
    uses,
)
from .rows import Rows, affine
from .streams import DIRECTORY_ENTRY_BYTES
from .tiling import LOOP_LIMIT

__all__ = ["SwappedCommands", "offsets"]

STRIP_READY, STRIP_FREE, PART_READY, PART_FREE, SUMS, SUM_ROOM, DONE, ROOM = range(8)
TABLE_READY, TABLE_FREE = 8, 9

STRIPS, PARTS, TABLES, TOTALS, RESULTS = range(5)
"""Buffers, in the order of `SwappedTiling.buffers`."""


def offsets(problem: SwappedProblem, tiling: SwappedTiling) -> tuple[int, int]:
    """Return where tables and filters lie in a plan's bytes, behind the directories."""
    tables = sum(tiling.directory_bytes(problem, strip) for strip in tiling.strips)
    count = len(tiling.parts) if tiling.cut else 1
    return tables, tables + count * tiling.table_bytes(problem)


@dataclasses.dataclass(frozen=True)
class _Step:
    """An iteration of the array: what it is of, and the buffers in turn that it uses.

    ``done`` counts the iterations before it that completed sums.
    """

    index: int
    strip: int
    part: int
    piece: Piece
    strip_number: int
    part_number: int
    done: int
    first: bool
    last: bool


class SwappedCommands:
    """Writes the commands for operands at some addresses of card memory.

    Parameters
    ----------
    problem : SwappedProblem
    tiling : SwappedTiling
    zero_point, clamp
        Of the output.
    weights, x, y : int
        Addresses in card memory.
    """

    def __init__(
        self,
        problem: SwappedProblem,
        tiling: SwappedTiling,
        *,
        zero_point: int,
        clamp: tuple[int, int],
        weights: int,
        x: int,
        y: int,
    ) -> None:
        self._problem, self._tiling = problem, tiling
        self._zero_point, self._clamp = zero_point, clamp
        self._x, self._y = x, y
        self._pieces = tiling.pieces(problem)
        tables, filters = offsets(problem, tiling)
        self._directories = weights
        self._tables, self._filters = weights + tables, weights + filters
        self._buffers = tiling.buffers(problem)
        sizes = [size * slots for size, slots in self._buffers]
        self._bases = [sum(sizes[:kind]) for kind in range(len(sizes))]

    def _buffer(self, kind: int, number: int) -> int:
        """Return where buffer ``number``, of all in turn, of a kind lies (`buffers`)."""
        size, slots = self._buffers[kind]
        return self._bases[kind] + number % slots * size

    def commands(self) -> Iterator[bytes]:
        """Yield the commands, in order."""
        tiling, pieces = self._tiling, self._pieces
        order = tiling.iterations()
        strip_uses = uses([step[0] for step in order], tiling.strip_slots)
        part_uses = uses([step[1:] for step in order], tiling.part_slots)
        complete = len(order) // len(pieces)
        # Only buffers that are used again are waited for.
        again = {
            STRIP_FREE: (tiling.strip_slots, strip_uses[-1].number + 1),
            PART_FREE: (tiling.part_slots, part_uses[-1].number + 1),
            TABLE_FREE: (self._buffers[TABLES][1], complete if tiling.cut else 1),
            SUM_ROOM: (tiling.sum_slots, complete),
            ROOM: (tiling.result_slots, complete),
        }
        self._again = {index for index, (slots, count) in again.items() if slots < count}
        for index in sorted(self._again):
            yield commands.semaphore(index, again[index][0])
        if not tiling.cut:
            # It comes in the queue of the parts, before the first one.
            yield self._load_table(0, 0, [], [])
        for index, (strip, part, piece) in enumerate(order):
            use, use_part = strip_uses[index], part_uses[index]
            step = _Step(
                index=index,
                strip=strip,
                part=part,
                piece=pieces[piece],
                strip_number=use.number,
                part_number=use_part.number,
                done=index // len(pieces),
                first=piece == 0,
                last=piece == len(pieces) - 1,
            )
            wait, signal = [], []
            if use.loads:
                yield from self._load_strip(strip, use.number)
                wait.append(Wait(STRIP_READY))
            if tiling.cut and step.first:
                free = self._waits(TABLE_FREE)
                yield self._load_table(part, step.done, free, [Signal(TABLE_READY)])
                wait.append(Wait(TABLE_READY))
            if use_part.loads:
                yield self._load_part(step)
                wait.append(Wait(PART_READY))
            signal += self._signals(STRIP_FREE) if use.leaves else []
            signal += self._signals(PART_FREE) if use_part.leaves else []
            if step.last:
                wait += self._waits(SUM_ROOM)
                signal.append(Signal(SUMS))
            yield self._matmul(step, wait, signal)
            if step.last:
                yield self._finish(step)
                yield self._store(step)

    def _waits(self, index: int) -> list[Wait]:
        return [Wait(index)] if index in self._again else []

    def _signals(self, index: int) -> list[Signal]:
        return [Signal(index)] if index in self._again else []

    def _load_table(self, part: int, number: int, wait: list[Wait], signal: list[Signal]) -> bytes:
        size, _ = self._buffers[TABLES]
        return commands.load(
            Operand(self._tables + part * size),
            Operand(self._buffer(TABLES, number)),
            x_bytes=size,
            queue=Queue.LOAD1,
            wait=wait,
            signal=signal,
        )

    def _load_strip(self, strip: int, number: int) -> Iterator[bytes]:
        problem, layout = self._problem, self._problem.layout
        shape, cut = layout.shape, self._tiling.strips[strip]
        at = self._buffer(STRIPS, number)
        before = sum(
            self._tiling.directory_bytes(problem, other) for other in self._tiling.strips[:strip]
        )
        size = self._tiling.directory_bytes(problem, cut)
        pieces: list[dict[str, Any]] = [
            {"memory": self._directories + before, "x_bytes": size, "bytes": size}
        ]
        if problem.padded:
            pieces.append(
                {
                    "memory": self._x + _padding_offset(problem),
                    "x_bytes": problem.channels,
                    "bytes": problem.channels,
                }
            )
        line = problem.line_pixels * problem.channels
        (top, _), (left, _) = shape.padding
        start = (cut.top + top) * layout.row_bytes + left * layout.pixel_bytes
        rows: dict[str, Any] = {"memory": self._x + start, "bytes": cut.lines * line}
        if problem.picks:
            rows |= {
                "x_bytes": problem.channels,
                "y": problem.line_pixels,
                "z": cut.lines,
                "memory_y_stride": shape.stride[1] * layout.pixel_bytes,
                "memory_z_stride": shape.stride[0] * layout.row_bytes,
                "scratchpad_y_stride": problem.channels,
                "scratchpad_z_stride": line,
            }
        elif line == layout.row_bytes:
            rows["x_bytes"] = cut.lines * line
        else:
            rows |= {
                "x_bytes": line,
                "y": cut.lines,
                "memory_y_stride": layout.row_bytes,
                "scratchpad_y_stride": line,
            }
        if cut.lines:
            pieces.append(rows)
        for index, piece in enumerate(pieces):
            source, length = piece.pop("memory"), piece.pop("bytes")
            yield commands.load(
                Operand(source),
                Operand(at),
                queue=Queue.LOAD0,
                wait=self._waits(STRIP_FREE) if not index else [],
                signal=[Signal(STRIP_READY)] if index == len(pieces) - 1 else [],
                **piece,
            )
            at += length

    def _load_part(self, step: _Step) -> bytes:
        parts, piece = self._tiling.parts, step.piece
        whole = sum(other.k for other in self._pieces)
        before = 0 if step.first else self._pieces[0].k
        place = sum(parts[: step.part]) * whole + parts[step.part] * before
        return commands.load(
            Operand(self._filters + place),
            Operand(self._buffer(PARTS, step.part_number)),
            x_bytes=parts[step.part] * piece.k,
            queue=Queue.LOAD1,
            wait=self._waits(PART_FREE),
            signal=[Signal(PART_READY)],
        )

    def _matmul(self, step: _Step, wait: list[Wait], signal: list[Signal]) -> bytes:
        tiling, piece = self._tiling, step.piece
        pixels = self._problem.pixels(tiling.strips[step.strip])
        # The second piece's directory lies behind the first one's.
        before = 0 if step.first else self._pieces[0].entries * pixels * DIRECTORY_ENTRY_BYTES
        out = self._buffer(TOTALS if step.last else TABLES, step.done)
        halves = 1 + (piece.k > LOOP_LIMIT)
        return commands.matmul(
            Operand(self._buffer(STRIPS, step.strip_number) + before),
            Operand(self._buffer(PARTS, step.part_number)),
            Operand(out),
            k=piece.k,
            n=tiling.parts[step.part],
            entries=pixels,
            slice=tiling.slice,
            stream_format=Format.INT8,
            out_format=Format.INT32,
            run_bytes=piece.k // halves,
            x_run_stride=piece.k // halves,
            x_inner_stride=piece.k,
            out_inner_stride=SUM_BYTES if step.last else TABLE_BYTES,
            deal_on=step.index > 0,
            wait=wait,
            signal=signal,
        )

    def _finish(self, step: _Step) -> bytes:
        """Return the command that turns sums into results, beside the array."""
        tiling = self._tiling
        filters, most = tiling.parts[step.part], max(tiling.parts)
        pixels = self._problem.pixels(tiling.strips[step.strip])
        # With a table entry for each sum, they are one row.
        length, rows = (pixels * filters, 1) if tiling.cut else (filters, pixels)
        table = self._buffer(TABLES, step.done)
        if not tiling.cut:
            table += TABLE_BYTES * sum(tiling.parts[: step.part])
        return affine(
            Operand(self._buffer(TOTALS, step.done)),
            Operand(self._buffer(RESULTS, step.done)),
            Rows(
                length=length,
                y=rows,
                in_format=Format.INT32,
                out_format=Format.INT8,
                in_y_stride=SUM_BYTES * most,
                out_y_stride=filters,
                zero_point=self._zero_point,
                clamp_low=self._clamp[0],
                clamp_high=self._clamp[1],
            ),
            table=Operand(table),
            wait=[Wait(SUMS), *self._waits(ROOM)],
            signal=[Signal(DONE), *self._signals(SUM_ROOM), *self._signals(TABLE_FREE)],
        )

    def _store(self, step: _Step) -> bytes:
        problem, tiling = self._problem, self._tiling
        cut = tiling.strips[step.strip]
        filters, pixels = tiling.parts[step.part], problem.pixels(cut)
        whole = filters == problem.filters
        first = cut.first * problem.layout.shape.outputs[1]
        return commands.store(
            Operand(self._y + first * problem.filters + sum(tiling.parts[: step.part])),
            Operand(self._buffer(RESULTS, step.done)),
            x_bytes=pixels * filters if whole else filters,
            y=1 if whole else pixels,
            memory_y_stride=problem.filters,
            scratchpad_y_stride=filters,
            wait=[Wait(DONE)],
            signal=self._signals(ROOM),
        )


def _padding_offset(problem: SwappedProblem) -> int:
    """Return where a pixel of padding lies in the input."""
    layout = problem.layout
    (above, below), (left, _) = layout.shape.padding
    height, width = layout.size
    if above or left:
        return 0
    if below:
        return (height - 1) * layout.row_bytes
    return (width - 1) * layout.pixel_bytes
