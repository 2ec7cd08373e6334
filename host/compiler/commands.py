"""Builders of commands: each returns the 128 bytes that the card fetches.

Every builder checks ranges, alignment and what the unit can do, and raises `ValueError` with the
name of the argument, so that a mistake shows where it was made and not as a status code of the
card. `encode` skips these checks, for whoever wants to send a malformed command.

A command runs ``outer * inner`` iterations in hardware. An `Operand` says how an address steps
with them; `Wait` and `Signal` name the semaphores that order the command among the queues.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...rtl.config import GRANULE
from ...rtl.isa import (
    SEMAPHORES,
    Format,
    Function,
    MatmulFlag,
    Opcode,
    Queue,
)
from .encoding import Operand, Signal, Wait, decode, describe, encode

__all__ = [
    "FORMAT_BYTES",
    "Operand",
    "Signal",
    "Wait",
    "barrier",
    "decode",
    "describe",
    "encode",
    "end",
    "load",
    "matmul",
    "pool",
    "semaphore",
    "store",
]

FORMAT_BYTES = {Format.INT8: 1, Format.FP16: 2, Format.INT32: 4, Format.FP32: 4}
"""Bytes of a number of each format."""


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


def matmul(
    blob: Operand,
    x: Operand,
    out: Operand,
    *,
    k: int,
    n: int,
    visits: int,
    x_inner_stride: int,
    in_format: Format = Format.INT8,
    out_format: Format = Format.INT8,
    n_inner: int | None = None,
    run_bytes: int | None = None,
    x_run_stride: int = 0,
    x_outer_stride: int = 0,
    out_inner_stride: int | None = None,
    out_outer_stride: int = 0,
    sparse: bool = False,
    function: Function = Function.NONE,
    zero_point: int = 0,
    clamp: tuple[int, int] = (-128, 127),
    parameters: Sequence[int] = (),
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Multiply the row streams of a blob (`streams.encode_blob`) by ``n`` resident columns.

    All three operands are scratchpad addresses. Where column j's element k lies, and where the
    result of directory entry e goes, is in `isa.MatmulBody`.

    Parameters
    ----------
    n_inner : int
        Columns of the inner of the two column loops; ``n`` if not given.
    run_bytes : int
        Contiguous bytes of a column; all of it (``k`` numbers) if not given.
    out_inner_stride : int
        One number of ``out_format`` if not given.
    visits : int
        Directory entries of each engine (`streams.Blob.visits`).
    zero_point, clamp
        For INT8 results.
    """
    size = FORMAT_BYTES[in_format]
    out_size = FORMAT_BYTES[out_format]
    if in_format not in (Format.INT8, Format.FP16):
        raise ValueError(f"in_format must be INT8 or FP16, not {in_format!r}")
    if in_format is Format.FP16 and out_format is Format.INT32:
        raise ValueError("out_format must be INT8, FP16 or FP32 for FP16 inputs, not INT32")
    if n_inner is None:
        n_inner = n
    if run_bytes is None:
        run_bytes = k * size
    if out_inner_stride is None:
        out_inner_stride = out_size
    for name, value in (("k", k), ("n", n), ("n_inner", n_inner), ("visits", visits)):
        _positive(name, value, 0xFFFF)
    if run_bytes < size or run_bytes % size or k * size % run_bytes:
        raise ValueError(
            f"run_bytes must be whole numbers that divide the {k * size} bytes of K, "
            f"not {run_bytes!r}"
        )
    _aligned("blob", blob, GRANULE)
    _aligned("x", x, size)
    _aligned("out", out, out_size)
    for name, value in (
        ("x_run_stride", x_run_stride),
        ("x_inner_stride", x_inner_stride),
        ("x_outer_stride", x_outer_stride),
    ):
        _multiple(name, value, size)
    for name, value in (
        ("out_inner_stride", out_inner_stride),
        ("out_outer_stride", out_outer_stride),
    ):
        _multiple(name, value, out_size)
    low, high = clamp
    if out_format is Format.INT8:
        if not -128 <= zero_point <= 127:
            raise ValueError(f"zero_point must be from -128 to 127, not {zero_point!r}")
        if not -128 <= low <= high <= 127:
            raise ValueError(f"clamp must be ordered and from -128 to 127, not {clamp!r}")
    elif zero_point:
        raise ValueError(f"zero_point must be 0 for {out_format.name} results, not {zero_point!r}")
    body = {
        "k": k,
        "n": n,
        "n_inner": n_inner,
        "visits": visits,
        "run_bytes": run_bytes,
        "x_run_stride": x_run_stride,
        "x_inner_stride": x_inner_stride,
        "x_outer_stride": x_outer_stride,
        "out_inner_stride": out_inner_stride,
        "out_outer_stride": out_outer_stride,
        "in_format": in_format.value,
        "out_format": out_format.value,
        "flags": int(MatmulFlag.SPARSE) if sparse else 0,
        "function": function.value,
        "zero_point": zero_point,
        "clamp_low": low,
        "clamp_high": high,
    }
    for number, parameter in enumerate(parameters):
        body[f"parameter[{number}]"] = parameter
    return _looped(
        Opcode.MATMUL,
        body,
        Queue.COMPUTE,
        (blob, x, out),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def pool(
    x: Operand,
    out: Operand,
    *,
    granules: int,
    out_y: int,
    out_x: int,
    kernel_y: int,
    kernel_x: int,
    in_y_stride: int,
    in_x_stride: int,
    in_ky_stride: int,
    in_kx_stride: int,
    out_y_stride: int,
    out_x_stride: int,
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """INT8 maximum over windows of ``granules * 16`` channels, scratchpad to scratchpad.

    Strides are in bytes, multiples of 16. The output overlaps neither the input nor the input of
    the next iteration (`isa.PoolBody`).
    """
    body = {"granules": granules, "out_y": out_y, "out_x": out_x}
    body |= {"kernel_y": kernel_y, "kernel_x": kernel_x}
    for name, value in body.items():
        _positive(name, value, 0xFF if name.startswith("kernel") else 0xFFFF)
    strides = {
        "in_y_stride": in_y_stride,
        "in_x_stride": in_x_stride,
        "in_ky_stride": in_ky_stride,
        "in_kx_stride": in_kx_stride,
        "out_y_stride": out_y_stride,
        "out_x_stride": out_x_stride,
    }
    for name, value in strides.items():
        _multiple(name, value, GRANULE)
    _aligned("x", x, GRANULE)
    _aligned("out", out, GRANULE)
    return _looped(
        Opcode.POOL,
        body | strides | {"in_format": Format.INT8.value},
        Queue.VECTOR,
        (Operand(), x, out),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def semaphore(index: int, value: int) -> bytes:
    """Add ``value`` (1 to 255) to semaphore ``index``, in the order of the command stream."""
    _semaphore(index)
    _positive("value", value, 0xFF)
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
    _multiple("completion", completion, GRANULE)
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
    _positive("x_bytes", x_bytes, 0xFFFFFFFF)
    _multiple("x_bytes", x_bytes, GRANULE)
    _positive("y", y, 0xFFFF)
    _positive("z", z, 0xFFFF)
    names = ("memory_y_stride", "memory_z_stride", "scratchpad_y_stride", "scratchpad_z_stride")
    for name, stride in zip(names, strides, strict=True):
        _multiple(name, stride, GRANULE)
        body[name] = stride
    _aligned("memory", memory, GRANULE)
    _aligned("scratchpad", scratchpad, GRANULE)
    return _looped(opcode, body, queue, (memory, scratchpad), **loops)


def _looped(
    opcode: Opcode,
    body: Mapping[str, int],
    queue: Queue,
    operands: Sequence[Operand],
    *,
    inner: int,
    outer: int,
    wait: Sequence[Wait],
    signal: Sequence[Signal],
) -> bytes:
    _positive("inner", inner, 0xFFFF)
    _positive("outer", outer, 0xFFFF)
    references: tuple[Wait | Signal, ...] = (*wait, *signal)
    for reference in references:
        _semaphore(reference.sem)
    return encode(
        opcode.value,
        body,
        queue=queue,
        operands=operands,
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def _positive(name: str, value: int, limit: int) -> None:
    if not 1 <= value <= limit:
        raise ValueError(f"{name} must be from 1 to {limit}, not {value!r}")


def _multiple(name: str, value: int, unit: int) -> None:
    if value % unit:
        raise ValueError(f"{name} must be a multiple of {unit}, not {value!r}")


def _aligned(name: str, operand: Operand, unit: int) -> None:
    for field in ("base", "inner", "outer", "pong"):
        _multiple(f"{name}.{field}", getattr(operand, field), unit)


def _semaphore(index: int) -> None:
    if not 0 <= index < SEMAPHORES:
        raise ValueError(f"semaphore must be from 0 to {SEMAPHORES - 1}, not {index!r}")
