"""Bench of REFORMAT, on a scratchpad that stalls."""

from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import BITS, ReformatBody
from .reformat_cases import COUNTS, FORMATS, STRIDES, Case, Op, iterate, model, random_case
from .units import reset
from .vector_parts import Body, Bytes, VectorCard, see_faults

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status
Format: Any = isa.Format


class Card(VectorCard):
    """The unit beside its model."""

    layout = ReformatBody

    def model(self, body: Body, operand: list[int], vague: Bytes) -> Any:
        return model(self.expected, body, operand, vague)

    def fill_case(self, r: np.random.Generator, case: Case) -> None:
        """Give a case's input numbers, of which some or all are zeros where it is compressed."""
        nbytes = case.room * len(case.source)
        content = r.integers(0, 256, nbytes, np.uint8)
        if case.body["op"] == Op.COMPRESS.value:
            content[r.random(nbytes) >= r.choice([0, 0.004, 0.1, 0.5, 1])] = 0
            # Zeros of both signs, byte by byte.
            content[(content == 0) & (r.random(nbytes) < r.choice([0, 0.2]))] = 0x80
            if r.random() < 0.5:
                content[np.arange(nbytes) // int(r.integers(1, 700)) % 2 == 1] = 0
        self.fill(case.source.start, content)


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Random operations and iterations, everything stalling."""
    card, r = await Card.begin(dut)
    for number in range(72):
        card.disturb(r)
        case = random_case(r, card.config, op=tuple(Op)[number % 3])
        card.fill_case(r, case)
        await card.run(case.body, iterate(case, int(r.choice([1, 1, 2, 3]))))


def plain(op: Any, fmt: Any, rows: int, length: int, **changes: int) -> Body:
    """Return a body of one block whose input rows lie behind each other, and so do output rows."""
    nbytes = -(-length * BITS[fmt] // (8 * GRANULE)) * GRANULE
    body = {"op": op.value, "in_format": fmt.value, "rows": rows, "length": length, "batch": 1}
    body |= dict.fromkeys((*STRIDES, "index_stride", "index_batch_stride"), 0)
    wide = {Op.TRANSPOSE: rows * BITS[fmt] // 8, Op.EXPAND: 2 * length, Op.COMPRESS: 2 * nbytes}
    body |= {"in_stride": nbytes, "out_stride": -(-wide[op] // GRANULE) * GRANULE}
    if op is not Op.TRANSPOSE:
        body["index_stride"] = 2 if op is Op.COMPRESS else -(-length // 512) * GRANULE
    return body | changes


@cocotb.test()
async def all_mx_numbers(dut: Any) -> None:
    """Every number of the MX formats with scales at which something happens."""
    card, _ = await Card.begin(dut)
    half = card.config.scratchpad_bytes // 2
    ends = [*range(10), 12, 15, 16, 17, 20, 126, 127, 128, 238, 239, 246, 247, 252, 253, 254, 255]
    scales = np.array(ends, np.uint8)
    for fmt in FORMATS[Op.EXPAND]:
        numbers = np.tile(np.arange(256, dtype=np.uint8), len(scales))
        card.fill(0, numbers)
        length = 256 * 8 // BITS[fmt]
        card.fill(half - 1024, np.repeat(scales, 16))
        body = plain(Op.EXPAND, fmt, len(scales), length)
        await card.run(body, [[half - 1024, 0, half]])


@cocotb.test()
async def entries_and_escapes(dut: Any) -> None:
    """Numbers on both sides of where escapes begin, and rows without any."""
    card, _ = await Card.begin(dut)
    half = card.config.scratchpad_bytes // 2
    lengths = (1, 8, 9, 16, 17, 254, 255, 256, 257, 511, 512, 513, 600, 1030)
    for fmt in (Format.INT8, Format.BF16):
        unit = np.uint8 if fmt is Format.INT8 else np.uint16
        for length in lengths:
            width = -(-length * unit().itemsize // GRANULE) * GRANULE // unit().itemsize
            # No number, minus zeros, one number, two; behind the row there are only numbers.
            rows = np.full((10, width), 0x55, unit)
            rows[:, :length] = 0
            if fmt is Format.BF16:
                rows[1, :length] = 0x8000
            for row, place in enumerate((0, length - 1, length // 2, 254, 255, 256, 257), 2):
                rows[row, min(place, length - 1)] = row
                rows[row, max(0, min(place, length - 1) - 256)] |= 0x80
            rows[9, :length:7] = 9
            card.fill(0, rows)
            body = plain(Op.COMPRESS, fmt, len(rows), length)
            await card.run(body, [[half - 1024, 0, half]])


@cocotb.test()
async def long_loops(dut: Any) -> None:
    """Counts and addresses of all sizes that the scratchpad has room for, and a stream that it has
    no room for."""
    card, r = await Card.begin(dut)
    size = card.config.scratchpad_bytes
    whole = size // GRANULE
    # The same input granule again and again, and one row that fills all the rest.
    body = plain(Op.TRANSPOSE, Format.E4M3, 20000, 2, in_stride=0)
    await card.run(body, [[0, 0, GRANULE]])
    # The counts go to the end of the first granule.
    length = size - 80 * GRANULE
    for density in (0.0, 0.003, 1.0):
        card.fill(0, (r.random(size) < density) * r.integers(0, 256, size, np.uint8))
        body = plain(Op.COMPRESS, Format.INT8, 1, length)
        outcome = await card.run(body, [[size - 2, 0, length + GRANULE]])
        assert (outcome.status is None) == (density < 1)
    await reset(dut)
    body = plain(Op.COMPRESS, Format.INT8, 2, 2000, in_stride=0)
    body |= {"batch": 3, "index_stride": -2, "index_batch_stride": 6}
    body |= {"out_stride": 4096, "out_batch_stride": 8192}
    card.fill(0, np.full(2000, 0x80, np.uint8))
    await card.run(body, [[2050, 0, size // 2]])
    body = plain(Op.EXPAND, Format.E2M1, 1, whole // 2 * 8 - 3)
    await card.run(body, [[16, 0, size // 2]])
    body = plain(Op.TRANSPOSE, Format.INT32, 1, 1)
    body |= {"batch": whole - 1, "out_batch_stride": GRANULE}
    await card.run(body, [[0, 0, GRANULE]])


ERRORS = ("BAD_LENGTH", "BAD_FORMAT", "BAD_ALIGNMENT", "BAD_ADDRESS")


@cocotb.test()
async def errors(dut: Any) -> None:
    """Every error, alone and with others, in the first and in a later iteration."""
    card, r = await Card.begin(dut)

    def draw(number: int) -> tuple[Body, list[list[int]]]:
        op = tuple(Op)[number % 3]
        case = random_case(r, card.config, op=op, rows=int(r.integers(1, 20)))
        card.fill_case(r, case)
        return case.body, iterate(case, 3)

    await see_faults(card, r, draw, spoil, faults=6, first=ERRORS, cases=100)


def spoil(
    r: np.random.Generator,
    config: CardConfig,
    body: Body,
    operands: list[list[int]],
    fault: int,
) -> None:
    """Put a fault of one of six kinds into a command; not every one is an error."""
    operand = operands[int(r.integers(len(operands)))]
    which = int(r.integers(3))
    index = ("index_stride", "index_batch_stride")
    match fault:
        case 0:
            body[str(r.choice(COUNTS))] = 0
        case 1:
            name, values = [("in_format", range(4, 10)), ("op", (3, 4, 128, 255))][
                int(r.integers(2))
            ]
            body[name] = int(r.choice(values))
        case 2:
            body[str(r.choice([*STRIDES, *index]))] ^= 1 << int(r.integers(4))
        case 3:
            operand[which] ^= 1 << int(r.integers(4))
        case 4:
            # Outside with all rows, or in part.
            high = operand[which] | 1 << int(r.integers(24, 32))
            size = config.scratchpad_bytes
            operand[which] = int(r.choice([high, high, high, size, size - GRANULE]))
        case 5:
            # Begins inside, and leaves.
            name = ("index", "in", "out")[which] + str(r.choice(["_stride", "_batch_stride"]))
            body[name] = int(r.choice([-1, 1])) * config.scratchpad_bytes


@cocotb.test()
async def orders_of_checks(dut: Any) -> None:
    """Of two faults the one that is checked first is reported, whatever the operation."""
    card, _ = await Card.begin(dut)
    far = card.config.scratchpad_bytes
    faults: list[tuple[Any, dict[str, int], int]] = [
        (Status.BAD_LENGTH, {"rows": 0}, 0),
        (Status.BAD_LENGTH, {"length": 0}, 0),
        (Status.BAD_LENGTH, {"batch": 0}, 0),
        (Status.BAD_FORMAT, {"in_format": Format.INT4.value}, 0),
        (Status.BAD_ALIGNMENT, {"in_batch_stride": 8}, 0),
        (Status.BAD_ALIGNMENT, {"out_batch_stride": 1 << 3}, 0),
        (Status.BAD_ADDRESS, {}, far),
    ]
    for op in Op:
        body = plain(op, Format.INT8, 2, 20)
        for first, (status, change, shift) in enumerate(faults):
            for _, other, more in faults[first:]:
                fields = body | other | change
                outcome = await card.run(fields, [[0, 256 + max(shift, more), 512]])
                assert outcome.status == status.value
                await card.unit.refuse()


@cocotb.test()
async def every_format_and_operation(dut: Any) -> None:
    """Which formats an operation takes."""
    card, _ = await Card.begin(dut)
    for op in range(5):
        for fmt in (*range(11), 128):
            fields = plain(Op.EXPAND, Format.INT8, 1, 2) | {"op": op, "in_format": fmt}
            outcome = await card.run(fields, [[0, 32, 4096]])
            if outcome.status is not None:
                await reset(dut)


@cocotb.test()
async def index_alignment(dut: Any) -> None:
    """Counts are aligned to two bytes, scales to sixteen; TRANSPOSE has neither."""
    card, _ = await Card.begin(dut)
    for op in Op:
        for bit in range(5):
            for where in range(3):
                body = plain(op, Format.INT8, 1, 2)
                name = ("", "index_stride", "index_batch_stride")[where]
                if name:
                    body[name] ^= 1 << bit
                outcome = await card.run(body, [[0 if name else 1 << bit, 32, 4096]])
                unit = {Op.TRANSPOSE: 0, Op.COMPRESS: 1, Op.EXPAND: 4}[op]
                assert (outcome.status is None) == (bit >= unit)
                if outcome.status is not None:
                    await reset(dut)


@cocotb.test()
async def first_error_wins(dut: Any) -> None:
    """An iteration that fails late is reported, not the next one that fails when it starts."""
    card, _ = await Card.begin(dut)
    size = card.config.scratchpad_bytes
    for op in Op:
        body = plain(op, Format.INT8, 4, 40)
        for late in range(5):
            card.scratchpad.write_stall.short = 0.8
            place = size - body["out_stride"] * late
            await card.run(body, [[0, 2048, place], [1024, 2049, 4096]])
            await reset(dut)


@cocotb.test()
async def the_one_before_ends(dut: Any) -> None:
    """An iteration that fails at once lets the one before write all of its results."""
    card, _ = await Card.begin(dut)
    size = card.config.scratchpad_bytes
    for op in Op:
        body = plain(op, Format.INT8, 20, 70)
        for bad in ([0, 2049, 4096], [0, size, 4096], [0, 2048, size], [size, 2048, 4096]):
            card.scratchpad.write_stall.short = 0.5
            outcome = await card.run(body, [[1024, 8192, 16384], bad])
            assert outcome.done == (1 if outcome.status is not None else 2)
            await reset(dut)


@cocotb.test()
async def far_addresses(dut: Any) -> None:
    """Every bit above the scratchpad's size is seen, in each address; nothing is written then."""
    card, _ = await Card.begin(dut)
    for op in Op:
        for bit in range(card.config.scratchpad_bytes.bit_length() - 1, 32):
            for which in range(3):
                operand = [0, 256, 4096]
                operand[which] = 1 << bit
                writes = card.scratchpad.writes
                outcome = await card.run(plain(op, Format.INT8, 2, 20), [operand])
                if op is Op.TRANSPOSE and not which:
                    assert outcome.status is None
                    continue
                assert outcome.status == Status.BAD_ADDRESS.value
                assert card.scratchpad.writes == writes
                await reset(dut)


@cocotb.test()
async def speed(dut: Any) -> None:
    """A granule in and one out each cycle, or an entry each cycle."""
    card, _ = await Card.begin(dut)
    half = card.config.scratchpad_bytes // 2

    async def measure(body: Body, cycles: int, around: int) -> None:
        operands = [[half - 1024 * (i + 1), 8192 * i, half + 16384 * i] for i in range(2)]
        outcome = await card.run(body, operands)
        dut._log.info(
            "%s of %d x %d: %d cycles for %d",
            *(Op(body["op"]).name, body["rows"], body["length"], outcome.cycles, 2 * cycles),
        )
        assert outcome.cycles <= 2 * cycles + around

    for fmt, rows, length in (
        (Format.INT8, 64, 64),
        (Format.INT8, 17, 100),
        (Format.BF16, 64, 64),
        (Format.FP32, 30, 33),
        (Format.INT8, 1, 256),
        (Format.INT8, 256, 1),
    ):
        side = 8 * GRANULE // BITS[fmt]
        tiles = -(-rows // side) * -(-length // side)
        await measure(plain(Op.TRANSPOSE, fmt, rows, length), tiles * side, side + 25)
    for fmt, rows, length in (
        (Format.E4M3, 1, 4000),
        (Format.E4M3, 20, 32),
        (Format.E2M1, 10, 400),
        (Format.INT8, 20, 16),
    ):
        granules = rows * -(-length // 8)
        await measure(plain(Op.EXPAND, fmt, rows, length), granules, 25)
    for fmt, rows, length, every in (
        (Format.INT8, 4, 1000, 1),
        (Format.BF16, 4, 500, 1),
        (Format.INT8, 4, 1000, 3),
        (Format.INT8, 4, 1600, 100),
        (Format.INT8, 4, 1600, 1600),
        (Format.INT8, 40, 16, 16),
        (Format.INT8, 40, 16, 1),
    ):
        lanes = 8 * GRANULE // BITS[fmt]
        width = -(-length // lanes) * lanes
        numbers = np.zeros((rows, width), np.uint8 if fmt is Format.INT8 else np.uint16)
        numbers[:, :length:every] = 1
        empty = (numbers.reshape(-1, lanes) == 0).all(1)
        for start_at in (0, 8192):
            card.fill(start_at, numbers)
        entries = rows * len(range(0, length, every)) + length // 256
        # A row of one entry has two writes, of which one is the count.
        busy = max(int(empty.sum()) + entries, 2 * rows)
        await measure(plain(Op.COMPRESS, fmt, rows, length), busy, 30)
