"""A multiplexer of many values."""

from collections.abc import Sequence

from amaranth.hdl import Const, Mux, Value, ValueLike

__all__ = ["select"]


def select(index: Value, values: Sequence[ValueLike]) -> Value:
    """Return the value that ``index`` picks, or 0 beyond the last, as a tree of multiplexers.

    `deepseek.rtl.tech.select` gives any of the values there, and is made of cells on ECP5.
    A `Switch` becomes an AND-OR of all values, which takes more LUTs, and more again where it
    decodes an index that is a few bits wide.
    """
    if not values:
        return Const(0)
    if not len(index):
        return Value.cast(values[0])
    half = 1 << len(index) - 1
    low = select(index[:-1], values[:half])
    high = select(index[:-1], values[half:])
    if isinstance(low, Const) and isinstance(high, Const) and low.value == high.value:
        return low
    return Mux(index[-1], high, low)
