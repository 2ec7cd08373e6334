"""The commands of a depthwise convolution.

Each band of output rows is loaded, worked on part by part, and stored. Where two bands share input
rows, the vector unit copies them from the buffer of one band to that of the next, and only the
others are loaded. Card memory is slow where transfers compete: so all loads are in one queue, and
loads and stores take turns, in the order load 0, load 1, store 0, load 2, store 1, load 3, ...

Semaphores order all this:

- ``X_READY``, ``X_FREE``: bands that have been loaded, and buffers that the array is done with.
- ``READY``, ``FREE``: streams of a part that have arrived, and room for those of a part of the next
  chunk.
- ``DONE``, ``ROOM``: results of bands, and buffers for them.
- ``SHARED``: bands whose last rows may be copied. ``SPARE``: buffers that they may be copied to.
  ``COPIED``: copies for the array to wait for. ``KEPT``: copies that the next load into the buffer
  that was copied from waits for.
- ``LOADED``, ``STORED``: turns of stores and of loads.

Bands are counted through all sections. Every command comes behind those that it waits for, but for
the array's, which wait for room that the stores before them give.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...rtl.config import GRANULE
from ...rtl.isa import Encoding, Format
from . import commands
from .commands import Operand, Signal, Wait
from .depthwise_tiles import DepthwiseTiling, Section
from .schedule import Epilogue

__all__ = ["DepthwiseCommands"]

X_READY, X_FREE, READY, FREE, DONE, ROOM, SHARED, SPARE, COPIED, KEPT, LOADED, STORED = range(12)


class Band(NamedTuple):
    """A band: its number among all, its place in its section, and its output rows."""

    number: int
    place: int
    first: int
    rows: int


class Step(NamedTuple):
    """What bands have in common that are worked on by one command.

    ``leads``: it is the first one of a section, whose input rows are all loaded.
    """

    rows: int
    leads: bool
    wait: tuple[Wait, ...]
    signal: tuple[Signal, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwiseCommands:
    """Writes the commands of a depthwise convolution with a tiling.

    Parameters
    ----------
    tiling : DepthwiseTiling
    entries : int
        Directory entries of a part.
    stream_format : Format
    epilogue : Epilogue
    """

    tiling: DepthwiseTiling
    entries: int
    stream_format: Format
    epilogue: Epilogue

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        """Return the commands for operands at these addresses of card memory."""
        tiling = self.tiling
        credits = {X_FREE: tiling.buffers, ROOM: tiling.buffers}
        credits |= {FREE: tiling.chunk // tiling.part, STORED: 2}
        if tiling.shares:
            credits |= {SPARE: 2, KEPT: 1}
        out = [commands.semaphore(index, value) for index, value in credits.items()]
        for number, section in enumerate(tiling.sections):
            # The streams of a chunk come when those before them are done with, and its first band
            # may come before.
            first, *others = self._load_bands(x, number)
            blobs = [self._load_blobs(weights, section)] if section.column == 0 else []
            out += [first, *blobs, *others]
            out += self._copies(number)
            out += self._stores(y, number)
            out += self._matmuls(number)
        return out

    def _bands(self, section: int) -> list[Band]:
        bands = self.tiling.bands
        return [
            Band(section * len(bands) + place, place, first, rows)
            for place, (first, rows) in enumerate(bands)
        ]

    def _steps(
        self, section: int, step: Callable[[Band], Step]
    ) -> Iterator[tuple[Step, list[Band]]]:
        """Yield bands that follow each other and have a step in common."""
        for each, bands in itertools.groupby(self._bands(section), step):
            yield each, list(bands)

    def _turns(self, base: int, size: int, number: int) -> Operand:
        """Buffers that bands use in turn, from band ``number`` of all on."""
        if self.tiling.buffers == 1:
            return Operand(base)
        first = number % 2
        return Operand(base + first * size, pong=size - 2 * first * size)

    @property
    def _last(self) -> int:
        """Place of the last band of a section."""
        return len(self.tiling.bands) - 1

    def _load_blobs(self, base: int, section: Section) -> bytes:
        tiling = self.tiling
        return commands.load(
            Operand(base + section.channel // tiling.part * tiling.blob, inner=tiling.blob),
            Operand(tiling.bases[1], inner=tiling.blob),
            x_bytes=tiling.blob,
            inner=section.channels // tiling.part,
            wait=[Wait(FREE)],
            signal=[Signal(READY)],
        )

    def _load_step(self, band: Band) -> Step:
        shares = self.tiling.shares
        wait, signal = [Wait(X_FREE), Wait(STORED)], [Signal(X_READY)]
        if band.number:
            signal.append(Signal(LOADED))
        if shares and band.place == 0:
            wait.append(Wait(SPARE))
        if shares and band.place != 1:
            wait.append(Wait(KEPT))
        if shares and band.place != self._last:
            signal.append(Signal(SHARED))
        return Step(band.rows, band.place == 0, tuple(wait), tuple(signal))

    def _load_bands(self, base: int, number: int) -> Iterator[bytes]:
        tiling, layout = self.tiling, self.tiling.problem.layout
        section = tiling.sections[number]
        channels, pixels = section.channels, tiling.pixels_in(section.width)
        line, pitch = layout.row_bytes, tiling.line(channels)
        base += section.column * layout.shape.stride[1] * layout.pixel_bytes + section.channel
        for step, bands in self._steps(number, self._load_step):
            down = layout.shape.stride[0]
            above = tiling.shared if tiling.shares and not step.leads else 0
            height = tiling.rows_in(step.rows) - above
            row = bands[0].first * down + above
            pad = self._turns(above * pitch, tiling.sizes[0], bands[0].number)
            if tiling.whole:
                lines = {"x_bytes": height * line}
            elif channels == tiling.problem.channels:
                lines = {
                    "x_bytes": pixels * channels,
                    "y": height,
                    "memory_y_stride": line,
                    "scratchpad_y_stride": pitch,
                }
            else:
                lines = {
                    "x_bytes": channels,
                    "y": pixels,
                    "z": height,
                    "memory_y_stride": layout.pixel_bytes,
                    "memory_z_stride": line,
                    "scratchpad_y_stride": channels,
                    "scratchpad_z_stride": pitch,
                }
            yield commands.load(
                Operand(base + row * line, inner=step.rows * down * line),
                pad,
                inner=len(bands),
                wait=step.wait,
                signal=step.signal,
                **lines,
            )

    def _copies(self, number: int) -> Iterator[bytes]:
        """Yield the copies from each band but the last to the next."""
        tiling = self.tiling
        if not tiling.shares:
            return
        pitch, size = tiling.line(tiling.sections[number].channels), tiling.sizes[0]
        first = self._bands(number)[0].number
        below = tiling.rows * tiling.problem.layout.shape.stride[0] * pitch
        granules = tiling.shared * pitch // GRANULE
        yield commands.pool(
            self._turns(below, size, first),
            self._turns(0, size, first + 1),
            granules=granules,
            out_y=1,
            out_x=1,
            kernel_y=1,
            kernel_x=1,
            in_y_stride=0,
            in_x_stride=0,
            in_ky_stride=0,
            in_kx_stride=0,
            out_y_stride=0,
            out_x_stride=0,
            inner=self._last,
            wait=[Wait(SHARED), Wait(SPARE)],
            signal=[Signal(COPIED), Signal(KEPT)],
        )

    def _store_step(self, band: Band) -> Step:
        last = band.number + 1 == len(self.tiling.sections) * len(self.tiling.bands)
        wait = [Wait(DONE)] if last else [Wait(DONE), Wait(LOADED)]
        return Step(band.rows, band.place == 0, tuple(wait), (Signal(ROOM), Signal(STORED)))

    def _stores(self, base: int, number: int) -> Iterator[bytes]:
        tiling, layout = self.tiling, self.tiling.problem.layout
        section = tiling.sections[number]
        filters, line = tiling.problem.filters(section.channels), layout.out_row_bytes
        pitch = tiling.out_line(section.channels)
        start = base + section.column * layout.out_pixel_bytes
        start += tiling.problem.filters(section.channel)
        for step, bands in self._steps(number, self._store_step):
            if section.channels < tiling.problem.channels:
                lines = {
                    "x_bytes": filters,
                    "y": section.width,
                    "z": step.rows,
                    "memory_y_stride": layout.out_pixel_bytes,
                    "memory_z_stride": line,
                    "scratchpad_y_stride": filters,
                    "scratchpad_z_stride": pitch,
                }
            elif tiling.whole and pitch == line:
                lines = {"x_bytes": step.rows * line}
            else:
                lines = {
                    "x_bytes": line if tiling.whole else section.width * filters,
                    "y": step.rows,
                    "memory_y_stride": line,
                    "scratchpad_y_stride": pitch,
                }
            yield commands.store(
                Operand(start + bands[0].first * line, inner=step.rows * line),
                self._turns(tiling.bases[2], tiling.sizes[1], bands[0].number),
                inner=len(bands),
                wait=step.wait,
                signal=step.signal,
                **lines,
            )

    def _matmul_step(self, band: Band) -> Step:
        tiling, shares = self.tiling, self.tiling.shares
        strip = band.number // len(tiling.bands) % len(tiling.strips)
        wait = [Wait(X_READY, outer=True), Wait(ROOM, outer=True)]
        signal = [Signal(X_FREE, outer=True), Signal(DONE, outer=True)]
        if shares:
            signal.append(Signal(SPARE, outer=True))
        if shares and band.place:
            wait.append(Wait(COPIED, outer=True))
        # The first band of a chunk waits for streams, the last one makes room for the next chunk's.
        if band.place == strip == 0:
            wait.append(Wait(READY))
        if band.place == self._last and strip + 1 == len(tiling.strips):
            signal.append(Signal(FREE))
        return Step(band.rows, band.place == 0, tuple(wait), tuple(signal))

    def _matmuls(self, number: int) -> Iterator[bytes]:
        tiling, epilogue = self.tiling, self.epilogue
        problem, layout, shape = tiling.problem, tiling.problem.layout, tiling.problem.layout.shape
        section = tiling.sections[number]
        channels = section.channels
        line, out_line = tiling.line(channels), tiling.out_line(channels)
        high, wide = tiling.tile
        filters = problem.filters(channels)
        # One part alone has whole rows of the window side by side.
        alone = channels == tiling.part
        pixels = tiling.window[1]
        for step, bands in self._steps(number, self._matmul_step):
            x = self._turns(0, tiling.sizes[0], bands[0].number)
            out = self._turns(tiling.bases[2], tiling.sizes[1], bands[0].number)
            yield commands.matmul(
                Operand(tiling.bases[1], inner=tiling.blob),
                dataclasses.replace(x, inner=tiling.part, pong_outer=True),
                dataclasses.replace(out, inner=problem.filters(tiling.part), pong_outer=True),
                k=tiling.k,
                n=tiling.columns(step.rows, section.width),
                n_inner=tiling.across(section.width),
                entries=self.entries,
                stream_format=self.stream_format,
                encoding=Encoding.DELTA,
                in_format=layout.in_format,
                out_format=layout.out_format,
                run_bytes=pixels * channels if alone else tiling.part,
                runs_inner=tiling.window[0] if alone else pixels,
                x_run_stride=line if alone else channels,
                x_run_outer_stride=0 if alone else line,
                x_inner_stride=wide * shape.stride[1] * channels,
                x_outer_stride=high * shape.stride[0] * line,
                out_inner_stride=wide * filters,
                out_outer_stride=high * out_line,
                function=epilogue.function,
                zero_point=epilogue.zero_point,
                clamp=epilogue.clamp,
                inner=channels // tiling.part,
                outer=len(bands),
                wait=step.wait,
                signal=step.signal,
            )
