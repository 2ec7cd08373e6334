"""Bench of the vector unit: pooling windows of a scratchpad that stalls."""

from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import PoolBody
from .lib import bench_config, pack, rng, start
from .units import Outcome, ScratchpadModel, UnitDriver, reset

Body = dict[str, int]

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status
Format: Any = isa.Format


class Card:
    """The unit with a scratchpad, and a copy of its bytes that a model changes."""

    def __init__(self, dut: Any, config: CardConfig, r: np.random.Generator) -> None:
        self.config = config
        self.scratchpad = ScratchpadModel(dut, config, r, read=1, write=1)
        self.unit = UnitDriver(dut, r)
        self.expected = self.scratchpad.bytes.copy()

    def model(self, body: Body, operand: list[int]) -> Any:
        """Run an iteration on the copy; return its status if it fails, else None."""
        counts = ("granules", "out_y", "out_x", "kernel_y", "kernel_x")
        if not all(body[name] for name in counts):
            return Status.BAD_LENGTH
        if body["in_format"] != Format.INT8.value:
            return Status.BAD_FORMAT
        strides = [value for name, value in body.items() if name.endswith("stride")]
        if any(value % GRANULE for value in (*operand[1:], *strides)):
            return Status.BAD_ALIGNMENT
        size = self.config.scratchpad_bytes
        ky, kx = np.meshgrid(
            np.arange(body["kernel_y"], dtype=np.int64),
            np.arange(body["kernel_x"], dtype=np.int64),
            indexing="ij",
        )
        window = (ky * body["in_ky_stride"] + kx * body["in_kx_stride"]).ravel()
        signed = self.expected.view(np.int8)
        for y in range(body["out_y"]):
            for x in range(body["out_x"]):
                source = operand[1] + y * body["in_y_stride"] + x * body["in_x_stride"]
                target = operand[2] + y * body["out_y_stride"] + x * body["out_x_stride"]
                for c in range(body["granules"]):
                    reads = (source + window + GRANULE * c) % (1 << 32)
                    write = (target + GRANULE * c) % (1 << 32)
                    if write >= size or (reads >= size).any():
                        return Status.BAD_ADDRESS
                    granules = signed[reads[:, None] + np.arange(GRANULE)]
                    signed[write : write + GRANULE] = granules.max(0)
        return None

    async def run(self, body: Body, operands: list[list[int]]) -> Outcome:
        """Run a command on the design and on the copy, and compare all bytes."""
        after = []
        status = None
        for operand in operands:
            status = self.model(body, operand)
            if status is not None:
                break
            after.append(self.expected.copy())

        def on_done(index: int) -> None:
            # The results of the next iteration may already arrive, but none that is to stay.
            later = after[index + 1] if index + 1 < len(after) else self.expected
            stays = later == after[index]
            same = self.scratchpad.bytes == after[index]
            assert same[stays].all(), f"iteration {index} is not done"

        outcome = await self.unit.run(pack(PoolBody, body), operands, on_done=on_done)
        assert outcome.status == (None if status is None else status.value)
        assert outcome.done == len(after)
        await self.unit.quiet(6)
        assert (self.scratchpad.bytes == self.expected).all(), "scratchpad differs"
        return outcome

    def disturb(self, r: np.random.Generator) -> None:
        """Draw how much each side stalls."""
        for stall in (self.scratchpad.read_stall, self.scratchpad.write_stall, self.unit.stall):
            stall.short = float(r.choice([0.0, 0.1, 0.5, 0.9]))
            stall.long = float(r.choice([0.0, 0.0, 0.02]))


async def make_card(dut: Any) -> tuple[Card, np.random.Generator]:
    """Start the design with everything around it."""
    r = rng()
    await start(dut)
    return Card(dut, bench_config(), r), r


def random_pool(r: np.random.Generator, config: CardConfig) -> tuple[Body, list[int]]:
    """Draw a pooling with its input in the lower half and its output in the upper one.

    The returned operand is that of an iteration with room for two more at steps of one granule.
    """
    granules, out_y, out_x, kernel_y, kernel_x = (
        int(r.choice(values))
        for values in ((1, 1, 2, 5), (1, 2, 4), (1, 3, 6), (1, 2, 3), (1, 2, 3))
    )
    step_y, step_x = (int(r.choice([1, 2, 3])) for _ in range(2))
    pixel = (granules + int(r.integers(2))) * GRANULE
    row = ((out_x - 1) * step_x + kernel_x + int(r.integers(2))) * pixel
    out_pixel = (granules + int(r.integers(2))) * GRANULE
    body = {
        "granules": granules,
        "out_y": out_y,
        "out_x": out_x,
        "kernel_y": kernel_y,
        "kernel_x": kernel_x,
        "in_y_stride": step_y * row,
        "in_x_stride": step_x * pixel,
        "in_ky_stride": row,
        "in_kx_stride": pixel,
        "out_y_stride": out_x * out_pixel,
        "out_x_stride": out_pixel,
        "in_format": Format.INT8.value,
    }
    source, target = (int(r.integers(0, 64)) * GRANULE for _ in range(2))
    target += config.scratchpad_bytes // 2
    if r.random() < 0.3:
        # Backwards: mirror the input in its upper end.
        for name in ("in_y_stride", "in_x_stride", "in_ky_stride", "in_kx_stride"):
            body[name] = -body[name]
        source = config.scratchpad_bytes // 2 - GRANULE * (granules + 2)
    return body, [int(r.integers(1 << 32)), source, target]


def iterate(operand: list[int], count: int, step: int) -> list[list[int]]:
    """Further iterations: the same input, outputs behind each other."""
    return [[operand[0], operand[1], operand[2] + i * step] for i in range(count)]


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Random windows and iterations, everything stalling."""
    card, r = await make_card(dut)
    room = 256 * GRANULE
    for _ in range(30):
        card.disturb(r)
        body, operand = random_pool(r, card.config)
        await card.run(body, iterate(operand, int(r.choice([1, 1, 2, 3])), room))


@cocotb.test()
async def signs(dut: Any) -> None:
    """The maximum is signed: every pair of bytes from both ends of the range."""
    card, _ = await make_card(dut)
    values = np.array([-128, -127, -2, -1, 0, 1, 2, 126, 127], np.int8)
    pairs = np.stack([np.repeat(values, len(values)), np.tile(values, len(values))])
    count = pairs.shape[1] // GRANULE * GRANULE
    for row in (0, 1):
        start_at = row * count
        card.scratchpad.bytes[start_at : start_at + count] = pairs[row, :count].view(np.uint8)
    card.expected[:] = card.scratchpad.bytes
    body = {
        "granules": count // GRANULE,
        "out_y": 1,
        "out_x": 1,
        "kernel_y": 2,
        "kernel_x": 1,
        "in_y_stride": 0,
        "in_x_stride": 0,
        "in_ky_stride": count,
        "in_kx_stride": 0,
        "out_y_stride": 0,
        "out_x_stride": 0,
        "in_format": Format.INT8.value,
    }
    await card.run(body, [[0, 0, 4096]])
    assert (card.expected[4096 : 4096 + count].view(np.int8) == pairs.max(0)[:count]).all()


ERRORS = (Status.BAD_LENGTH, Status.BAD_FORMAT, Status.BAD_ALIGNMENT, Status.BAD_ADDRESS)


@cocotb.test()
async def errors(dut: Any) -> None:
    """Every error, alone and with others, in the first and in a later iteration."""
    card, r = await make_card(dut)
    wanted = {(status.value, 0) for status in ERRORS}
    wanted |= {(Status.BAD_ALIGNMENT.value, 1), (Status.BAD_ADDRESS.value, 1)}
    seen: set[tuple[int, int]] = set()
    case = -1
    while case < 100 or (not wanted <= seen and case < 1000):
        case += 1
        if case % 3 == 0:
            card.disturb(r)
        body, operand = random_pool(r, card.config)
        operands = iterate(operand, int(r.choice([1, 2, 3])), 256 * GRANULE)
        spoil(r, card.config, body, operands, case % 6)
        if r.random() < 0.3:
            spoil(r, card.config, body, operands, int(r.integers(6)))
        outcome = await card.run(body, operands)
        if outcome.status is not None:
            seen.add((outcome.status, min(outcome.done, 1)))
            dut.unit__start__valid.value = 1
            await card.unit.quiet(10)
            assert not int(dut.unit__start__ready.value)
            dut.unit__start__valid.value = 0
            await reset(dut)
    assert wanted <= seen


@cocotb.test()
async def first_error_wins(dut: Any) -> None:
    """An iteration that fails late is reported, not the next one that fails when it starts."""
    card, _ = await make_card(dut)
    size = card.config.scratchpad_bytes
    strides = ("in_y", "in_x", "in_ky", "in_kx", "out_y", "out_x")
    body = {f"{name}_stride": 0 for name in strides} | {"in_format": Format.INT8.value}
    body |= dict.fromkeys(("granules", "out_y", "kernel_y", "kernel_x"), 1)
    body |= {"out_x": 4, "out_x_stride": GRANULE}
    for late in range(1, 5):
        card.scratchpad.read_stall.short = 0.8
        operands = [[0, 0, size - late * GRANULE], [0, 1, 0]]
        await card.run(body, operands)
        await reset(dut)


@cocotb.test()
async def far_addresses(dut: Any) -> None:
    """Every bit above the scratchpad's size is seen, in the input's and the output's address."""
    card, _ = await make_card(dut)
    body = dict.fromkeys(("granules", "out_y", "out_x", "kernel_y", "kernel_x"), 1)
    strides = ("in_y", "in_x", "in_ky", "in_kx", "out_y", "out_x")
    body |= {f"{name}_stride": 0 for name in strides} | {"in_format": Format.INT8.value}
    for bit in range(card.config.scratchpad_bytes.bit_length() - 1, 32):
        for which in (1, 2):
            operand = [0, 0, 0]
            operand[which] = 1 << bit
            outcome = await card.run(body, [operand])
            assert outcome.status == Status.BAD_ADDRESS.value
            await reset(dut)


def spoil(
    r: np.random.Generator,
    config: CardConfig,
    body: Body,
    operands: list[list[int]],
    fault: int,
) -> None:
    """Put a fault of one of six kinds into a command; not every one is an error."""
    operand = operands[int(r.integers(len(operands)))]
    which = int(r.choice([1, 2]))
    strides = [name for name in body if name.endswith("stride")]
    match fault:
        case 0:
            counts = ["granules", "out_y", "out_x", "kernel_y", "kernel_x"]
            body[str(r.choice(counts))] = 0
        case 1:
            body["in_format"] = int(r.choice([1, 2, 3, 255]))
        case 2:
            body[str(r.choice(strides))] += 1 << int(r.integers(4))
        case 3:
            operand[which] += 1 << int(r.integers(4))
        case 4:
            # At either end, or one high bit too many.
            size = config.scratchpad_bytes
            high = operand[which] | 1 << int(r.integers(size.bit_length() - 1, 32))
            operand[which] = int(r.choice([size - GRANULE, (1 << 32) - GRANULE, high, high]))
        case 5:
            # Leaves its half of the scratchpad only to leave the scratchpad.
            name = "out_y_stride" if which == 2 else "in_y_stride"
            body[name] = int(r.choice([-1, 1])) * config.scratchpad_bytes


@cocotb.test()
async def speed(dut: Any) -> None:
    """One input granule a cycle, whatever the window; iterations close together."""
    card, _ = await make_card(dut)
    for kernel, granules, out in ((1, 4, 8), (2, 2, 8), (3, 1, 6), (1, 1, 1)):
        body = {
            "granules": granules,
            "out_y": out,
            "out_x": out,
            "kernel_y": kernel,
            "kernel_x": kernel,
            "in_y_stride": 16 * GRANULE * granules * kernel,
            "in_x_stride": GRANULE * granules * kernel,
            "in_ky_stride": 16 * GRANULE * granules,
            "in_kx_stride": GRANULE * granules,
            "out_y_stride": GRANULE * granules * out,
            "out_x_stride": GRANULE * granules,
            "in_format": Format.INT8.value,
        }
        base = card.config.scratchpad_bytes // 2
        size = out * out * granules * GRANULE
        outcome = await card.run(body, [[0, 0, base + i * size] for i in range(2)])
        reads = 2 * out * out * granules * kernel * kernel
        dut._log.info(
            "2 poolings %dx%d of %d windows: %d cycles for %d granules",
            *(kernel, kernel, out * out * granules, outcome.cycles, reads),
        )
        assert outcome.cycles <= reads + 15
