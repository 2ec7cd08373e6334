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
    ReformatOp,
    RowsOp,
    Status,
    Unit,
    VectorOp,
)
from .checks import BODIES, PAIRS, QUEUES
from .fault_matmul import MATMUL_KINDS
from .fault_target import FAR, Kind, Target
from .random_jobs import RandomJob
from .random_operands import WORD
from .reformat import FORMATS
from .rows import FLAGS, IN_FORMATS, OUT_FORMATS, scales_of, writes_scale

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
    t.header["version"] = t.choose(0, 1, 2, 4, 131, 255)
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
        Opcode.ROWS: ("length", "y", "z"),
        Opcode.REFORMAT: ("rows", "length", "batch"),
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
    if t.opcode is Opcode.ROWS:
        unknown = [1 << bit for bit in range(8) if not FLAGS[RowsOp(t.body["op"])] >> bit & 1]
        numbers = [
            tuple(sorted({*range(10), 131} - {fmt.value for fmt in formats}))
            for formats in (IN_FORMATS, OUT_FORMATS)
        ]
        name, values = t.choose(
            ("op", (4, 5, 128, 255)),
            ("flags", tuple(t.body["flags"] | bit for bit in unknown)),
            ("in_format", numbers[0]),
            ("out_format", numbers[1]),
        )
        t.body[name] = t.choose(*values)
        return Status.BAD_FORMAT
    if t.opcode is Opcode.REFORMAT:
        known = {fmt.value for fmt in FORMATS[ReformatOp(t.body["op"])]}
        unknown = sorted(set(range(12)) - known)
        name, values = t.choose(("in_format", (*unknown, 128, 255)), ("op", (3, 4, 128, 255)))
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
        "flags": t.body["flags"] | t.choose(4, 8, 128),
        "anchor": t.choose(MIN_ANCHOR - 1, MAX_ANCHOR + 1, -(1 << 15), (1 << 15) - 1),
    }
    name = t.choose(*changes)
    t.body[name] = changes[name]
    return Status.BAD_FORMAT


def _misaligned_base(t: Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    base = t.operand()
    unit = t.operands()[base]
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
        unit = t.operands()[1 if name.startswith("x") else 2]
    if t.opcode is Opcode.REFORMAT and name.startswith("index"):
        unit = t.operands().get(0, 1)
    if t.opcode is Opcode.ROWS and name.startswith("scale"):
        unit = t.operands()[0] if writes_scale(t.body) else 1
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
        Opcode.ROWS: {},
        Opcode.REFORMAT: {"rows": ("in",), "batch": ("in_batch", "out_batch")},
    }
    names = known.get(t.opcode)
    if names is None:
        return None
    if t.opcode is Opcode.VECTOR and t.body["op"] in PAIRS:
        names = {"out_y": ("in_y", "in_ky", "out_y"), "out_x": ("in_x", "in_kx", "out_x")}
    if t.opcode is Opcode.ROWS:
        sides = ("in", "out", "scale") if writes_scale(t.body) else ("in", "out")
        names = {axis: tuple(f"{side}_{axis}" for side in sides) for axis in "yz"}
    if t.opcode is Opcode.REFORMAT:
        transposed = t.body["op"] == ReformatOp.TRANSPOSE.value
        names |= {"length": ("out",)} if transposed else {"rows": ("in", "out", "index")}
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


NO_SCALES = (0, 1, 0x7FFFFF, 1 << 31, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, WORD)
"""FP32 numbers that are not normal."""


def _vector_scale(t: Target) -> Status | None:
    if t.opcode is not Opcode.VECTOR or t.body["op"] == VectorOp.MAX.value:
        return None
    adds = t.body["op"] == VectorOp.ADD.value
    t.body[t.choose("a_scale", "b_scale") if adds else "a_scale"] = t.choose(*NO_SCALES)
    return Status.BAD_SCALE


def _rows_scale(t: Target) -> Status | None:
    if t.opcode is not Opcode.ROWS:
        return None
    name, positive = t.choose(*scales_of(t.body))
    t.body[name] = t.choose(*NO_SCALES, *([t.body[name] | 1 << 31] if positive else []))
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
    _rows_scale,
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
