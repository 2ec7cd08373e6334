"""An adder that can start anew from 0."""

from amaranth.hdl import Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["SegmentAdder"]

_INTO_CARRY = 0x400E
"""Half a CCU2C without a sum, whose carry out is A, or B unless C. Needs D."""

_ADD_UNLESS_C = 0xA6AA
"""Half a CCU2C that adds A and the carry to B, or to 0 if C or not D."""

_CARRY = 0x0000
"""Half a CCU2C whose sum is its carry in."""


class SegmentAdder(wiring.Component):
    """Adds to a total, or starts it anew, combinationally: a segment of an accumulator, but also
    sums of windows, addresses and counters of loops.

    On ECP5 what is not to be added, and the choice of carries, is in the cells of the carry chain
    itself: there is no logic before it.

    Parameters
    ----------
    width : int
        Even.

    Members
    -------
    total, addend : ``In(width)``
    first : ``In(1)``
        Add to 0 instead of ``total``.
    goes_on : ``In(1, init=1)``
        Low: add to 0, as with ``first``.
    carry_in, carry_below, apart : ``In(1)``
        One is added if ``carry_in`` is high, or ``carry_below`` without ``apart``.
    sum : ``Out(width + 1)``
        With the carry on top.
    """

    def __init__(self, width: int) -> None:
        if width < 2 or width % 2:
            raise ValueError(f"width must be even, not {width!r}")
        super().__init__(
            {
                "total": In(width),
                "addend": In(width),
                "first": In(1),
                "goes_on": In(1, init=1),
                "carry_in": In(1),
                "carry_below": In(1),
                "apart": In(1),
                "sum": Out(width + 1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if technology(platform) == ECP5:
            self._ecp5(m)
            return m
        m.d.comb += self.sum.eq(
            Mux(self.first | ~self.goes_on, 0, self.total)
            + self.addend
            + (self.carry_in | self.carry_below & ~self.apart)
        )
        return m

    def _ecp5(self, m: Module) -> None:
        """Half cells in a chain: the carry in, the bits, and the carry out."""
        unused = Signal()
        halves = [(_INTO_CARRY, self.carry_in, self.carry_below, self.apart, 1, unused)]
        halves += [
            (_ADD_UNLESS_C, self.addend[i], self.total[i], self.first, self.goes_on, self.sum[i])
            for i in range(len(self.addend))
        ]
        halves.append((_CARRY, 0, 0, 0, 1, self.sum[-1]))
        carry: Signal | None = None
        for cell in range(len(halves) // 2):
            ports: dict[str, object] = {}
            for half, (init, a, b, c, d, out) in enumerate(halves[2 * cell : 2 * cell + 2]):
                ports |= {
                    f"p_INIT{half}": Const(init, 16),
                    f"p_INJECT1_{half}": "NO",
                    f"i_A{half}": a,
                    f"i_B{half}": b,
                    f"i_C{half}": c,
                    f"i_D{half}": d,
                }
                if out is not unused:
                    ports[f"o_S{half}"] = out
            following = Signal(name=f"carry{cell}")
            if carry is not None:
                ports["i_CIN"] = carry
            m.submodules[f"cell{cell}"] = Instance("CCU2C", **ports, o_COUT=following)
            carry = following
