"""What REFORMAT does to the scratchpad, and random iterations of it, for the unit's bench."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, ENTRIES, Encoding
from ..golden import reformat as golden
from ..golden.formats import DTYPES

__all__ = ["COUNTS", "FORMATS", "STRIDES", "Body", "Case", "Op", "iterate", "model", "random_case"]

Body = dict[str, int]
Bytes = npt.NDArray[np.uint8]

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status
Op: Any = isa.ReformatOp
Format: Any = isa.Format

COUNTS = ("rows", "length", "batch")
STRIDES = tuple(f"{side}_{name}" for side in ("in", "out") for name in ("stride", "batch_stride"))
_INDEX_STRIDES = ("index_stride", "index_batch_stride")
_SIDES = ("index", "in", "out")

_MX = (Format.E4M3, Format.E5M2, Format.INT8, Format.E2M1)
FORMATS: dict[Any, tuple[Any, ...]] = {
    Op.TRANSPOSE: tuple(fmt for fmt in Format if fmt not in (Format.INT4, Format.E2M1)),
    Op.COMPRESS: (Format.INT8, Format.E4M3, Format.E5M2, Format.FP16, Format.BF16),
    Op.EXPAND: _MX,
}


def _granules(nbytes: int) -> int:
    return -(-nbytes // GRANULE)


def _shape(body: Body, side: str) -> tuple[int, int]:
    """Return the rows of a block on one side, and the bytes that each takes at least."""
    op, rows, length = Op(body["op"]), body["rows"], body["length"]
    bits = BITS[Format(body["in_format"])]
    if side == "in":
        return rows, GRANULE * _granules(-(-length * bits // 8))
    if side == "index":
        return rows, 2 if op is Op.COMPRESS else GRANULE * _granules(-(-length // 32))
    if op is Op.TRANSPOSE:
        return length, GRANULE * _granules(rows * bits // 8)
    if op is Op.EXPAND:
        return rows, GRANULE * _granules(2 * length)
    return rows, GRANULE


def _refused(body: Body, operand: list[int]) -> Any:
    """Return the status of what is wrong with the fields alone, or None."""
    if not all(body[name] for name in COUNTS):
        return Status.BAD_LENGTH
    formats = {op.value: [fmt.value for fmt in known] for op, known in FORMATS.items()}
    if body["in_format"] not in formats.get(body["op"], ()):
        return Status.BAD_FORMAT
    if any(value % GRANULE for value in (*operand[1:], *(body[name] for name in STRIDES))):
        return Status.BAD_ALIGNMENT
    unit = {Op.TRANSPOSE: 1, Op.COMPRESS: 2, Op.EXPAND: GRANULE}[Op(body["op"])]
    if any(value % unit for value in (operand[0], *(body[name] for name in _INDEX_STRIDES))):
        return Status.BAD_ALIGNMENT
    return None


def _places(body: Body, side: str, operand: list[int]) -> npt.NDArray[np.int64]:
    """Return the addresses [batch, rows] of one side's rows."""
    rows, _ = _shape(body, side)
    z = np.arange(body["batch"], dtype=np.int64)[:, None] * body[f"{side}_batch_stride"]
    y = np.arange(rows, dtype=np.int64) * body[f"{side}_stride"]
    return (operand[_SIDES.index(side)] + z + y) % (1 << 32)


def _bytes_at(places: npt.NDArray[np.int64], nbytes: int) -> npt.NDArray[np.int64]:
    return (places[..., None] + np.arange(nbytes)) % (1 << 32)


def model(scratchpad: Bytes, body: Body, operand: list[int], vague: Bytes | None = None) -> Any:
    """Run an iteration on the bytes; return its status if it fails, else None.

    ``vague`` gets a 1 for each byte that an iteration which fails may still have written.
    """
    status = _refused(body, operand)
    if status is not None:
        return status
    op, fmt = Op(body["op"]), Format(body["in_format"])
    at = {}
    for side in _SIDES if op is not Op.TRANSPOSE else _SIDES[1:]:
        at[side] = _bytes_at(_places(body, side, operand), _shape(body, side)[1])
    if any((places >= scratchpad.size).any() for places in at.values()):
        # Not before the first accesses, which are inside.
        if vague is not None and all(places[0, 0, 0] < scratchpad.size for places in at.values()):
            written = [at["out"]]
            if op is Op.COMPRESS:
                longest = _granules(body["length"] * 2) * 2 * GRANULE
                written = [_bytes_at(_places(body, "out", operand), longest), at["index"]]
            for places in written:
                vague[places[places < scratchpad.size]] = 1
        return Status.BAD_ADDRESS

    numbers = _numbers(scratchpad[at["in"]], fmt)[..., : body["length"]]
    name = fmt.name.lower()
    if op is Op.COMPRESS:
        return _compress(scratchpad, numbers, name, at["out"], at["index"], vague)
    if op is Op.TRANSPOSE:
        result = golden.transpose(numbers)
    else:
        scales = scratchpad[at["index"]][..., : -(-body["length"] // golden.SCALED)]
        result = golden.expand(numbers, scales, name)
    raw = np.ascontiguousarray(result).view(np.uint8)
    padded = np.zeros(at["out"].shape, np.uint8)
    padded[..., : raw.shape[-1]] = raw
    scratchpad[at["out"]] = padded
    return None


def _numbers(raw: Bytes, fmt: Any) -> npt.NDArray:
    """Return the raw numbers that the last axis of bytes holds."""
    if fmt is Format.E2M1:
        return np.stack([raw & 15, raw >> 4], axis=-1).reshape(*raw.shape[:-1], -1)
    return np.ascontiguousarray(raw).view(DTYPES[fmt.name.lower()])


def _compress(
    scratchpad: Bytes,
    numbers: npt.NDArray,
    name: Any,
    out: npt.NDArray[np.int64],
    index: npt.NDArray[np.int64],
    vague: Bytes | None,
) -> Any:
    before = scratchpad.copy()
    for z, y in np.ndindex(numbers.shape[:2]):
        stream = golden.compress(np.ascontiguousarray(numbers[z, y]), name)
        raw = stream.granules.reshape(-1)
        places = _bytes_at(out[z, y, 0], raw.size)
        if (places >= scratchpad.size).any():
            changed = scratchpad != before
            scratchpad[:] = before
            if vague is not None:
                vague[changed] = 1
                vague[places[places < scratchpad.size]] = 1
            return Status.BAD_ADDRESS
        scratchpad[places] = raw
        scratchpad[index[z, y]] = [stream.entries & 0xFF, stream.entries >> 8]
    return None


@dataclasses.dataclass
class Case:
    """A command, the operands of its first iteration, and what each step adds to them."""

    body: Body
    operand: list[int]
    step: list[int]
    room: int
    """Iterations that fit."""
    source: range
    """Bytes of the input of the first iteration."""


def iterate(case: Case, count: int) -> list[list[int]]:
    """Return the operands of ``count`` iterations, or of as many as fit."""
    return [
        [(base + i * step) % (1 << 32) for base, step in zip(case.operand, case.step, strict=True)]
        for i in range(min(count, case.room))
    ]


def _box(r: np.random.Generator, rows: int, batch: int, nbytes: int, unit: int) -> list[int]:
    """Lay out rows in blocks; return the strides of rows and of blocks, the offset of the first
    row, and the bytes of all."""
    gap = unit * int(r.choice([0, 0, 1, 3]))
    sizes = [0, 0]
    extent = nbytes
    counts = (rows, batch)
    for loop in (0, 1) if r.random() < 0.7 else (1, 0):
        sizes[loop] = extent + gap
        extent += (counts[loop] - 1) * sizes[loop]
    offset = 0
    for loop in (0, 1):
        if r.random() < 0.3:
            offset += (counts[loop] - 1) * sizes[loop]
            sizes[loop] = -sizes[loop]
    return [*sizes, offset, extent]


def random_case(
    r: np.random.Generator, config: CardConfig, *, op: Any = None, **fixed: int
) -> Case:
    """Draw an operation whose first iteration fits. Iterations lie behind each other."""
    while True:
        case = _draw(r, config, Op(int(r.integers(3))) if op is None else op, fixed)
        if case is not None:
            return case


def _draw(r: np.random.Generator, config: CardConfig, op: Any, fixed: Body) -> Case | None:
    fmt = FORMATS[op][int(r.integers(len(FORMATS[op])))]
    body = {"op": op.value, "in_format": fmt.value, "batch": int(r.choice([1, 1, 2, 3]))}
    short = r.random() < 0.5
    most = {
        Op.TRANSPOSE: (20, 20) if short else (70, 70),
        Op.COMPRESS: (10, 40) if short else (3, 1500),
        Op.EXPAND: (10, 40) if short else (3, 1200),
    }[op]
    body["rows"], body["length"] = (int(r.integers(1, limit + 1)) for limit in most)
    body |= fixed
    operand, step = [], []
    at = GRANULE * int(r.integers(4))
    for side in _SIDES:
        rows, nbytes = _shape(body, side)
        unit = 2 if side == "index" and op is Op.COMPRESS else GRANULE
        if op is Op.COMPRESS and side == "out":
            lanes = ENTRIES[Encoding.DELTA][BITS[Format(body["in_format"])]]
            nbytes = GRANULE * -(-body["length"] // lanes)
        stride, batch_stride, offset, extent = _box(r, rows, body["batch"], nbytes, unit)
        body |= {f"{side}_stride": stride, f"{side}_batch_stride": batch_stride}
        if side == "index" and op is Op.TRANSPOSE:
            body |= {name: int(r.integers(-(1 << 31), 1 << 31)) for name in _INDEX_STRIDES}
            operand.append(int(r.integers(1 << 32)))
            step.append(0)
            continue
        extent += unit * int(r.integers(3))
        extent = GRANULE * _granules(extent) if side == "in" else extent
        operand.append(at + offset)
        step.append(extent)
        if side == "in":
            source = range(at, at + extent)
        # There is room for three iterations; the input begins at a granule.
        at = GRANULE * _granules(at + 3 * extent)
    room = 3
    if at > config.scratchpad_bytes:
        return None
    return Case(body, operand, step, room, source)
