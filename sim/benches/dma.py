"""Bench of the load and the store unit: ``$UNIT`` says which of the two the design is."""

import os
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import TransferBody
from .lib import bench_config, pack, rng, start
from .units import MemoryModel, Outcome, ScratchpadModel, UnitDriver, reset, see_errors

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status

LOAD = os.environ.get("UNIT") == "load"


class Card:
    """The unit with card memory and a scratchpad, and copies of both that a model changes."""

    def __init__(self, dut: Any, config: CardConfig, r: np.random.Generator) -> None:
        lanes = max(1, config.bus_bytes // GRANULE)
        self.config = config
        self.memory = MemoryModel(dut, config, r)
        self.scratchpad = ScratchpadModel(
            dut, config, r, read=0 if LOAD else lanes, write=lanes if LOAD else 0
        )
        self.unit = UnitDriver(dut, r)
        self.expected_memory = self.memory.bytes.copy()
        self.expected_scratchpad = self.scratchpad.bytes.copy()

    def rows(self, body: dict[str, int], operand: list[int]) -> Iterator[tuple[int, int]]:
        """Addresses of an iteration's rows: in memory, in the scratchpad."""
        for z in range(body["z"]):
            for y in range(body["y"]):
                yield (
                    (operand[0] + y * body["memory_y_stride"] + z * body["memory_z_stride"])
                    % (1 << 32),
                    (operand[1] + y * body["scratchpad_y_stride"] + z * body["scratchpad_z_stride"])
                    % (1 << 32),
                )

    def model(self, body: dict[str, int], operand: list[int]) -> Any:
        """Run an iteration on the copies; return its status if it fails, else None."""
        count = body["x_bytes"]
        if not (count and body["y"] and body["z"]):
            return Status.BAD_LENGTH
        strides = [value for name, value in body.items() if name.endswith("stride")]
        if any(value % GRANULE for value in (count, *operand[:2], *strides)):
            return Status.BAD_ALIGNMENT
        for memory, scratchpad in self.rows(body, operand):
            if memory + count > self.config.memory_bytes:
                return Status.BAD_ADDRESS
            if scratchpad + count > self.config.scratchpad_bytes:
                return Status.BAD_ADDRESS
            here = self.expected_memory[memory : memory + count]
            there = self.expected_scratchpad[scratchpad : scratchpad + count]
            if LOAD:
                there[:] = here
            else:
                here[:] = there
        return None

    def touched(self, body: dict[str, int], operand: list[int]) -> np.ndarray:
        """Which bytes of the target an iteration writes."""
        size = self.config.scratchpad_bytes if LOAD else self.config.memory_bytes
        result = np.zeros(size, bool)
        for memory, scratchpad in self.rows(body, operand):
            first = scratchpad if LOAD else memory
            result[first : first + body["x_bytes"]] = True
        return result

    async def run(self, body: dict[str, int], operands: list[list[int]]) -> Outcome:
        """Run a command on the design and on the copies, and compare all there is to compare."""
        target = self.scratchpad.bytes if LOAD else self.memory.bytes
        after: list[np.ndarray] = []
        owned: list[np.ndarray] = []
        status = None
        for operand in operands:
            status = self.model(body, operand)
            if status is not None:
                break
            if len(operands) < 4:
                after.append((self.expected_scratchpad if LOAD else self.expected_memory).copy())
                owned.append(self.touched(body, operand))

        def on_done(index: int) -> None:
            # All of its bytes are there, but the next iteration may have begun to change some.
            if index < len(owned):
                mask = owned[index].copy()
                if index + 1 < len(operands):
                    mask &= ~self.touched(body, operands[index + 1])
                assert (target[mask] == after[index][mask]).all(), f"iteration {index} is not done"

        outcome = await self.unit.run(pack(TransferBody, body), operands, on_done=on_done)
        assert outcome.status == (None if status is None else status.value)
        if status is None:
            assert outcome.done == len(operands)
        assert not self.memory.busy, "a burst is still under way"
        await self.unit.quiet(5)
        assert (self.memory.bytes == self.expected_memory).all(), "card memory differs"
        assert (self.scratchpad.bytes == self.expected_scratchpad).all(), "scratchpad differs"
        return outcome


async def make_card(dut: Any) -> tuple[Card, np.random.Generator]:
    """Start the design with everything around it."""
    config = bench_config()
    r = rng()
    await start(dut)
    return Card(dut, config, r), r


def disturb(card: Card, r: np.random.Generator) -> None:
    """Draw how much each side stalls."""
    for stall in (
        card.memory.request_stall,
        card.memory.read_stall,
        card.memory.write_stall,
        card.scratchpad.read_stall,
        card.scratchpad.write_stall,
        card.unit.stall,
    ):
        stall.short = float(r.choice([0.0, 0.1, 0.5, 0.9]))
        stall.long = float(r.choice([0.0, 0.0, 0.01]))
    card.memory.latency = int(r.choice([1, 3, 8, 40, 100]))


def random_body(r: np.random.Generator, config: CardConfig) -> dict[str, int]:
    """Draw a transfer that fits into a sixteenth of the scratchpad and of memory."""
    room = config.scratchpad_bytes // 16
    y, z = (int(r.choice([1, 1, 2, 3, 7])) for _ in range(2))
    limit = room // (y * z) // GRANULE
    x = int(r.choice([1, 2, 3, int(r.integers(1, limit + 1)), min(limit, 16), min(limit, 17)]))
    gaps = r.choice([0, 0, 1, 3, 5], 4)
    rows = [x + int(gap) if x + gap <= limit else x for gap in gaps]
    signs = [int(sign) for sign in r.choice([-1, 1, 1], 4)]
    return {
        "x_bytes": x * GRANULE,
        "y": y,
        "z": z,
        "memory_y_stride": signs[0] * rows[0] * GRANULE,
        "memory_z_stride": signs[1] * rows[0] * y * GRANULE,
        "scratchpad_y_stride": signs[2] * rows[2] * GRANULE,
        "scratchpad_z_stride": signs[3] * rows[2] * y * GRANULE,
    }


def random_operand(r: np.random.Generator, config: CardConfig, body: dict[str, int]) -> list[int]:
    """Draw addresses that keep every row inside."""
    result = []
    for size, name in ((config.memory_bytes, "memory"), (config.scratchpad_bytes, "scratchpad")):
        steps = [(body[axis] - 1) * body[f"{name}_{axis}_stride"] for axis in "yz"]
        low = -sum(min(step, 0) for step in steps)
        high = size - body["x_bytes"] - sum(max(step, 0) for step in steps)
        address = int(r.integers(low // GRANULE, high // GRANULE + 1)) * GRANULE
        result.append(int(r.choice([low, high, address, address, address])))
    return [*result, int(r.integers(1 << 32))]


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Random transfers and iterations, everything stalling."""
    card, r = await make_card(dut)
    for _ in range(25):
        disturb(card, r)
        body = random_body(r, card.config)
        operands = [
            random_operand(r, card.config, body) for _ in range(int(r.choice([1, 1, 2, 3])))
        ]
        await card.run(body, operands)


@cocotb.test()
async def shapes_and_offsets(dut: Any) -> None:
    """Every row length and pair of alignments around a block, with nothing stalling."""
    card, _ = await make_card(dut)
    for x in (1, 2, 3, 4, 5, 7, 15, 16, 17, 19, 33):
        stride = (x + 1) * GRANULE
        body = {
            "x_bytes": x * GRANULE,
            "y": 1,
            "z": 1,
            "memory_y_stride": stride,
            "memory_z_stride": stride,
            "scratchpad_y_stride": stride,
            "scratchpad_z_stride": stride,
        }
        operands = [
            [m * GRANULE, (16 + s) * GRANULE, 0] for m in (0, 1, 2, 3, 13, 15) for s in range(4)
        ]
        await card.run(body, operands)


ERRORS = (Status.BAD_LENGTH, Status.BAD_ALIGNMENT, Status.BAD_ADDRESS)


@cocotb.test()
async def errors(dut: Any) -> None:
    """Every error, alone and with others, in the first and in a later iteration."""
    card, r = await make_card(dut)
    wanted = {(status.value, 0) for status in ERRORS}
    wanted |= {(Status.BAD_ALIGNMENT.value, 1), (Status.BAD_ADDRESS.value, 1)}

    async def attempt(case: int) -> Outcome:
        if case % 3 == 0:
            disturb(card, r)
        body = random_body(r, card.config)
        operands = [random_operand(r, card.config, body) for _ in range(int(r.choice([1, 2, 3])))]
        spoil(r, card.config, body, operands, case % 7)
        if r.random() < 0.3:
            spoil(r, card.config, body, operands, int(r.integers(7)))
        return await card.run(body, operands)

    await see_errors(card.unit, wanted, attempt, cases=60)


@cocotb.test()
async def far_addresses(dut: Any) -> None:
    """Every bit above the size of either side is seen, in an address and in a length."""
    card, _ = await make_card(dut)
    body = {"x_bytes": GRANULE, "y": 1, "z": 1}
    body |= {f"{side}_{axis}_stride": 0 for side in ("memory", "scratchpad") for axis in "yz"}
    sizes = (card.config.memory_bytes, card.config.scratchpad_bytes)
    for bit in range(min(sizes).bit_length() - 1, 32):
        for which in range(2):
            operand = [0, 0, 0]
            operand[which] = 1 << bit
            if operand[which] >= sizes[which]:
                outcome = await card.run(body, [operand])
                assert outcome.status == Status.BAD_ADDRESS.value
                await reset(dut)
        outcome = await card.run(body | {"x_bytes": (1 << bit) + GRANULE}, [[0, 0, 0]])
        assert outcome.status == Status.BAD_ADDRESS.value
        await reset(dut)


def spoil(
    r: np.random.Generator,
    config: CardConfig,
    body: dict[str, int],
    operands: list[list[int]],
    fault: int,
) -> None:
    """Put a fault of one of seven kinds into a command; not every one is an error."""
    operand = operands[int(r.integers(len(operands)))]
    which = int(r.integers(2))
    size = (config.memory_bytes, config.scratchpad_bytes)[which]
    match fault:
        case 0:
            body[str(r.choice(["x_bytes", "y", "z"]))] = 0
        case 1:
            name = str(r.choice([name for name in body if name not in ("y", "z")]))
            body[name] += 1 << int(r.integers(4))
        case 2:
            operand[which] += 1 << int(r.integers(4))
        case 3:
            # One granule too far, at either end.
            operand[which] = int(r.choice([size - body["x_bytes"] // GRANULE * GRANULE, 0]))
            operand[which] += GRANULE if operand[which] else (1 << 32) - GRANULE
            operand[which] %= 1 << 32
        case 4:
            # One high bit too many.
            operand[which] |= 1 << int(r.integers(size.bit_length() - 1, 32))
        case 5:
            name = str(r.choice([name for name in body if name.endswith("stride")]))
            body[name] = int(r.integers(-(1 << 27), 1 << 27)) * GRANULE
        case 6:
            body["x_bytes"] = int(r.choice([size + GRANULE, (1 << 32) - GRANULE, 1 << 31]))


@cocotb.test()
async def speed(dut: Any) -> None:
    """Cycles of long and short rows in an ideal memory, latency 8 and 100."""
    card, _ = await make_card(dut)
    config = card.config
    rate = config.bus_bytes
    for latency, total, x in (
        (8, 64 << 10, 64 << 10),
        *((latency, 8 << 10, x) for latency in (8, 100) for x in (8 << 10, 256, 64, GRANULE)),
    ):
        card.memory.latency = latency
        y = min(total // x, 64)
        body = {
            "x_bytes": x,
            "y": y,
            "z": total // x // y,
            "memory_y_stride": x,
            "memory_z_stride": y * x,
            "scratchpad_y_stride": x,
            "scratchpad_z_stride": y * x,
        }
        outcome = await card.run(body, [[0, 0, 0]])
        dut._log.info(
            "%s of %d bytes in rows of %d, latency %d: %d cycles, limit %d",
            *("load" if LOAD else "store", total, x, latency, outcome.cycles, total // rate),
        )
        if x == total:
            # 12 cycles are the latency of an ideal memory and of the unit itself.
            assert outcome.cycles <= total // rate + latency + 12
        if total == 64 << 10:
            assert outcome.cycles <= 1.02 * total // rate


@cocotb.test()
async def iterations_follow(dut: Any) -> None:
    """Iterations of a few blocks follow each other without a gap.

    Two are under way at a time, so each must last longer than memory takes to answer.
    """
    card, _ = await make_card(dut)
    x = max(1024, 32 * card.config.bus_bytes)
    body = {
        "x_bytes": x,
        "y": 1,
        "z": 1,
        "memory_y_stride": 0,
        "memory_z_stride": 0,
        "scratchpad_y_stride": 0,
        "scratchpad_z_stride": 0,
    }
    outcome = await card.run(body, [[i * x, i * x, 0] for i in range(32)])
    limit = 32 * x // card.config.bus_bytes
    dut._log.info("32 iterations of %d bytes: %d cycles, limit %d", x, outcome.cycles, limit)
    assert outcome.cycles <= limit + 20
