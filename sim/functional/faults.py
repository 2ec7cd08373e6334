"""Puts one fault into one command of a job, of every kind that `checks` lists."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from amaranth.lib import data

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import (
    SEMAPHORES,
    Command,
    DirectoryEntry,
    Format,
    MatmulFlag,
    Opcode,
    Queue,
    Status,
    Unit,
)
from .checks import BODIES, QUEUES, SIZES
from .decode import dtype, pack, unpack
from .random_jobs import RandomJob

__all__ = ["Fault", "inject"]

Fields = dict[str, Any]

FAR = 1 << 31
"""A byte address far outside every memory."""


class Fault(NamedTuple):
    """How a job with a fault must end."""

    status: Status
    unit: Unit
    command: int


class _Target:
    """A command that gets a fault: its fields, and those of its body."""

    def __init__(self, job: RandomJob, index: int, config: CardConfig, rng: np.random.Generator):
        self.job, self.index, self.config, self.rng = job, index, config, rng
        self.header: Fields = unpack(Command, job.commands[index])
        self.opcode = Opcode(self.header["opcode"])
        self.body: Fields = unpack(BODIES[self.opcode], self.header["body"])

    def choose(self, *items: Any) -> Any:
        return items[self.rng.integers(len(items))]

    def save(self) -> None:
        body = pack(BODIES[self.opcode], self.body)
        raw = bytearray(pack(Command, {**self.header, "body": body}))
        self.job.commands[self.index] = bytes(raw)

    def operand(self) -> int:
        """Choose an operand that is used."""
        used = {Opcode.POOL: (1, 2), Opcode.MATMUL: (0, 1, 2)}
        return int(self.choose(*used.get(self.opcode, (0, 1))))

    def entry(self) -> Any:
        """Return an entry of the MATMUL's first directory that is not empty, to be changed."""
        address, used = self.job.blobs[self.index]
        raw = next(content for place, content in self.job.writes if place == address)
        entries = raw[: len(used) * GRANULE].view(dtype(DirectoryEntry))
        return entries[self.rng.choice(np.flatnonzero(used))]


Kind = Callable[[_Target], Status | None]

# Each of these changes the target and returns the status, or returns None if it does not apply.


def _opcode(t: _Target) -> Status | None:
    if t.opcode is Opcode.END:
        return None
    known = {opcode.value for opcode in Opcode}
    t.header["opcode"] = t.choose(*sorted(set(range(256)) - known))
    return Status.BAD_OPCODE


def _queue(t: _Target) -> Status:
    allowed = QUEUES.get(t.opcode, (Queue(0),))
    t.header["queue"] = t.choose(*sorted(set(range(256)) - {int(queue) for queue in allowed}))
    return Status.BAD_OPCODE


def _version(t: _Target) -> Status:
    t.header["version"] = t.choose(0, 2, 129, 255)
    return Status.BAD_VERSION


def _reserved_header(t: _Target) -> Status:
    t.header[t.choose("wait", "signal")][t.rng.integers(4)]["reserved"] = t.choose(1, 2, 3)
    return Status.BAD_FORMAT


def _pong_outer(t: _Target) -> Status:
    t.header["pong_outer"] |= t.choose(8, 16, 32, 64, 128)
    return Status.BAD_FORMAT


def _reserved_body(t: _Target) -> Status:
    layout = data.Layout.cast(BODIES[t.opcode])
    names = [name for name in t.body if name.startswith("reserved")]
    name = t.choose(*names)
    t.body[name] |= 1 << int(t.rng.integers(layout[name].width))
    return Status.BAD_FORMAT


def _semaphore(t: _Target) -> Status | None:
    if t.opcode is not Opcode.SEMAPHORE:
        return None
    t.body["index"] = t.choose(SEMAPHORES, 100, 255)
    return Status.BAD_FORMAT


def _no_iterations(t: _Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    t.header[t.choose("inner", "outer")] = 0
    return Status.BAD_LENGTH


def _zero(t: _Target) -> Status | None:
    names = {
        Opcode.LOAD: ("x_bytes", "y", "z"),
        Opcode.STORE: ("x_bytes", "y", "z"),
        Opcode.MATMUL: ("k", "n", "n_inner", "visits", "run_bytes"),
        Opcode.POOL: ("granules", "out_y", "out_x", "kernel_y", "kernel_x"),
    }
    if t.opcode not in names:
        return None
    t.body[t.choose(*names[t.opcode])] = 0
    return Status.BAD_LENGTH


def _long(t: _Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL:
        return None
    t.body["k"] = t.choose(t.config.operand_depth + 1, 2 * t.config.operand_depth, 65535)
    return Status.BAD_LENGTH


def _broken_runs(t: _Target) -> Status | None:
    size = SIZES[Format(t.body["in_format"])] if t.opcode is Opcode.MATMUL else 1
    if t.opcode is not Opcode.MATMUL or t.body["run_bytes"] == size or t.body["k"] == 1:
        return None
    t.body["k"] -= 1
    return Status.BAD_LENGTH


def _format(t: _Target) -> Status | None:
    if t.opcode is Opcode.POOL:
        t.body["in_format"] = t.choose(1, 2, 3, 4, 255)
    elif t.opcode is Opcode.MATMUL:
        changes = {
            "out_format": t.choose(4, 5, 131),
            "function": t.choose(2, 128, 255),
            "flags": t.body["flags"] | t.choose(2, 4, 128),
        }
        if t.body["in_format"] == Format.INT8.value:
            changes["in_format"] = t.choose(Format.INT32.value, Format.FP32.value, 4, 128)
        elif t.rng.random() < 0.2:
            changes = {"out_format": Format.INT32.value}
        name = t.choose(*changes)
        t.body[name] = changes[name]
    else:
        return None
    return Status.BAD_FORMAT


def _misaligned_base(t: _Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    base, unit = t.operand(), GRANULE
    if t.opcode is Opcode.MATMUL and base:
        unit = SIZES[Format(t.body["in_format" if base == 1 else "out_format"])]
    if unit == 1:
        return None
    t.header["operand"][base]["base"] += int(t.rng.integers(1, unit))
    return Status.BAD_ALIGNMENT


def _misaligned_field(t: _Target) -> Status | None:
    if t.opcode not in QUEUES:
        return None
    names = [name for name in t.body if name.endswith("_stride")]
    if t.opcode in (Opcode.LOAD, Opcode.STORE):
        names.append("x_bytes")
    name, unit = t.choose(*names), GRANULE
    if t.opcode is Opcode.MATMUL:
        unit = SIZES[Format(t.body["in_format" if name.startswith("x") else "out_format"])]
    if unit == 1:
        return None
    t.body[name] += int(t.rng.integers(1, unit))
    return Status.BAD_ALIGNMENT


def _misaligned_entry(t: _Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL or t.body["out_format"] == Format.INT8.value:
        return None
    t.entry()["out_offset"] ^= 1
    return Status.BAD_ALIGNMENT


def _far_base(t: _Target) -> Status | None:
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


def _far_later(t: _Target) -> Status | None:
    """Only the last iteration is outside."""
    if t.opcode not in QUEUES or t.header["inner"] == 1:
        return None
    step = FAR // (t.header["inner"] - 1) & -GRANULE
    t.header["operand"][t.operand()]["inner"] = -step
    return Status.BAD_ADDRESS


def _far_field(t: _Target) -> Status | None:
    known: dict[Opcode, dict[str, tuple[str, ...]]] = {
        Opcode.LOAD: {"y": ("memory_y", "scratchpad_y"), "z": ("memory_z", "scratchpad_z")},
        Opcode.STORE: {"y": ("memory_y", "scratchpad_y"), "z": ("memory_z", "scratchpad_z")},
        Opcode.POOL: {
            "out_y": ("in_y", "out_y"),
            "out_x": ("in_x", "out_x"),
            "kernel_y": ("in_ky",),
            "kernel_x": ("in_kx",),
        },
    }
    names = known.get(t.opcode)
    if names is None:
        return None
    name = t.choose(*names)
    if t.body[name] == 1:
        return None
    t.body[t.choose(*names[name]) + "_stride"] = t.choose(-FAR, FAR - GRANULE)
    return Status.BAD_ADDRESS


def _far_window(t: _Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL or t.body["n"] <= t.body["n_inner"]:
        return None
    name = t.choose("x", "out")
    t.body[f"{name}_outer_stride"] = t.choose(-FAR, FAR - GRANULE)
    return Status.BAD_ADDRESS


def _far_entry(t: _Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL:
        return None
    entry = t.entry()
    if t.rng.random() < 0.5:
        entry["out_offset"] ^= np.uint32(FAR)
    else:
        entry["stream"] = 65535
    return Status.BAD_ADDRESS


def _index(t: _Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL:
        return None
    k, entry = t.body["k"], t.entry()
    if not t.body["flags"] & MatmulFlag.SPARSE.value:
        entry["count"] = k + 1 if k == 1 else t.choose(k - 1, k + 1)
        return Status.BAD_INDEX
    if k > 255:
        return None
    place = t.job.blobs[t.index][0]
    raw = next(content for address, content in t.job.writes if address == place)
    first_delta = 8 if t.body["in_format"] == Format.INT8.value else 10
    raw[int(entry["stream"]) * GRANULE + first_delta] = 255
    return Status.BAD_INDEX


def _completion(t: _Target) -> Status | None:
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
    _long,
    _broken_runs,
    _format,
    _misaligned_base,
    _misaligned_field,
    _misaligned_entry,
    _far_base,
    _far_later,
    _far_field,
    _far_window,
    _far_entry,
    _index,
)
KINDS = tuple(kind.__name__.removeprefix("_") for kind in SEQUENCER_KINDS + UNIT_KINDS)
"""Names of the kinds of faults."""


def inject(job: RandomJob, kind: str, config: CardConfig, rng: np.random.Generator) -> Fault | None:
    """Put a fault of a kind into one command; return how the job must end, None if none takes it.

    The job's commands may include its END.
    """
    functions = {f.__name__.removeprefix("_"): f for f in SEQUENCER_KINDS + UNIT_KINDS}
    for index in rng.permutation(len(job.commands)).tolist():
        target = _Target(job, index, config, rng)
        status = functions[kind](target)
        if status is not None:
            target.save()
            units = functions[kind] in UNIT_KINDS
            unit = Unit(target.header["queue"]) if units else Unit.SEQUENCER
            return Fault(status, unit, index)
    return None
