"""A net that reaches the whole device in the time of a clock's."""

from amaranth.hdl import Const, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["Spread"]


class Spread(wiring.Component):
    """Sends a register's bit to thousands of others, as resets want.

    On ECP5 it is a buffer of the clocks' network: place and route gives that to clocks only, and
    the wires that it takes for a reset are the longest of a card.

    Members
    -------
    bit : ``In(1)``
        From a register, and best one that nothing else reads: it can lie beside the buffer.
    everywhere : ``Out(1)``
        The same, combinationally.
    """

    def __init__(self) -> None:
        super().__init__({"bit": In(1), "everywhere": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if technology(platform) == ECP5:
            m.submodules.buffer = Instance(
                "DCCA", i_CLKI=self.bit, i_CE=Const(1), o_CLKO=self.everywhere
            )
        else:
            m.d.comb += self.everywhere.eq(self.bit)
        return m
