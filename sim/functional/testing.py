"""A host's side of a card, and the commands of small jobs: for tests."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig, preset
from ...rtl.isa import Completion, Csr, Format, MatmulBody, Opcode, Queue, Status, Unit
from .assemble import blob, command, operand, semaphore
from .card import FunctionalCard
from .decode import unpack

__all__ = [
    "MANY",
    "OK",
    "RECORD",
    "RING",
    "Host",
    "add",
    "copy",
    "end",
    "gemm_commands",
    "matmul_body",
    "outcome",
    "patched",
]

RING, RING_SIZE, RECORD = 0x100000, 16, 0x200000
MANY = 10**7


class Host:
    """A card, and a ring that jobs are written to."""

    def __init__(self, card: str | CardConfig = "tiny", ring_size: int = RING_SIZE) -> None:
        self.card = FunctionalCard(preset(card) if isinstance(card, str) else card)
        self.size = ring_size
        self.open()

    def open(self) -> None:
        """Begin with an empty ring, after a reset."""
        self.tail = 0
        self.card.csr_write(Csr.RING_BASE, RING)
        self.card.csr_write(Csr.RING_SIZE, self.size)

    def ring(self, *commands: bytes) -> None:
        """Write commands and ring the doorbell."""
        for raw in commands:
            self.card.write_memory(RING + self.tail % self.size * 128, raw)
            self.tail += 1
        self.card.csr_write(Csr.RING_TAIL, self.tail)

    def run(self, *commands: bytes) -> dict[str, Any]:
        """Run one job; return its completion record."""
        self.card.write_memory(RECORD, bytes(16))
        self.ring(*commands, end())
        self.card.run(MANY)
        return self.record()

    def record(self) -> dict[str, Any]:
        """Return the completion record and acknowledge it."""
        self.card.csr_write(Csr.ACK, self.card.csr_read(Csr.COMPLETED))
        return unpack(Completion, self.card.read_memory(RECORD, 16))


def end(tag: int = 7, completion: int = RECORD) -> bytes:
    """Return an END."""
    return command(Opcode.END, {"completion": completion, "tag": tag})


def copy(
    opcode: Opcode,
    memory: int | dict[str, int],
    scratchpad: int | dict[str, int],
    x_bytes: int = 16,
    **header: Any,
) -> bytes:
    """Return a LOAD or STORE of one row an iteration."""
    return command(
        opcode, {"x_bytes": x_bytes, "y": 1, "z": 1}, operands=[memory, scratchpad], **header
    )


def add(index: int, value: int = 1) -> bytes:
    """Return a SEMAPHORE."""
    return command(Opcode.SEMAPHORE, {"index": index, "value": value})


def outcome(record: dict[str, Any]) -> tuple[Status, Unit, int]:
    """Return status, unit and command of a completion record."""
    assert record["valid"] == 1
    return Status(record["status"]), Unit(record["unit"]), record["command"]


OK = (Status.OK, Unit(0))


def patched(raw: bytes, position: int, value: int) -> bytes:
    """Return a command with one byte changed."""
    return raw[:position] + bytes([value]) + raw[position + 1 :]


def gemm_commands(
    a: npt.NDArray[np.int8],
    x: npt.NDArray[np.int8],
    out_address: int,
    *,
    tile: int,
    config: CardConfig,
) -> tuple[bytes, list[bytes]]:
    """Return a blob for address 0, and the commands of C = A x X^T with X at 0x40000.

    It goes in tiles of X's columns: two buffers for X and for C, five semaphores.
    """
    m, k = a.shape
    n = len(x)
    raw = blob(a, out_offset=np.arange(m) * 4 * tile)
    x_at = -(-len(raw) // 16) * 16
    x_bytes, out_bytes = tile * k, m * tile * 4
    out_at = x_at + 2 * x_bytes
    tiles = n // tile
    body = {"k": k, "n": tile, "n_inner": tile, "entries": m, "run_bytes": k, "runs_inner": 1}
    body |= {"slice": k, "x_inner_stride": k, "out_inner_stride": 4, "out_format": Format.INT32}
    x_free, x_full, out_free, out_full, weights = range(5)
    commands = [
        add(x_free, 2),
        add(out_free, 2),
        copy(Opcode.LOAD, 0, 0, len(raw), queue=Queue.LOAD1, signal=[semaphore(weights)]),
        command(
            Opcode.LOAD,
            {"x_bytes": x_bytes, "y": 1, "z": 1},
            operands=[operand(0x40000, inner=x_bytes), operand(x_at, pong=x_bytes)],
            inner=tiles,
            wait=[semaphore(x_free)],
            signal=[semaphore(x_full)],
        ),
        command(
            Opcode.MATMUL,
            body,
            operands=[0, operand(x_at, pong=x_bytes), operand(out_at, pong=out_bytes)],
            inner=tiles,
            wait=[semaphore(weights, outer=True), semaphore(x_full), semaphore(out_free)],
            signal=[semaphore(x_free), semaphore(out_full)],
        ),
        command(
            Opcode.STORE,
            {"x_bytes": tile * 4, "y": m, "z": 1}
            | {"memory_y_stride": n * 4, "scratchpad_y_stride": tile * 4},
            operands=[operand(out_address, inner=tile * 4), operand(out_at, pong=out_bytes)],
            inner=tiles,
            wait=[semaphore(out_full)],
            signal=[semaphore(out_free)],
        ),
    ]
    assert out_at + 2 * out_bytes <= config.scratchpad_bytes
    return raw, commands


def matmul_body(**fields: Any) -> dict[str, Any]:
    """Return the fields of a MATMUL's body; those left out are 0, the clamps those of INT8."""
    body: dict[str, Any] = unpack(MatmulBody, 0)
    body |= {"clamp_low": -128, "clamp_high": 127}
    return body | {name: int(getattr(value, "value", value)) for name, value in fields.items()}
