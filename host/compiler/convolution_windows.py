"""Convolutions whose filters pass as streams by the windows of the image.

The windows are the resident columns, read where the image lies, so nothing is copied. Streams are
dense or compressed.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import Encoding, Format
from .convolution_commands import ConvCommands
from .convolution_request import ConvPlan, ConvRequest
from .convolution_streams import forms
from .convolution_tiles import ConvProblem, ConvTiling, tilings
from .schedule import Epilogue
from .streams import Blob, deal, encode_blob
from .tiling import align

__all__ = ["WindowsPlan", "plan_windows"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WindowsPlan(ConvPlan):
    """Filters pass by the windows.

    Parameters
    ----------
    entries : int
        Directory entries of a slice, the same in all tiles.
    """

    problem: ConvProblem
    tiling: ConvTiling
    entries: int
    stream_format: Format
    epilogue: Epilogue

    kind = "windows"

    @property
    def encoding(self) -> Encoding:
        return self.tiling.streams.encoding

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        return ConvCommands(
            problem=self.problem,
            tiling=self.tiling,
            entries=self.entries,
            stream_format=self.stream_format,
            epilogue=self.epilogue,
        ).commands(weights, x, y)

    def describe(self) -> str:
        tiling = self.tiling
        kept = "kept" if tiling.kept else "loaded for each"
        return (
            f"{tiling.passes} of {tiling.rows} output rows, {tiling.tiles} of {tiling.tile} "
            f"filters, {kept}"
        )

    def details(self) -> dict[str, Any]:
        tiling = self.tiling
        return {
            "k": tiling.streams.k,
            "slice": tiling.streams.slice,
            "tiles": {
                field: getattr(tiling, field)
                for field in (
                    *("rows", "passes", "tile", "tiles", "kept", "inputs", "blobs", "results"),
                )
            }
            | {"groups": tiling.streams.groups},
        }


def plan_windows(request: ConvRequest) -> WindowsPlan | None:
    """Choose encoding and tiles; None if no tile fits the scratchpad.

    Raises
    ------
    ValueError
        If the weights cannot be sent in the encoding that is asked for.
    """
    layout = request.layout.in_a_column()
    problem = ConvProblem(
        config=request.config, layout=layout, mode=request.mode, memory=request.memory
    )
    found = forms(
        request.config,
        layout,
        request.weights,
        request.weights_format,
        request.mode,
        request.encoding,
    )
    order = sorted(
        itertools.chain.from_iterable(tilings(problem, streams) for streams in found),
        key=lambda tiling: tiling.cycles,
    )
    for tiling in order:
        encoded = _encode(request, problem, tiling)
        if encoded is not None:
            entries, fitted, data = encoded
            return WindowsPlan(
                shape=request.shape,
                problem=problem,
                tiling=fitted,
                weights=data,
                entries=entries,
                stream_format=request.weights_format,
                epilogue=request.epilogue,
                in_zero_point=request.in_zero_point,
            )
    return None


def _encode(
    request: ConvRequest, problem: ConvProblem, tiling: ConvTiling
) -> tuple[int, ConvTiling, npt.NDArray[np.uint8]] | None:
    """Return entries, the tiling with its blobs' size, and their bytes; None if they do not fit."""
    config, streams = problem.config, tiling.streams
    blocks = problem.blocks(tiling.rows)
    bounds = list(
        zip(streams.starts(tiling.tile), streams.stops(tiling.tile), strict=True),
    )
    entries = tiling.tile
    if streams.encoding is not Encoding.DENSE:
        entries = max(
            len(deal(streams.cost[start:stop], config.rows, blocks=blocks).order)
            for start, stop in bounds
        )
    if entries > streams.most:
        return None

    def blob(start: int, stop: int) -> Blob:
        return encode_blob(
            config,
            streams.weights[start:stop],
            format=request.weights_format,
            resident=problem.layout.in_format,
            encoding=streams.encoding,
            slice=streams.slice,
            scale=request.scales[start:stop],
            bias=request.biases[start:stop],
            out_offset=np.arange(start, stop) * problem.layout.out_step,
            blocks=blocks,
            entries=entries,
        )

    blobs = [blob(int(start), int(stop)) for start, stop in bounds]
    size = align(max(len(blob.data) for blob in blobs), GRANULE)
    fitted = dataclasses.replace(tiling, blob_bytes=size)
    if (
        fitted.scratchpad(problem.layout) > config.scratchpad_bytes
        or max(blob.entries for blob in blobs) != entries
    ):
        return None
    image = np.zeros((len(blobs), size), np.uint8)
    for number, part in enumerate(blobs):
        image[number, : len(part.data)] = part.data
    return entries, fitted, image.reshape(-1)
