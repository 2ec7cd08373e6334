"""Bench of the compute unit: MATMUL commands that follow each other, against the model.

All operands of a run lie in the scratchpad beforehand, each command's in a place of its own. The
bench is the queue: it starts iterations, of which at most two are outstanding, and shows a body
only until the cycle behind the one in which the command's last iteration is accepted.
"""

import dataclasses
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.config import GRANULE, CardConfig
from ...rtl.core.ports import READ_LATENCY, iteration_layout
from ...rtl.isa import (
    DirectoryEntry,
    Encoding,
    MatmulBody,
    Opcode,
    Status,
)
from ..functional.checks import Fault
from ..functional.decode import dtype
from ..functional.random_operands import aligned
from ..functional.random_tiles import RandomTiles, Tile
from ..functional.testing import matmul_body
from ..functional.units import execute
from .lib import bench_config, pack, rng, start, tick
from .units import Stall, noise


@dataclasses.dataclass
class Matmul:
    """A command: its body, each iteration's operands, and the bytes that lie in the scratchpad.

    ``directory`` is a view of the blob's entries [slices, entries], of which rows ``used`` are not
    empty.
    """

    body: dict[str, Any]
    operands: list[list[int]]
    bytes: list[tuple[int, np.ndarray]]
    directory: np.ndarray
    used: np.ndarray


class RandomMatmuls(RandomTiles):
    """Draws commands whose operands lie behind each other in the scratchpad."""

    def __init__(self, config: CardConfig, r: np.random.Generator, largest: int) -> None:
        super().__init__(config, r, largest)
        self.place = 0

    def draw(self, other: Tile | None, iterations: int) -> tuple[Tile, Matmul]:
        """Return a random command, with the mode and the anchor of another one if there is one."""
        tile = self._tile_like(other)
        while tile.body["k"] * tile.body["n"] > 20000:
            tile = self._tile_like(other)
        (raw,) = tile.raws
        directory = raw[: tile.rows.size * GRANULE].view(dtype(DirectoryEntry))
        blob = self._take(len(raw))
        parts, operands = [(blob, raw)], []
        for _ in range(iterations):
            x, out = self._take(tile.x_bytes), self._take(tile.out_bytes)
            parts.append((x, self._resident(tile.x_bytes, tile.product)))
            operands.append([blob, x + tile.x_start, out + tile.out_start])
        body = dict(tile.body)
        parameter = body.pop("parameter")
        body = matmul_body(**body) | {"parameter": parameter}
        directory = directory.reshape(tile.rows.shape)
        return tile, Matmul(body, operands, parts, directory, tile.used)

    def _take(self, nbytes: int) -> int:
        self.place += aligned(nbytes)
        return self.place - aligned(nbytes)


class Bench:
    """The queue, the scratchpad, and what watches the unit."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.config, self.r = dut, bench_config(), rng()
        self.read_stall, self.write_stall = Stall(self.r), Stall(self.r)
        self.start_stall = Stall(self.r)
        self.memory = np.zeros(self.config.scratchpad_bytes, np.uint8)
        self.overlaps = 0

    async def begin(self) -> None:
        dut, config = self.dut, self.config
        dut.unit__start__valid.value = 0
        dut.count_engine.value = 0xFF
        dut.write__ready.value = 0
        wide = 2 * config.fill_bytes // GRANULE
        ports = [(f"stream_read__{i}", 1) for i in range(config.stream_ports)]
        for name, granules in (*ports, ("fill_read", wide)):
            getattr(dut, f"{name}__ready").value = 0
            getattr(dut, f"{name}__data_valid").value = 0
            cocotb.start_soon(self._read(name, granules))
        await start(dut)
        cocotb.start_soon(self._write())

    def stall(self, probability: float) -> None:
        """Set the probability of a pause, everywhere."""
        for part in (self.read_stall, self.write_stall, self.start_stall):
            part.short = probability

    async def _read(self, name: str, granules: int) -> None:
        dut, size = self.dut, GRANULE * granules
        ready, data_valid, data, valid, address = (
            getattr(dut, f"{name}__{part}")
            for part in ("ready", "data_valid", "data", "valid", "address")
        )
        answers: list[int | None] = [None] * READ_LATENCY
        while True:
            answer = answers.pop(0)
            data_valid.value = int(answer is not None)
            if answer is not None:
                data.value = answer
            go = self.read_stall.go()
            ready.value = int(go)
            await FallingEdge(dut.clk)
            answers.append(None)
            if go and int(valid.value):
                at = int(address.value) * GRANULE
                span = np.take(self.memory, np.arange(at, at + size), mode="wrap")
                answers[-1] = int.from_bytes(span.tobytes(), "little")
            await RisingEdge(dut.clk)

    async def _write(self) -> None:
        dut = self.dut
        while True:
            go = self.write_stall.go()
            dut.write__ready.value = int(go)
            await FallingEdge(dut.clk)
            taken = go and int(dut.write__valid.value)
            if taken:
                at = int(dut.write__address.value) * GRANULE
                data = int(dut.write__data.value).to_bytes(GRANULE, "little")
                mask = int(dut.write__mask.value)
            await RisingEdge(dut.clk)
            if taken:
                chosen = np.flatnonzero([mask >> i & 1 for i in range(GRANULE)])
                self.memory[at + chosen] = np.frombuffer(data, np.uint8)[chosen]

    async def run(self, commands: list[Matmul], *, limit: int = 60000) -> Status | None:
        """Run commands; check every byte, each command's flags, and how the first fault ends it.

        Returns that fault.
        """
        dut, layout = self.dut, iteration_layout()
        self.memory[:] = self.r.integers(0, 256, len(self.memory), np.uint8)
        for command in commands:
            for at, raw in command.bytes:
                self.memory[at : at + len(raw)] = raw
        wanted, flags, fault, good = self._model(commands)
        iterations = [
            (c, pack(MatmulBody, command.body), operands, number == 0)
            for c, command in enumerate(commands)
            for number, operands in enumerate(command.operands)
        ]
        seen = [0] * len(commands)
        started = done = 0
        offered = accepted = False
        self.overlaps = 0
        status = None
        for _ in range(limit):
            # In the cycle behind a command's last start its body is still there.
            ends = started == len(iterations) or (started and iterations[started][3])
            if not offered and started < len(iterations) and started - done < 2:
                offered = self.start_stall.go() and not (accepted and ends)
            if offered:
                _, body, operands, first = iterations[started]
                dut.unit__start__payload.value = pack(
                    layout, operand=operands, body=body, first=first
                )
            elif ends:
                payload = noise(self.r, layout.size)
                if accepted:
                    field = layout["body"]
                    payload &= ~(((1 << field.width) - 1) << field.offset)
                    payload |= iterations[started - 1][1] << field.offset
                dut.unit__start__payload.value = payload
            dut.unit__start__valid.value = int(offered)
            await FallingEdge(dut.clk)
            accepted = offered and bool(int(dut.unit__start__ready.value))
            raised = int(dut.flags.value)
            if raised:
                assert done < started, "a flag without an iteration"
                seen[iterations[done][0]] |= raised
            if int(dut.unit__error.value):
                assert not int(dut.unit__done.value)
                status = Status(int(dut.unit__status.value))
            if accepted:
                self.overlaps += iterations[started][3] and started > done
            done += int(dut.unit__done.value)
            await RisingEdge(dut.clk)
            if accepted:
                started += 1
                offered = False
            assert done <= started, "done without an iteration"
            if status is not None or done == len(iterations):
                break
        else:
            raise AssertionError(f"not within {limit} cycles; {done} iterations done")
        dut.unit__start__valid.value = 0
        assert status == fault, f"{status}, not {fault} after {done} iterations"
        assert done == good, f"{done} iterations before the error, not {good}"
        # Flags of a command that failed have no meaning.
        whole = iterations[done][0] if fault is not None else len(commands)
        assert seen[:whole] == flags[:whole], f"flags {seen}, not {flags}"
        if fault is None:
            await tick(dut, 30)
            wrong = np.flatnonzero(self.memory != wanted)
            assert not wrong.size, (
                f"{wrong.size} bytes differ, the first at {wrong[0]:#x}: "
                f"{self.memory[wrong[0]]:#04x}, not {wanted[wrong[0]]:#04x}; {commands}"
            )
        else:
            # As long as the card's: no answer to a read comes after it.
            dut.rst.value = 1
            await tick(dut, 4)
            dut.rst.value = 0
            await tick(dut)
        return fault

    def _model(self, commands: list[Matmul]) -> tuple[np.ndarray, list[int], Status | None, int]:
        """Return the bytes, each command's flags, the fault, and the iterations before it."""
        memory, flags, good = self.memory.copy(), [0] * len(commands), 0
        for c, command in enumerate(commands):
            for operands in command.operands:
                try:
                    work = execute(
                        Opcode.MATMUL,
                        command.body,
                        operands,
                        memory=np.zeros(16, np.uint8),
                        scratchpad=memory,
                        config=self.config,
                    )
                except Fault as found:
                    return memory, flags, found.status, good
                flags[c] |= work.flags
                good += 1
        return memory, flags, None, good


def _draw(bench: Bench, count: int, *, steady: float = 0.8, largest: int = 1500) -> list[Matmul]:
    """Return as many commands as fit, few of which change the mode or the anchor."""
    r, room = bench.r, bench.config.scratchpad_bytes
    source = RandomMatmuls(bench.config, r, largest)
    tile: Tile | None = None
    commands: list[Matmul] = []
    while len(commands) < count:
        other = tile if r.random() < steady else None
        tile, command = source.draw(other, int(r.choice([1, 1, 1, 2, 3])))
        if source.place > room:
            break
        commands.append(command)
    return commands


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.1, 0.5])
async def commands_follow(dut: Any, stall: float) -> None:
    """Commands with different bodies follow each other; some change the mode."""
    bench = Bench(dut)
    await bench.begin()
    bench.stall(stall)
    overlaps = commands = 0
    for _ in range(8):
        drawn = _draw(bench, 8)
        await bench.run(drawn)
        overlaps += bench.overlaps
        commands += len(drawn)
    dut._log.info("%d of %d commands began before the one before had ended", overlaps, commands)
    assert overlaps > commands // 4


def _spoil(bench: Bench, command: Matmul, kind: str) -> None:
    """Make a fault of the kind in a command."""
    body, directory, used = command.body, command.directory, np.flatnonzero(command.used)
    row = used[bench.r.integers(len(used))]
    room = bench.config.scratchpad_bytes
    match kind:
        case "length":
            body["slice"] = 0
        case "format":
            body["function"] = 99
        case "alignment":
            command.operands[0][0] += 8
        case "x":
            command.operands[-1][1] = room - 2
            body["x_inner_stride"], body["x_outer_stride"] = 2, 2
            body["x_run_stride"], body["x_run_outer_stride"] = 2, 2
        case "blob":
            command.operands[-1][0] = room
        case "stream":
            directory["stream"][0, row] = (room - command.operands[0][0]) // GRANULE
        case "out":
            directory["out_offset"][-1, row] = room
        case "scale":
            directory["scale"][0, row] = 0
        case "index":
            body["encoding"] = Encoding.DENSE.value
            directory["count"][0, row] += 1


KINDS = ("length", "format", "alignment", "x", "blob", "stream", "out", "scale", "index")


@cocotb.test()
@cocotb.parametrize(kind=KINDS)
async def faults_wait(dut: Any, kind: str) -> None:
    """A fault ends a run when all before it has ended, and never as that of another command."""
    bench = Bench(dut)
    await bench.begin()
    r = bench.r
    tried = 0
    for _ in range(40):
        bench.stall(float(r.choice([0.0, 0.3])))
        commands = _draw(bench, 3, steady=0.9, largest=600)
        _spoil(bench, commands[int(r.integers(len(commands)))], kind)
        tried += await bench.run(commands) is not None
        if tried == 8:
            return
    raise AssertionError("too few faults")
