"""Builders of commands: each returns the 128 bytes that the card fetches.

Every builder checks ranges, alignment and what the unit can do, and raises `ValueError` with the
name of the argument, so that a mistake shows where it was made and not as a status code of the
card. `encode` skips these checks, for whoever wants to send a malformed command.

A command runs ``outer * inner`` iterations in hardware. An `Operand` says how an address steps
with them; `Wait` and `Signal` name the semaphores that order the command among the queues.
"""

from collections.abc import Sequence
from typing import Any

from ...rtl.config import GRANULE
from ...rtl.isa import Opcode, Queue
from .checks import aligned, looped, multiple, positive, semaphore_index
from .encoding import Operand, Signal, Wait, decode, describe, encode
from .matmul import matmul
from .reformat import compress, expand, transpose
from .rows import Rows, affine, columns, normalize, quantize, softmax
from .vector import pool, vector

__all__ = [
    "Operand",
    "Rows",
    "Signal",
    "Wait",
    "affine",
    "barrier",
    "columns",
    "compress",
    "decode",
    "describe",
    "encode",
    "end",
    "expand",
    "load",
    "matmul",
    "normalize",
    "pool",
    "quantize",
    "semaphore",
    "softmax",
    "store",
    "transpose",
    "vector",
]


def load(
    memory: Operand,
    scratchpad: Operand,
    *,
    x_bytes: int,
    y: int = 1,
    z: int = 1,
    memory_y_stride: int = 0,
    memory_z_stride: int = 0,
    scratchpad_y_stride: int = 0,
    scratchpad_z_stride: int = 0,
    queue: Queue = Queue.LOAD0,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Copy ``z * y`` rows of ``x_bytes`` bytes from card memory to the scratchpad.

    Every address, stride and length is a multiple of 16 bytes.

    Parameters
    ----------
    queue : Queue
        LOAD0 or LOAD1: two loads that run side by side.
    """
    if queue not in (Queue.LOAD0, Queue.LOAD1):
        raise ValueError(f"queue of a load must be LOAD0 or LOAD1, not {queue!r}")
    return _transfer(
        Opcode.LOAD,
        queue,
        memory,
        scratchpad,
        x_bytes,
        (y, z),
        (memory_y_stride, memory_z_stride, scratchpad_y_stride, scratchpad_z_stride),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def store(
    memory: Operand,
    scratchpad: Operand,
    *,
    x_bytes: int,
    y: int = 1,
    z: int = 1,
    memory_y_stride: int = 0,
    memory_z_stride: int = 0,
    scratchpad_y_stride: int = 0,
    scratchpad_z_stride: int = 0,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Copy ``z * y`` rows of ``x_bytes`` bytes from the scratchpad to card memory (see `load`)."""
    return _transfer(
        Opcode.STORE,
        Queue.STORE,
        memory,
        scratchpad,
        x_bytes,
        (y, z),
        (memory_y_stride, memory_z_stride, scratchpad_y_stride, scratchpad_z_stride),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def semaphore(index: int, value: int) -> bytes:
    """Add ``value`` (1 to 255) to semaphore ``index``, in the order of the command stream."""
    semaphore_index(index)
    positive("value", value, 0xFF)
    return encode(Opcode.SEMAPHORE.value, {"index": index, "value": value})


def barrier() -> bytes:
    """Wait until every queue is empty and every unit idle, then clear all semaphores."""
    return encode(Opcode.BARRIER.value, {})


def end(completion: int, tag: int = 0) -> bytes:
    """End the job: a barrier that then writes the `Completion` with ``tag``.

    Parameters
    ----------
    completion : int
        Byte address in card memory, a multiple of 16.
    """
    multiple("completion", completion, GRANULE)
    return encode(Opcode.END.value, {"completion": completion, "tag": tag})


def _transfer(
    opcode: Opcode,
    queue: Queue,
    memory: Operand,
    scratchpad: Operand,
    x_bytes: int,
    counts: tuple[int, int],
    strides: tuple[int, int, int, int],
    **loops: Any,
) -> bytes:
    y, z = counts
    body = {"x_bytes": x_bytes, "y": y, "z": z}
    positive("x_bytes", x_bytes, 0xFFFFFFFF)
    multiple("x_bytes", x_bytes, GRANULE)
    positive("y", y, 0xFFFF)
    positive("z", z, 0xFFFF)
    names = ("memory_y_stride", "memory_z_stride", "scratchpad_y_stride", "scratchpad_z_stride")
    for name, stride in zip(names, strides, strict=True):
        multiple(name, stride, GRANULE)
        body[name] = stride
    aligned("memory", memory, GRANULE)
    aligned("scratchpad", scratchpad, GRANULE)
    return looped(opcode, body, queue, (memory, scratchpad), **loops)
