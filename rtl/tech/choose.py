"""A choice of one of four words."""

from amaranth.hdl import Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["Choose4"]

_SECOND_IF_C = 0xCACA
"""A look-up table: C ? B : A."""


class Choose4(wiring.Component):
    """Gives out one of four words, combinationally.

    On ECP5 it takes two look-up tables a bit, where synthesis of a choice takes three.

    Parameters
    ----------
    width : int

    Members
    -------
    words : ``In(width).array(4)``
    index : ``In(2)``
    chosen : ``Out(width)``
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width!r}")
        super().__init__({"words": In(width).array(4), "index": In(2), "chosen": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low, high = self.index
        if technology(platform) == ECP5:
            for i in range(len(self.chosen)):
                pairs = [Signal(name=f"pair{half}_{i}") for half in range(2)]
                for half, pair in enumerate(pairs):
                    m.submodules[f"lut{half}_{i}"] = Instance(
                        "LUT4",
                        p_INIT=Const(_SECOND_IF_C, 16),
                        i_A=self.words[2 * half][i],
                        i_B=self.words[2 * half + 1][i],
                        i_C=low,
                        i_D=0,
                        o_Z=pair,
                    )
                m.submodules[f"mux_{i}"] = Instance(
                    "PFUMX", i_ALUT=pairs[1], i_BLUT=pairs[0], i_C0=high, o_Z=self.chosen[i]
                )
            return m
        first, second = (
            Mux(low, self.words[2 * half + 1], self.words[2 * half]) for half in range(2)
        )
        m.d.comb += self.chosen.eq(Mux(high, second, first))
        return m
