"""Tiles of a convolution with swapped roles: sizes, order, and buffers in the scratchpad.

Output rows are cut into *strips*, filters into *parts*. An iteration multiplies the pixels of a
strip, which are the streams, by the filters of a part, which are the resident columns. A strip or a
part is loaded for the first iteration that needs it, and stays until its buffer is needed: buffers
are used in turn. Iterations run in the order of strips or in that of parts.

Where filters are so long that only one part fits, K may be cut in two *pieces*, each with its own
iteration and its own load. The sums of the first piece are written in the places of the biases of
the table that finishes the sums of the second: it has an entry for each sum then. The biases
themselves are a few more numbers of the first piece, which meet constants.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import LANES, Mode
from .convolution_shape import ConvLayout
from .streams import DIRECTORY_ENTRY_BYTES
from .tiling import MemorySpeed

__all__ = [
    "SUM_BYTES",
    "TABLE_BYTES",
    "Piece",
    "Strip",
    "SwappedProblem",
    "SwappedTiling",
    "Use",
    "uses",
]

SUM_BYTES = 4
"""Of an exact sum: INT32."""

TABLE_BYTES = 8
"""Of a filter's bias and scale."""

SLICES = 3
"""Lengths of a slice that are tried."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strip:
    """Some output rows, and what of the input they need.

    Parameters
    ----------
    first, rows : int
        Output rows.
    top, lines : int
        Input rows that are loaded: without padding, and without those between windows.
    """

    first: int
    rows: int
    top: int
    lines: int


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some slices of K.

    Parameters
    ----------
    first, slices : int
    biases : int
        Numbers behind them that make up the bias: a slice of their own.
    k : int
        Numbers in all.
    """

    first: int
    slices: int
    biases: int
    k: int

    @property
    def entries(self) -> int:
        """Directory entries of a pixel."""
        return self.slices + (self.biases > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwappedProblem:
    """A convolution of INT8 numbers on one card, in one group and with whole granules of channels.

    Parameters
    ----------
    layout : ConvLayout
        Its image may be the pixels in one column, where that is the same.
    filters : int
        With those that pad them to whole granules.
    biases : int
        Numbers of K that the biases take if they are to be among them: whole granules.
    """

    config: CardConfig
    layout: ConvLayout
    filters: int
    biases: int
    memory: MemorySpeed

    @property
    def block(self) -> int:
        """Filters of a column block."""
        return self.config.cols * LANES[Mode.INT8]

    @property
    def channels(self) -> int:
        return self.layout.shape.channels

    @property
    def k(self) -> int:
        return self.layout.shape.k

    @property
    def taps(self) -> int:
        return self.k // self.channels

    def slice_sizes(self) -> list[int]:
        """Return lengths of a slice of K: a tap, or an equal part of one.

        At most half of the ring: then engines that are done with one can go ahead. With shorter
        ones they can go further, but directories are longer.
        """
        least = max(4 * self.config.min_visit, GRANULE)
        sizes = [
            self.channels // parts
            for parts in range(1, self.channels // GRANULE + 1)
            if self.channels % (parts * GRANULE) == 0
        ]
        fit = [size for size in sizes if size <= self.config.operand_depth // 2]
        return [size for size in fit if size >= least][:SLICES] or fit[:1]

    @property
    def picks(self) -> bool:
        """Whether only those pixels are loaded that a window of one pixel sees."""
        shape = self.layout.shape
        return shape.kernel == (1, 1) and shape.stride != (1, 1) and not self.padded

    @property
    def padded(self) -> bool:
        """Whether a pixel of padding is needed."""
        return any(map(any, self.layout.shape.padding))

    @property
    def line_pixels(self) -> int:
        """Pixels of an input row that are loaded."""
        shape = self.layout.shape
        return shape.outputs[1] if self.picks else shape.width

    def strip(self, first: int, rows: int) -> Strip:
        """Return the strip of some output rows."""
        shape = self.layout.shape
        if self.picks:
            return Strip(first=first, rows=rows, top=first * shape.stride[0], lines=rows)
        start = first * shape.stride[0] - shape.padding[0][0]
        stop = start + (rows - 1) * shape.stride[0] + shape.extent[0]
        top, bottom = max(start, 0), min(stop, shape.height)
        return Strip(first=first, rows=rows, top=top, lines=max(bottom - top, 0))

    def pixels(self, strip: Strip) -> int:
        """Return the output pixels of a strip."""
        return strip.rows * self.layout.shape.outputs[1]

    def image_bytes(self, strip: Strip) -> int:
        """Return the bytes of a padding pixel and of the strip's part of the input."""
        padding = self.channels if self.padded else 0
        return padding + strip.lines * self.line_pixels * self.channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwappedTiling:
    """Sizes, order and buffers.

    Parameters
    ----------
    strips : tuple of Strip
    parts : tuple of int
        Filters of each part.
    slice : int
        Numbers in a slice of K.
    cut : int
        Slices in the first piece of K; 0 if K is whole.
    by_strips : bool
        All parts pass by a strip before the next one; else all strips by a part.
    strip_slots, part_slots, sum_slots, result_slots : int
        Scratchpad buffers.
    cycles : int
        Estimate of the whole job.
    """

    strips: tuple[Strip, ...]
    parts: tuple[int, ...]
    slice: int
    cut: int
    by_strips: bool
    strip_slots: int
    part_slots: int
    sum_slots: int = 2
    result_slots: int = 2
    cycles: int = 0

    def pieces(self, problem: SwappedProblem) -> list[Piece]:
        """Return the pieces of K."""
        slices = problem.k // self.slice
        if not self.cut:
            return [Piece(0, slices, 0, problem.k)]
        first = self.cut * self.slice
        return [
            Piece(0, self.cut, problem.biases, first + problem.biases),
            Piece(self.cut, slices - self.cut, 0, problem.k - first),
        ]

    def iterations(self) -> list[tuple[int, int, int]]:
        """Return strip, part and piece of every iteration."""
        strips, parts = range(len(self.strips)), range(len(self.parts))
        pieces = range(2 if self.cut else 1)
        if self.by_strips:
            return list(itertools.product(strips, parts, pieces))
        return [
            (strip, part, piece) for part, strip, piece in itertools.product(parts, strips, pieces)
        ]

    def directory_bytes(self, problem: SwappedProblem, strip: Strip) -> int:
        """Return the bytes of a strip's directories, and of the constants that biases meet."""
        pieces = self.pieces(problem)
        entries = sum(piece.entries for piece in pieces) * problem.pixels(strip)
        return entries * DIRECTORY_ENTRY_BYTES + sum(piece.biases for piece in pieces)

    def table_bytes(self, problem: SwappedProblem) -> int:
        """Return the bytes of a table."""
        if not self.cut:
            return problem.filters * TABLE_BYTES
        return max(map(problem.pixels, self.strips)) * max(self.parts) * TABLE_BYTES

    def scratchpad(self, problem: SwappedProblem) -> int:
        """Return the bytes of scratchpad that all buffers take."""
        return sum(size * slots for size, slots in self.buffers(problem))

    def buffers(self, problem: SwappedProblem) -> list[tuple[int, int]]:
        """Return size and number of the buffers of strips, parts, tables, sums and results."""
        pixels = max(map(problem.pixels, self.strips))
        most = max(self.parts)
        strip = max(
            self.directory_bytes(problem, strip) + problem.image_bytes(strip)
            for strip in self.strips
        )
        return [
            (strip, self.strip_slots),
            (most * max(piece.k for piece in self.pieces(problem)), self.part_slots),
            (self.table_bytes(problem), self.sum_slots if self.cut else 1),
            (pixels * most * SUM_BYTES, self.sum_slots),
            (pixels * most, self.result_slots),
        ]


@dataclasses.dataclass(frozen=True)
class Use:
    """What an iteration does to the buffers of one kind.

    Parameters
    ----------
    number : int
        Loads before the one whose item is used.
    loads, leaves : bool
        The item is loaded for this iteration; it is used for the last time.
    """

    number: int
    loads: bool
    leaves: bool


def uses(items: Sequence[Any], slots: int) -> list[Use]:
    """Return what each iteration does, from the items that they need and the buffers in turn."""
    numbers, loads = [], []
    where: dict[Any, int] = {}
    count = 0
    for item in items:
        known = where.get(item)
        loads.append(known is None or known < count - slots)
        if loads[-1]:
            where[item] = count
            count += 1
        numbers.append(where[item])
    last = {number: index for index, number in enumerate(numbers)}
    return [
        Use(number, load, last[number] == index)
        for index, (number, load) in enumerate(zip(numbers, loads, strict=True))
    ]
