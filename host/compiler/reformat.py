"""Builders of REFORMAT commands: transposed rows, compressed streams, expanded MX numbers."""

from collections.abc import Sequence
from typing import Required, TypedDict, Unpack

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
_INDEX = {ReformatOp.COMPRESS: ("count", 2), ReformatOp.EXPAND: ("scale", GRANULE)}
"""What lies beside the numbers, and what its addresses are multiples of."""


class Blocks(TypedDict, total=False):
    """What all builders take by name: ``batch`` blocks of ``rows`` rows of ``length`` numbers.

    Strides are in bytes: from row to row and from block to block, of the input and the output.
    """

    rows: Required[int]
    length: Required[int]
    format: Required[Format]
    in_stride: Required[int]
    out_stride: Required[int]
    batch: int
    in_batch_stride: int
    out_batch_stride: int
    inner: int
    outer: int
    wait: Sequence[Wait]
    signal: Sequence[Signal]


def transpose(x: Operand, out: Operand, **blocks: Unpack[Blocks]) -> bytes:
    """Turn blocks of ``rows`` rows of ``length`` numbers into ones of ``length`` rows.

    From scratchpad to scratchpad; addresses and strides are multiples of 16. Rows of the output are
    whole granules, with zeros behind their ``rows`` numbers. It overlaps neither the input nor that
    of the next iteration (`isa.ReformatBody`).

    Parameters
    ----------
    blocks
        Of a format of 8, 16 or 32 bits.
    """
    return _reformat(ReformatOp.TRANSPOSE, Operand(), x, out, **blocks)


def compress(
    x: Operand,
    out: Operand,
    counts: Operand,
    *,
    count_stride: int,
    count_batch_stride: int = 0,
    **blocks: Unpack[Blocks],
) -> bytes:
    """Turn dense rows into streams of `Encoding.DELTA`, and write how many entries they have.

    From scratchpad to scratchpad, as for `transpose`. A stream takes what it needs of its row of
    the output; a row without zeros needs `ENTRIES` numbers a granule.

    Parameters
    ----------
    counts : Operand
        Where the 16-bit counts go: to ``count`` of a `DirectoryEntry` each. Addresses and strides
        are even.
    blocks
        Of INT8, E4M3, E5M2, FP16 or BF16.
    """
    strides = (count_stride, count_batch_stride)
    return _reformat(ReformatOp.COMPRESS, counts, x, out, strides, **blocks)


def expand(
    x: Operand,
    scales: Operand,
    out: Operand,
    *,
    scale_stride: int,
    scale_batch_stride: int = 0,
    **blocks: Unpack[Blocks],
) -> bytes:
    """Turn rows of MX numbers, with an E8M0 scale for every `SCALED` of them, into BF16.

    From scratchpad to scratchpad, as for `transpose`; also the rows of scales, and their strides.

    Parameters
    ----------
    blocks
        Of E4M3, E5M2, INT8 or E2M1.
    """
    strides = (scale_stride, scale_batch_stride)
    return _reformat(ReformatOp.EXPAND, scales, x, out, strides, **blocks)


def _reformat(
    op: ReformatOp,
    index: Operand,
    x: Operand,
    out: Operand,
    index_strides: tuple[int, int] = (0, 0),
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
    """Return a command; ``index`` is where counts or scales lie, if it has any."""
    if format not in _FORMATS[op]:
        known = ", ".join(known.name for known in _FORMATS[op])
        raise ValueError(f"format of {op.name} must be one of {known}, not {format!r}")
    body = {"rows": rows, "length": length, "batch": batch}
    for name, value in body.items():
        positive(name, value, 0xFFFF)
    strides = {
        "in_stride": in_stride,
        "in_batch_stride": in_batch_stride,
        "out_stride": out_stride,
        "out_batch_stride": out_batch_stride,
    }
    for name, stride in strides.items():
        multiple(name, stride, GRANULE)
    label, unit = _INDEX.get(op, ("index", 1))
    for name, stride in zip(("stride", "batch_stride"), index_strides, strict=True):
        multiple(f"{label}_{name}", stride, unit)
        strides[f"index_{name}"] = stride
    aligned(f"{label}s", index, unit)
    aligned("x", x, GRANULE)
    aligned("out", out, GRANULE)
    return looped(
        Opcode.REFORMAT,
        body | strides | {"op": op.value, "in_format": format.value},
        Queue.VECTOR,
        (index, x, out),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )
