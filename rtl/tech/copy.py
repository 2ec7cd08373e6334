"""Registers that hold the same value, each near what reads it."""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value

from . import ECP5, technology

__all__ = ["copies"]


def copies(m: Module, platform: object, value: Value, count: int, *, name: str) -> list[Signal]:
    """Return ``count`` registers with ``value`` as it was a cycle before. They are not reset.

    On ECP5 each is made of cells of its own, which synthesis leaves alone: of registers that are
    equal it makes one, from which wires lead to all that read it, however far apart they lie.
    Elsewhere it is one register.

    Parameters
    ----------
    m : Module
        Where they are put.
    platform : object
        What ``m`` elaborates with.
    value : Value
    count : int
        At least 1.
    name : str
        In front of the names of submodules and signals: once in ``m``.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    value = Value.cast(value)
    if technology(platform) != ECP5:
        register = Signal(len(value), name=name, reset_less=True)
        m.d.sync += register.eq(value)
        return [register] * count
    registers = [Signal(len(value), name=f"{name}_{number}") for number in range(count)]
    for number, register in enumerate(registers):
        for bit, (source, target) in enumerate(zip(value, register, strict=True)):
            m.submodules[f"{name}_{number}_{bit}"] = Instance(
                "TRELLIS_FF",
                p_GSR="DISABLED",
                p_CEMUX="1",
                p_CLKMUX="CLK",
                p_LSRMUX="LSR",
                p_REGSET="RESET",
                i_CLK=ClockSignal(),
                i_LSR=Const(0, 1),
                i_DI=source,
                o_Q=target,
            )
    return registers
