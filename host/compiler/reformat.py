"""Builders of REFORMAT commands: transposed rows, compressed streams, expanded MX numbers."""

from collections.abc import Sequence

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, Format, Opcode, Queue, ReformatOp
from .checks import aligned, looped, multiple, positive
from .encoding import Operand, Signal, Wait

__all__ = ["SCALED", "compress", "expand", "transpose"]

SCALED = 32
"""Numbers that share a scale."""

_FORMATS = {
    ReformatOp.TRANSPOSE: [format for format in Format if BITS[format] >= 8],
    ReformatOp.COMPRESS: [Format.INT8, Format.E4M3, Format.E5M2, Format.FP16, Format.BF16],
    ReformatOp.EXPAND: [Format.E4M3, Format.E5M2, Format.INT8, Format.E2M1],
}


def transpose(
    x: Operand,
    out: Operand,
    *,
    rows: int,
    length: int,
    format: Format,
    in_stride: int,
    out_stride: int,
    batch: int = 1,
    in_batch_stride: int = 0,
    out_batch_stride: int = 0,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Turn ``batch`` blocks of ``rows`` rows of ``length`` numbers into ones of ``length`` rows.

    From scratchpad to scratchpad; addresses and strides, in bytes, are multiples of 16. Rows of the
    output are whole granules, with zeros behind their ``rows`` numbers. It overlaps neither the
    input nor that of the next iteration (`isa.ReformatBody`).

    Parameters
    ----------
    format : Format
        Any of 8, 16 or 32 bits.
    """
    return _reformat(
        ReformatOp.TRANSPOSE,
        (Operand(), x, out),
        (rows, length, batch),
        format,
        (in_stride, in_batch_stride, out_stride, out_batch_stride, 0, 0),
        loops=(inner, outer),
        wait=wait,
        signal=signal,
    )


def compress(
    x: Operand,
    out: Operand,
    counts: Operand,
    *,
    rows: int,
    length: int,
    format: Format,
    in_stride: int,
    out_stride: int,
    count_stride: int,
    batch: int = 1,
    in_batch_stride: int = 0,
    out_batch_stride: int = 0,
    count_batch_stride: int = 0,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Turn dense rows into streams of `Encoding.DELTA`, and write how many entries they have.

    From scratchpad to scratchpad, as for `transpose`. A stream takes what it needs of its row of
    the output; a row without zeros needs `ENTRIES` numbers a granule.

    Parameters
    ----------
    counts : Operand
        Where the 16-bit counts go: to ``count`` of a `DirectoryEntry` each. Addresses and strides
        are even.
    format : Format
        INT8, E4M3, E5M2, FP16 or BF16.
    """
    strides = (in_stride, in_batch_stride, out_stride, out_batch_stride)
    return _reformat(
        ReformatOp.COMPRESS,
        (counts, x, out),
        (rows, length, batch),
        format,
        (*strides, count_stride, count_batch_stride),
        loops=(inner, outer),
        wait=wait,
        signal=signal,
    )


def expand(
    x: Operand,
    scales: Operand,
    out: Operand,
    *,
    rows: int,
    length: int,
    format: Format,
    in_stride: int,
    scale_stride: int,
    out_stride: int,
    batch: int = 1,
    in_batch_stride: int = 0,
    scale_batch_stride: int = 0,
    out_batch_stride: int = 0,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Turn rows of MX numbers, with an E8M0 scale for every `SCALED` of them, into BF16.

    From scratchpad to scratchpad, as for `transpose`; also the rows of scales, and their strides.

    Parameters
    ----------
    format : Format
        E4M3, E5M2, INT8 or E2M1.
    """
    strides = (in_stride, in_batch_stride, out_stride, out_batch_stride)
    return _reformat(
        ReformatOp.EXPAND,
        (scales, x, out),
        (rows, length, batch),
        format,
        (*strides, scale_stride, scale_batch_stride),
        loops=(inner, outer),
        wait=wait,
        signal=signal,
    )


def _reformat(
    op: ReformatOp,
    operands: tuple[Operand, Operand, Operand],
    counts: tuple[int, int, int],
    format: Format,
    strides: tuple[int, ...],
    *,
    loops: tuple[int, int],
    wait: Sequence[Wait],
    signal: Sequence[Signal],
) -> bytes:
    if format not in _FORMATS[op]:
        known = ", ".join(known.name for known in _FORMATS[op])
        raise ValueError(f"format of {op.name} must be one of {known}, not {format!r}")
    body = dict(zip(("rows", "length", "batch"), counts, strict=True))
    for name, value in body.items():
        positive(name, value, 0xFFFF)
    index = {ReformatOp.COMPRESS: ("count", 2), ReformatOp.EXPAND: ("scale", GRANULE)}
    label, unit = index.get(op, ("index", 1))
    shown = ("in", "in_batch", "out", "out_batch", label, f"{label}_batch")
    fields = ("in", "in_batch", "out", "out_batch", "index", "index_batch")
    for name, field, stride in zip(shown, fields, strides, strict=True):
        multiple(f"{name}_stride", stride, unit if field.startswith("index") else GRANULE)
        body[f"{field}_stride"] = stride
    for name, operand, alignment in zip(
        (f"{label}s", "x", "out"), operands, (unit, GRANULE, GRANULE), strict=True
    ):
        aligned(name, operand, alignment)
    return looped(
        Opcode.REFORMAT,
        body | {"op": op.value, "in_format": format.value},
        Queue.VECTOR,
        operands,
        inner=loops[0],
        outer=loops[1],
        wait=wait,
        signal=signal,
    )
