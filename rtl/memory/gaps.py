"""How long ago something was, and what else a controller uses that decides a clock ahead."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory

from ..tech.gate import Gate

__all__ = ["account", "age", "countdown", "goes_on", "matured", "soon"]


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


def age(
    m: Module, name: str, now: Signal, event: Value, bank: Value, flag: Value, at: Value
) -> tuple[Signal, Signal]:
    """Return the clocks since the last event in bank ``at``, two clocks ago, and its ``flag``."""
    shape = data.StructLayout({"time": unsigned(len(now)), "flag": unsigned(1)})
    memory = Memory(shape=shape, depth=1 << len(at), init=[])
    m.submodules[name] = memory
    write, read = memory.write_port(), memory.read_port(domain="comb")
    passed = Signal(len(now), name=f"{name}_age", reset_less=True)
    flagged = Signal(name=f"{name}_flag", reset_less=True)
    m.d.comb += [
        write.en.eq(event),
        write.addr.eq(bank),
        write.data.time.eq(now),
        write.data.flag.eq(flag),
        read.addr.eq(at),
    ]
    m.d.sync += [passed.eq(now - read.data.time), flagged.eq(read.data.flag)]
    return passed, flagged


def account(m: Module, name: str, most: int, gain: Value, spend: Value, clear: Value) -> Signal:
    """Return whether something, up to ``most``, has been gained and not spent."""
    count, some = Signal(range(most + 1), name=name), Signal(name=f"{name}_some")
    with m.If(clear):
        m.d.sync += [count.eq(0), some.eq(0)]
    with m.Elif(gain ^ spend):
        m.d.sync += [count.eq(count + Mux(spend, -1, 1)), some.eq(gain | (count != 1))]
    return some


def matured(
    m: Module, name: str, most: int, event: Value, limit: int, spend: Value, clear: Value
) -> Value:
    """Return whether the oldest event not spent will be ``limit`` clocks ago in the next clock.

    At most ``most`` events are not spent; they are spent in the order in which they came.
    ``limit`` is at least 3.
    """
    line = Signal(limit - 2, name=f"{name}_line")
    m.d.sync += line.eq(Cat(event, line))
    return account(m, name, most, line[-1], spend, clear)


def goes_on(m: Module, name: str, here: Value, ends: Value, last: Value, may: Value) -> Value:
    """Return whether a place that ``may`` takes the next burst: it has none, or its ``last`` step
    ``ends``, which is late.
    """
    m.submodules[name] = gate = Gate(
        lambda here, ends, last, may: may and (not here or (ends and last))
    )
    m.d.comb += gate.bits.eq(Cat(here, ends, last, may))
    return gate.out
