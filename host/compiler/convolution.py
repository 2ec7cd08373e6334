"""Plan a convolution of one image as a short list of commands with loops in hardware.

Y[y, x, f] = sum over the window of X times filter f, in NHWC. The filters are sent as streams,
dense or compressed; the windows are the resident columns, read where the image lies, so nothing is
copied.

>>> plan = plan_conv(config, weights, (56, 56, 64), padding=1, in_format=Format.INT8, scale=2**-8)
>>> card.write(weights_buffer, plan.weights)
>>> card.write(x_buffer, plan.pack_x(image))
>>> card.submit(plan.commands(weights_buffer.address, x_buffer.address, y_buffer.address)).wait()
>>> y = plan.unpack_y(card.read(y_buffer))
"""

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, MAX_K, CardConfig
from ...rtl.isa import BITS, Encoding, Format, Function, Mode, array_mode
from .convolution_commands import ConvCommands
from .convolution_shape import ConvLayout, ConvShape, Pads
from .convolution_streams import forms
from .convolution_tiles import ConvProblem, ConvTiling, tilings
from .formats import format_of
from .schedule import Epilogue
from .streams import Blob, deal, encode_blob, per_row
from .tiling import LOOP_LIMIT, MemorySpeed, align

__all__ = ["ConvPlan", "ConvShape", "plan_conv"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ConvPlan:
    """A convolution for one card configuration, with everything but the addresses decided.

    Parameters
    ----------
    shape : ConvShape
    problem : ConvProblem
        Its image may be the pixels in one column, where that is the same.
    tiling : ConvTiling
        ``tiling.cycles`` is the estimate for the whole job.
    weights : uint8 array
        Bytes of the weights for card memory, with scales and biases.
    entries : int
        Directory entries of a slice, the same in all tiles.
    epilogue : Epilogue
    in_zero_point : int
    """

    shape: ConvShape
    problem: ConvProblem
    tiling: ConvTiling
    weights: npt.NDArray[np.uint8]
    entries: int
    stream_format: Format
    epilogue: Epilogue
    in_zero_point: int

    @property
    def config(self) -> CardConfig:
        """The card that the plan is for."""
        return self.problem.config

    @property
    def encoding(self) -> Encoding:
        """Of the streams."""
        return self.tiling.streams.encoding

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""
        return self.tiling.cycles

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in card memory."""
        return self.weights.size

    @property
    def x_bytes(self) -> int:
        """Bytes of the input in card memory, its padding included."""
        return self.problem.layout.image_bytes

    @property
    def y_bytes(self) -> int:
        """Bytes of the output in card memory."""
        return self.problem.layout.out_bytes

    def pack_x(self, image: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of an image [H, W, C] for card memory.

        Raises
        ------
        ValueError
            If shape or type are not the plan's.
        """
        image, shape = np.asarray(image), self.shape
        wanted = (shape.height, shape.width, shape.channels)
        if image.shape != wanted:
            raise ValueError(f"image must have the shape {list(wanted)}, not {image.shape!r}")
        format_of("image", image, self.problem.layout.in_format)
        layout = self.problem.layout
        lying = image.reshape(layout.shape.height, layout.shape.width, shape.channels)
        return layout.pack(lying, self.in_zero_point)

    def unpack_y(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return the output [H, W, filters] from its bytes in card memory."""
        return self.problem.layout.unpack(raw).reshape(*self.shape.outputs, self.shape.filters)

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        """Return the commands, without an END.

        They start with all semaphores at 0, and leave credits behind: between two plans of one
        job goes a `commands.barrier`. They use the whole scratchpad.

        Parameters
        ----------
        weights, x, y : int
            Addresses in card memory: multiples of 16.
        """
        return ConvCommands(
            problem=self.problem,
            tiling=self.tiling,
            entries=self.entries,
            stream_format=self.stream_format,
            epilogue=self.epilogue,
        ).commands(weights, x, y)


def plan_conv(
    config: CardConfig,
    weights: npt.NDArray,
    image: tuple[int, int, int],
    *,
    in_format: Format,
    out_format: Format | None = None,
    weights_format: Format | None = None,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | Pads = 0,
    groups: int = 1,
    scale: npt.ArrayLike = 1.0,
    bias: npt.ArrayLike = 0,
    in_zero_point: int = 0,
    zero_point: int = 0,
    function: Function = Function.NONE,
    clamp: tuple[int, int] | None = None,
    anchor: int | None = None,
    encoding: Encoding | None = None,
    memory: MemorySpeed | None = None,
) -> ConvPlan:
    """Choose encoding and tiles for a convolution of one image.

    Parameters
    ----------
    weights : array [filters, KH, KW, channels / groups]
        Of an input format (`formats.DTYPES`).
    image : (int, int, int)
        Height, width and channels of the input.
    in_format, out_format, weights_format : Format
        Of the input; of the output, the input's if not given; and INT4 for int8 weights from -8
        to 7.
    stride, dilation : int, or (int, int) along rows and columns
    padding : int, (int, int), or ((above, below), (left, right))
        At most the kernel's extent.
    scale, bias : a number or [filters]
        See `streams.encode_blob`.
    in_zero_point : int
        Of an INT8 or INT4 input: the value that stands for 0, also in the padding.
    zero_point, clamp
        Of an INT8 or INT4 output.
    anchor : int
        Of the window of BF16 sums (`window.window_anchor`); needed in that mode.
    encoding : Encoding
        Of the streams; the fastest if not given.
    memory : MemorySpeed
        For the choice of tiles (`Card.memory_speed`); the width of the bus if not given.

    Raises
    ------
    ValueError
        If there is no such convolution, K is too long, formats have no path, no tile fits the
        scratchpad, or another argument has no place; names it.
    """
    weights = np.asarray(weights)
    if weights.ndim != 4 or 0 in weights.shape:
        raise ValueError(
            f"weights must have the shape [filters, KH, KW, channels], not {weights.shape!r}"
        )
    shape = ConvShape(
        height=image[0],
        width=image[1],
        channels=image[2],
        filters=weights.shape[0],
        kernel=(weights.shape[1], weights.shape[2]),
        stride=_pair(stride),
        dilation=_pair(dilation),
        padding=_pads(padding),
        groups=groups,
    )
    if weights.shape[3] != shape.channels // groups:
        raise ValueError(
            f"weights must have {shape.channels // groups} channels, for {shape.channels} in "
            f"{groups} groups, not {weights.shape[3]!r}"
        )
    stream_format = format_of("weights", weights, weights_format)
    layout = _in_a_column(
        ConvLayout(shape=shape, in_format=in_format, out_format=out_format or in_format)
    )
    mode = array_mode(stream_format, in_format)
    if mode is None:
        raise ValueError(f"the card has no path for {stream_format.name} with {in_format.name}")
    if mode is Mode.BF16 and anchor is None:
        raise ValueError("anchor must be given for BF16 sums")
    if shape.outputs[1] > LOOP_LIMIT:
        raise ValueError(f"an output row must have at most {LOOP_LIMIT} pixels")
    k = shape.kernel[0] * shape.kernel[1] * layout.group_channels
    if k > MAX_K:
        raise ValueError(f"a window must have at most {MAX_K} numbers, not {k!r}")
    biases = _biases(weights, bias, mode, in_format, in_zero_point)
    scales = per_row("scale", scale, np.float32, shape.filters)
    speed = memory or MemorySpeed(config.bus_bytes)
    speed = dataclasses.replace(speed, burst_bytes=max(speed.burst_bytes, config.bus_bytes))
    problem = ConvProblem(config=config, layout=layout, mode=mode, memory=speed)
    order = sorted(
        itertools.chain.from_iterable(
            tilings(problem, streams)
            for streams in forms(config, layout, weights, stream_format, mode, encoding)
        ),
        key=lambda tiling: tiling.cycles,
    )
    for tiling in order:
        found = _encode(problem, tiling, stream_format, scales, biases)
        if found is not None:
            entries, fitted, data = found
            return ConvPlan(
                shape=shape,
                problem=problem,
                tiling=fitted,
                weights=data,
                entries=entries,
                stream_format=stream_format,
                epilogue=Epilogue(
                    function=function, zero_point=zero_point, clamp=clamp, anchor=anchor or 0
                ),
                in_zero_point=in_zero_point,
            )
    raise ValueError(
        f"no tile of a {shape.kernel[0]} x {shape.kernel[1]} convolution of {image[0]} x {image[1]}"
        f" x {image[2]} numbers fits the {config.scratchpad_bytes} bytes of scratchpad of preset "
        f"{config.name}; use a larger preset or a narrower image"
    )


def _in_a_column(layout: ConvLayout) -> ConvLayout:
    """Return the layout with all pixels in one column, if that has the same bytes and results.

    Then tiles need not be whole rows of the image.
    """
    shape = layout.shape
    if (
        (shape.kernel, shape.stride, shape.padding) != ((1, 1), (1, 1), ((0, 0), (0, 0)))
        or layout.out_format is Format.INT4
        or layout.pixel_bytes % GRANULE
        or layout.out_pixel_bytes % GRANULE
        or shape.height * shape.width > LOOP_LIMIT
    ):
        return layout
    column = dataclasses.replace(shape, height=shape.height * shape.width, width=1)
    return dataclasses.replace(layout, shape=column)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pads(value: int | tuple[int, int] | Pads) -> Pads:
    above, left = (value, value) if isinstance(value, int) else value
    return (_pair(above), _pair(left))


def _biases(
    weights: npt.NDArray, bias: npt.ArrayLike, mode: Mode, in_format: Format, zero_point: int
) -> npt.NDArray:
    """Return the bias of each filter, which holds the correction for the input's zero point."""
    filters = len(weights)
    if mode not in (Mode.INT8, Mode.INT4):
        if zero_point:
            raise ValueError(
                f"in_zero_point must be 0 for {in_format.name} inputs, not {zero_point!r}"
            )
        return per_row("bias", bias, np.float32, filters)
    half = 1 << (BITS[in_format] - 1)
    if not -half <= zero_point < half:
        raise ValueError(f"in_zero_point must be from {-half} to {half - 1}, not {zero_point!r}")
    sums = weights.astype(np.int64).reshape(filters, -1).sum(1)
    return per_row(
        "bias less the sum of weights times in_zero_point",
        per_row("bias", bias, np.int64, filters) - zero_point * sums,
        np.int32,
        filters,
    )


def _encode(
    problem: ConvProblem,
    tiling: ConvTiling,
    fmt: Format,
    scales: npt.NDArray[np.float32],
    biases: npt.NDArray,
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
            format=fmt,
            resident=problem.layout.in_format,
            encoding=streams.encoding,
            slice=streams.slice,
            scale=scales[start:stop],
            bias=biases[start:stop],
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
