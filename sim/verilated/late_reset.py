"""A top whose reset comes from a register."""

from amaranth.hdl import ClockDomain, ClockSignal, Const, DomainRenamer, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["LateReset"]


class LateReset(wiring.Component):
    """A component on which the reset acts a cycle later than it is given; with the same signature.

    Verilator evaluates all that an input reaches whenever it is called, twice a cycle, since the
    input may have changed; and the reset reaches far.

    Parameters
    ----------
    component : Component
    """

    def __init__(self, component: wiring.Component) -> None:
        self._component = component
        super().__init__(component.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        component = self._component
        inside = ClockDomain("inside", local=True)
        starting = Signal(init=1)
        m.domains += inside
        m.d.sync += starting.eq(0)
        m.d.comb += [inside.clk.eq(ClockSignal()), inside.rst.eq(starting)]
        m.submodules.inside = DomainRenamer("inside")(component)
        own, inner_ones = self.signature.flatten(self), component.signature.flatten(component)
        for (_, member, value), (_, _, inner) in zip(own, inner_ones, strict=True):
            if isinstance(inner, Const):
                continue
            source, target = (value, inner) if member.flow == In else (inner, value)
            m.d.comb += target.eq(source)
        return m
