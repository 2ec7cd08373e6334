"""Commands as bytes: operands and semaphore references, packing, and the way back for people."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...rtl.isa import (
    ABI_VERSION,
    COMMAND_BYTES,
    BarrierBody,
    Command,
    EndBody,
    MatmulBody,
    Opcode,
    ReformatBody,
    RowsBody,
    SemaphoreBody,
    TransferBody,
    VectorBody,
)
from .packing import Packer

__all__ = ["Operand", "Signal", "Wait", "decode", "describe", "encode"]

_COMMAND = Packer(Command)
_BODIES = {
    Opcode.LOAD: Packer(TransferBody),
    Opcode.STORE: Packer(TransferBody),
    Opcode.MATMUL: Packer(MatmulBody),
    Opcode.VECTOR: Packer(VectorBody),
    Opcode.ROWS: Packer(RowsBody),
    Opcode.REFORMAT: Packer(ReformatBody),
    Opcode.SEMAPHORE: Packer(SemaphoreBody),
    Opcode.BARRIER: Packer(BarrierBody),
    Opcode.END: Packer(EndBody),
}
_BODY_OFFSET = _COMMAND.fields["body"].offset


@dataclasses.dataclass(frozen=True, slots=True)
class Operand:
    """An address in bytes that steps with the command's loops (`isa.Operand`).

    In iteration (o, i) it is ``base + o * outer + i * inner + parity * pong`` modulo 2^32, where
    ``parity`` alternates from iteration to iteration, or with ``o`` if ``pong_outer``.
    """

    base: int = 0
    inner: int = 0
    outer: int = 0
    pong: int = 0
    pong_outer: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Reference:
    sem: int
    outer: bool = False


class Wait(_Reference):
    """Take 1 from semaphore ``sem`` before each iteration, or before each outer one."""

    __slots__ = ()


class Signal(_Reference):
    """Add 1 to semaphore ``sem`` after each iteration, or after each outer one."""

    __slots__ = ()


def encode(
    opcode: int,
    body: Mapping[str, int],
    *,
    version: int = ABI_VERSION,
    queue: int = 0,
    operands: Sequence[Operand] = (),
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Pack a command; checks only that each value fits its field.

    Parameters
    ----------
    opcode : int
        Any byte; the fields of ``body`` are those of `Opcode`'s body, or none if unknown.
    body : mapping
        Fields of the body by name (``parameter[0]`` for array elements).
    """
    fields: dict[str, int] = {
        "opcode": opcode,
        "version": version,
        "queue": queue,
        "inner": inner,
        "outer": outer,
    }
    pong_outer = 0
    for number, operand in enumerate(operands):
        prefix = f"operand[{number}]."
        fields[prefix + "base"] = operand.base
        fields[prefix + "inner"] = operand.inner
        fields[prefix + "outer"] = operand.outer
        fields[prefix + "pong"] = operand.pong % (1 << 32)
        pong_outer |= operand.pong_outer << number
    fields["pong_outer"] = pong_outer
    kinds: tuple[tuple[str, Sequence[_Reference]], ...] = (("wait", wait), ("signal", signal))
    for kind, references in kinds:
        if len(references) > 4:
            raise ValueError(f"{kind} takes at most 4 semaphores, not {len(references)!r}")
        for number, reference in enumerate(references):
            prefix = f"{kind}[{number}]."
            fields[prefix + "index"] = reference.sem
            fields[prefix + "outer"] = int(reference.outer)
            fields[prefix + "enable"] = 1
    bits = _COMMAND.pack(fields)
    if body:
        bits |= _BODIES[Opcode(opcode)].pack(body) << _BODY_OFFSET
    return bits.to_bytes(COMMAND_BYTES, "little")


def decode(command: bytes) -> dict[str, Any]:
    """Return every field of a command, body included, by name; enumerations as their members.

    An unknown opcode leaves the raw number and no body.
    """
    if len(command) != COMMAND_BYTES:
        raise ValueError(f"a command has {COMMAND_BYTES} bytes, not {len(command)!r}")
    bits = int.from_bytes(command, "little")
    fields: dict[str, Any] = _COMMAND.unpack(bits)
    body = fields.pop("body")
    try:
        opcode = Opcode(fields["opcode"])
    except ValueError:
        return fields
    fields["opcode"] = opcode
    fields.update(_BODIES[opcode].unpack(body))
    return fields


def describe(command: bytes) -> str:
    """Return a command in one line for people: its opcode and every field that is not 0."""
    fields = decode(command)
    opcode = fields.pop("opcode")
    name = opcode.name if isinstance(opcode, Opcode) else f"opcode {opcode}"
    if fields.pop("version") == ABI_VERSION:
        version = ""
    else:
        version = f" version={command[1]}"
    parts = [f"{key}={_show(key, value)}" for key, value in fields.items() if value]
    return f"{name}{version}" + (f"({', '.join(parts)})" if parts else "")


def _show(key: str, value: int) -> str:
    address = key.endswith((".base", ".pong")) or key == "completion"
    return f"{value:#x}" if address else str(value)
