"""How long ago something was, for a controller that decides a clock ahead."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

__all__ = ["account", "countdown", "matured", "soon"]


def countdown(m: Module, name: str, event: Value, limit: int) -> Value:
    """Return whether the last event was at least ``limit`` clocks ago."""
    if limit < 2:
        return Const(1, 1)
    left = Signal(range(limit), name=name)
    with m.If(event):
        m.d.sync += left.eq(limit - 1)
    with m.Elif(left != 0):
        m.d.sync += left.eq(left - 1)
    return left == 0


def soon(m: Module, name: str, event: Value, limit: int) -> Value:
    """Return whether that is so in the next clock, if there is no event in this one."""
    return countdown(m, name, event, limit - 1)


def account(m: Module, name: str, most: int, gain: Value, spend: Value, clear: Value) -> Signal:
    """Return a count, up to ``most``, of what has been gained and not spent."""
    count = Signal(range(most + 1), name=name)
    with m.If(clear):
        m.d.sync += count.eq(0)
    with m.Elif(gain ^ spend):
        m.d.sync += count.eq(count + Mux(spend, -1, 1))
    return count


def matured(
    m: Module, name: str, most: int, event: Value, limit: int, spend: Value, clear: Value
) -> Value:
    """Return whether the oldest event not spent will be ``limit`` clocks ago in the next clock.

    At most ``most`` events are not spent; they are spent in the order in which they came.
    ``limit`` is at least 3.
    """
    line = Signal(limit - 2, name=f"{name}_line")
    m.d.sync += line.eq(Cat(event, line))
    return account(m, name, most, line[-1], spend, clear).any()
