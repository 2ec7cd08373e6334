"""Windows of every shape and format for the bench of the fill path, and the numbers they become."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...rtl.isa import BITS, INPUT_FORMATS, LANES, Format, Mode, array_mode

__all__ = ["PAIRS", "Body", "body_of", "expected", "one_nan", "random_places", "random_window"]

Body = dict[str, int]
"""Fields of a `MatmulBody`."""

Numbers = npt.NDArray[np.int_]

PAIRS = sorted(
    {
        (resident, mode)
        for stream in INPUT_FORMATS
        for resident in INPUT_FORMATS
        if (mode := array_mode(stream, resident)) is not None
    },
    key=lambda pair: (pair[0].value, pair[1].value),
)
"""Every resident format in every mode that it is widened to."""

FLOATS = {
    Format.FP16: np.float16,
    Format.BF16: ml_dtypes.bfloat16,
    Format.E4M3: ml_dtypes.float8_e4m3fn,
    Format.E5M2: ml_dtypes.float8_e5m2,
}

STRIDES = ("x_run_stride", "x_run_outer_stride", "x_inner_stride", "x_outer_stride")


def body_of(r: np.random.Generator, resident: Any, mode: Any, **fields: int) -> Body:
    """Return the body's fields for a resident format and a mode: any stream format that fits."""
    streams = [each for each in INPUT_FORMATS if array_mode(each, resident) == mode]
    formats = {
        "stream_format": streams[int(r.integers(len(streams)))].value,
        "in_format": resident.value,
    }
    return {"runs_inner": 1, **dict.fromkeys(STRIDES, 0), **fields, **formats}


def _widened(raw: Numbers, resident: Any, mode: Any) -> Numbers:
    """Return numbers, given by their bits, as the array's mode has them; NaNs are all equal."""
    if resident in FLOATS:
        size = np.uint16 if BITS[resident] == 16 else np.uint8
        value = raw.astype(size).view(FLOATS[resident])
    elif resident is Format.INT4:
        value = ((raw ^ 8) - 8).astype(np.float32)
    else:
        value = raw.astype(np.int8).astype(np.float32)
    if mode in (Mode.INT4, Mode.INT8):
        return value.astype(int) & ((1 << 16 // LANES[mode]) - 1)
    kind = np.float16 if mode is Mode.FP16 else ml_dtypes.bfloat16
    return one_nan(value.astype(kind).view(np.uint16).astype(int), mode)


def one_nan(bits: Numbers, mode: Any) -> Numbers:
    """Return 16-bit floats, given by their bits, with all NaNs equal."""
    infinity = {Mode.FP16: 0x7C00, Mode.BF16: 0x7F80}[mode]
    return np.where((bits & 0x7FFF) > infinity, 0xFFFF, bits)


def random_window(
    r: np.random.Generator, config: CardConfig, resident: Any, mode: Any, k_most: int = 300
) -> Body:
    """Return the fields of a random window with at most ``k_most`` numbers in a column, or one
    run if that has more."""
    numbers = 1 if BITS[resident] < 16 else 2  # alignment
    per_byte = 8 / BITS[resident]
    run_bytes = int(r.choice([1, 2, 3, 7, 8, 16, 17, 21, 32, 40, 128])) * numbers
    run = int(run_bytes * per_byte)
    runs = int(r.integers(1, max(2, min(12, k_most // run + 1))))
    span = int(r.choice([4, 60, 400]))
    wide = config.cols * LANES[mode]
    return body_of(
        r,
        resident,
        mode,
        k=runs * run,
        n=int(r.choice([1, int(r.integers(1, wide + 1)), int(r.integers(wide, 3 * wide))])),
        n_inner=int(r.choice([1, int(r.integers(1, 12)), 1000])),
        run_bytes=run_bytes,
        runs_inner=int(r.choice([1, 2, 3, 5, runs, 60000])),
        **{name: int(r.integers(-span, span)) * numbers for name in STRIDES},
    )


def _offsets(fields: Body, resident: Any) -> Numbers:
    """Return the byte offset of element k of column j from X, [j, k], as `MatmulBody` says."""
    j = np.arange(fields["n"])[:, None]
    k = np.arange(fields["k"])[None, :]
    run = fields["run_bytes"] * 8 // BITS[resident]
    q = k // run
    return (
        (j // fields["n_inner"]) * fields["x_outer_stride"]
        + (j % fields["n_inner"]) * fields["x_inner_stride"]
        + (q // fields["runs_inner"]) * fields["x_run_outer_stride"]
        + (q % fields["runs_inner"]) * fields["x_run_stride"]
        + (k % run) * BITS[resident] // 8
    )


def random_places(
    r: np.random.Generator, config: CardConfig, fields: Body, resident: Any, count: int
) -> list[int]:
    """Return random addresses at which the window lies within the scratchpad; none if there is
    none."""
    offsets = _offsets(fields, resident)
    size = 2 if BITS[resident] == 16 else 1
    low, high = -int(offsets.min()), config.scratchpad_bytes - size - int(offsets.max())
    if low > high:
        return []
    draws = [int(r.choice([low, high, int(r.integers(low, high + 1))])) for _ in range(count)]
    return [at if size == 1 else at & ~1 for at in draws]


def expected(
    memory: npt.NDArray[np.uint8],
    x: int,
    fields: Body,
    resident: Any,
    mode: Any,
    config: CardConfig,
) -> Numbers:
    """Return the numbers[block, k, column, lane] of an iteration; -1 beyond the last column."""
    address = x + _offsets(fields, resident)
    raw = memory[address].astype(int)
    if BITS[resident] == 16:
        raw |= memory[address + 1].astype(int) << 8
    elif BITS[resident] == 4:
        raw = raw >> 4 * (np.arange(fields["k"])[None, :] & 1) & 15
    width = config.cols * LANES[mode]
    blocks = -(-fields["n"] // width)
    padded = np.full((blocks * width, fields["k"]), -1)
    padded[: fields["n"]] = _widened(raw, resident, mode)
    return padded.reshape(blocks, config.cols, LANES[mode], -1).transpose(0, 3, 1, 2)
