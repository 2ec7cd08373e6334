"""What one iteration of ROWS does to the scratchpad, and what is refused.

BAD_LENGTH: ``length``, ``y`` or ``z`` is zero. BAD_FORMAT: an unknown operation, a flag that is not
one of the operation, or a format that ROWS does not take. BAD_ALIGNMENT: the input, the output, the
table or a stride of input or output is not a multiple of 16; where scales are written, their
address or a stride of theirs is not one of 4. BAD_SCALE: a scale that the operation uses, or its
``epsilon``, is zero, subnormal, infinite or NaN, or negative where it must be positive; what a
table holds is not looked at. BAD_ADDRESS: a granule or a scale that is read or written is outside
the scratchpad.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, Format, RowsFlag, RowsOp, Status
from ..golden import rows as golden
from ..golden.formats import DTYPES
from .checks import check_span, is_normal, misaligned, refuse, steps_span
from .work import Bytes, Fields, Work, windows

__all__ = [
    "COLUMN_BYTES",
    "FLAGS",
    "IN_FORMATS",
    "OUT_FORMATS",
    "SCALE_BYTES",
    "check_rows",
    "has_table",
    "rows",
    "scales_of",
    "writes_scale",
]

FLAGS: dict[RowsOp, int] = {
    RowsOp.AFFINE: RowsFlag.TABLE.value,
    RowsOp.SOFTMAX: RowsFlag.DEFER.value,
    RowsOp.NORMALIZE: RowsFlag.TABLE.value | RowsFlag.RMS.value,
    RowsOp.QUANTIZE: 0,
}
"""Flags that each operation knows."""

IN_FORMATS = tuple(Format[name.upper()] for name in golden.IN_FORMATS)
OUT_FORMATS = tuple(Format[name.upper()] for name in golden.OUT_FORMATS)

SCALE_BYTES = 4
COLUMN_BYTES = 8
"""Bytes of a column in a table."""

PASSES = {RowsOp.AFFINE: 1, RowsOp.SOFTMAX: 2, RowsOp.NORMALIZE: 3, RowsOp.QUANTIZE: 2}
"""The model of time: how often an operation reads a row; a SOFTMAX that divides, once more."""


def _whole(nbytes: int) -> int:
    """Return ``nbytes`` in whole granules."""
    return -(-nbytes // GRANULE) * GRANULE


def has_table(body: Fields) -> bool:
    """Return whether operand 0 of a ROWS command is a table."""
    return bool(body["flags"] & RowsFlag.TABLE.value)


def writes_scale(body: Fields) -> bool:
    """Return whether a ROWS command writes a scale for each row."""
    deferred = bool(body["flags"] & RowsFlag.DEFER.value)
    return deferred or body["op"] == RowsOp.QUANTIZE.value


def scales_of(body: Fields) -> tuple[tuple[str, bool], ...]:
    """Return which FP32 fields a ROWS command uses, and which of them must be positive."""
    b_scale = () if has_table(body) else (("b_scale", False),)
    match RowsOp(body["op"]):
        case RowsOp.AFFINE:
            return ("a_scale", False), *b_scale
        case RowsOp.SOFTMAX:
            c_scale = (("c_scale", False),) if writes_scale(body) else ()
            return ("a_scale", True), ("b_scale", False), *c_scale
        case RowsOp.NORMALIZE:
            return *b_scale, ("c_scale", False), ("epsilon", True)
        case _:
            return ("b_scale", True), ("c_scale", False)


def _row_bytes(body: Fields) -> tuple[int, int]:
    """Return the bytes of an input row and of an output row, in whole granules."""
    bits = (BITS[Format(body[name])] for name in ("in_format", "out_format"))
    source, target = (_whole(-(-body["length"] * size // 8)) for size in bits)
    return source, target


def check_rows(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of ROWS; raise `Fault`."""
    refuse(0 in (body["length"], body["y"], body["z"]), Status.BAD_LENGTH)
    known = body["op"] in [op.value for op in RowsOp]
    refuse(not known or bool(body["flags"] & ~FLAGS[RowsOp(body["op"])]), Status.BAD_FORMAT)
    for name, formats in (("in_format", IN_FORMATS), ("out_format", OUT_FORMATS)):
        refuse(body[name] not in [fmt.value for fmt in formats], Status.BAD_FORMAT)
    strides = [body[f"{side}_{axis}_stride"] for side in ("in", "out") for axis in "yz"]
    refuse(misaligned([*operand[1:], *strides], GRANULE), Status.BAD_ALIGNMENT)
    refuse(has_table(body) and misaligned(operand[:1], GRANULE), Status.BAD_ALIGNMENT)
    if writes_scale(body):
        steps = [operand[0], body["scale_y_stride"], body["scale_z_stride"]]
        refuse(misaligned(steps, SCALE_BYTES), Status.BAD_ALIGNMENT)
    for name, positive in scales_of(body):
        bad = not is_normal(body[name]) or (positive and bool(body[name] >> 31))
        refuse(bad, Status.BAD_SCALE)

    source, target = _row_bytes(body)
    spans = [(operand[1], "in", source), (operand[2], "out", target)]
    if writes_scale(body):
        spans.append((operand[0], "scale", SCALE_BYTES))
    for base, side, nbytes in spans:
        loops = [(body[axis], body[f"{side}_{axis}_stride"]) for axis in "yz"]
        check_span(base, steps_span(*loops), nbytes, config.scratchpad_bytes)
    if has_table(body):
        nbytes = _whole(COLUMN_BYTES * body["length"])
        check_span(operand[0], (0, 0), nbytes, config.scratchpad_bytes)


def rows(body: Fields, operand: Sequence[int], scratchpad: Bytes, config: CardConfig) -> Work:
    """Execute an iteration that `check_rows` has passed; all reads come before all writes."""
    op, length = RowsOp(body["op"]), body["length"]
    source, target = _row_bytes(body)

    def places(base: int, side: str) -> npt.NDArray[np.int64]:
        """Return the addresses [z, y] of rows or scales."""
        z = np.arange(body["z"])[:, np.newaxis] * body[f"{side}_z_stride"]
        return base + z + np.arange(body["y"]) * body[f"{side}_y_stride"]

    in_format = Format(body["in_format"]).name.lower()
    raw = windows(scratchpad, source)[places(operand[1], "in")]
    x = raw.view(np.dtype(DTYPES[in_format]).newbyteorder("<"))[..., :length]
    output = golden.Output(
        Format(body["out_format"]).name.lower(),
        body["zero_point"],
        body["clamp_low"],
        body["clamp_high"],
    )
    settings: dict[str, Any] = {name: body[name] for name, _ in scales_of(body)}
    settings["in_zero"] = body["in_zero"]
    if has_table(body):
        nbytes = COLUMN_BYTES * length
        columns = scratchpad[operand[0] : operand[0] + nbytes].view("<u4").reshape(-1, 2)
        settings["table"] = golden.Table(columns[:, 0].copy(), columns[:, 1].copy())

    scales = None
    if op is RowsOp.AFFINE:
        result = golden.affine(x, in_format, output, **settings)
    elif op is RowsOp.NORMALIZE:
        rms = bool(body["flags"] & RowsFlag.RMS.value)
        result = golden.normalize(x, in_format, output, rms=rms, **settings)
    elif op is RowsOp.SOFTMAX:
        if body["valid"]:
            settings["valid"] = body["valid"] + np.arange(body["y"]) * body["valid_step"]
        result, scales = golden.softmax(x, in_format, output, **settings)
    else:
        result, scales = golden.quantize(x, in_format, output, **settings)

    out = np.zeros((*result.shape[:2], target), np.uint8)
    packed = _packed(result) if output.fmt == "int4" else _bytes(result)
    out[..., : packed.shape[-1]] = packed
    windows(scratchpad, target)[places(operand[2], "out")] = out
    if scales is not None and writes_scale(body):
        windows(scratchpad, SCALE_BYTES)[places(operand[0], "scale")] = _bytes(scales[..., None])
    return Work(busy=_busy(body, config))


def _busy(body: Fields, config: CardConfig) -> int:
    op, length = RowsOp(body["op"]), body["length"]
    divides = op is RowsOp.SOFTMAX and not writes_scale(body)
    source, _ = _row_bytes(body)
    reads = (PASSES[op] + divides) * source
    if has_table(body):
        reads += _whole(COLUMN_BYTES * length)
    # Statistics of the next row are found beside the results of this one, one pass of them.
    passes = max(1, PASSES[op] + divides - 1)
    cycles = max(passes * -(-length // config.row_lanes), reads // GRANULE)
    return body["y"] * body["z"] * cycles


def _bytes(numbers: npt.NDArray) -> Bytes:
    """Return the bytes of raw numbers, along the last axis."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).view(np.uint8)


def _packed(numbers: npt.NDArray[np.int8]) -> Bytes:
    """Return the bytes of INT4 numbers, two in each, the low half first."""
    halves = np.zeros((*numbers.shape[:-1], -(-numbers.shape[-1] // 2) * 2), np.uint8)
    halves[..., : numbers.shape[-1]] = numbers.view(np.uint8) & 15
    return halves[..., ::2] | halves[..., 1::2] << 4
