"""What VECTOR does to the scratchpad, and random iterations of it, for the vector unit's bench."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ..golden import vector as golden

__all__ = ["COUNTS", "PAIRS", "STRIDES", "Body", "Case", "Op", "iterate", "model", "random_case"]

Body = dict[str, int]

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status
Op: Any = isa.VectorOp

COUNTS = ("granules", "out_y", "out_x", "kernel_y", "kernel_x")
STRIDES = tuple(f"{name}_stride" for name in ("in_y", "in_x", "in_ky", "in_kx", "out_y", "out_x"))
PAIRS = (Op.ADD.value, Op.MULTIPLY.value)
"""Operations with two inputs."""


def _normal(scale: int) -> bool:
    return 0 < (scale >> 23 & 0xFF) < 0xFF


def _refused(body: Body, operand: list[int]) -> Any:
    """Return the status of what is wrong with the fields alone, or None."""
    op = body["op"]
    pair = op in PAIRS
    if not all(body[name] for name in COUNTS):
        return Status.BAD_LENGTH
    if pair and (body["kernel_y"], body["kernel_x"]) != (1, 1):
        return Status.BAD_LENGTH
    if op > Op.MULTIPLY.value or body["in_format"] != isa.Format.INT8.value:
        return Status.BAD_FORMAT
    used = operand if pair else operand[1:]
    if any(value % GRANULE for value in (*used, *(body[name] for name in STRIDES))):
        return Status.BAD_ALIGNMENT
    if op != Op.MAX.value and not _normal(body["a_scale"]):
        return Status.BAD_SCALE
    if op == Op.ADD.value and not _normal(body["b_scale"]):
        return Status.BAD_SCALE
    return None


def model(scratchpad: npt.NDArray[np.uint8], body: Body, operand: list[int]) -> Any:
    """Run an iteration on the bytes; return its status if it fails, else None."""
    status = _refused(body, operand)
    if status is not None:
        return status
    pair = body["op"] in PAIRS
    ky, kx = np.meshgrid(
        np.arange(body["kernel_y"], dtype=np.int64),
        np.arange(body["kernel_x"], dtype=np.int64),
        indexing="ij",
    )
    window = (ky * body["in_ky_stride"] + kx * body["in_kx_stride"]).ravel()
    signed = scratchpad.view(np.int8)
    for y in range(body["out_y"]):
        for x in range(body["out_x"]):
            second = operand[0] + y * body["in_ky_stride"] + x * body["in_kx_stride"]
            source = operand[1] + y * body["in_y_stride"] + x * body["in_x_stride"]
            target = operand[2] + y * body["out_y_stride"] + x * body["out_x_stride"]
            for offset in range(0, GRANULE * body["granules"], GRANULE):
                reads = source + window + offset
                if pair:
                    reads = np.append(reads, second + offset)
                reads %= 1 << 32
                write = (target + offset) % (1 << 32)
                if write >= scratchpad.size or (reads >= scratchpad.size).any():
                    return Status.BAD_ADDRESS
                granules = signed[reads[:, None] + np.arange(GRANULE)]
                signed[write : write + GRANULE] = _result(body, granules)
    return None


def _result(body: Body, granules: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Return what becomes of the granules [number, GRANULE] of one window or pair."""
    op = body["op"]
    if op == Op.MAX.value:
        return granules.max(0)
    output = {name: body[name] for name in ("zero_point", "clamp_low", "clamp_high")}
    a_zero, scale = body["a_zero"], body["a_scale"]
    if op == Op.AVERAGE.value:
        sums = granules.sum(0, dtype=np.int64) - len(granules) * a_zero
        return golden.average(sums, scale=scale, **output)
    a, b = granules
    zeros = {"a_zero": a_zero, "b_zero": body["b_zero"]}
    if op == Op.MULTIPLY.value:
        return golden.multiply(a, b, **zeros, scale=scale, **output)
    return golden.add(a, b, **zeros, a_scale=scale, b_scale=body["b_scale"], **output)


@dataclasses.dataclass
class Case:
    """A command, the operands of its first iteration, and what each step adds to them."""

    body: Body
    operand: list[int]
    step: list[int]
    room: int
    """Iterations that fit."""


def iterate(case: Case, count: int) -> list[list[int]]:
    """Return the operands of ``count`` iterations, or of as many as fit."""
    return [
        [base + i * step for base, step in zip(case.operand, case.step, strict=True)]
        for i in range(min(count, case.room))
    ]


def random_case(r: np.random.Generator, config: CardConfig) -> Case:
    """Draw an operation. The first two quarters of the scratchpad hold inputs, the upper half the
    output where it is not made in place."""
    op = int(r.integers(4))
    pair = op in PAIRS
    granules, out_y, out_x, kernel_y, kernel_x = (
        int(r.choice(values))
        for values in ((1, 1, 2, 5), (1, 2, 4), (1, 3, 6), (1, 2, 3), (1, 2, 3))
    )
    if pair or r.random() < 0.1:
        kernel_y = kernel_x = 1
    half = config.scratchpad_bytes // 2
    steps = (1, 2) if pair else (1, 2, 3)
    step_y, step_x = (int(r.choice(steps)) for _ in range(2))

    def tensor() -> tuple[int, int]:
        pixel = (granules + int(r.integers(2))) * GRANULE
        return ((out_x - 1) * step_x + kernel_x + int(r.integers(2))) * pixel, pixel

    (row, pixel), (second_row, second_pixel) = tensor(), tensor()
    body = {"granules": granules, "out_y": out_y, "out_x": out_x}
    body |= {"kernel_y": kernel_y, "kernel_x": kernel_x}
    body |= {"in_y_stride": step_y * row, "in_x_stride": step_x * pixel}
    body |= {"in_ky_stride": row, "in_kx_stride": pixel}
    if pair:
        body |= {"in_ky_stride": step_y * second_row, "in_kx_stride": step_x * second_pixel}
    out_pixel = (granules + int(r.integers(2))) * GRANULE
    body |= {"out_y_stride": out_x * out_pixel, "out_x_stride": out_pixel}
    body |= {"op": op, "in_format": isa.Format.INT8.value} | _numbers(r, body, op)

    second, source, target = (int(r.integers(0, 64)) * GRANULE for _ in range(3))
    second += half // 2
    target += half
    case = Case(body, [second, source, target], [0, 0, 256 * GRANULE], 3)
    kind = r.random()
    if kind < 0.3:
        _mirror(case, half // 2 if pair else half, half)
    elif kind < 0.6 and (kernel_y, kernel_x) == (1, 1):
        _in_place(r, case, half // 2)
    if not pair:
        case.operand[0] = int(r.integers(1 << 32))
    return case


def _mirror(case: Case, end: int, second_end: int) -> None:
    """Walk backwards from where the inputs' parts of the scratchpad end."""
    for name in ("in_y_stride", "in_x_stride", "in_ky_stride", "in_kx_stride"):
        case.body[name] = -case.body[name]
    above = GRANULE * (case.body["granules"] + 2)
    case.operand[:2] = [second_end - above, end - above]


def _in_place(r: np.random.Generator, case: Case, end: int) -> None:
    """Put results where an input was; perhaps both inputs are the same tensor."""
    body, operand = case.body, case.operand
    pair = body["op"] in PAIRS
    names = ("in_y_stride", "in_x_stride")
    if pair and r.random() < 0.5:
        names = ("in_ky_stride", "in_kx_stride")
    body["out_y_stride"], body["out_x_stride"] = (body[name] for name in names)
    operand[2] = operand[1] if names[0] == "in_y_stride" else operand[0]
    if pair and r.random() < 0.3:
        body |= {"in_y_stride": body["out_y_stride"], "in_x_stride": body["out_x_stride"]}
        body |= {"in_ky_stride": body["out_y_stride"], "in_kx_stride": body["out_x_stride"]}
        operand[:2] = operand[2:] * 2
    # The next iteration begins behind all tensors.
    rows, columns = max(body["in_y_stride"], body["in_ky_stride"]), body["out_x"]
    widest = max(body["in_x_stride"], body["in_kx_stride"])
    extent = body["out_y"] * rows + columns * widest
    case.step = [extent, extent, extent]
    first = max(operand[0] - end if pair else 0, operand[1] % end)
    case.room = max(1, min(3, (end - first) // extent))


def _numbers(r: np.random.Generator, body: Body, op: int) -> Body:
    """Draw zeros, scales and clamps: mostly of a network's kind, sometimes from all there are."""
    size = {
        Op.AVERAGE.value: body["kernel_y"] * body["kernel_x"],
        Op.MULTIPLY.value: 100,
    }.get(op, 1)
    scales = (np.exp(r.uniform(-2, 1, 2)) / size * r.choice([1, 1, 1, -1], 2)).astype(np.float32)
    a_scale, b_scale = (int(bits) for bits in scales.view(np.uint32))
    numbers = {"a_zero": int(r.integers(-128, 128)), "b_zero": int(r.integers(-128, 128))}
    numbers |= {"zero_point": int(r.integers(-128, 128)), "clamp_low": -128, "clamp_high": 127}
    if r.random() < 0.2:
        # Ties, and results that are infinite, NaN or subnormal.
        kinds = (0x3F000000, 0x3E800000, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF)
        a_scale, b_scale = (int(r.choice(kinds)) for _ in range(2))
    elif r.random() < 0.1:
        a_scale, b_scale = (int(r.integers(1, 255)) << 23 | int(r.integers(1 << 23)) for _ in "ab")
    if r.random() < 0.2:
        names = ("zero_point", "clamp_low", "clamp_high")
        numbers |= {name: int(r.integers(-(1 << 15), 1 << 15)) for name in names}
    elif r.random() < 0.2:
        numbers |= {"clamp_low": int(r.integers(-128, 0)), "clamp_high": int(r.integers(0, 128))}
    # What is not used may be anything.
    if op == Op.MAX.value:
        a_scale = int(r.choice([0, 1 << 31, 0x7F800000, a_scale]))
    if op != Op.ADD.value:
        b_scale = int(r.choice([0, 1, 0xFFFFFFFF, b_scale]))
    return numbers | {"a_scale": a_scale, "b_scale": b_scale}
