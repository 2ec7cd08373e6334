"""What one iteration of REFORMAT does to the scratchpad, and what is refused.

BAD_LENGTH: ``rows``, ``length`` or ``batch`` is zero. BAD_FORMAT: an unknown operation, or a format
that it does not take. BAD_ALIGNMENT: an address that is used, or a stride of input or output, is
not a multiple of 16; the strides of scales neither; a count's address or stride is odd.
BAD_ADDRESS: a granule, a scale or a count that is read or written is outside the scratchpad.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, Format, ReformatOp, Status
from ..golden import reformat as golden
from ..golden.formats import DTYPES
from .checks import check_span, misaligned, refuse, steps_span
from .work import Bytes, Fields, Work, windows

__all__ = ["FORMATS", "INDEX_UNITS", "check_reformat", "reformat"]

FORMATS: dict[ReformatOp, tuple[Format, ...]] = {
    ReformatOp.TRANSPOSE: tuple(fmt for fmt in Format if BITS[fmt] >= 8),
    ReformatOp.COMPRESS: (Format.INT8, Format.E4M3, Format.E5M2, Format.FP16, Format.BF16),
    ReformatOp.EXPAND: (Format.E4M3, Format.E5M2, Format.INT8, Format.E2M1),
}
"""Formats of the input that each operation takes."""

INDEX_UNITS = {ReformatOp.COMPRESS: 2, ReformatOp.EXPAND: GRANULE}
"""To what operand 0 and its strides are aligned, of the operations that use it."""


NAMES: dict[Format, Any] = {fmt: fmt.name.lower() for fmt in Format}
"""What the golden models call the formats."""


def _whole(nbytes: int) -> int:
    """Return ``nbytes`` in whole granules."""
    return -(-nbytes // GRANULE) * GRANULE


def _row_bytes(body: Fields) -> tuple[int, int]:
    """Return the bytes of an input row and of an output row; one granule of COMPRESS's."""
    length, bits = body["length"], BITS[Format(body["in_format"])]
    source = _whole(-(-length * bits // 8))
    op = ReformatOp(body["op"])
    if op is ReformatOp.COMPRESS:
        return source, GRANULE
    transposed = body["rows"] * bits // 8
    return source, _whole(transposed if op is ReformatOp.TRANSPOSE else 2 * length)


def check_reformat(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of REFORMAT; raise `Fault`.

    That streams end inside the scratchpad `reformat` sees.
    """
    rows, length, batch = body["rows"], body["length"], body["batch"]
    refuse(0 in (rows, length, batch), Status.BAD_LENGTH)
    known = {op.value: [fmt.value for fmt in formats] for op, formats in FORMATS.items()}
    refuse(body["in_format"] not in known.get(body["op"], ()), Status.BAD_FORMAT)
    op = ReformatOp(body["op"])
    strides = [
        body[f"{side}_{name}"] for side in ("in", "out") for name in ("stride", "batch_stride")
    ]
    refuse(misaligned([*operand[1:], *strides], GRANULE), Status.BAD_ALIGNMENT)
    index = (body["index_stride"], body["index_batch_stride"])
    if op in INDEX_UNITS:
        refuse(misaligned([operand[0], *index], INDEX_UNITS[op]), Status.BAD_ALIGNMENT)

    source, target = _row_bytes(body)
    written = length if op is ReformatOp.TRANSPOSE else rows
    spans = [
        (operand[1], "in", rows, source),
        (operand[2], "out", written, target),
    ]
    if op is ReformatOp.COMPRESS:
        spans.append((operand[0], "index", rows, 2))
    elif op is ReformatOp.EXPAND:
        spans.append((operand[0], "index", rows, _whole(-(-length // golden.SCALED))))
    for base, side, count, nbytes in spans:
        loops = (count, body[f"{side}_stride"]), (batch, body[f"{side}_batch_stride"])
        check_span(base, steps_span(*loops), nbytes, config.scratchpad_bytes)


def reformat(body: Fields, operand: Sequence[int], scratchpad: Bytes, config: CardConfig) -> Work:
    """Execute an iteration that `check_reformat` has passed; all reads come before all writes.

    Raises
    ------
    Fault
        BAD_ADDRESS, if a stream ends outside the scratchpad.
    """
    op, fmt = ReformatOp(body["op"]), Format(body["in_format"])
    rows, length = body["rows"], body["length"]
    source, target = _row_bytes(body)

    def places(side: int, name: str, count: int) -> npt.NDArray[np.int64]:
        """Return the addresses [batch, count] of rows."""
        z = np.arange(body["batch"])[:, np.newaxis] * body[f"{name}_batch_stride"]
        return operand[side] + z + np.arange(count) * body[f"{name}_stride"]

    numbers = _numbers(windows(scratchpad, source)[places(1, "in", rows)], fmt)[..., :length]
    if op is ReformatOp.COMPRESS:
        ends = places(2, "out", rows), places(0, "index", rows)
        return _compress(numbers, NAMES[fmt], *ends, scratchpad)
    if op is ReformatOp.TRANSPOSE:
        result = golden.transpose(numbers)
        side = GRANULE // numbers.itemsize
        busy = body["batch"] * -(-rows // side) * -(-length // side) * side
    else:
        scales = windows(scratchpad, -(-length // golden.SCALED))[places(0, "index", rows)]
        result = golden.expand(numbers, scales, NAMES[fmt])
        busy = body["batch"] * rows * target // GRANULE
    raw = _bytes(result)
    out = np.zeros((*raw.shape[:-1], target), np.uint8)
    out[..., : raw.shape[-1]] = raw
    windows(scratchpad, target)[places(2, "out", result.shape[1])] = out
    return Work(busy=busy)


def _compress(
    numbers: npt.NDArray,
    name: Any,
    out: npt.NDArray[np.int64],
    index: npt.NDArray[np.int64],
    scratchpad: Bytes,
) -> Work:
    """Write the streams of rows [batch, rows, length] to ``out`` and their counts to ``index``."""
    streams = [golden.compress(row, name) for row in numbers.reshape(-1, numbers.shape[-1])]
    for stream, place, count in zip(streams, out.reshape(-1), index.reshape(-1), strict=True):
        check_span(int(place), (0, 0), stream.granules.size, scratchpad.size)
        scratchpad[place : place + stream.granules.size] = stream.granules.reshape(-1)
        scratchpad[count : count + 2] = stream.entries & 0xFF, stream.entries >> 8
    lanes = GRANULE // numbers.itemsize
    empty = sum(
        int(np.sum(np.add.reduceat(row != 0, np.arange(0, row.size, lanes)) == 0))
        for row in numbers.reshape(-1, numbers.shape[-1])
    )
    return Work(busy=empty + sum(stream.entries for stream in streams))


def _numbers(raw: Bytes, fmt: Format) -> npt.NDArray:
    """Return the raw numbers that the last axis of bytes holds."""
    if BITS[fmt] == 4:
        return np.stack([raw & 15, raw >> 4], axis=-1).reshape(*raw.shape[:-1], -1)
    return np.ascontiguousarray(raw).view(np.dtype(DTYPES[NAMES[fmt]]).newbyteorder("<"))


def _bytes(numbers: npt.NDArray) -> Bytes:
    return numbers.astype(numbers.dtype.newbyteorder("<")).view(np.uint8)
