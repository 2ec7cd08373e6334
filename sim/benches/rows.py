"""Bench of ROWS, on a scratchpad that stalls."""

from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.core.ports import iteration_layout
from ...rtl.isa import RowsBody, RowsFlag
from .lib import pack, tick
from .rows_cases import STRIDES, Format, Op, bits_of, iterate, model, numbers, plain, random_case
from .units import reset
from .vector_parts import Body, Bytes, VectorCard, see_faults

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status


class Card(VectorCard):
    """The unit beside its model."""

    layout = RowsBody
    long_stall = 0.01

    def model(self, body: Body, operand: list[int], vague: Bytes) -> Any:
        return model(self.expected, body, operand, self.config)


async def traffic(dut: Any, op: Any, cases: int) -> None:
    """Run random commands of an operation, also in place, everything stalling."""
    card, r = await Card.begin(dut)
    for _ in range(cases):
        card.disturb(r)
        case = random_case(r, card.config, op)
        for at, raw in case.fills:
            card.fill(at, raw)
        await card.run(case.body, iterate(case, int(r.choice([1, 1, 2, 3]))))


@cocotb.test()
async def affine(dut: Any) -> None:
    """Random rows, scaled and shifted."""
    await traffic(dut, Op.AFFINE, 20)


@cocotb.test()
async def softmax(dut: Any) -> None:
    """Random rows, and their softmax, deferred or not."""
    await traffic(dut, Op.SOFTMAX, 18)


@cocotb.test()
async def quantize(dut: Any) -> None:
    """Random rows, quantized."""
    await traffic(dut, Op.QUANTIZE, 15)


@cocotb.test()
async def normalize(dut: Any) -> None:
    """Random rows, normalized."""
    await traffic(dut, Op.NORMALIZE, 12)


@cocotb.test()
async def short_rows(dut: Any) -> None:
    """Many rows of a beat or two: those of several stages follow each other closely."""
    card, r = await Card.begin(dut)
    for op in Op:
        for length in (1, card.config.row_lanes, card.config.row_lanes + 1):
            body = plain(op, length, y=20, out_format=Format.FP16.value)
            body |= {"in_y_stride": 16, "out_y_stride": 32, "scale_y_stride": 4}
            for flags in (0, int(RowsFlag.DEFER) if op is Op.SOFTMAX else 0):
                card.disturb(r)
                await card.run(body | {"flags": flags}, [[32768, 0, 8192]])


@cocotb.test()
async def longest_row(dut: Any) -> None:
    """The largest sums there are, of a row as long as the scratchpad, which its results replace."""
    card, _ = await Card.begin(dut)
    length = 0xFFFF
    scale = bits_of(1 / length)
    pair = np.array([127, -127], np.int8).view(np.uint8)
    for op, row in ((Op.NORMALIZE, np.tile(pair, 1 << 15)), (Op.SOFTMAX, pair[:1].repeat(1 << 16))):
        card.fill(0, row)
        body = plain(op, length, c_scale=scale, b_scale=bits_of(100.0))
        await card.run(body, [[0, 0, 0]])


ERRORS = ("BAD_LENGTH", "BAD_FORMAT", "BAD_ALIGNMENT", "BAD_SCALE", "BAD_ADDRESS")


@cocotb.test()
async def errors(dut: Any) -> None:
    """Every error, alone and with others, in the first and in a later iteration."""
    card, r = await Card.begin(dut)

    def draw(_: int) -> tuple[Body, list[list[int]]]:
        case = random_case(r, card.config, longest=40)
        return case.body, iterate(case, 3)

    await see_faults(card, r, draw, spoil, faults=7, first=ERRORS, cases=150)


def spoil(
    r: np.random.Generator,
    config: CardConfig,
    body: Body,
    operands: list[list[int]],
    fault: int,
) -> None:
    """Put a fault of one of seven kinds into a command; not every one is an error."""
    operand = operands[int(r.integers(len(operands)))]
    which = int(r.integers(3))
    match fault:
        case 0:
            body[str(r.choice(["length", "y", "z"]))] = 0
        case 1:
            faults = [("op", 4), ("op", 131), ("flags", body["flags"] | 1 << int(r.integers(8)))]
            faults += [("in_format", form) for form in (4, 6, 8, 129)]
            faults += [("out_format", form) for form in (2, 8, 135)]
            name, value = faults[int(r.integers(len(faults)))]
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
            # Later rows are outside.
            name = ("scale_y_stride", "in_y_stride", "out_z_stride")[which]
            body[name] = int(r.choice([-1, 1])) * config.scratchpad_bytes
        case 6:
            bad = [0, 1, 0x7FFFFF, 0x80000001, 0x7F800000, 0xFF800000, 0x7F800001, 0xBF800000]
            body[str(r.choice(["a_scale", "b_scale", "c_scale", "epsilon"]))] = int(r.choice(bad))


@cocotb.test()
async def first_error_wins(dut: Any) -> None:
    """An iteration that fails late is reported, not the next one that fails when it starts."""
    card, _ = await Card.begin(dut)
    size = card.config.scratchpad_bytes
    for op in Op:
        body = plain(op, 20, y=4, in_y_stride=32, out_y_stride=32, scale_y_stride=4)
        for late in range(1, 5):
            card.scratchpad.write_stall.short = 0.8
            await card.run(body, [[4096, 0, size - 32 * late + 16], [0, 1, 0]])
            await reset(dut)


@cocotb.test()
async def far_addresses(dut: Any) -> None:
    """Every bit above the scratchpad's size is seen, in each address and in each stride."""
    card, _ = await Card.begin(dut)
    for bit in range(card.config.scratchpad_bytes.bit_length() - 1, 32):
        for which in range(3):
            operand = [4096, 16, 8192]
            operand[which] |= 1 << bit
            for op, flags in ((Op.QUANTIZE, 0), (Op.AFFINE, int(RowsFlag.TABLE))):
                outcome = await card.run(plain(op, 5, flags=flags), [operand])
                assert outcome.status == Status.BAD_ADDRESS.value
                await reset(dut)
        for side in ("in", "out", "scale"):
            stride = {f"{side}_z_stride": -(1 << bit) if bit == 31 else 1 << bit}
            outcome = await card.run(plain(Op.QUANTIZE, 5, z=2, **stride), [[4096, 16, 8192]])
            assert outcome.status == Status.BAD_ADDRESS.value
            await reset(dut)


@cocotb.test()
async def reset_midway(dut: Any) -> None:
    """After a reset at any moment the next command runs as the first one does."""
    card, _ = await Card.begin(dut)
    for op in Op:
        for cycles in (9, 40, 70, 100):
            body = plain(op, 100, y=5, in_y_stride=112, out_y_stride=112, scale_y_stride=4)
            payload = pack(iteration_layout(), operand=[4096, 0, 8192], body=pack(RowsBody, body))
            dut.unit__start__payload.value = payload
            dut.unit__start__valid.value = 1
            await tick(dut, cycles)
            dut.unit__start__valid.value = 0
            await reset(dut)
            await tick(dut, 3)
            card.expected[:] = card.scratchpad.bytes
            await card.run(body, [[4096, 0, 8192], [5000, 1024, 16384]])


@cocotb.test()
async def speed(dut: Any) -> None:
    """Rows of 256: one beat a cycle and look, unless scalars or the port take longer."""
    card, r = await Card.begin(dut)
    rows, length = 16, 256
    beats = length // card.config.row_lanes
    defer, table, rms = (int(flag) for flag in (RowsFlag.DEFER, RowsFlag.TABLE, RowsFlag.RMS))
    card.fill(0, numbers(r, Format.INT8, rows * length))
    granules, columns = length // GRANULE, length // 2
    scalars = 125  # of a row that is normalized
    # Cycles of a row, and what goes before the first result or after the last statistics.
    for op, flags, wanted, around in (
        (Op.AFFINE, 0, beats, 75),
        (Op.AFFINE, table, max(beats, columns + granules), 95),
        (Op.SOFTMAX, defer, max(beats, 2 * granules), beats + 140),
        (Op.SOFTMAX, 0, max(2 * beats, 3 * granules), beats + 195),
        (Op.QUANTIZE, 0, max(beats, 2 * granules), beats + 140),
        (Op.NORMALIZE, rms, max(2 * beats, scalars), beats + scalars + 150),
        (Op.NORMALIZE, table, max(2 * beats, columns + 3 * granules), beats + scalars + 195),
    ):
        body = plain(op, length, y=rows, flags=flags)
        body |= {"in_y_stride": length, "out_y_stride": length, "scale_y_stride": 4}
        outcome = await card.run(body, [[32768, 0, 8192]])
        dut._log.info(
            "%s with flags %d: %d cycles, %.1f a row, %d wanted",
            *(op.name, flags, outcome.cycles, outcome.cycles / rows, wanted),
        )
        assert outcome.cycles <= rows * wanted + around
