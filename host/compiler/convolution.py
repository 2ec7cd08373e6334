"""Plan a convolution of one image as a short list of commands with loops in hardware.

Y[y, x, f] = sum over the window of X times filter f, in NHWC. There are several ways to run one;
each has a planner in `PLANNERS`, and the plan that should take the fewest cycles is taken. All give
the same bits.

>>> plan = plan_conv(config, weights, (56, 56, 64), padding=1, in_format=Format.INT8, scale=2**-8)
>>> card.write(weights_buffer, plan.weights)
>>> card.write(x_buffer, plan.pack_x(image))
>>> card.submit(plan.commands(weights_buffer.address, x_buffer.address, y_buffer.address)).wait()
>>> y = plan.unpack_y(card.read(y_buffer))
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ...rtl.config import MAX_K, CardConfig
from ...rtl.isa import BITS, Encoding, Format, Function, Mode, array_mode
from .checks import check_part
from .convolution_request import ConvPlan, ConvRequest
from .convolution_shape import ConvLayout, ConvShape, Pads
from .convolution_swapped import plan_swapped
from .convolution_windows import plan_windows
from .depthwise import plan_depthwise
from .formats import format_of
from .schedule import Epilogue
from .streams import per_row
from .tiling import LOOP_LIMIT, MemorySpeed

__all__ = ["PLANNERS", "ConvPlan", "ConvShape", "plan_conv"]

PLANNERS: dict[str, Callable[[ConvRequest], ConvPlan | None]] = {
    "windows": plan_windows,
    "swapped": plan_swapped,
    "depthwise": plan_depthwise,
}
"""By the name of how they use the array: planners of a convolution, which return None where theirs
is no way to run it."""


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
    kind: str | None = None,
) -> ConvPlan:
    """Choose how to run a convolution of one image: use of the array, encoding and tiles.

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
        Of the weights as streams; the fastest if not given.
    memory : MemorySpeed
        For the choice of tiles (`Card.memory_speed`); the width of the bus if not given.
    kind : str
        Key of `PLANNERS`; the fastest if not given.

    Raises
    ------
    ValueError
        If there is no such convolution, K is too long, formats have no path, no tile fits the
        scratchpad, the card lacks what ``kind`` takes, or another argument has no place; names it.
    """
    weights = np.asarray(weights)
    if kind is not None and kind not in PLANNERS:
        raise ValueError(f"kind must be one of {', '.join(PLANNERS)}, not {kind!r}")
    if kind == "swapped":
        check_part(config, "rows", "kind 'swapped'")
    shape = ConvShape.of(
        weights, image, stride=stride, dilation=dilation, padding=padding, groups=groups
    )
    stream_format = format_of("weights", weights, weights_format)
    mode = array_mode(stream_format, in_format)
    if mode is None:
        raise ValueError(f"the card has no path for {stream_format.name} with {in_format.name}")
    if mode is Mode.BF16 and anchor is None:
        raise ValueError("anchor must be given for BF16 sums")
    if shape.outputs[1] > LOOP_LIMIT:
        raise ValueError(f"an output row must have at most {LOOP_LIMIT} pixels")
    layout = ConvLayout(shape=shape, in_format=in_format, out_format=out_format or in_format)
    k = shape.kernel[0] * shape.kernel[1] * layout.group_channels
    if k > MAX_K:
        raise ValueError(f"a window must have at most {MAX_K} numbers, not {k!r}")
    speed = memory or MemorySpeed(config.bus_bytes)
    request = ConvRequest(
        config=config,
        shape=shape,
        weights=weights,
        weights_format=stream_format,
        in_format=layout.in_format,
        out_format=layout.out_format,
        mode=mode,
        scales=_scales(scale, shape.filters),
        biases=_biases(weights, bias, mode, in_format, in_zero_point),
        epilogue=Epilogue(
            function=function, zero_point=zero_point, clamp=clamp, anchor=anchor or 0
        ),
        in_zero_point=in_zero_point,
        encoding=encoding,
        memory=dataclasses.replace(speed, burst_bytes=max(speed.burst_bytes, config.bus_bytes)),
    )
    chosen = PLANNERS.values() if kind is None else (PLANNERS[kind],)
    plans = [plan for planner in chosen if (plan := planner(request)) is not None]
    if plans:
        return min(plans, key=lambda plan: plan.cycles)
    named = "" if kind is None else f" as {kind!r}"
    raise ValueError(
        f"no tile of a {shape.kernel[0]} x {shape.kernel[1]} convolution of {image[0]} x {image[1]}"
        f" x {image[2]} numbers{named} fits the {config.scratchpad_bytes} bytes of scratchpad of "
        f"preset {config.name}; use a larger preset or a narrower image"
    )


def _scales(scale: npt.ArrayLike, filters: int) -> npt.NDArray[np.float32]:
    scales = per_row("scale", scale, np.float32, filters)
    if not np.all(np.isfinite(scales) & (np.abs(scales) >= np.finfo(np.float32).tiny)):
        raise ValueError("scale must be finite and normal (not zero, not subnormal) in every row")
    return scales


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
