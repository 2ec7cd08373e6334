"""One iteration of MATMUL, executed by the golden models."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import (
    BITS,
    ENTRIES,
    LANES,
    DirectoryEntry,
    Encoding,
    Flag,
    Format,
    Function,
    MatmulFlag,
    Mode,
    Status,
)
from ..golden import epilogue, exact, formats
from .checks import SIZES, Fault, check_span, columns_spans, matmul_mode
from .decode import dtype
from .streams import read_streams, unpack_numbers
from .work import Bytes, Fields, Work, windows

__all__ = ["matmul"]

IN_FORMATS: dict[Format, exact.InFormat] = {
    Format.INT4: "int4",
    Format.INT8: "int8",
    Format.FP16: "fp16",
    Format.BF16: "bf16",
    Format.E4M3: "e4m3",
    Format.E5M2: "e5m2",
}
OUT_FORMATS: dict[Format, formats.Format] = {
    **IN_FORMATS,
    Format.INT32: "int32",
    Format.FP32: "fp32",
}
FUNCTIONS: dict[Function, epilogue.Function] = {Function.NONE: "none", Function.RELU: "relu"}
FLAGS = {
    epilogue.BELOW: Flag.BELOW,
    epilogue.ABOVE: Flag.ABOVE,
    epilogue.OVERFLOW: Flag.OVERFLOW,
    epilogue.NAN: Flag.NAN,
}

COLUMN_NUMBERS = 1 << 23
"""Numbers of X that are worked on at a time."""

NORMAL = 0x7F800000
"""The exponent of an FP32 number."""


def matmul(
    body: Fields,
    operand: Sequence[int],
    scratchpad: Bytes,
    config: CardConfig,
    *,
    dealt: int = 0,
) -> Work:
    """Execute an iteration that has passed `check_matmul`.

    Parameters
    ----------
    dealt : int
        Engine behind that of the last row of the iteration before.

    Raises
    ------
    Fault
        If a directory entry is refused.
    """
    blob, x, out = operand
    mode = matmul_mode(body)
    assert mode is not None
    stream_format, encoding = Format(body["stream_format"]), Encoding(body["encoding"])
    out_format = Format(body["out_format"])
    k, n, length = body["k"], body["n"], body["slice"]
    slices = -(-k // length)

    count = slices * body["entries"]
    directory = scratchpad[blob : blob + count * GRANULE].view(dtype(DirectoryEntry))
    directory = directory.reshape(slices, body["entries"])
    first = dealt if body["flags"] & MatmulFlag.DEAL_ON.value else 0
    issued, busy = _issued(directory["count"].astype(np.int64), body, mode, config, first)
    blocks = -(-n // (config.cols * LANES[mode]))
    after = (first + blocks * body["entries"]) % config.rows
    used = directory["count"] != 0
    rows = used[-1]  # a row is empty in all slices, or in none
    starts = (blob + GRANULE * directory["stream"].astype(np.int64)) & 0xFFFFFFFF
    places = (out + directory["out_offset"][-1][rows].astype(np.int64)) & 0xFFFFFFFF
    _check_entries(directory[used], starts[used], places, body, config)
    weights = [
        read_streams(
            scratchpad,
            starts[s],
            directory["count"][s].astype(np.int64),
            min(length, k - s * length),
            stream_format,
            encoding,
        )[rows]
        for s in range(slices)
    ]
    if not rows.any():
        return Work(issued=issued, busy=busy, dealt=after)

    # Everything is read before anything is written.
    entries = directory[:, rows]
    step = max(2, COLUMN_NUMBERS // k & -2)
    parts = [
        _multiply(
            body, weights, entries, _resident(body, x, np.arange(j, min(j + step, n)), scratchpad)
        )
        for j in range(0, n, step)
    ]
    _write(scratchpad, places, body, out_format, np.concatenate([part.values for part in parts], 1))
    raised = 0
    for part in parts:
        raised |= int(np.bitwise_or.reduce(part.flags, axis=None))
    flags = sum(int(flag) for bit, flag in FLAGS.items() if raised & bit)
    return Work(issued=issued, busy=busy, flags=flags, dealt=after)


def _resident(
    body: Fields, x: int, columns: npt.NDArray[np.int64], scratchpad: Bytes
) -> npt.NDArray:
    """Return raw numbers of some columns of X [columns, k]."""
    fmt, run_bytes = Format(body["in_format"]), body["run_bytes"]
    outer, inner = np.divmod(
        np.arange(body["k"] * BITS[fmt] // (8 * run_bytes)), body["runs_inner"]
    )
    runs = outer * body["x_run_outer_stride"] + inner * body["x_run_stride"]
    addresses = x + _offsets(body, "x", columns)[:, np.newaxis] + runs
    raw = windows(scratchpad, run_bytes)[addresses].reshape(len(columns), -1)
    return unpack_numbers(raw, fmt)


def _multiply(
    body: Fields, weights: list[npt.NDArray], entries: npt.NDArray, resident: npt.NDArray
) -> epilogue.Finished:
    """Return the results of some columns, for each slice's weights and entries of the rows."""
    inputs = tuple(IN_FORMATS[Format(body[f"{name}_format"])] for name in ("stream", "in"))
    length, anchor = body["slice"], body["anchor"]
    sums: exact.ExactSums | list[exact.ExactSums]
    if body["flags"] & MatmulFlag.BLOCK_SCALE.value:
        sums = [
            exact.gemm(part, resident[:, s * length : (s + 1) * length], *inputs, anchor=anchor)
            for s, part in enumerate(weights)
        ]
        bias, scale = entries["bias"][0], entries["scale"]
    else:
        sums = exact.gemm(np.concatenate(weights, axis=1), resident, *inputs, anchor=anchor)
        bias, scale = entries["bias"][-1], entries["scale"][-1]
    return epilogue.finish(
        sums,
        function=FUNCTIONS[Function(body["function"])],
        out_format=OUT_FORMATS[Format(body["out_format"])],
        bias=bias,
        scale=scale,
        parameter=body["parameter"],
        zero_point=body["zero_point"],
        clamp_low=body["clamp_low"],
        clamp_high=body["clamp_high"],
    )


def _issued(
    counts: npt.NDArray[np.int64], body: Fields, mode: Mode, config: CardConfig, engine: int
) -> tuple[tuple[int, ...], int]:
    """Return how many entries each engine issues, and the cycles that the slowest one is busy.

    ``engine`` has the first row.
    """
    rows, entries = config.rows, body["entries"]
    lanes = LANES[mode]
    blocks = -(-body["n"] // (config.cols * lanes))
    # How many blocks deal their first row to each engine.
    first = np.bincount((engine + np.arange(blocks) * entries) % rows, minlength=rows)
    shortest = config.min_visit * (2 if mode is Mode.INT4 else 1)
    results = []
    for cost in (counts, np.maximum(counts, shortest) * (counts > 0)):
        dealt = np.bincount(np.arange(entries) % rows, cost.sum(axis=0), minlength=rows)
        results.append(sum(int(times) * np.roll(dealt, e) for e, times in enumerate(first)))
    fill = body["k"] * blocks * max(1, 2 * config.cols // config.fill_bytes)
    issued, cycles = (np.asarray(result).astype(np.int64) for result in results)
    return tuple(issued.tolist()), max(int(cycles.max()), fill)


def _check_entries(
    entries: npt.NDArray,
    starts: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    body: Fields,
    config: CardConfig,
) -> None:
    """Check the entries that are not empty, but for their indices; raise `Fault`."""
    size = SIZES[Format(body["out_format"])]
    if np.any(entries["out_offset"] % size):
        raise Fault(Status.BAD_ALIGNMENT)
    per_granule = ENTRIES[Encoding(body["encoding"])][BITS[Format(body["stream_format"])]]
    granules = -(-entries["count"].astype(np.int64) // per_granule)
    if np.any(starts + GRANULE * granules > config.scratchpad_bytes):
        raise Fault(Status.BAD_ADDRESS)
    if places.size:
        for low, high in columns_spans(body, "out"):
            check_span(int(places.min()), (low, low), size, config.scratchpad_bytes)
            check_span(int(places.max()), (high, high), size, config.scratchpad_bytes)
    field = entries["scale"] & NORMAL
    if np.any((field == 0) | (field == NORMAL)):
        raise Fault(Status.BAD_SCALE)


def _offsets(body: Fields, operand: str, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return columns' offsets in bytes."""
    outer, inner = np.divmod(columns, body["n_inner"])
    return outer * body[f"{operand}_outer_stride"] + inner * body[f"{operand}_inner_stride"]


def _write(
    scratchpad: Bytes,
    places: npt.NDArray[np.int64],
    body: Fields,
    out_format: Format,
    values: npt.NDArray,
) -> None:
    """Write results [rows, n] to their places."""
    columns = _offsets(body, "out", np.arange(body["n"]))
    if out_format is Format.INT4:
        # The last byte's high half is 0 where no column is left for it.
        nibbles = values.view(np.uint8) & 15
        nibbles = np.pad(nibbles, ((0, 0), (0, body["n"] % 2)))
        values, columns = nibbles[:, ::2] | nibbles[:, 1::2] << 4, columns[::2]
    size = SIZES[out_format]
    addresses = places[:, np.newaxis] + columns
    scratchpad.view(f"<u{size}")[addresses // size] = values.view(f"<u{size}")
