"""A number with its sign, or with the other one."""

from amaranth.hdl import Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["Negate"]

_INTO_CARRY = 0x0002
"""Half a CCU2C without a sum, whose carry out is A and not B."""

_TURN = 0x6600
"""Half a CCU2C whose sum is A ^ B and the carry."""


class Negate(wiring.Component):
    """Changes a number's sign, or leaves it as it is, combinationally.

    On ECP5 this takes the cells of a carry chain and no other logic.

    Parameters
    ----------
    width : int
        Even.

    Members
    -------
    number : ``In(width)``
    minus : ``In(1)``
    result : ``Out(width)``
        Modulo two to the width.
    """

    def __init__(self, width: int) -> None:
        if width < 2 or width % 2:
            raise ValueError(f"width must be even, not {width!r}")
        super().__init__({"number": In(width), "minus": In(1), "result": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if technology(platform) == ECP5:
            self._ecp5(m)
        else:
            m.d.comb += self.result.eq(Mux(self.minus, -self.number, self.number))
        return m

    def _ecp5(self, m: Module) -> None:
        """Half cells in a chain: one that is added if all below is 0, and the bits."""
        m.d.comb += self.result[0].eq(self.number[0])
        carry: Signal | None = None
        for bit in range(0, len(self.number), 2):
            following = Signal(name=f"carry{bit}")
            # With D high and C low the cell's sum is of A and B alone.
            ports: dict[str, object] = {
                "p_INIT0": Const(_TURN if bit else _INTO_CARRY, 16),
                "p_INIT1": Const(_TURN, 16),
                "i_A0": self.number[bit] if bit else self.minus,
                "i_B0": self.minus if bit else self.number[0],
                "i_A1": self.number[bit + 1],
                "i_B1": self.minus,
                "o_S1": self.result[bit + 1],
                "o_COUT": following,
            }
            for half in range(2):
                ports |= {f"p_INJECT1_{half}": "NO", f"i_C{half}": 0, f"i_D{half}": 1}
            if carry is not None:
                ports |= {"i_CIN": carry, "o_S0": self.result[bit]}
            m.submodules[f"cell{bit // 2}"] = Instance("CCU2C", **ports)
            carry = following
