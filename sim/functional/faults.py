"""Puts one fault into one command of a job, of every kind that `checks` lists."""

from typing import NamedTuple

import numpy as np
from amaranth.lib import data

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import (
    MAX_ANCHOR,
    MIN_ANCHOR,
    SEMAPHORES,
    Format,
    Opcode,
    Queue,
    Status,
    Unit,
    VectorOp,
)
from .checks import BODIES, PAIRS, QUEUES
from .fault_matmul import MATMUL_KINDS
from .fault_target import FAR, Kind, Target
from .random_jobs import RandomJob

__all__ = ["KINDS", "Fault", "inject"]


class Fault(NamedTuple):
    """How a job with a fault must end."""

    status: Status
    unit: Unit
    command: int


# Each of these changes the target and returns the status, or returns None if it does not apply.


def _opcode(t: Target) -> Status | None:
    if t.opcode is Opcode.END:
        return None
    known = {opcode.value for opcode in Opcode}
    t.header["opcode"] = t.choose(*sorted(set(range(256)) - known))
    return Status.BAD_OPCODE


def _queue(t: Target) -> Status:
    allowed = QUEUES.get(t.opcode, (Queue(0),))
    t.header["queue"] = t.choose(*sorted(set(range(256)) - {int(queue) for queue in allowed}))
    return Status.BAD_OPCODE


def _version(t: Target) -> Status:
    t.header["version"] = t.choose(0, 1, 3, 129, 255)
    return Status.BAD_VERSION


def _reserved_header(t: Target) -> Status:
    t.header[t.choose("wait", "signal")][t.rng.integers(4)]["reserved"] = t.choose(1, 2, 3)
    return Status.BAD_FORMAT


def _pong_outer(t: Target) -> Status:
    t.header["pong_outer"] |= t.choose(8, 16, 32, 64, 128)
    return Status.BAD_FORMAT


def _reserved_body(t: Target) -> Status | None:
    layout = data.Layout.cast(BODIES[t.opcode])
    names = [name for name in t.body if name.startswith("reserved")]
    if not names:
        return None
    name = t.choose(*names)
    t.body[name] |= 1 << int(t.rng.integers(layout[name].width))
    return Status.BAD_FORMAT


def _semaphore(t: Target) -> Status | None:
    if t.opcode is not Opcode.SEMAPHORE:
        return None
    t.body["index"] = t.choose(SEMAPHORES, 100, 255)
    return Status.BAD_FORMAT


def _no_iterations(t: Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    t.header[t.choose("inner", "outer")] = 0
    return Status.BAD_LENGTH


def _zero(t: Target) -> Status | None:
    names = {
        Opcode.LOAD: ("x_bytes", "y", "z"),
        Opcode.STORE: ("x_bytes", "y", "z"),
        Opcode.MATMUL: ("k", "n", "n_inner", "entries", "run_bytes", "runs_inner", "slice"),
        Opcode.VECTOR: ("granules", "out_y", "out_x", "kernel_y", "kernel_x"),
    }
    if t.opcode not in names:
        return None
    t.body[t.choose(*names[t.opcode])] = 0
    return Status.BAD_LENGTH


def _format(t: Target) -> Status | None:
    if t.opcode is Opcode.VECTOR:
        name, values = t.choose(("in_format", (1, 2, 3, 4, 255)), ("op", (4, 7, 132, 255)))
        t.body[name] = t.choose(*values)
        return Status.BAD_FORMAT
    if t.opcode is not Opcode.MATMUL:
        return None
    no_inputs = (Format.INT32.value, Format.FP32.value, 8, 131)
    changes = {
        "stream_format": t.choose(*no_inputs),
        "in_format": t.choose(*no_inputs),
        "out_format": t.choose(8, 9, 131),
        "encoding": t.choose(5, 6, 133),
        "function": t.choose(2, 128, 255),
        "flags": t.body["flags"] | t.choose(2, 4, 128),
        "anchor": t.choose(MIN_ANCHOR - 1, MAX_ANCHOR + 1, -(1 << 15), (1 << 15) - 1),
    }
    name = t.choose(*changes)
    t.body[name] = changes[name]
    return Status.BAD_FORMAT


def _misaligned_base(t: Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    base, unit = t.operand(), GRANULE
    if t.opcode is Opcode.MATMUL and base:
        unit = max(1, t.bits("in" if base == 1 else "out") // 8)
    if unit == 1:
        return None
    t.header["operand"][base]["base"] += int(t.rng.integers(1, unit))
    return Status.BAD_ALIGNMENT


def _misaligned_field(t: Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    names = [name for name in t.body if name.endswith("_stride")]
    if t.opcode in (Opcode.LOAD, Opcode.STORE):
        names.append("x_bytes")
    name, unit = t.choose(*names), GRANULE
    if t.opcode is Opcode.MATMUL:
        unit = max(1, t.bits("in" if name.startswith("x") else "out") // 8)
    if unit == 1:
        return None
    t.body[name] += int(t.rng.integers(1, unit))
    return Status.BAD_ALIGNMENT


def _far_base(t: Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    base = t.operand()
    size = t.config.scratchpad_bytes
    if t.opcode in (Opcode.LOAD, Opcode.STORE) and base == 0:
        size = t.config.memory_bytes
    t.header["operand"][base]["base"] = t.choose(size, FAR, FAR + size, (1 << 32) - GRANULE)
    t.header["operand"][base]["pong"] = 0
    if t.opcode is Opcode.MATMUL and base == 2:
        # Offsets of entries may bring it back.
        t.header["operand"][base]["base"] = FAR
    return Status.BAD_ADDRESS


def _far_later(t: Target) -> Status | None:
    """Only the last iteration is outside."""
    if t.opcode not in QUEUES or t.header["inner"] == 1:
        return None
    step = FAR // (t.header["inner"] - 1) & -GRANULE
    t.header["operand"][t.operand()]["inner"] = -step
    return Status.BAD_ADDRESS


def _far_field(t: Target) -> Status | None:
    known: dict[Opcode, dict[str, tuple[str, ...]]] = {
        Opcode.LOAD: {"y": ("memory_y", "scratchpad_y"), "z": ("memory_z", "scratchpad_z")},
        Opcode.STORE: {"y": ("memory_y", "scratchpad_y"), "z": ("memory_z", "scratchpad_z")},
        Opcode.VECTOR: {
            "out_y": ("in_y", "out_y"),
            "out_x": ("in_x", "out_x"),
            "kernel_y": ("in_ky",),
            "kernel_x": ("in_kx",),
        },
    }
    names = known.get(t.opcode)
    if names is None:
        return None
    if t.opcode is Opcode.VECTOR and t.body["op"] in PAIRS:
        names = {"out_y": ("in_y", "in_ky", "out_y"), "out_x": ("in_x", "in_kx", "out_x")}
    name = t.choose(*names)
    if t.body[name] == 1:
        return None
    t.body[t.choose(*names[name]) + "_stride"] = t.choose(-FAR, FAR - GRANULE)
    return Status.BAD_ADDRESS


def _kernel_of_pair(t: Target) -> Status | None:
    if t.opcode is not Opcode.VECTOR or t.body["op"] not in PAIRS:
        return None
    t.body[t.choose("kernel_y", "kernel_x")] = t.choose(2, 3, 128, 255)
    return Status.BAD_LENGTH


def _vector_scale(t: Target) -> Status | None:
    if t.opcode is not Opcode.VECTOR or t.body["op"] == VectorOp.MAX.value:
        return None
    adds = t.body["op"] == VectorOp.ADD.value
    bad = (0, 1, 0x7FFFFF, 1 << 31, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF)
    t.body[t.choose("a_scale", "b_scale") if adds else "a_scale"] = t.choose(*bad)
    return Status.BAD_SCALE


def _completion(t: Target) -> Status | None:
    if t.opcode is not Opcode.END:
        return None
    if t.rng.random() < 0.5:
        t.body["completion"] += int(t.rng.integers(1, GRANULE))
        return Status.BAD_ALIGNMENT
    t.body["completion"] = t.choose(t.config.memory_bytes, FAR, (1 << 32) - GRANULE)
    return Status.BAD_ADDRESS


SEQUENCER_KINDS: tuple[Kind, ...] = (
    _opcode,
    _queue,
    _version,
    _reserved_header,
    _pong_outer,
    _reserved_body,
    _semaphore,
    _no_iterations,
    _completion,
)
UNIT_KINDS: tuple[Kind, ...] = (
    _zero,
    _format,
    _misaligned_base,
    _misaligned_field,
    _far_base,
    _far_later,
    _far_field,
    _kernel_of_pair,
    _vector_scale,
    *MATMUL_KINDS,
)
KINDS = tuple(kind.__name__.removeprefix("_") for kind in SEQUENCER_KINDS + UNIT_KINDS)
"""Names of the kinds of faults."""


def inject(job: RandomJob, kind: str, config: CardConfig, rng: np.random.Generator) -> Fault | None:
    """Put a fault of a kind into one command; return how the job must end, None if none takes it.

    The job's commands may include its END.
    """
    functions = {f.__name__.removeprefix("_"): f for f in SEQUENCER_KINDS + UNIT_KINDS}
    for index in rng.permutation(len(job.commands)).tolist():
        target = Target(job, index, config, rng)
        status = functions[kind](target)
        if status is not None:
            target.save()
            units = functions[kind] in UNIT_KINDS
            unit = Unit(target.header["queue"]) if units else Unit.SEQUENCER
            return Fault(status, unit, index)
    return None
