"""A clock that stands still when it is told to."""

from amaranth.hdl import ClockDomain, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["ClockGate"]


class ClockGate(wiring.Component):
    """Passes a clock on, one edge at a time.

    Members
    -------
    source : ``In(1)``
        The clock, of the domain whose register says when. On a device both clocks have to pass a
        gate each, that one an open one: then edges are at the same time everywhere, and signals
        cross between the domains as they do inside one. Behind the other's gate this one would
        be late.
    enable : ``In(1)``
        The rising edge at the end of a cycle is passed on if this is high in that cycle. From a
        register that the source clocks, and best one that nothing else reads: it has to reach the
        gate in half a cycle.
    clock : ``Out(1)``
    """

    def __init__(self) -> None:
        super().__init__({"source": In(1), "enable": In(1), "clock": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if technology(platform) == ECP5:
            # It takes CE over at the falling edge, too.
            m.submodules.gate = Instance(
                "DCCA", i_CLKI=self.source, i_CE=self.enable, o_CLKO=self.clock
            )
            return m
        m.domains.falling = falling = ClockDomain(clk_edge="neg", reset_less=True, local=True)
        taken = Signal(init=1)
        m.d.falling += taken.eq(self.enable)
        m.d.comb += [falling.clk.eq(self.source), self.clock.eq(self.source & taken)]
        return m
