"""One of several values, picked by a number."""

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value

from . import ECP5, technology
from .choose import Choose4

__all__ = ["select"]


def select(
    m: Module, platform: object, index: Value, values: Sequence[Value], *, name: str
) -> Signal:
    """Return ``values[index]``; any of them where the index is too large (0 with
    `deepseek.rtl.core.select`).

    On ECP5 it is made of `Choose4`.

    Parameters
    ----------
    m : Module
        Where what it takes is put.
    platform : object
        What ``m`` elaborates with.
    index : Value
        As wide as a value's number takes.
    values : sequence of Value
        Of one width.
    name : str
        Of the result, and in front of the names of submodules: once in ``m``.
    """
    bits = (len(values) - 1).bit_length()
    widths = sorted({len(value) for value in values})
    if len(widths) != 1:
        raise ValueError(f"values must have one width, not {widths!r}")
    if len(index) != bits:
        raise ValueError(f"index must have {bits} bits for {len(values)} values, not {len(index)}")
    result = Signal(widths[0], name=name)
    if technology(platform) == ECP5:
        m.d.comb += result.eq(_cells(m, index, list(values), name))
    elif bits == 0:
        m.d.comb += result.eq(values[0])
    else:
        with m.Switch(index):
            for number, value in enumerate(values[:-1]):
                with m.Case(number):
                    m.d.comb += result.eq(value)
            with m.Default():
                m.d.comb += result.eq(values[-1])
    return result


def _cells(m: Module, index: Value, values: list[Value], name: str) -> Value:
    bits = (len(values) - 1).bit_length()
    index = index[:bits]
    if bits == 0:
        return values[0]
    if bits == 1:
        return Mux(index, values[1], values[0])
    if bits == 2:
        m.submodules[name] = four = Choose4(len(values[0]))
        m.d.comb += four.index.eq(index)
        for number, word in enumerate(four.words):
            m.d.comb += word.eq(values[min(number, len(values) - 1)])
        return four.chosen
    half = 1 << bits - 1
    low, high = (
        _cells(m, index, part, f"{name}_{number}")
        for number, part in enumerate((values[:half], values[half:]))
    )
    return Mux(index[-1], high, low)
