"""Builders of ROWS commands: rows that are scaled, normalized or quantized, and their softmax."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import Format, Opcode, Queue, RowsFlag, RowsOp
from .checks import aligned, looped, multiple, positive
from .encoding import Operand, Signal, Wait

__all__ = ["LOG2_E", "Loops", "Rows", "affine", "columns", "normalize", "quantize", "softmax"]

LOG2_E = math.log2(math.e)

IN_FORMATS = (Format.INT8, Format.INT32, Format.FP16, Format.BF16, Format.FP32)
LARGEST: dict[Format, float] = {
    Format.INT8: 127,
    Format.INT4: 7,
    Format.FP16: 65504,
    Format.BF16: (2 - 2.0**-7) * 2.0**127,
    Format.E4M3: 448,
    Format.E5M2: 57344,
    Format.FP32: (2 - 2.0**-23) * 2.0**127,
}
"""The formats of results, and the largest number of each whose negative it has, too."""

SCALE_BYTES = 4


class Loops(TypedDict, total=False):
    """What every builder takes: the bounds of the loops, and the semaphores."""

    inner: int
    outer: int
    wait: Sequence[Wait]
    signal: Sequence[Signal]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """``z * y`` rows of ``length`` numbers, where they and their results lie (`isa.RowsBody`).

    Parameters
    ----------
    length, y, z : int
        1 to 65535.
    in_format : Format
        INT8, INT32, FP16, BF16 or FP32.
    out_format : Format
        INT8, INT4, FP16, BF16, E4M3, E5M2 or FP32.
    in_y_stride, in_z_stride, out_y_stride, out_z_stride : int
        Bytes from row to row, multiples of 16.
    in_zero : int
        Zero point of integers, -128 to 127.
    zero_point, clamp_low, clamp_high : int
        Of INT8 and INT4 results; the bounds are those of the format if not given.
    """

    length: int
    y: int = 1
    z: int = 1
    in_format: Format
    out_format: Format
    in_y_stride: int = 0
    in_z_stride: int = 0
    out_y_stride: int = 0
    out_z_stride: int = 0
    in_zero: int = 0
    zero_point: int = 0
    clamp_low: int | None = None
    clamp_high: int | None = None

    def __post_init__(self) -> None:
        for name in ("length", "y", "z"):
            positive(name, getattr(self, name), 0xFFFF)
        for name, known in (("in_format", IN_FORMATS), ("out_format", tuple(LARGEST))):
            value = getattr(self, name)
            if value not in known:
                names = ", ".join(fmt.name for fmt in known)
                raise ValueError(f"{name} must be one of {names}, not {value!r}")
        for side in ("in", "out"):
            for axis in "yz":
                name = f"{side}_{axis}_stride"
                multiple(name, getattr(self, name), GRANULE)

    def fields(self) -> dict[str, int]:
        """Return the fields of the command's body."""
        half = 8 if self.out_format is Format.INT4 else 128
        body = dataclasses.asdict(self)
        body |= {"in_format": self.in_format.value, "out_format": self.out_format.value}
        body["clamp_low"] = -half if self.clamp_low is None else self.clamp_low
        body["clamp_high"] = half - 1 if self.clamp_high is None else self.clamp_high
        return body


def columns(bias: npt.ArrayLike, scale: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return the bytes of a table of columns, for memory: 8 a column, in whole granules.

    Parameters
    ----------
    bias : array [length]
        Integers for `affine` of integers; otherwise it is rounded to FP32.
    scale : array [length]
        Rounded to FP32.
    """
    bias, scale = np.asarray(bias), np.asarray(scale, np.float32)
    if bias.shape != scale.shape or bias.ndim != 1:
        raise ValueError(f"bias and scale must be [length], not {bias.shape} and {scale.shape}")
    whole = np.issubdtype(bias.dtype, np.integer)
    limits = np.iinfo(np.int32)
    if whole and bias.size and (bias.min() < limits.min or bias.max() > limits.max):
        raise ValueError(f"bias must be INT32, not {bias.min()!r} to {bias.max()!r}")
    table = np.zeros((-(-len(bias) // 2) * 2, 2), np.uint32)
    table[: len(bias), 0] = bias.astype(np.int32 if whole else np.float32).view(np.uint32)
    table[: len(bias), 1] = scale.view(np.uint32)
    return table.reshape(-1).view(np.uint8)


def affine(
    x: Operand,
    out: Operand,
    rows: Rows,
    *,
    a_scale: float = 1.0,
    b_scale: float | None = None,
    table: Operand | None = None,
    **loops: Unpack[Loops],
) -> bytes:
    """Scale and shift rows, by column if there is a table.

    From scratchpad to scratchpad; operands are multiples of 16.

    Parameters
    ----------
    a_scale, b_scale : float
        Rounded to FP32; ``b_scale`` is 1 if neither it nor a table is given.
    table : Operand
        Where the bytes of `columns` are.
    loops
        ``inner``, ``outer``, ``wait`` and ``signal``, as of any builder.
    """
    scales = {"a_scale": _scale("a_scale", a_scale)} | _factor(b_scale, table)
    flags = 0 if table is None else RowsFlag.TABLE.value
    return _rows(RowsOp.AFFINE, x, out, rows, scales, flags, table=table, loops=loops)


def softmax(
    x: Operand,
    out: Operand,
    rows: Rows,
    *,
    scale: float = 1.0,
    b_scale: float = 1.0,
    c_scale: float | None = None,
    scales: Operand | None = None,
    scale_y_stride: int = 0,
    scale_z_stride: int = 0,
    valid: int = 0,
    valid_step: int = 0,
    **loops: Unpack[Loops],
) -> bytes:
    """Take the softmax of rows; or leave its division to whom takes the scales.

    Parameters
    ----------
    scale : float
        Of the input: positive. It is multiplied by log2(e), and rounded to FP32.
    b_scale : float
        A factor of the results.
    c_scale : float
        A factor of the scales, which are 1 / (sum of a row's powers): 1 if it is not given.
    scales : Operand
        Where a row's scale goes, such as to a `DirectoryEntry`, if the division is left out. It
        and its strides are multiples of 4.
    valid, valid_step : int
        Of row (z, y) only the first ``valid + y * valid_step`` numbers take part; 0: all.
    loops
        See `affine`.
    """
    if scales is None and c_scale is not None:
        raise ValueError(f"c_scale must be left out where no scales are written, not {c_scale!r}")
    numbers = {"a_scale": _scale("scale", scale * LOG2_E, positive=True)}
    numbers |= {"b_scale": _scale("b_scale", b_scale)}
    body: dict[str, int] = {"valid": valid, "valid_step": valid_step}
    for name, value in body.items():
        if not 0 <= value <= 0xFFFF:
            raise ValueError(f"{name} must be from 0 to 65535, not {value!r}")
    if valid_step and not valid:
        raise ValueError(f"valid_step must be 0 where valid is, not {valid_step!r}")
    if scales is not None:
        numbers |= {"c_scale": _scale("c_scale", 1.0 if c_scale is None else c_scale)}
        body |= _steps(scale_y_stride, scale_z_stride)
    flags = 0 if scales is None else RowsFlag.DEFER.value
    body |= numbers
    return _rows(RowsOp.SOFTMAX, x, out, rows, body, flags, scales=scales, loops=loops)


def normalize(
    x: Operand,
    out: Operand,
    rows: Rows,
    *,
    epsilon: float,
    b_scale: float | None = None,
    table: Operand | None = None,
    rms: bool = False,
    **loops: Unpack[Loops],
) -> bytes:
    """Take the layer norm of rows, or their root mean square norm.

    Parameters
    ----------
    epsilon : float
        Added to the variance: positive.
    b_scale : float
        A factor of the results, 1 if neither it nor a table is given.
    table : Operand
        Where the bytes of `columns` are: beta and gamma over the scale of the results.
    rms : bool
        Take the mean for 0.
    loops
        See `affine`.
    """
    scales = _factor(b_scale, table)
    scales["c_scale"] = _scale("1 / length", 1 / rows.length)
    scales["epsilon"] = _scale("epsilon", epsilon, positive=True)
    flags = (0 if table is None else RowsFlag.TABLE.value) | (RowsFlag.RMS.value if rms else 0)
    return _rows(RowsOp.NORMALIZE, x, out, rows, scales, flags, table=table, loops=loops)


def quantize(
    x: Operand,
    out: Operand,
    rows: Rows,
    *,
    scales: Operand,
    scale_y_stride: int,
    scale_z_stride: int = 0,
    largest: float | None = None,
    c_scale: float = 1.0,
    **loops: Unpack[Loops],
) -> bytes:
    """Divide each row by a scale that fits its largest magnitude, and write the scales.

    Parameters
    ----------
    scales : Operand
        Where a row's scale goes; it and its strides are multiples of 4.
    largest : float
        What the largest magnitude becomes; by default the largest number of the results' format.
    c_scale : float
        A factor of the scales.
    loops
        See `affine`.
    """
    largest = LARGEST[rows.out_format] if largest is None else largest
    if not largest > 0:
        raise ValueError(f"largest must be positive, not {largest!r}")
    body = {"b_scale": _scale("1 / largest", 1 / largest, positive=True)}
    body |= {"c_scale": _scale("c_scale", c_scale)} | _steps(scale_y_stride, scale_z_stride)
    return _rows(RowsOp.QUANTIZE, x, out, rows, body, 0, scales=scales, loops=loops)


def _rows(
    op: RowsOp,
    x: Operand,
    out: Operand,
    rows: Rows,
    body: Mapping[str, int],
    flags: int,
    *,
    table: Operand | None = None,
    scales: Operand | None = None,
    loops: Loops,
) -> bytes:
    aligned("x", x, GRANULE)
    aligned("out", out, GRANULE)
    if table is not None:
        aligned("table", table, GRANULE)
    if scales is not None:
        aligned("scales", scales, SCALE_BYTES)
    header = Loops(inner=1, outer=1, wait=(), signal=()) | loops
    return looped(
        Opcode.ROWS,
        {"op": op.value, "flags": flags, **rows.fields(), **body},
        Queue.VECTOR,
        (table or scales or Operand(), x, out),
        **header,
    )


def _factor(b_scale: float | None, table: Operand | None) -> dict[str, int]:
    """Return the field of ``b_scale``, 1 by default; nothing where a table has its place."""
    if table is None:
        return {"b_scale": _scale("b_scale", 1.0 if b_scale is None else b_scale)}
    if b_scale is not None:
        raise ValueError(f"b_scale must be left out where there is a table, not {b_scale!r}")
    return {}


def _steps(y_stride: int, z_stride: int) -> dict[str, int]:
    """Return the fields of the scales' strides."""
    fields = {"scale_y_stride": y_stride, "scale_z_stride": z_stride}
    for name, value in fields.items():
        multiple(name, value, SCALE_BYTES)
    return fields


def _scale(name: str, scale: float, *, positive: bool = False) -> int:
    """Return the bits of a scale in FP32."""
    with np.errstate(over="ignore"):
        bits = int(np.float32(scale).view(np.uint32))
    if not 0 < (bits >> 23 & 0xFF) < 0xFF or (positive and scale < 0):
        kind = "positive normal" if positive else "normal"
        raise ValueError(f"{name} must be a {kind} FP32 number, not {scale!r}")
    return bits
