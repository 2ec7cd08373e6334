"""What ROWS does to the scratchpad, and random iterations of it, for the bench of `RowsUnit`."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, RowsFlag
from ..functional.checks import Fault
from ..functional.rows import FLAGS, IN_FORMATS, OUT_FORMATS, check_rows, rows, writes_scale

__all__ = [
    "STRIDES",
    "Body",
    "Case",
    "Format",
    "Op",
    "bits_of",
    "iterate",
    "model",
    "numbers",
    "plain",
    "random_case",
]

Body = dict[str, int]

# Amaranth's enums look like integers to a type checker.
Op: Any = isa.RowsOp
Format: Any = isa.Format

STRIDES = tuple(f"{side}_{axis}_stride" for side in ("in", "out", "scale") for axis in "yz")
ONE = 0x3F800000
LOG2_E = 0x3FB8AA3B
INTEGERS = (Format.INT8, Format.INT32)


def has_table(body: Body) -> bool:
    """Return whether operand 0 is a table."""
    return bool(body["flags"] & RowsFlag.TABLE.value)


def model(
    scratchpad: npt.NDArray[np.uint8], body: Body, operand: list[int], config: CardConfig
) -> Any:
    """Run an iteration on the bytes, row by row; return its status if it fails, else None."""
    one = {**body, "y": min(body["y"], 1), "z": min(body["z"], 1)}
    for z in range(max(1, body["z"])):
        for y in range(max(1, body["y"])):
            at = list(operand)
            for which, side in enumerate(("scale", "in", "out")):
                if which or not has_table(body):
                    at[which] += z * body[f"{side}_z_stride"] + y * body[f"{side}_y_stride"]
            at = [address % (1 << 32) for address in at]
            if body["valid"]:
                one["valid"] = min(body["valid"] + y * body["valid_step"], 0xFFFF)
            try:
                check_rows(one, at, config)
            except Fault as fault:
                return fault.status
            rows(one, at, scratchpad, config)
    return None


@dataclasses.dataclass
class Case:
    """A command, the operands of its first iteration, and what each step adds to them.

    ``room``: iterations that fit. ``fills``: what is to lie at which address.
    """

    body: Body
    operand: list[int]
    step: list[int]
    room: int
    fills: list[tuple[int, npt.NDArray[np.uint8]]]


def iterate(case: Case, count: int) -> list[list[int]]:
    """Return the operands of ``count`` iterations, or of as many as fit."""
    return [
        [base + i * step for base, step in zip(case.operand, case.step, strict=True)]
        for i in range(min(count, case.room))
    ]


def numbers(r: np.random.Generator, form: Any, count: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of random numbers of a format: of a network's kind, or of any."""
    kind = r.random()
    if form in INTEGERS:
        bits = BITS[form]
        whole = r.integers(-(1 << bits - 1), 1 << bits - 1, count)
        if form is Format.INT32:
            whole >>= r.integers(0, 32, count) if kind < 0.3 else int(r.integers(0, 28))
        return whole.astype(np.int8 if bits == 8 else np.int32).view(np.uint8)
    values = r.standard_normal(count) * np.exp(r.uniform(-3, 5)) + r.choice([0, 0, 1, 100])
    if kind < 0.1:
        values = values * 2.0 ** r.integers(-140, 120, count)
    elif kind < 0.2:
        values = values * 2.0 ** int(r.integers(-145, 120))
    elif kind < 0.25:
        values = np.zeros(count)
    with np.errstate(all="ignore"):
        single = values.astype(np.float32)
        half = values.astype(np.float16)
    word = single.view(np.uint32)
    special = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 1 << 31, 0, 1, 0x7F7FFFFF])
    mark = r.random(count) < float(r.choice([0, 0, 0, 0.002, 0.3]))
    word = np.where(mark, r.choice(special, count), word)
    if form is Format.FP32:
        return word.astype(np.uint32).view(np.uint8)
    if form is Format.BF16:
        return (word >> 16).astype(np.uint16).view(np.uint8)
    with np.errstate(all="ignore"):
        marked = word.astype(np.uint32).view(np.float32).astype(np.float16)
    return np.where(mark, marked, half).view(np.uint8)


def bits_of(number: float) -> int:
    """Return the bits of an FP32 number."""
    return int(np.float32(number).view(np.uint32))


def plain(op: Any, length: int, **changes: int) -> Body:
    """Return an operation on one row of INT8, with scales of 1."""
    body = {"length": length, "y": 1, "z": 1, "op": op.value, "flags": 0}
    body |= {"in_format": 0, "out_format": 0, "in_zero": 0} | dict.fromkeys(STRIDES, 0)
    body |= {"a_scale": ONE, "b_scale": ONE, "c_scale": ONE, "epsilon": ONE}
    body |= {"valid": 0, "valid_step": 0, "zero_point": 0, "clamp_low": -128, "clamp_high": 127}
    return body | changes


def row_bytes(form: Any, length: int) -> int:
    """Return the bytes of a row, in whole granules."""
    return -(-length * BITS[form] // (8 * GRANULE)) * GRANULE


def random_case(
    r: np.random.Generator, config: CardConfig, op: Any = None, longest: int = 600
) -> Case:
    """Draw an operation. The scratchpad's first 3/8 hold inputs, as many outputs, the rest tables
    or scales."""
    op = Op(int(r.integers(4))) if op is None else op
    part = config.scratchpad_bytes // 8
    flags = int(r.integers(8)) & FLAGS[op]
    # FP32 shows what other formats hide.
    in_format, out_format = (
        Format.FP32 if r.random() < 0.3 else forms[int(r.integers(len(forms)))]
        for forms in (IN_FORMATS, OUT_FORMATS)
    )
    lengths = [r.integers(1, 9), r.integers(1, 40), r.integers(1, 130), r.integers(1, 600)]
    length = min(longest, int(r.choice(lengths, p=[0.3, 0.35, 0.3, 0.05])))
    y, z = (int(r.choice([1, 1, 2, 3, 5])) for _ in "yz")
    source, target = row_bytes(in_format, length), row_bytes(out_format, length)
    while z * y * max(source, target) > part * 5 // 4:
        y, z = max(1, y - 1), max(1, z - 1)
    body = plain(op, length, y=y, z=z, flags=flags)
    body |= {"in_format": in_format.value, "out_format": out_format.value}
    body["in_zero"] = int(r.integers(-128, 128))

    kind = r.random()
    in_place = kind < 0.25 and target <= source
    out_base = (0 if in_place else 3 * part) + int(r.integers(8)) * GRANULE
    first, extent = _loops(r, body, "in", source, GRANULE)
    in_base = int(r.integers(8)) * GRANULE + first
    if in_place:
        out_base = in_base
        for axis in "yz":
            body[f"out_{axis}_stride"] = body[f"in_{axis}_stride"]
        out_extent = extent
    else:
        if kind > 0.8:  # rows that overlap each other
            for axis in "yz":
                body[f"in_{axis}_stride"] = int(r.integers(0, 3)) * GRANULE
            in_base -= first
            extent = max(extent, (2 * y + 2 * z) * GRANULE + source)
        first, out_extent = _loops(r, body, "out", target, GRANULE)
        out_base += first
    operand, step = [int(r.integers(1 << 32)), in_base, out_base], [0, extent, out_extent]
    room = max(1, min(3, 5 * part // 2 // max(extent, out_extent)))

    fills = [(0, numbers(r, in_format, 3 * part * 8 // BITS[in_format]))]
    if has_table(body):
        operand[0] = 6 * part + int(r.integers(8)) * GRANULE
        integer = op is Op.AFFINE and in_format in INTEGERS
        bias = numbers(r, Format.INT32 if integer else Format.FP32, length + 1).view(np.uint32)
        scale = numbers(r, Format.FP32, length + 1).view(np.uint32)
        columns = np.stack([bias, scale], axis=1)
        fills.append((operand[0], columns.reshape(-1).view(np.uint8)))
        body["scale_y_stride"], body["scale_z_stride"] = (int(r.integers(-9, 9)) for _ in "yz")
    elif writes_scale(body):
        pitch = int(r.choice([4, 8, 32]))
        first, scale_extent = _loops(r, body, "scale", pitch, 4)
        operand[0], step[0] = 6 * part + 4 * int(r.integers(8)) + first, scale_extent
    _scales(r, body, op, in_format, out_format)
    return Case(body, operand, step, room, fills)


def _loops(r: np.random.Generator, body: Body, side: str, size: int, unit: int) -> tuple[int, int]:
    """Draw strides of rows that do not overlap; return where the first lies, and their extent."""
    counts = [("y", body["y"]), ("z", body["z"])]
    if r.random() < 0.3:
        counts.reverse()
    stride, first = size + unit * int(r.integers(3)), 0
    for axis, count in counts:
        backwards = r.random() < 0.3
        body[f"{side}_{axis}_stride"] = -stride if backwards else stride
        first += (count - 1) * stride * backwards
        stride *= count
    return first, stride


def _scales(r: np.random.Generator, body: Body, op: Any, in_format: Any, out_format: Any) -> None:
    """Draw scales, masks and clamps: mostly of a network's kind, sometimes from all there are."""
    length = body["length"]
    largest = {Format.INT8: 127, Format.INT4: 7, Format.E4M3: 448}.get(out_format, 57344)
    size = {Format.INT8: 40.0, Format.INT32: 1e5}.get(in_format, 3.0)
    a_scale, b_scale = np.exp(r.uniform(-2, 1, 2)) * r.choice([1, 1, -1], 2)
    c_scale, epsilon = np.exp(r.uniform(-2, 1)), 1e-5
    if op is Op.AFFINE:
        a_scale *= min(largest, 1000) / size
        b_scale *= r.choice([1.0, 0.01])
    elif op is Op.SOFTMAX:
        a_scale = abs(a_scale) * 4 / size
        b_scale *= largest
    elif op is Op.NORMALIZE:
        c_scale = 1 / length
        b_scale *= min(largest, 100)
    else:
        b_scale = 1 / largest
    words = [bits_of(value) for value in (a_scale, b_scale, c_scale, epsilon)]
    if r.random() < 0.15:
        words = [int(r.integers(1, 255)) << 23 | int(r.integers(1 << 23)) for _ in words]
    if r.random() < 0.1:
        words[2] |= 1 << 31
    unused = [
        op in (Op.NORMALIZE, Op.QUANTIZE),
        has_table(body),
        op is Op.AFFINE or (op is Op.SOFTMAX and not writes_scale(body)),
        op is not Op.NORMALIZE,
    ]
    for i, free in enumerate(unused):
        if free and r.random() < 0.3:  # what is not used may be anything
            words[i] = int(r.choice([0, 1, 0x7F800000, 0xFFFFFFFF]))
    body |= zip(("a_scale", "b_scale", "c_scale", "epsilon"), words, strict=True)
    if r.random() < 0.5:
        body["valid"] = int(r.integers(1, length + 3))
        body["valid_step"] = int(r.choice([0, 1, 7, 0xFFFF]))
    body["zero_point"] = int(r.integers(-128, 128))
    if r.random() < 0.2:
        for name in ("zero_point", "clamp_low", "clamp_high"):
            body[name] = int(r.integers(-(1 << 15), 1 << 15))
    elif r.random() < 0.3:
        body |= {"clamp_low": int(r.integers(-128, 0)), "clamp_high": int(r.integers(0, 128))}
