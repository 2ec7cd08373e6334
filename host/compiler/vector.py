"""Builders of VECTOR commands."""

from collections.abc import Sequence

import numpy as np

from ...rtl.config import GRANULE
from ...rtl.isa import Format, Opcode, Queue, VectorOp
from .checks import aligned, looped, multiple, positive
from .encoding import Operand, Signal, Wait

__all__ = ["pool", "vector"]

PAIRS = (VectorOp.ADD, VectorOp.MULTIPLY)


def pool(
    x: Operand,
    out: Operand,
    *,
    granules: int,
    out_y: int,
    out_x: int,
    kernel_y: int,
    kernel_x: int,
    in_y_stride: int,
    in_x_stride: int,
    in_ky_stride: int,
    in_kx_stride: int,
    out_y_stride: int,
    out_x_stride: int,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """INT8 maximum over windows of ``granules * 16`` channels, scratchpad to scratchpad.

    Strides are in bytes, multiples of 16. The output overlaps neither the input nor the input of
    the next iteration (`isa.VectorBody`).
    """
    return vector(
        VectorOp.MAX,
        x,
        out,
        granules=granules,
        out_y=out_y,
        out_x=out_x,
        kernel_y=kernel_y,
        kernel_x=kernel_x,
        in_y_stride=in_y_stride,
        in_x_stride=in_x_stride,
        in_ky_stride=in_ky_stride,
        in_kx_stride=in_kx_stride,
        out_y_stride=out_y_stride,
        out_x_stride=out_x_stride,
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def vector(
    op: VectorOp,
    x: Operand,
    out: Operand,
    second: Operand | None = None,
    *,
    granules: int,
    out_y: int,
    out_x: int,
    kernel_y: int = 1,
    kernel_x: int = 1,
    in_y_stride: int,
    in_x_stride: int,
    in_ky_stride: int,
    in_kx_stride: int,
    out_y_stride: int,
    out_x_stride: int,
    a_scale: float | None = None,
    b_scale: float | None = None,
    a_zero: int = 0,
    b_zero: int = 0,
    zero_point: int = 0,
    clamp_low: int = -128,
    clamp_high: int = 127,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """INT8 pooling or an elementwise operation on ``granules * 16`` channels (`isa.VectorBody`).

    From scratchpad to scratchpad. Strides are in bytes, multiples of 16.

    Parameters
    ----------
    op : VectorOp
    second : Operand
        The second input of ADD and MULTIPLY, whose strides are ``in_ky_stride`` and
        ``in_kx_stride``.
    a_scale, b_scale : float
        Rounded to FP32. ``a_scale`` is given for all but MAX, ``b_scale`` for ADD.
    a_zero, b_zero : int
        Zero points of the inputs.
    zero_point, clamp_low, clamp_high : int
        Of the result.
    """
    body = {"granules": granules, "out_y": out_y, "out_x": out_x}
    body |= {"kernel_y": kernel_y, "kernel_x": kernel_x}
    for name, value in body.items():
        positive(name, value, 0xFF if name.startswith("kernel") else 0xFFFF)
    if op in PAIRS and (kernel_y, kernel_x) != (1, 1):
        raise ValueError(f"kernel_y and kernel_x of {op.name} must be 1, not {kernel_y, kernel_x}")
    strides = {
        "in_y_stride": in_y_stride,
        "in_x_stride": in_x_stride,
        "in_ky_stride": in_ky_stride,
        "in_kx_stride": in_kx_stride,
        "out_y_stride": out_y_stride,
        "out_x_stride": out_x_stride,
    }
    for name, value in strides.items():
        multiple(name, value, GRANULE)
    aligned("x", x, GRANULE)
    aligned("out", out, GRANULE)
    if (second is not None) != (op in PAIRS):
        raise ValueError(f"second must be given for ADD and MULTIPLY only, not {second!r}")
    second = Operand() if second is None else second
    aligned("second", second, GRANULE)
    scales = {
        "a_scale": _scale("a_scale", a_scale, op is not VectorOp.MAX, op),
        "b_scale": _scale("b_scale", b_scale, op is VectorOp.ADD, op),
    }
    numbers = {
        "op": op.value,
        "in_format": Format.INT8.value,
        "a_zero": a_zero,
        "b_zero": b_zero,
        "zero_point": zero_point,
        "clamp_low": clamp_low,
        "clamp_high": clamp_high,
    }
    return looped(
        Opcode.VECTOR,
        body | strides | scales | numbers,
        Queue.VECTOR,
        (second, x, out),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def _scale(name: str, scale: float | None, used: bool, op: VectorOp) -> int:
    """Return the bits of a scale, 0 if there is none."""
    if (scale is not None) != used:
        needed = "given" if used else "left out"
        raise ValueError(f"{name} of {op.name} must be {needed}, not {scale!r}")
    if scale is None:
        return 0
    with np.errstate(over="ignore"):
        bits = int(np.float32(scale).view(np.uint32))
    if not 0 < (bits >> 23 & 0xFF) < 0xFF:
        raise ValueError(f"{name} must be a normal FP32 number, not {scale!r}")
    return bits
