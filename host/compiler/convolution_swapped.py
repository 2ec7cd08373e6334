"""Convolutions whose pixels pass as streams by the filters, which are the resident columns.

Where an image has few pixels, they fill blocks of columns badly; as rows they are dealt to the
engines without a rest. A slice of K is one place of the kernel: the directory has an entry for each
place and pixel, which points at the channels of the pixel that the place sees, where the image
lies, or at a pixel of padding. So nothing is copied here either.

Scales and biases belong to columns now, which the epilogue does not know. It writes exact sums, and
the vector unit finishes them (`rows.affine`) with the same arithmetic, beside the array.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import Encoding, Format, Function, Mode
from .convolution_request import ConvPlan, ConvRequest
from .convolution_swapped_commands import SwappedCommands
from .convolution_swapped_search import tilings
from .convolution_swapped_tiles import (
    SUM_BYTES,
    TABLE_BYTES,
    Strip,
    SwappedProblem,
    SwappedTiling,
)
from .rows import columns
from .streams import DIRECTORY_TYPE
from .tiling import align

__all__ = ["SwappedPlan", "plan_swapped"]

LARGE = 127
"""What numbers of a bias meet."""

MOST_SCALE = 2.0**90
"""Sums of less than 2^32 times such a scale are finite: the epilogue would raise no flag."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SwappedPlan(ConvPlan):
    """Pixels pass by the filters.

    ``weights`` are the directories of the strips, the table of all filters, and the filters.

    Parameters
    ----------
    zero_point, clamp
        Of the output.
    """

    problem: SwappedProblem
    tiling: SwappedTiling
    zero_point: int
    clamp: tuple[int, int]

    kind = "swapped"

    @property
    def encoding(self) -> Encoding:
        return Encoding.DENSE

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        writer = SwappedCommands(
            self.problem,
            self.tiling,
            zero_point=self.zero_point,
            clamp=self.clamp,
            weights=weights,
            x=x,
            y=y,
        )
        return list(writer.commands())

    def describe(self) -> str:
        tiling, problem = self.tiling, self.problem
        pixels = sorted({problem.pixels(strip) for strip in tiling.strips}, reverse=True)
        parts = sorted(set(tiling.parts), reverse=True)
        return (
            f"{len(tiling.strips)} of {' or '.join(map(str, pixels))} pixels, "
            f"{len(tiling.parts)} of {' or '.join(map(str, parts))} filters, "
            f"by {'pixels' if tiling.by_strips else 'filters'}"
            + (", K in two pieces" if tiling.cut else "")
        )

    def details(self) -> dict[str, Any]:
        tiling, problem = self.tiling, self.problem
        return {
            "k": problem.k,
            "slice": tiling.slice,
            "tiles": {
                "pixels": [problem.pixels(strip) for strip in tiling.strips],
                "filters": list(tiling.parts),
                "pieces": [piece.k for piece in tiling.pieces(problem)],
                "by_strips": tiling.by_strips,
                "inputs": tiling.strip_slots,
                "parts": tiling.part_slots,
                "results": tiling.result_slots,
            },
        }


def plan_swapped(request: ConvRequest) -> SwappedPlan | None:
    """Choose tiles; None if no tile fits the scratchpad, the card is without ROWS, or this is no
    convolution for swapping.

    It is one of INT8 numbers in one group, with whole granules of channels, and of filters unless
    there is one output only, and with dense weights.
    """
    shape, mode = request.shape, request.mode
    formats = {request.in_format, request.out_format, request.weights_format}
    whole = shape.filters % GRANULE == 0 or shape.outputs == (1, 1)
    if (
        mode is not Mode.INT8
        or formats != {Format.INT8}
        or shape.groups > 1
        or shape.channels % GRANULE
        or not whole
        or request.encoding not in (None, Encoding.DENSE)
        or float(np.abs(request.scales).max()) > MOST_SCALE
        or "rows" not in request.config.vector_parts
    ):
        return None
    problem = SwappedProblem(
        config=request.config,
        layout=request.layout.in_a_column(),
        filters=align(shape.filters, GRANULE),
        biases=_bias_numbers(request.biases),
        memory=request.memory,
    )
    found = tilings(problem)
    if not found:
        return None
    tiling = found[0]
    low, high = request.epilogue.clamp or (-128, 127)
    if request.epilogue.function is Function.RELU:
        low = max(low, request.epilogue.zero_point)
    return SwappedPlan(
        shape=shape,
        problem=problem,
        tiling=tiling,
        weights=_image(request, problem, tiling),
        in_zero_point=request.in_zero_point,
        zero_point=request.epilogue.zero_point,
        clamp=(low, high),
    )


def _bias_numbers(biases: npt.NDArray[np.int32]) -> int:
    """Return how many numbers of K biases take (`_bias_columns`), in whole granules."""
    most = int(np.abs(np.rint(biases.astype(np.int64) / LARGE)).max())
    return align(-(-most // LARGE) + 1, GRANULE)


def _bias_columns(biases: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int8]:
    """Return biases as numbers [filters, count] that meet one 1 and else `LARGE`."""
    whole = np.rint(biases.astype(np.int64) / LARGE).astype(np.int64)
    left = np.abs(whole)[:, None] - LARGE * np.arange(count - 1)
    columns = np.empty((len(biases), count), np.int8)
    columns[:, :-1] = np.sign(whole)[:, None] * np.clip(left, 0, LARGE)
    columns[:, -1] = biases - LARGE * whole
    return columns


def _image(
    request: ConvRequest, problem: SwappedProblem, tiling: SwappedTiling
) -> npt.NDArray[np.uint8]:
    """Return directories, tables and filters as bytes."""
    pieces = tiling.pieces(problem)
    more = (0, problem.filters - request.shape.filters)
    biases = np.pad(request.biases, more)
    scales = np.pad(request.scales, more, constant_values=1)
    numbers = np.pad(request.weights.reshape(request.shape.filters, -1), (more, (0, 0)))
    found = [part for strip in tiling.strips for part in _directories(problem, tiling, strip)]
    starts = np.cumsum((0, *tiling.parts))
    if tiling.cut:
        pixels = max(map(problem.pixels, tiling.strips))
        for start, stop in itertools.pairwise(starts):
            scale = np.tile(scales[start:stop], pixels)
            found.append(columns(np.zeros(len(scale), np.int32), scale))
    else:
        found.append(columns(biases, scales))
    for start, stop in itertools.pairwise(starts):
        for piece in pieces:
            first = piece.first * tiling.slice
            part = numbers[start:stop, first : first + piece.slices * tiling.slice]
            if piece.biases:
                extra = _bias_columns(biases[start:stop], piece.biases)
                part = np.concatenate((part, extra), axis=1)
            found.append(part.reshape(-1).view(np.uint8))
    return np.concatenate(found)


def _directories(
    problem: SwappedProblem, tiling: SwappedTiling, strip: Strip
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the directory of each piece of K, then the constants that biases meet."""
    pieces, pixels = tiling.pieces(problem), problem.pixels(strip)
    places = _places(problem, tiling, strip)
    size = tiling.directory_bytes(problem, strip)
    constants = size - sum(piece.biases for piece in pieces)
    base = 0
    for piece in pieces:
        entries = np.zeros((piece.entries, pixels), DIRECTORY_TYPE)
        entries["stream"][: piece.slices] = (
            size + places[piece.first : piece.first + piece.slices] - base
        ) // GRANULE
        entries["count"] = tiling.slice
        if piece.biases:
            entries["stream"][-1] = (constants - base) // GRANULE
            entries["count"][-1] = piece.biases
        last = piece is pieces[-1]
        pitch = max(tiling.parts) * (SUM_BYTES if last else TABLE_BYTES)
        entries["out_offset"] = np.arange(pixels) * pitch
        entries["scale"] = np.float32(1).view(np.uint32)
        yield entries.reshape(-1).view(np.uint8)
        base += entries.nbytes
    for piece in pieces:
        if piece.biases:
            yield np.array([LARGE] * (piece.biases - 1) + [1], np.int8).view(np.uint8)


def _places(problem: SwappedProblem, tiling: SwappedTiling, strip: Strip) -> npt.NDArray[np.int64]:
    """Return where the numbers of each slice and pixel lie behind the directories, in bytes.

    A pixel of padding comes first, then the strip's part of the input.
    """
    shape, size = problem.layout.shape, tiling.slice
    rows, width = strip.rows, shape.outputs[1]
    image = problem.channels if problem.padded else 0
    places = np.zeros((*shape.kernel, rows, width), np.int64)
    for ky, kx in np.ndindex(shape.kernel):
        if problem.picks:
            line, pixel = np.arange(rows), np.arange(width)
        else:
            line = (strip.first + np.arange(rows)) * shape.stride[0] + ky * shape.dilation[0]
            line = line - shape.padding[0][0] - strip.top
            pixel = np.arange(width) * shape.stride[1] + kx * shape.dilation[1]
            pixel = pixel - shape.padding[1][0]
        inside = ((line >= 0) & (line < strip.lines))[:, None] & (
            (pixel >= 0) & (pixel < problem.line_pixels)
        )
        seen = image + (line[:, None] * problem.line_pixels + pixel) * problem.channels
        places[ky, kx] = np.where(inside, seen, 0)
    steps = np.arange(problem.channels // size)[:, None] * size
    return (places.reshape(problem.taps, 1, -1) + steps).reshape(problem.k // size, -1)
