"""A choice of one of eight words."""

from amaranth.hdl import Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, technology

__all__ = ["Choose8"]

_SECOND_IF_C = 0xCACA
"""A look-up table: C ? B : A."""


class Choose8(wiring.Component):
    """Gives out one of eight words, combinationally.

    On ECP5 it takes four look-up tables a bit, and the multiplexers beside them.

    Parameters
    ----------
    width : int

    Members
    -------
    words : ``In(width).array(8)``
    index : ``In(3)``
    chosen : ``Out(width)``
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width!r}")
        super().__init__({"words": In(width).array(8), "index": In(3), "chosen": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if technology(platform) == ECP5:
            for bit in range(len(self.chosen)):
                self._ecp5(m, bit)
            return m
        words = list(self.words)
        for select in self.index:
            words = [Mux(select, *words[i : i + 2][::-1]) for i in range(0, len(words), 2)]
        m.d.comb += self.chosen.eq(words[0])
        return m

    def _ecp5(self, m: Module, bit: int) -> None:
        pairs, fours = (
            [Signal(name=f"{name}{i}_{bit}") for i in range(count)]
            for name, count in (("pair", 4), ("four", 2))
        )
        for i, pair in enumerate(pairs):
            m.submodules[f"lut{i}_{bit}"] = Instance(
                "LUT4",
                p_INIT=Const(_SECOND_IF_C, 16),
                i_A=self.words[2 * i][bit],
                i_B=self.words[2 * i + 1][bit],
                i_C=self.index[0],
                i_D=0,
                o_Z=pair,
            )
        for i, four in enumerate(fours):
            m.submodules[f"mux{i}_{bit}"] = Instance(
                "PFUMX", i_ALUT=pairs[2 * i + 1], i_BLUT=pairs[2 * i], i_C0=self.index[1], o_Z=four
            )
        m.submodules[f"mux_{bit}"] = Instance(
            "L6MUX21", i_D0=fours[0], i_D1=fours[1], i_SD=self.index[2], o_Z=self.chosen[bit]
        )
