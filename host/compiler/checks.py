"""Checks that the command builders share, and the header that their commands share."""

from collections.abc import Mapping, Sequence

from ...rtl.config import CardConfig
from ...rtl.isa import SEMAPHORES, Opcode, Queue
from .encoding import Operand, Signal, Wait, encode

__all__ = ["aligned", "check_part", "looped", "multiple", "positive", "semaphore_index"]


def positive(name: str, value: int, limit: int) -> None:
    """Raise `ValueError` unless ``value`` is from 1 to ``limit``."""
    if not 1 <= value <= limit:
        raise ValueError(f"{name} must be from 1 to {limit}, not {value!r}")


def multiple(name: str, value: int, unit: int) -> None:
    """Raise `ValueError` unless ``value`` is a multiple of ``unit``."""
    if value % unit:
        raise ValueError(f"{name} must be a multiple of {unit}, not {value!r}")


def aligned(name: str, operand: Operand, unit: int) -> None:
    """Raise `ValueError` unless every address of an operand is a multiple of ``unit``."""
    for field in ("base", "inner", "outer", "pong"):
        multiple(f"{name}.{field}", getattr(operand, field), unit)


def check_part(config: CardConfig, part: str, what: str) -> None:
    """Raise `ValueError` if ``what`` takes a part of the vector unit that the card lacks."""
    if part not in config.vector_parts:
        raise ValueError(
            f"{what} needs {part!r} in the card's vector unit, which has only "
            f"{', '.join(config.vector_parts)} on preset {config.name}; choose a card with that "
            "part (CardConfig.vector_parts)"
        )


def semaphore_index(index: int) -> None:
    """Raise `ValueError` unless there is a semaphore ``index``."""
    if not 0 <= index < SEMAPHORES:
        raise ValueError(f"semaphore must be from 0 to {SEMAPHORES - 1}, not {index!r}")


def looped(
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
    """Return a command with loops, after a check of its loops and semaphores."""
    positive("inner", inner, 0xFFFF)
    positive("outer", outer, 0xFFFF)
    references: tuple[Wait | Signal, ...] = (*wait, *signal)
    for reference in references:
        semaphore_index(reference.sem)
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
