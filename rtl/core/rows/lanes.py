"""What the lanes' numbers are joined with: trees over the lanes of a beat."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Module, Signal, Value

__all__ = ["join", "levels"]


def levels(lanes: int) -> int:
    """Return the cycles that `join` takes."""
    return (lanes - 1).bit_length()


def join(
    m: Module, ce, values: Sequence[Value], combine: Callable[[Value, Value], Value], name: str
) -> Value:
    """Return what a tree of ``combine`` makes of the values, a power of two of them.

    A register behind each level, that moves with ``ce``.
    """
    items = list(values)
    level = 0
    while len(items) > 1:
        level += 1
        joined = []
        for i in range(0, len(items), 2):
            result = combine(items[i], items[i + 1])
            register = Signal(
                Value.cast(result).shape(), name=f"{name}_{level}_{i // 2}", reset_less=True
            )
            with m.If(ce):
                m.d.sync += register.eq(result)
            joined.append(register)
        items = joined
    return items[0]
