"""What one iteration of each unit does to memory and scratchpad."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import DirectoryEntry, Format, Function, MatmulFlag, Opcode, Status
from ..golden import epilogue
from ..golden.epilogue import OutFormat, finish
from ..golden.exact import InFormat, gemm
from .checks import (
    SIZES,
    Fault,
    check_matmul,
    check_pool,
    check_span,
    check_transfer,
    columns_spans,
)
from .decode import dtype

__all__ = ["Work", "execute"]

Bytes = npt.NDArray[np.uint8]
Fields = Mapping[str, Any]

IN_FORMATS: dict[Format, InFormat] = {Format.INT8: "int8", Format.FP16: "fp16"}
OUT_FORMATS: dict[Format, OutFormat] = {
    Format.INT8: "int8",
    Format.FP16: "fp16",
    Format.INT32: "int32",
    Format.FP32: "fp32",
}
FUNCTIONS: dict[Function, epilogue.Function] = {Function.NONE: "none", Function.RELU: "relu"}

CHUNK_BYTES = 1 << 24
"""Bytes that a transfer moves in one NumPy operation."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What an iteration did.

    ``read`` and ``written`` are bytes on the card memory bus, in whole beats. ``issued`` is the
    number of stream entries that all engines together issued. ``busy`` is the modelled number of
    cycles for which the unit itself has work, without access to card memory.
    """

    read: int = 0
    written: int = 0
    issued: int = 0
    busy: int = 0


def execute(
    opcode: Opcode,
    body: Fields,
    operand: Sequence[int],
    *,
    memory: Bytes,
    scratchpad: Bytes,
    config: CardConfig,
) -> Work:
    """Check one iteration and execute it in place.

    Raises
    ------
    Fault
        If the iteration is refused.
    """
    if opcode in (Opcode.LOAD, Opcode.STORE):
        check_transfer(body, operand, config)
        return _transfer(opcode, body, operand, memory, scratchpad, config)
    if opcode is Opcode.MATMUL:
        check_matmul(body, operand, config)
        return _matmul(body, operand, scratchpad, config)
    check_pool(body, operand, config)
    return _pool(body, operand, scratchpad)


def _windows(data: Bytes, length: int) -> npt.NDArray[np.uint8]:
    """Return a writable view whose element ``a`` is the ``length`` bytes from address ``a``."""
    return np.lib.stride_tricks.sliding_window_view(data, length, writeable=True)


def _transfer(
    opcode: Opcode,
    body: Fields,
    operand: Sequence[int],
    memory: Bytes,
    scratchpad: Bytes,
    config: CardConfig,
) -> Work:
    x_bytes, y, rows = body["x_bytes"], body["y"], body["y"] * body["z"]
    bus = config.bus_bytes
    card, local = _windows(memory, x_bytes), _windows(scratchpad, x_bytes)
    step = max(1, CHUNK_BYTES // x_bytes)
    beats = 0
    for start in range(0, rows, step):
        z_index, y_index = np.divmod(np.arange(start, min(start + step, rows)), y)
        outside, inside = (
            base + y_index * body[f"{side}_y_stride"] + z_index * body[f"{side}_z_stride"]
            for base, side in zip(operand, ("memory", "scratchpad"), strict=False)
        )
        if opcode is Opcode.LOAD:
            local[inside] = card[outside]
        else:
            card[outside] = local[inside]
        beats += int(np.sum((outside + x_bytes - 1) // bus - outside // bus + 1))
    busy = rows + rows * x_bytes // GRANULE
    if opcode is Opcode.LOAD:
        return Work(read=beats * bus, busy=busy)
    return Work(written=beats * bus, busy=busy)


def _columns(body: Fields, operand: str) -> npt.NDArray[np.int64]:
    """Return each column's offset in bytes."""
    outer, inner = np.divmod(np.arange(body["n"]), body["n_inner"])
    return outer * body[f"{operand}_outer_stride"] + inner * body[f"{operand}_inner_stride"]


def _matmul(body: Fields, operand: Sequence[int], scratchpad: Bytes, config: CardConfig) -> Work:
    blob, x, out = operand
    in_format, out_format = Format(body["in_format"]), Format(body["out_format"])
    k, size, run_bytes = body["k"], SIZES[in_format], body["run_bytes"]
    element = np.dtype("<i1" if in_format is Format.INT8 else "<u2")

    count = body["visits"] * config.rows
    entries = scratchpad[blob : blob + count * GRANULE].view(dtype(DirectoryEntry))
    counts = entries["count"].astype(np.int64).reshape(body["visits"], config.rows)
    blocks = -(-body["n"] // (config.cols * (2 if in_format is Format.INT8 else 1)))
    work = Work(
        issued=int(counts.sum()) * blocks,
        busy=max(
            int(np.maximum(counts, config.min_visit * (counts > 0)).sum(axis=0).max()) * blocks,
            k * blocks,
        ),
    )
    entries = entries[entries["count"] != 0].copy()
    if entries.size == 0:
        return work

    starts = (out + entries["out_offset"].astype(np.int64)) & 0xFFFFFFFF
    out_size = SIZES[out_format]
    if np.any(entries["out_offset"] % out_size):
        raise Fault(Status.BAD_ALIGNMENT)
    for low, high in columns_spans(body, "out"):
        check_span(int(starts.min()), (low, low), out_size, config.scratchpad_bytes)
        check_span(int(starts.max()), (high, high), out_size, config.scratchpad_bytes)
    weights = _streams(body, blob, entries, scratchpad, element)

    runs = np.arange(k * size // run_bytes) * body["x_run_stride"]
    columns = x + _columns(body, "x")[:, np.newaxis] + runs
    resident = _windows(scratchpad, run_bytes)[columns].reshape(body["n"], k * size)

    sums = gemm(weights, resident.view(element), IN_FORMATS[in_format])
    results = finish(
        sums,
        function=FUNCTIONS[Function(body["function"])],
        out_format=OUT_FORMATS[out_format],
        bias=entries["bias"],
        scale=entries["scale"],
        parameter=body["parameter"],
        zero_point=body["zero_point"],
        clamp_low=body["clamp_low"],
        clamp_high=body["clamp_high"],
    )
    addresses = starts[:, np.newaxis] + _columns(body, "out")
    scratchpad.view(f"<u{out_size}")[addresses // out_size] = results.view(f"<u{out_size}")
    return work


def _streams(
    body: Fields, blob: int, entries: npt.NDArray, scratchpad: Bytes, element: np.dtype
) -> npt.NDArray:
    """Return the entries' streams as a dense matrix A[entries, K]."""
    k, sparse = body["k"], bool(body["flags"] & MatmulFlag.SPARSE.value)
    per_granule = GRANULE // element.itemsize
    if sparse:
        per_granule = 8 if element.itemsize == 1 else 5
    counts = entries["count"].astype(np.int64)
    starts = (blob + GRANULE * entries["stream"].astype(np.int64)) & 0xFFFFFFFF
    granules = -(-counts // per_granule)
    if np.any(starts + GRANULE * granules > scratchpad.size):
        raise Fault(Status.BAD_ADDRESS)
    words = scratchpad.reshape(-1, GRANULE)
    if not sparse:
        if np.any(counts != k):
            raise Fault(Status.BAD_INDEX)
        index = starts[:, np.newaxis] // GRANULE + np.arange(granules[0])
        return words[index].reshape(len(entries), -1).view(element)[:, :k]

    owner = np.repeat(np.arange(len(entries)), granules)
    first = np.cumsum(granules) - granules
    within = np.arange(len(owner)) - first[owner]
    raw = words[starts[owner] // GRANULE + within]
    split = per_granule * element.itemsize
    values = np.ascontiguousarray(raw[:, :split]).view(element)
    deltas = raw[:, split : split + per_granule].astype(np.int64)
    valid = within[:, np.newaxis] * per_granule + np.arange(per_granule) < counts[owner, np.newaxis]
    # One running sum over all streams; what it was before each stream is taken off again.
    steps = np.cumsum(np.where(valid, deltas + 1, 0)).reshape(valid.shape)
    before = np.concatenate([[0], steps[:, -1]])[first]
    index = (steps - before[owner, np.newaxis] - 1)[valid]
    if np.any(index >= k):
        raise Fault(Status.BAD_INDEX)
    weights = np.zeros((len(entries), k), element)
    weights[np.broadcast_to(owner[:, np.newaxis], valid.shape)[valid], index] = values[valid]
    return weights


def _pool(body: Fields, operand: Sequence[int], scratchpad: Bytes) -> Work:
    words = scratchpad.view(np.int8).reshape(-1, GRANULE)
    out_y, out_x = np.arange(body["out_y"])[:, np.newaxis], np.arange(body["out_x"])

    def addresses(base: int, side: str) -> npt.NDArray[np.int64]:
        corner = base + out_y * body[f"{side}_y_stride"] + out_x * body[f"{side}_x_stride"]
        return corner[..., np.newaxis] // GRANULE + np.arange(body["granules"])

    corners = addresses(operand[1], "in")
    result = np.full((*corners.shape, GRANULE), -128, np.int8)
    for offset in _kernel_offsets(body):
        np.maximum(result, words[corners + offset // GRANULE], out=result)
    words[addresses(operand[2], "out")] = result
    return Work(busy=corners.size * body["kernel_y"] * body["kernel_x"])


def _kernel_offsets(body: Fields) -> Iterator[int]:
    for y in range(body["kernel_y"]):
        for x in range(body["kernel_x"]):
            yield y * body["in_ky_stride"] + x * body["in_kx_stride"]
