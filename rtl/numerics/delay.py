"""Delay lines beside pipelined units."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import memory

__all__ = ["delayed"]

_REGISTERS = 2
"""Longest delay that is made of registers."""


def delayed(m: Module, ce, value, cycles: int, name: str) -> Value:
    """Return ``value`` as it was ``cycles`` cycles with ``ce`` high before. It is not reset.

    Longer delays are rings in a small memory.

    Parameters
    ----------
    m : Module
    ce : Value
    value : Value
    cycles : int
    name : str
        Of what is added to the module.
    """
    value = Value.cast(value)
    if cycles <= _REGISTERS:
        for i in range(cycles):
            step = Signal(len(value), name=f"{name}_{i}", reset_less=True)
            with m.If(ce):
                m.d.sync += step.eq(value)
            value = step
        return value
    depth = cycles - 1  # the read register is one more cycle
    ring = memory.Memory(shape=len(value), depth=depth, init=[])
    m.submodules[f"{name}_ring"] = ring
    write, read = ring.write_port(), ring.read_port()
    at = Signal(range(depth), name=f"{name}_at")
    with m.If(ce):
        m.d.sync += at.eq(Mux(at == depth - 1, 0, at + 1))
    m.d.comb += [
        write.addr.eq(at),
        write.data.eq(value),
        write.en.eq(ce),
        read.addr.eq(at),
        read.en.eq(ce),
    ]
    return read.data
