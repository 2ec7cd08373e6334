"""The filters of a convolution as streams, and the form of the windows that they pass by."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...rtl.config import MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import BITS, Encoding, Format, Mode
from .convolution_shape import ConvLayout
from .formats import raw_bits
from .sparsity import PATTERNS, count_entries, fits_pattern, nonzero
from .streams import row_cost, stream_granules
from .tiling import LOOP_LIMIT, SPARSE_SLICE, align

__all__ = ["Streams", "forms"]

WORTH_COMPRESSING = 0.7
"""Fraction of weights that are not zero, from which on they are sent dense."""

MERGED_CHANNELS = 64
"""Channels that several groups have at most if they are worked on as one."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Streams:
    """The weights as rows of a matrix, and the form of the windows that belong to them.

    Parameters
    ----------
    weights : array [filters, K]
        Some groups may be one here, with zeros for the channels of the others.
    groups : int
        Those that are left.
    encoding : Encoding
    slice : int
        Numbers in a slice of K.
    most : int
        Filters of a tile at most.
    run_bytes, runs_inner, run_stride, run_outer_stride : int
        Form of the windows (`isa.MatmulBody`).
    group_bytes : int
        Bytes from a group's channels in a pixel to the next group's.
    cost, granules : int64 arrays [filters]
        Cycles of each filter in a column block, and granules of its streams.
    """

    weights: npt.NDArray
    groups: int
    encoding: Encoding
    slice: int
    most: int
    run_bytes: int
    runs_inner: int
    run_stride: int
    run_outer_stride: int
    runs: int
    group_bytes: int
    cost: npt.NDArray[np.int64]
    granules: npt.NDArray[np.int64]

    @property
    def k(self) -> int:
        return int(self.weights.shape[1])

    @property
    def slices(self) -> int:
        return -(-self.k // self.slice)

    @property
    def filters(self) -> int:
        """Filters of a group."""
        return len(self.weights) // self.groups

    def starts(self, tile: int) -> npt.NDArray[np.int64]:
        """Return the first filter of each tile, of all groups."""
        first = np.arange(self.groups) * self.filters
        return (first[:, None] + np.arange(0, self.filters, tile)).reshape(-1)

    def stops(self, tile: int) -> npt.NDArray[np.int64]:
        """Return the filter behind each tile, of all groups."""
        starts = self.starts(tile)
        return np.minimum(starts + tile, (starts // self.filters + 1) * self.filters)


def forms(
    config: CardConfig,
    layout: ConvLayout,
    weights: npt.NDArray,
    fmt: Format,
    mode: Mode,
    asked: Encoding | None,
) -> Iterator[Streams]:
    """Yield the forms in which weights [filters, KH, KW, channels / groups] may be sent.

    Raises
    ------
    ValueError
        If they cannot be sent in the encoding that is asked for.
    """
    kernel, groups = layout.shape.kernel, layout.shape.groups
    found = False
    for merged in range(1, groups + 1):
        channels = merged * layout.group_channels
        k = kernel[0] * kernel[1] * channels
        if groups % merged or (merged > 1 and channels > MERGED_CHANNELS) or k > MAX_K:
            continue
        matrix = _matrix(weights, groups, merged, layout.group_channels)
        filled = nonzero(raw_bits(matrix, fmt), fmt)
        for encoding in Encoding if asked is None else (asked,):
            dense = encoding is Encoding.DENSE
            if asked is None and not dense and filled.mean() > WORTH_COMPRESSING:
                continue
            for size, most in _slices(config, k, dense):
                if encoding in PATTERNS and not fits_pattern(filled, size, encoding):
                    continue
                counts = count_entries(filled, size, encoding)
                found = True
                yield Streams(
                    weights=matrix,
                    groups=groups // merged,
                    encoding=encoding,
                    slice=size,
                    most=most,
                    group_bytes=channels * BITS[layout.in_format] // 8,
                    cost=row_cost(config, mode, counts),
                    granules=stream_granules(counts, fmt, encoding).sum(0),
                    **_window(layout, channels, whole=merged == groups),
                )
    if not found and asked is not None:
        raise ValueError(f"weights must have the pattern of {asked.name}, and have not")


def _slices(config: CardConfig, k: int, dense: bool) -> Iterator[tuple[int, int]]:
    """Yield lengths of a slice, and the filters of a tile that each allows."""
    if k <= config.operand_depth:
        yield k, LOOP_LIMIT
    else:
        # Each operand is used once, and need not stay.
        yield k, config.rows
    longest = config.operand_depth if dense else SPARSE_SLICE
    if k > longest:
        size = align(-(-k // -(-k // longest)), RELEASE_WORDS)
        yield size, config.rows * config.partial_rows


def _matrix(weights: npt.NDArray, groups: int, merged: int, group_channels: int) -> npt.NDArray:
    """Return the filters [filters, K], with zeros for the channels of groups that they share K with
    and for those that each group has in memory only."""
    filters, *kernel, channels = weights.shape
    each = filters // groups
    full = np.zeros(
        (groups // merged, merged, each, *kernel, merged, group_channels), weights.dtype
    )
    source = weights.reshape(groups // merged, merged, each, *kernel, channels)
    for group in range(merged):
        full[:, group, :, :, :, group, :channels] = source[:, group]
    return full.reshape(filters, -1)


def _window(layout: ConvLayout, channels: int, *, whole: bool) -> dict[str, int]:
    """Return the form of the windows: runs of a row of the kernel, or of a pixel."""
    shape = layout.shape
    pixel = channels * BITS[layout.in_format] // 8
    row = shape.dilation[0] * layout.row_bytes
    height, width = shape.kernel
    if whole and shape.dilation[1] == 1 and width * pixel <= LOOP_LIMIT:
        run, inner, stride, outer = width * pixel, height, row, 0
        runs = height
    elif pixel <= LOOP_LIMIT:
        run, inner, stride, outer = pixel, width, shape.dilation[1] * layout.pixel_bytes, row
        runs = width * height
    else:  # only a kernel of one pixel has so many channels
        run, inner, stride, outer = pixel // 2, 2, pixel // 2, 0
        runs = 2
    return {
        "run_bytes": run,
        "runs_inner": inner,
        "run_stride": stride,
        "run_outer_stride": outer,
        "runs": runs,
    }
