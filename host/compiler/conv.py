"""A convolution as one MATMUL command: weights stream past windows of the resident input.

Column j of the resident operand is the window of output pixel (oy, ox); the command's strides
walk the windows where the input lies, so nothing is copied. Results go straight to their place
in the output tensor, one byte a channel.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import Encoding, Function
from . import commands
from .commands import Operand, Signal, Wait
from .streams import Blob, encode_blob
from .tensor import TensorLayout
from .tiling import align

__all__ = ["ConvKernel", "lower_conv", "output_size"]

_SPARSE_COST = 1.1
_MERGED_LANES = 4


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Return the outputs along one axis; 0 or less if the kernel does not fit."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class Window(NamedTuple):
    """How the numbers of a window lie: weights [O, K] in their order, and the loops over runs."""

    weights: npt.NDArray[np.int8]
    run_bytes: int
    runs_inner: int
    run_stride: int
    run_outer_stride: int


@dataclasses.dataclass(frozen=True)
class ConvKernel:
    """A convolution lowered for one card and one pair of tensor layouts.

    Parameters
    ----------
    blob : Blob
        Weight streams with scales and biases.
    k : int
    window : Window
        Form of the windows (`isa.MatmulBody`).
    stride : (int, int)
    x_start : int
        Bytes from the input's start to the window of output (0, 0).
    source, target : TensorLayout
    function : Function
    zero_point : int
        Of the output.
    fold : bool
        The output is one pixel, so the images of a batch are the columns of one iteration.
    fill_cycles, block_cycles : int
        Modelled cycles that a full column block takes to fill, and to compute.
    """

    blob: Blob
    k: int
    window: Window
    stride: tuple[int, int]
    x_start: int
    source: TensorLayout
    target: TensorLayout
    function: Function
    zero_point: int
    fold: bool
    fill_cycles: int
    block_cycles: int

    def command(
        self,
        *,
        blob: int,
        x: int,
        out: int,
        images: int,
        wait: Sequence[Wait] = (),
        signal: Sequence[Signal] = (),
    ) -> bytes:
        """Return the command for ``images`` images: one iteration an image, or one if folded.

        Parameters
        ----------
        blob, x, out : int
            Scratchpad addresses of the blob, and of the first image of input and output.
        """
        source, target = self.source, self.target
        x_step, out_step = source.image_bytes, target.image_bytes
        if self.fold:
            n, n_inner, iterations = images, images, 1
            x_inner, x_outer, out_inner, out_outer = x_step, 0, out_step, 0
            x_step = out_step = 0
        else:
            n, n_inner, iterations = target.height * target.width, target.width, images
            x_inner = self.stride[1] * source.pixel_bytes
            x_outer = self.stride[0] * source.row_bytes
            out_inner, out_outer = target.pixel_bytes, target.row_bytes
        return commands.matmul(
            Operand(blob),
            Operand(x + self.x_start, inner=x_step),
            Operand(out + target.origin, inner=out_step),
            k=self.k,
            n=n,
            n_inner=n_inner,
            entries=self.blob.entries,
            slice=self.blob.slice,
            encoding=self.blob.encoding,
            run_bytes=self.window.run_bytes,
            runs_inner=self.window.runs_inner,
            x_run_stride=self.window.run_stride,
            x_run_outer_stride=self.window.run_outer_stride,
            x_inner_stride=x_inner,
            x_outer_stride=x_outer,
            out_inner_stride=out_inner,
            out_outer_stride=out_outer,
            function=self.function,
            zero_point=self.zero_point,
            inner=iterations,
            wait=wait,
            signal=signal,
        )


def lower_conv(
    config: CardConfig,
    weight: npt.NDArray[np.int8],
    *,
    bias: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float32],
    source: TensorLayout,
    target: TensorLayout,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    function: Function = Function.NONE,
    zero_point: int = 0,
) -> ConvKernel:
    """Lower a convolution to streams and the geometry of its command.

    The windows are described in the form that takes the fewest modelled cycles: as rows of the
    kernel, or, where those are short, as one run from the window's first byte to its last with
    zero weights for the bytes between; streams are dense or sparse.

    Parameters
    ----------
    weight : int8 array [O, KH, KW, C]
    bias, scale : arrays [O]
        The bias holds the correction for the zero point of the input.
    padding : (int, int)
        At most the halo of ``source``.
    dilation : (int, int)
        Distance of two rows, and two pixels, of a window.

    Raises
    ------
    ValueError
        If shapes do not agree, or a window is longer than the card takes.
    """
    outputs, kernel_h, kernel_w, channels = weight.shape
    size = (
        output_size(source.height, kernel_h, stride[0], padding[0], dilation[0]),
        output_size(source.width, kernel_w, stride[1], padding[1], dilation[1]),
    )
    if channels != source.channels:
        raise ValueError(f"weight must have {source.channels} input channels, not {channels!r}")
    if (target.height, target.width, target.channels) != (*size, outputs):
        raise ValueError(
            f"the output must have the shape {(*size, outputs)}, "
            f"not {(target.height, target.width, target.channels)}"
        )
    if padding[0] > source.halo[0] or padding[1] > source.halo[1]:
        raise ValueError(f"padding must be within the input's halo {source.halo}, not {padding}")
    fold = size == (1, 1)
    columns = 2 * config.cols
    blocks = 1 if fold else -(-size[0] * size[1] // columns)
    best: ConvKernel | None = None
    lowest = 0.0
    shortest = 0
    for window in _forms(weight, source, dilation):
        k = window.weights.shape[1]
        shortest = min(shortest or k, k)
        if k > MAX_K or (k > config.operand_depth and outputs > config.rows * config.partial_rows):
            continue
        fill = (k // window.run_bytes) * _run_cycles(window.run_bytes, columns)
        for encoding in (Encoding.DENSE, Encoding.DELTA):
            blob = encode_blob(
                config,
                window.weights,
                encoding=encoding,
                slice=_slice(config, k, outputs),
                scale=scale,
                bias=bias,
                out_offset=np.arange(outputs),
                blocks=blocks,
            )
            compute = -(-int(blob.engine_cycles.max()) // blocks)
            if encoding is not Encoding.DENSE:
                # The results of one pixel leave in one write where engines keep step. Those of
                # sparse streams do not, and then few of them meet.
                compute = max(compute, outputs * columns // _MERGED_LANES)
            cycles = max(fill, compute)
            # Sparse streams take twice the reads of dense ones: a few zeros are not worth that.
            cost = cycles * _SPARSE_COST if encoding is not Encoding.DENSE else cycles
            if best and cost >= lowest:
                continue
            lowest = cost
            best = ConvKernel(
                blob=blob,
                k=k,
                window=window,
                stride=stride,
                x_start=source.origin
                - padding[0] * source.row_bytes
                - padding[1] * source.pixel_bytes,
                source=source,
                target=target,
                function=function,
                zero_point=zero_point,
                fold=fold,
                fill_cycles=fill,
                block_cycles=compute,
            )
    if best is None:
        rows = config.rows * config.partial_rows
        raise ValueError(
            f"a window must have at most {MAX_K} values, and with more than {rows} output channels "
            f"at most {config.operand_depth}, on preset {config.name}, not {shortest!r}"
        )
    return best


def _slice(config: CardConfig, k: int, outputs: int) -> int:
    """Return the numbers in a slice of a window."""
    if k <= config.operand_depth or outputs <= config.rows:
        return k
    return align(-(-k // -(-k // config.operand_depth)), RELEASE_WORDS)


def _run_cycles(run_bytes: int, columns: int) -> int:
    """Return the cycles in which one run of every column of a block is filled.

    A read of the scratchpad fetches up to a granule of one column; then the columns are written
    side by side, a byte of each a cycle, while the next chunk is read.
    """
    whole, rest = divmod(run_bytes, GRANULE)
    return whole * max(columns, GRANULE) + (max(columns, rest) if rest else 0)


def _forms(
    weight: npt.NDArray[np.int8], source: TensorLayout, dilation: tuple[int, int]
) -> Iterator[Window]:
    """Yield forms of a window. Where bytes that are no part of it are read, their weight is 0."""
    outputs, kernel_h, kernel_w, channels = weight.shape
    pixel, row = source.pixel_bytes, source.row_bytes
    if dilation[1] > 1 and kernel_w > 1:
        flat = weight.reshape(outputs, -1)
        yield Window(flat, channels, kernel_w, dilation[1] * pixel, dilation[0] * row)
        return
    pixels = np.zeros((outputs, kernel_h, kernel_w, pixel), np.int8)
    pixels[..., :channels] = weight
    run = kernel_w * pixel
    rows = pixels.reshape(outputs, kernel_h, run)
    if run == row and dilation[0] == 1:
        yield Window(rows.reshape(outputs, -1), kernel_h * run, 1, 0, 0)
        return
    yield Window(rows.reshape(outputs, -1), run, kernel_h, dilation[0] * row, 0)
    if kernel_h > 1 and dilation[0] == 1:
        span = np.zeros((outputs, kernel_h, row), np.int8)
        span[..., :run] = rows
        length = (kernel_h - 1) * row + run
        yield Window(span.reshape(outputs, -1)[:, :length], length, 1, 0, 0)
