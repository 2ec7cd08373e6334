"""The commands of a tiled convolution.

Loads, iterations of the array and stores are ordered by semaphores:

- ``X_READY``, ``X_FREE``: tiles of rows that have arrived, and buffers for them.
- ``READY``, ``FREE``: tiles of weights that have arrived, and buffers for them. Weights that stay
  are waited for in the first pass only.
- ``DONE``, ``ROOM``: results of tiles of rows, and buffers for them.
- ``LOADED``, ``STORED``: turns of stores and of loads, where they take turns: in the order load 0,
  load 1, store 0, load 2, store 1, load 3, ...

Each queue of loads and stores gets at most three commands, and the array's come last: so none of
them keeps one from being seen that it waits for.
"""

import dataclasses
from collections.abc import Iterator

from ...rtl.isa import Format, Queue
from . import commands
from .commands import Operand, Signal, Wait
from .convolution_shape import ConvLayout
from .convolution_tiles import ConvProblem, ConvTiling
from .schedule import Epilogue

__all__ = ["ConvCommands"]

X_READY, X_FREE, READY, FREE, DONE, ROOM, LOADED, STORED = range(8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvCommands:
    """Writes the commands of a convolution with a tiling.

    Parameters
    ----------
    problem : ConvProblem
    tiling : ConvTiling
    entries : int
        Directory entries of a slice, the same in all tiles.
    stream_format : Format
    epilogue : Epilogue
    """

    problem: ConvProblem
    tiling: ConvTiling
    entries: int
    stream_format: Format
    epilogue: Epilogue

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        """Return the commands for operands at these addresses of card memory."""
        tiling = self.tiling
        credits = [(X_FREE, tiling.inputs), (ROOM, tiling.results)]
        if not tiling.kept:
            credits.append((FREE, tiling.blobs))
        if tiling.turns:
            credits.append((STORED, 2))
        return [
            *(commands.semaphore(index, value) for index, value in credits),
            self._load_weights(weights),
            *self._load_rows(x),
            *self._stores(y),
            *self._matmuls(),
        ]

    @property
    def _layout(self) -> ConvLayout:
        return self.problem.layout

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Bytes of a buffer of rows, of weights, and of results."""
        layout, tiling = self._layout, self.tiling
        return (
            layout.rows_in(tiling.rows) * layout.row_bytes,
            tiling.blob_bytes,
            tiling.rows * layout.out_row_bytes,
        )

    @property
    def _blob_base(self) -> int:
        return self.tiling.inputs * self._sizes[0]

    @property
    def _result_base(self) -> int:
        return self._blob_base + self.tiling.blobs * self._sizes[1]

    def _spans(self) -> list[tuple[int, int, int]]:
        """First pass, passes, and output rows of each: a smaller last one stands alone."""
        tiling = self.tiling
        last = self._layout.shape.outputs[0] - (tiling.passes - 1) * tiling.rows
        if last == tiling.rows:
            return [(0, tiling.passes, last)]
        full = [(0, tiling.passes - 1, tiling.rows)] if tiling.passes > 1 else []
        return [*full, (tiling.passes - 1, 1, last)]

    @property
    def _alone(self) -> bool:
        """Whether weights come before the first rows, in their queue, as they are one tile."""
        tiling = self.tiling
        return tiling.kept and tiling.tiles == 1 and not tiling.turns

    def _blob_pad(self, number: int) -> Operand:
        """Buffers of weights, from iteration ``number`` of all on."""
        size, tiling = self._sizes[1], self.tiling
        if tiling.kept:
            step = size if tiling.tiles > 1 else 0
            return Operand(self._blob_base + number % tiling.tiles * size, inner=step)
        return _turns(self._blob_base, size, tiling.blobs, number)

    def _load_weights(self, base: int) -> bytes:
        tiling, size, alone = self.tiling, self._sizes[1], self._alone
        return commands.load(
            Operand(base, inner=size),
            self._blob_pad(0),
            x_bytes=size,
            queue=Queue.LOAD0 if alone else Queue.LOAD1,
            inner=tiling.tiles,
            outer=1 if tiling.kept else tiling.passes,
            wait=[] if tiling.kept else [Wait(FREE)],
            signal=[] if alone else [Signal(READY)],
        )

    def _load_rows(self, base: int) -> Iterator[bytes]:
        layout, tiling, spans = self._layout, self.tiling, self._spans()
        step = tiling.rows * layout.shape.stride[0] * layout.row_bytes
        if tiling.turns:
            _, passes, rows = spans[0]
            spans[:1] = [(0, 1, rows), (1, passes - 1, rows)]
        for first, passes, rows in spans:
            wait, signal = [Wait(X_FREE)], [Signal(X_READY)]
            if tiling.turns:
                wait.append(Wait(STORED))
                signal += [Signal(LOADED)] if first else []
            count, line = layout.rows_in(rows), layout.row_bytes
            yield commands.load(
                Operand(base + first * step, inner=step),
                _turns(0, self._sizes[0], tiling.inputs, first),
                x_bytes=line if layout.skips else count * line,
                y=count if layout.skips else 1,
                memory_y_stride=layout.shape.stride[0] * line,
                scratchpad_y_stride=line,
                queue=Queue.LOAD0,
                inner=passes,
                wait=wait,
                signal=signal,
            )

    def _stores(self, base: int) -> Iterator[bytes]:
        step, tiling, spans = self._sizes[2], self.tiling, self._spans()
        if tiling.turns and len(spans) == 1:
            spans = [(0, tiling.passes - 1, tiling.rows), (tiling.passes - 1, 1, tiling.rows)]
        for first, passes, rows in spans:
            wait, signal = [Wait(DONE)], [Signal(ROOM)]
            if tiling.turns:
                # Behind the load of the next rows, if there are any.
                wait += [Wait(LOADED)] if first + passes < tiling.passes else []
                signal.append(Signal(STORED))
            yield commands.store(
                Operand(base + first * step, inner=step),
                _turns(self._result_base, step, tiling.results, first),
                x_bytes=rows * self._layout.out_row_bytes,
                inner=passes,
                wait=wait,
                signal=signal,
            )

    def _matmuls(self) -> Iterator[bytes]:
        tiling = self.tiling
        several = tiling.kept and not self._alone
        for first, passes, rows in self._spans():
            if tiling.streams.groups > 1 and tiling.tiles > tiling.streams.groups:
                # Groups of several tiles: a loop too many for one command.
                each = tiling.tiles // tiling.streams.groups
                for number in range(first, first + passes):
                    for tile in range(0, tiling.tiles, each):
                        yield self._matmul(number, 1, rows, tile, each)
                continue
            if several and first == 0 and passes > 1:
                yield self._matmul(0, 1, rows, 0, tiling.tiles)
                first, passes = 1, passes - 1
            yield self._matmul(first, passes, rows, 0, tiling.tiles)

    def _matmul(self, first: int, passes: int, rows: int, tile: int, tiles: int) -> bytes:
        """Return the command for some passes, and in each for ``tiles`` tiles from ``tile`` on."""
        tiling, streams, epilogue = self.tiling, self.tiling.streams, self.epilogue
        layout, shape = self._layout, self._layout.shape
        group, within = divmod(tile * streams.groups, tiling.tiles)
        assert within == 0, "a command starts with a group"
        x = _turns(0, self._sizes[0], tiling.inputs, first)
        x = dataclasses.replace(
            x,
            base=x.base + group * streams.group_bytes,
            inner=streams.group_bytes if tiling.tiles == streams.groups > 1 else 0,
            pong_outer=True,
        )
        out = _turns(self._result_base, self._sizes[2], tiling.results, first)
        wait, signal = [], []
        if not tiling.kept or (not self._alone and first == 0):
            wait.append(Wait(READY))
        if not tiling.kept:
            signal.append(Signal(FREE))
        if tile == 0:
            wait += [Wait(X_READY, outer=True), Wait(ROOM, outer=True)]
        if tile + tiles == tiling.tiles:
            signal += [Signal(X_FREE, outer=True), Signal(DONE, outer=True)]
        return commands.matmul(
            self._blob_pad(first * tiling.tiles + tile),
            x,
            dataclasses.replace(out, pong_outer=True),
            k=streams.k,
            n=rows * layout.columns,
            n_inner=layout.columns,
            entries=self.entries,
            slice=streams.slice,
            stream_format=self.stream_format,
            encoding=streams.encoding,
            in_format=layout.in_format,
            out_format=layout.out_format,
            run_bytes=streams.run_bytes,
            runs_inner=streams.runs_inner,
            x_run_stride=streams.run_stride,
            x_run_outer_stride=streams.run_outer_stride,
            x_inner_stride=shape.stride[1] * layout.pixel_bytes,
            x_outer_stride=layout.row_step * layout.row_bytes,
            out_inner_stride=layout.out_pixel_bytes,
            out_outer_stride=layout.out_row_bytes,
            function=epilogue.function,
            anchor=epilogue.anchor,
            zero_point=epilogue.zero_point,
            clamp=epilogue.clamp,
            inner=tiles,
            outer=passes,
            wait=wait,
            signal=signal,
        )


def _turns(base: int, size: int, buffers: int, number: int) -> Operand:
    """Buffers that iterations use in turn, from the one of iteration ``number`` on."""
    if buffers == 1:
        return Operand(base)
    first = number % 2
    return Operand(base + first * size, pong=size - 2 * first * size)
