"""The rectifier."""

from typing import ClassVar

from amaranth.hdl import Module, Signal

from ..isa import Format
from ..numerics.pipeline import stage_enables
from .function import PluFunction

__all__ = ["Relu"]


class Relu(PluFunction):
    """The value if it is above 0, NaN if it is NaN, otherwise +0. No parameters."""

    latency: ClassVar[int] = 1
    format: ClassVar[Format] = Format.FP32

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slot = self.slot
        (enable,) = stage_enables(m, slot.ce, slot.valid_i, slot.valid_o, self.latency)
        result = Signal(32, reset_less=True)
        m.d.comb += slot.value_o.eq(result)
        with m.If(enable):
            # The canonical NaN is positive.
            m.d.sync += result.eq(slot.value_i & ~slot.value_i[31].replicate(32))
        return m
