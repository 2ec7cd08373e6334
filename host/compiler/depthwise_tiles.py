"""Tiles of a depthwise convolution, and what they take.

A resident column is the part of the image that a *tile* of output pixels sees, for a *part* of the
channels; the streams' rows are the pixels of the tile, for every filter of the part. So a number
that is read for a column serves several pixels, and whole granules of channels are read.

The channels are cut into *chunks*, the output's columns into *strips*, and its rows into *bands*. A
band of a strip and chunk is loaded at once; an iteration works on one part of it.
"""

import collections
import dataclasses
import math
from functools import cached_property
from typing import NamedTuple

from ...rtl.config import GRANULE, RELEASE_WORDS, CardConfig
from ...rtl.isa import BITS, ENTRIES, LANES, Encoding, Format, Mode
from .convolution_shape import ConvLayout
from .streams import DIRECTORY_ENTRY_BYTES
from .tiling import MemorySpeed, align

__all__ = ["DepthwiseProblem", "DepthwiseTiling", "Section"]

ESCAPE = 256
"""Numbers that a delta reaches (`Encoding.DELTA`)."""

# Cycles, measured on the RTL.
START, END = 60, 80
"""Of a job, before its first load and behind its last result."""
FILL_LOSS = 1.13
"""Reads of the fill path share the scratchpad with those of streams."""
LATE = 1.035
"""Of a weight: granules and operands are late now and then."""
ITERATION = 3
COMMAND = 60
"""From the end of a command of the array to the next one's first product."""
SHORT, SHORT_IN_ONE = 1.4, 1.0
"""What memory would move if only the shortness of a transfer's rows counted, by what it moves; and
where a short row lies in one of several pseudo-channels."""
LOAD_GAP, STORE_GAP = 0.8, 0.5
"""Between short rows, in bursts."""
STORE_LOSS = 1.3
"""Stores read the scratchpad last of all, while the array works."""
TURN = 190
"""From a load to a store and back to a load."""
CONTENTION = 0.06
"""Part of the transfers' time that is lost although the array works meanwhile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwiseProblem:
    """A convolution of INT8 numbers in groups, on one card."""

    config: CardConfig
    layout: ConvLayout
    memory: MemorySpeed

    @property
    def channels(self) -> int:
        return self.layout.shape.channels

    @property
    def group(self) -> tuple[int, int]:
        """Channels and filters of a group."""
        shape = self.layout.shape
        return shape.channels // shape.groups, shape.filters // shape.groups

    def filters(self, channels: int) -> int:
        """Return the filters of so many channels."""
        each, filters = self.group
        return channels // each * filters

    def beats(self, row_bytes: int, start: int, pitch: int) -> float:
        """Return the bytes that memory moves for a row: whole beats of the bus."""
        size = self.config.bus_bytes
        places = {(start + row * pitch) % size for row in range(size // math.gcd(size, pitch))}
        return sum(align(place + row_bytes, size) for place in places) / len(places)

    @property
    def taps(self) -> int:
        """Weights of a filter."""
        return self.layout.shape.k


class Section(NamedTuple):
    """A strip of a chunk: its first channel and channels, its first output column and columns."""

    channel: int
    channels: int
    column: int
    width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwiseTiling:
    """Sizes and loops.

    Parameters
    ----------
    problem : DepthwiseProblem
    tile : (int, int)
        Output pixels of a column, along rows and columns of the image.
    part, chunk : int
        Channels of an iteration, and of a chunk; the last chunk may be smaller.
    strip : int
        Output columns of a strip: whole tiles, or all. The last strip may have fewer.
    rows : int
        Output rows of a band: whole tiles. The last band may have fewer.
    buffers : int
        Scratchpad buffers of bands, and of their results: 1 or 2.
    blob_bytes : int
        Bytes of the streams of a part; 0 for the most that they may take.
    """

    problem: DepthwiseProblem
    tile: tuple[int, int]
    part: int
    chunk: int
    strip: int
    rows: int
    buffers: int
    blob_bytes: int = 0

    @property
    def window(self) -> tuple[int, int]:
        """Input rows and pixels that a tile sees."""
        shape = self.problem.layout.shape
        heights = zip(self.tile, shape.stride, shape.extent, strict=True)
        high, wide = ((size - 1) * stride + extent for size, stride, extent in heights)
        return high, wide

    @property
    def k(self) -> int:
        return self.window[0] * self.window[1] * self.part

    @property
    def entries(self) -> int:
        """Stream rows of a part."""
        return self.tile[0] * self.tile[1] * self.problem.filters(self.part)

    @cached_property
    def blob(self) -> int:
        """Bytes of a part's streams."""
        most = self.problem.taps + self.k // ESCAPE
        granules = -(-most // ENTRIES[Encoding.DELTA][BITS[Format.INT8]])
        return self.blob_bytes or self.entries * (DIRECTORY_ENTRY_BYTES + granules * GRANULE)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """First channel, and channels, of every chunk."""
        total = self.problem.channels
        return [(first, min(self.chunk, total - first)) for first in range(0, total, self.chunk)]

    @property
    def bands(self) -> list[tuple[int, int]]:
        """First output row, and output rows, of every band."""
        total = self.problem.layout.shape.outputs[0]
        return [(first, min(self.rows, total - first)) for first in range(0, total, self.rows)]

    @property
    def strips(self) -> list[tuple[int, int]]:
        """First output column, and output columns, of every strip."""
        total = self.problem.layout.shape.outputs[1]
        return [(first, min(self.strip, total - first)) for first in range(0, total, self.strip)]

    @property
    def sections(self) -> list[Section]:
        """What bands are taken of, in order: the strips of each chunk."""
        return [Section(*chunk, *strip) for chunk in self.chunks for strip in self.strips]

    @property
    def whole(self) -> bool:
        """Whether rows of the image are loaded whole: they lie side by side then."""
        every = self.chunk >= self.problem.channels
        return every and self.strip >= self.problem.layout.shape.outputs[1]

    @property
    def shared(self) -> int:
        """Input rows that two bands have in common."""
        shape = self.problem.layout.shape
        return max(0, shape.extent[0] - shape.stride[0])

    @property
    def shares(self) -> bool:
        """Whether these are copied from band to band, and not loaded anew."""
        step = self.rows * self.problem.layout.shape.stride[0]
        return self.buffers == 2 and len(self.bands) > 1 and 0 < self.shared <= step

    def across(self, width: int) -> int:
        """Return the tiles of a row of a strip with so many output columns."""
        return -(-width // self.tile[1])

    def columns(self, rows: int, width: int) -> int:
        """Return the tiles of a band with so many output rows and columns."""
        return -(-rows // self.tile[0]) * self.across(width)

    def rows_in(self, rows: int) -> int:
        """Return the input rows that are loaded for so many output rows."""
        shape = self.problem.layout.shape
        return (rows - 1) * shape.stride[0] + shape.extent[0]

    def pixels_in(self, width: int) -> int:
        """Return the input pixels of a row that are loaded for so many output columns."""
        layout = self.problem.layout
        if width >= layout.shape.outputs[1]:
            return layout.size[1]
        return (width - 1) * layout.shape.stride[1] + layout.shape.extent[1]

    def line(self, channels: int) -> int:
        """Return the bytes from an input row to the next in the scratchpad."""
        if self.whole:
            return self.problem.layout.row_bytes
        return self.pixels_in(self.strip) * channels

    def out_line(self, channels: int) -> int:
        """Return the bytes from an output row to the next in the scratchpad: of whole tiles."""
        width = self.across(self.strip) * self.tile[1]
        return align(width * self.problem.filters(channels), GRANULE)

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Bytes of a buffer of a band, and of one of its results."""
        return (
            self.rows_in(self.rows) * self.line(self.chunk),
            align(self.rows, self.tile[0]) * self.out_line(self.chunk),
        )

    @property
    def bases(self) -> tuple[int, int, int]:
        """Where buffers of bands, of streams and of results begin."""
        band, _ = self.sizes
        blobs = self.buffers * band
        return 0, blobs, blobs + self.chunk // self.part * self.blob

    @property
    def scratchpad_bytes(self) -> int:
        """Bytes of scratchpad that are used, with those behind a band that tiles look at."""
        bases, (band, result) = self.bases, self.sizes
        rows = align(self.rows, self.tile[0])
        high, wide = self.tile
        shape = self.problem.layout.shape
        last = (rows - high) * shape.stride[0] + self.window[0] - 1
        pixels = (self.across(self.strip) - 1) * wide * shape.stride[1] + self.window[1]
        seen = last * self.line(self.chunk) + pixels * self.chunk
        return max(bases[2] + self.buffers * result, (self.buffers - 1) * band + seen)

    def compute(self, rows: int, width: int) -> float:
        """Return the cycles of the array for a part of a band."""
        config = self.problem.config
        block = config.cols * LANES[Mode.INT8]
        full, rest = divmod(self.columns(rows, width), block)
        return full * self._block(block) + (self._block(rest) if rest else 0.0) + ITERATION

    def _block(self, columns: int) -> float:
        config, k = self.problem.config, self.k
        _, wide = self.window
        shape = self.problem.layout.shape
        run = wide * self.part if self.chunk == self.part else self.part
        reads = k // run * -(-run // config.fill_bytes) * columns * FILL_LOSS
        fill = max(float(align(k, RELEASE_WORDS)), reads)
        visit = max(config.min_visit, self.problem.taps * LATE)
        work = -(-self.entries // config.rows) * visit
        # The first pixel of a block needs operands for which the last block leaves no room.
        down, right = shape.extent
        first = ((down - 1) * wide + right) * self.part
        late = max(0, first - (config.operand_depth - align(k, RELEASE_WORDS)))
        return max(fill, late * fill / k + work)

    def _moved(
        self, rows: int, row_bytes: int, gap: float = LOAD_GAP, *, start: int = 0, pitch: int = 0
    ) -> float:
        """Return what a transfer of ``rows`` rows takes, with ``gap`` bursts between short ones.

        They begin at ``start``, and ``pitch`` bytes behind each other.
        """
        memory = self.problem.memory
        moved = self.problem.beats(row_bytes, start, pitch)
        long = moved / memory.bytes_per_cycle
        speed = SHORT_IN_ONE if self.problem.config.hbm_channels > 1 else SHORT
        short = (moved + gap * memory.burst_bytes) / (speed * memory.bytes_per_cycle)
        return rows * max(long, short)

    def _transfers(self, rows: int, section: Section, *, leads: bool) -> tuple[float, float]:
        """Return what load and store of a band take; ``leads``: it is the section's first one."""
        problem, layout = self.problem, self.problem.layout
        height = self.rows_in(rows) - (self.shared if self.shares and not leads else 0)
        if self.whole:
            load = self._moved(1, height * layout.row_bytes)
            return load, self._moved(1, rows * layout.out_row_bytes)
        pixels, width = self.pixels_in(section.width), section.width
        out = problem.filters(section.channels)
        if self.chunk >= problem.channels:
            load = self._moved(height, pixels * section.channels, pitch=layout.row_bytes)
            return load, self._moved(rows, width * out, STORE_GAP, pitch=layout.out_row_bytes)
        first, pitch = section.channel, layout.pixel_bytes
        load = self._moved(height * pixels, section.channels, start=first, pitch=pitch)
        first, pitch = problem.filters(first), layout.out_pixel_bytes
        return load, self._moved(rows * width, out, STORE_GAP, start=first, pitch=pitch)

    def _section(self, section: Section) -> tuple[float, float]:
        """Return what a section takes of the memory's and of the array's time."""
        parts, bands = section.channels // self.part, self.bands
        moved, worked = 0.0, 0.0
        kinds = collections.Counter((rows, number == 0) for number, (_, rows) in enumerate(bands))
        for (rows, leads), count in kinds.items():
            load, store = self._transfers(rows, section, leads=leads)
            worked += count * parts * self.compute(rows, section.width)
            moved += count * (load + STORE_LOSS * store + TURN)
        return moved, worked + COMMAND * min(3, len(bands))

    @cached_property
    def cycles(self) -> int:
        """Estimate of the whole job."""
        sections, bands = self.sections, self.bands
        blobs = self.problem.channels // self.part * self._moved(1, self.blob)
        moved, worked = blobs, 0.0
        kinds = collections.Counter(section._replace(column=0) for section in sections)
        for section, count in kinds.items():
            each = self._section(section)
            moved, worked = moved + count * each[0], worked + count * each[1]
        first = self._transfers(bands[0][1], sections[0], leads=True)[0] + self._moved(1, self.blob)
        last = self._transfers(bands[-1][1], sections[-1], leads=False)[1]
        if self.buffers == 1:
            moved = blobs
        total = max(moved, worked) + CONTENTION * min(moved, worked)
        return math.ceil(START + first + total + last + END)
