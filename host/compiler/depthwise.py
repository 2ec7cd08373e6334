"""Depthwise convolutions, and others whose groups have few channels.

A pixel of such a convolution needs so few numbers that to bring them into the array takes longer
than to multiply them. So a resident column holds what a whole tile of output pixels sees
(`depthwise_tiles`), and each pixel of the tile is a stream row of its own, which picks its taps.

So it is with the few channels of a network's first image, whose windows are runs of a few bytes.

Nothing is copied: images are read as they lie. Tiles may reach beyond the image's right and lower
edges; what they make there is not stored.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.isa import Encoding, Format, Mode
from .convolution_request import ConvPlan, ConvRequest
from .depthwise_commands import DepthwiseCommands
from .depthwise_search import tilings
from .depthwise_tiles import DepthwiseProblem, DepthwiseTiling
from .schedule import Epilogue
from .streams import Blob, encode_blob

__all__ = ["DepthwisePlan", "plan_depthwise"]

FEW = 8
"""Channels of an image in one group that are too many to be picked."""

MOST_SCALE = 2.0**90
"""Bytes that are no part of the image, times such a scale, raise no flag."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DepthwisePlan(ConvPlan):
    """Each output pixel of a tile picks its taps of what the tile sees.

    Parameters
    ----------
    entries : int
        Directory entries of a part.
    """

    problem: DepthwiseProblem
    tiling: DepthwiseTiling
    entries: int
    stream_format: Format
    epilogue: Epilogue

    kind = "depthwise"

    @property
    def encoding(self) -> Encoding:
        return Encoding.DELTA

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        return DepthwiseCommands(
            tiling=self.tiling,
            entries=self.entries,
            stream_format=self.stream_format,
            epilogue=self.epilogue,
        ).commands(weights, x, y)

    def describe(self) -> str:
        tiling = self.tiling
        high, wide = tiling.tile
        return (
            f"tiles of {high} x {wide} pixels and {tiling.part} channels, {len(tiling.bands)} of "
            f"{tiling.rows} output rows, {len(tiling.strips)} of {tiling.strip} columns, "
            f"{len(tiling.chunks)} of {tiling.chunk} channels"
        )

    def details(self) -> dict[str, Any]:
        tiling = self.tiling
        fields = ("tile", "part", "chunk", "strip", "rows", "buffers")
        return {
            "k": tiling.k,
            "tiles": {field: getattr(tiling, field) for field in fields},
            "blob_bytes": tiling.blob,
        }


def plan_depthwise(request: ConvRequest) -> DepthwisePlan | None:
    """Choose tiles; None for what this is no way to run."""
    shape = request.shape
    if (
        (shape.groups == 1 and shape.channels >= FEW)
        or request.mode is not Mode.INT8
        or (request.in_format, request.out_format) != (Format.INT8, Format.INT8)
        or request.encoding not in (None, Encoding.DELTA)
        or np.abs(request.scales).max() > MOST_SCALE
    ):
        return None
    problem = DepthwiseProblem(config=request.config, layout=request.layout, memory=request.memory)
    for tiling in sorted(tilings(problem), key=lambda tiling: tiling.cycles):
        blobs = _blobs(request, tiling)
        size = max(len(blob.data) for blob in blobs)
        fitted = dataclasses.replace(tiling, blob_bytes=size)
        if fitted.scratchpad_bytes > request.config.scratchpad_bytes:
            continue
        image = np.zeros((len(blobs), size), np.uint8)
        for number, blob in enumerate(blobs):
            image[number, : len(blob.data)] = blob.data
        return DepthwisePlan(
            shape=shape,
            problem=problem,
            tiling=fitted,
            weights=image.reshape(-1),
            entries=blobs[0].entries,
            stream_format=request.weights_format,
            epilogue=request.epilogue,
            in_zero_point=request.in_zero_point,
        )
    return None


def _blobs(request: ConvRequest, tiling: DepthwiseTiling) -> list[Blob]:
    """Return the streams of all parts, with equally many directory entries."""
    channels = range(0, request.shape.channels, tiling.part)
    blobs = [_encode(request, tiling, first, 0) for first in channels]
    entries = max(blob.entries for blob in blobs)
    return [
        blob if blob.entries == entries else _encode(request, tiling, first, entries)
        for first, blob in zip(channels, blobs, strict=True)
    ]


def _encode(request: ConvRequest, tiling: DepthwiseTiling, channel: int, entries: int) -> Blob:
    """Return the streams of the part from ``channel`` on: a row for each pixel and filter."""
    problem, shape = tiling.problem, request.shape
    (each, filters), (high, wide) = problem.group, tiling.tile
    start, count = problem.filters(channel), problem.filters(tiling.part)
    window = np.zeros((high, wide, count, *tiling.window, tiling.part), request.weights.dtype)
    down, right = (
        (size - 1) * step + 1 for size, step in zip(shape.kernel, shape.dilation, strict=True)
    )
    for filter in range(count):
        group = filter // filters * each
        taps = request.weights[start + filter]
        for y in range(high):
            top = y * shape.stride[0]
            for x in range(wide):
                left = x * shape.stride[1]
                window[
                    y,
                    x,
                    filter,
                    top : top + down : shape.dilation[0],
                    left : left + right : shape.dilation[1],
                    group : group + each,
                ] = taps
    # A chunk that is not the last one has as many filters a pixel as the first.
    chunk = channel // tiling.chunk * tiling.chunk
    across = problem.filters(min(tiling.chunk, shape.channels - chunk))
    line = tiling.out_line(min(tiling.chunk, shape.channels - chunk))
    offsets = (
        np.arange(high)[:, None, None] * line + np.arange(wide)[:, None] * across + np.arange(count)
    )

    def rows(values: npt.NDArray) -> npt.NDArray:
        return np.tile(values[start : start + count], high * wide)

    return encode_blob(
        request.config,
        window.reshape(high * wide * count, -1),
        format=request.weights_format,
        resident=request.in_format,
        encoding=Encoding.DELTA,
        scale=rows(request.scales),
        bias=rows(request.biases),
        out_offset=offsets.reshape(-1),
        entries=entries,
    )
