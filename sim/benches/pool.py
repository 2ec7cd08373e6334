"""Bench of pooling and elementwise operations, on a scratchpad that stalls."""

from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import VectorBody
from .pool_cases import COUNTS, PAIRS, STRIDES, Op, iterate, model, random_case
from .units import reset
from .vector_parts import Body, Bytes, VectorCard, see_faults

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status

ONE = 0x3F800000


class Card(VectorCard):
    """The unit beside its model."""

    layout = VectorBody

    def model(self, body: Body, operand: list[int], vague: Bytes) -> Any:
        return model(self.expected, body, operand)


def plain(op: Any, **changes: int) -> Body:
    """Return an operation on one granule, with scales of 1."""
    body = dict.fromkeys(COUNTS, 1) | dict.fromkeys(STRIDES, 0)
    body |= {"op": op.value, "in_format": 0, "a_scale": ONE, "b_scale": ONE}
    body |= {"a_zero": 0, "b_zero": 0, "zero_point": 0, "clamp_low": -128, "clamp_high": 127}
    return body | changes


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Random operations and iterations, also in place, everything stalling."""
    card, r = await Card.begin(dut)
    for _ in range(60):
        card.disturb(r)
        case = random_case(r, card.config)
        await card.run(case.body, iterate(case, int(r.choice([1, 1, 2, 3]))))


@cocotb.test()
async def all_pairs(dut: Any) -> None:
    """Every pair of numbers from both ends of the range and its middle, in every operation."""
    card, r = await Card.begin(dut)
    values = np.array(
        [-128, -127, -126, -65, -2, -1, 0, 1, 2, 3, 63, 64, 125, 126, 127, 5], np.int8
    )
    granules, size = len(values), len(values) * GRANULE
    card.fill(0, np.repeat(values, GRANULE))
    card.fill(size, np.tile(values, granules))
    for zeros in ((0, 0), (-128, 127), (127, -128), (3, -1)):
        changes = {"granules": granules, "a_zero": zeros[0], "b_zero": zeros[1]}
        for op in (Op.ADD, Op.MULTIPLY):
            half = {"a_scale": 0x3F000000, "b_scale": 0x3F000000}
            await card.run(plain(op, **changes, **half), [[0, size, 4096], [size, 0, 8192]])
        window = {"kernel_x": 2, "in_kx_stride": size}
        for op in (Op.MAX, Op.AVERAGE):
            scale = {"a_scale": int(r.choice([0x3F000000, 0x3E800000]))}
            await card.run(plain(op, **changes, **window, **scale), [[0, 0, 4096]])


@cocotb.test()
async def largest_window(dut: Any) -> None:
    """The largest sum there is, of one granule that is read again and again."""
    card, _ = await Card.begin(dut)
    card.fill(0, np.tile(np.array([-128, 127], np.int8), GRANULE // 2))
    shape = {"kernel_y": 255, "kernel_x": 255}
    count = np.float32(1 / (255 * 255 * 2))
    scale = {"a_scale": int(count.view(np.uint32)), "a_zero": 127, "zero_point": 100}
    await card.run(plain(Op.AVERAGE, **shape, **scale), [[0, 0, 4096]])
    assert set(card.expected[4096 : 4096 + GRANULE].view(np.int8).tolist()) == {-28, 100}


ERRORS = ("BAD_LENGTH", "BAD_FORMAT", "BAD_ALIGNMENT", "BAD_SCALE", "BAD_ADDRESS")


@cocotb.test()
async def errors(dut: Any) -> None:
    """Every error, alone and with others, in the first and in a later iteration."""
    card, r = await Card.begin(dut)

    def draw(_: int) -> tuple[Body, list[list[int]]]:
        case = random_case(r, card.config)
        return case.body, iterate(case, 3)

    await see_faults(card, r, draw, spoil, faults=8, first=ERRORS, cases=150)


def spoil(
    r: np.random.Generator,
    config: CardConfig,
    body: Body,
    operands: list[list[int]],
    fault: int,
) -> None:
    """Put a fault of one of eight kinds into a command; not every one is an error."""
    operand = operands[int(r.integers(len(operands)))]
    which = int(r.integers(3)) if body["op"] in PAIRS else int(r.choice([1, 2]))
    match fault:
        case 0:
            body[str(r.choice(COUNTS))] = 0
        case 1:
            name, value = [("in_format", 1), ("in_format", 255), ("op", 4), ("op", 131)][
                int(r.integers(4))
            ]
            body[name] = value
        case 2:
            body[str(r.choice(STRIDES))] += 1 << int(r.integers(4))
        case 3:
            operand[which] += 1 << int(r.integers(4))
        case 4:
            # At either end, or one high bit too many.
            size = config.scratchpad_bytes
            high = operand[which] | 1 << int(r.integers(size.bit_length() - 1, 32))
            operand[which] = int(r.choice([size - GRANULE, (1 << 32) - GRANULE, high, high]))
        case 5:
            # Leaves its part of the scratchpad only to leave the scratchpad.
            name = ("in_ky_stride", "in_y_stride", "out_y_stride")[which]
            body[name] = int(r.choice([-1, 1])) * config.scratchpad_bytes
        case 6:
            bad = [0, 1, 0x7FFFFF, 0x80000001, 0x7F800000, 0xFF800000, 0x7F800001]
            body[str(r.choice(["a_scale", "b_scale"]))] = int(r.choice(bad))
        case 7:
            # Windows of pairs.
            body[str(r.choice(["kernel_y", "kernel_x"]))] += 1
            body |= {"in_ky_stride": 0, "in_kx_stride": 0}
            if body["op"] not in PAIRS:
                body["kernel_y"] = body["kernel_x"] = 1


@cocotb.test()
async def first_error_wins(dut: Any) -> None:
    """An iteration that fails late is reported, not the next one that fails when it starts."""
    card, _ = await Card.begin(dut)
    size = card.config.scratchpad_bytes
    for op in (Op.MAX, Op.AVERAGE, Op.ADD):
        body = plain(op, out_x=4, out_x_stride=GRANULE)
        for late in range(1, 5):
            card.scratchpad.read_stall.short = 0.8
            operands = [[0, 0, size - late * GRANULE], [0, 1, 0]]
            await card.run(body, operands)
            await reset(dut)


@cocotb.test()
async def far_addresses(dut: Any) -> None:
    """Every bit above the scratchpad's size is seen, in each address."""
    card, _ = await Card.begin(dut)
    for bit in range(card.config.scratchpad_bytes.bit_length() - 1, 32):
        for which in range(3):
            operand = [0, 16, 32]
            operand[which] = 1 << bit
            outcome = await card.run(plain(Op.ADD), [operand])
            assert outcome.status == Status.BAD_ADDRESS.value
            await reset(dut)


@cocotb.test()
async def speed(dut: Any) -> None:
    """One input granule a cycle, whatever the window, unless results take longer."""
    card, _ = await Card.begin(dut)
    period = GRANULE // card.config.vector_lanes
    shapes = ((1, 4, 4), (2, 2, 4), (3, 1, 6), (1, 1, 1))
    for op in Op:
        for kernel, granules, out in shapes if op.value not in PAIRS else ((1, 4, 4), (1, 1, 8)):
            pixel, row = GRANULE * granules, 32 * GRANULE * granules
            body = plain(op, granules=granules, out_y=out, out_x=out)
            body |= {"kernel_y": kernel, "kernel_x": kernel}
            body |= {"in_y_stride": row * kernel, "in_x_stride": pixel * kernel}
            body |= {"in_ky_stride": row, "in_kx_stride": pixel}
            body |= {"out_y_stride": pixel * out, "out_x_stride": pixel}
            half, size = card.config.scratchpad_bytes // 2, out * out * pixel
            operands = [[half // 2, 0, half + i * size] for i in range(2)]
            outcome = await card.run(body, operands)
            reads, windows = kernel * kernel, 2 * out * out * granules
            if op.value in PAIRS:
                reads = 2
            cycles = reads if op is Op.MAX else max(reads, period)
            dut._log.info(
                "%s of %d windows of %d granules: %d cycles, %.2f a window",
                *(op.name, windows, reads, outcome.cycles, outcome.cycles / windows),
            )
            around = 15 if op is Op.MAX else 41 + reads
            assert outcome.cycles <= windows * cycles + around
