"""A value that stands still long before it is used, and is used in many places."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import GENERIC, technology

__all__ = ["Still"]


class Still(wiring.Component):
    """Gives a place a copy of its own of a value that has stood still for a cycle when it is used.

    On a device the copy is a register, so that the way to the place is a cycle of its own. Its
    generic form is a wire: what is the same everywhere is fast to simulate.

    Parameters
    ----------
    width : int

    Members
    -------
    value : ``In(width)``
    near : ``Out(width)``
        The value, or that of the cycle before.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width!r}")
        super().__init__({"value": In(width), "near": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        copy = Signal(len(self.value), reset_less=True)
        domain = m.d.comb if technology(platform) == GENERIC else m.d.sync
        domain += copy.eq(self.value)
        m.d.comb += self.near.eq(copy)
        return m
