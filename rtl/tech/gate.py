"""A function of a few bits that stays as it is written."""

from collections.abc import Callable

from amaranth.hdl import Const, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["Gate"]

_INPUTS = 4


class Gate(wiring.Component):
    """A function of four bits, combinationally.

    On ECP5 it is one look-up table, which synthesis leaves alone: what comes late stays one table
    away from what it decides. Synthesis does not know what comes late, and joins logic so that it
    takes less.

    Parameters
    ----------
    function : callable
        Of four bits, each 0 or 1.

    Members
    -------
    bits : ``In(4)``
    out : ``Out(1)``
    """

    def __init__(self, function: Callable[[int, int, int, int], object]) -> None:
        self._table = sum(
            1 << number
            for number in range(1 << _INPUTS)
            if function(*(number >> bit & 1 for bit in range(_INPUTS)))
        )
        super().__init__({"bits": In(_INPUTS), "out": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        table = Const(self._table, 1 << _INPUTS)
        if technology(platform) == ECP5:
            ports = {f"i_{name}": bit for name, bit in zip("ABCD", self.bits, strict=True)}
            m.submodules.lut = Instance("LUT4", p_INIT=table, **ports, o_Z=self.out)
        else:
            m.d.comb += self.out.eq(table.bit_select(self.bits, 1))
        return m
