"""The pads of an SDRAM."""

from typing import Any

from amaranth.hdl import Const, Module
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In

from ..rtl.memory.sdram import SdramPins

__all__ = ["SdramPads"]


class SdramPads(wiring.Component):
    """Connects a controller to the board's resource ``sdram``.

    The chip gets the inverse of the clock: its edges are in the middle of the cycle in which the
    pins have a command. The clock leaves the device through a register of a pad, as near to the
    clock's network as can be.

    Members
    -------
    pins : ``In(SdramPins())``
    """

    def __init__(self) -> None:
        super().__init__({"pins": In(SdramPins())})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pins, pads = self.pins, platform.request("sdram", 0, dir="-")
        # The pins' levels are the controller's: what is low for the chip is low there already.
        outputs = {
            "cke": (pads.clk_en, pins.cke),
            "cs": (~pads.cs, pins.cs_n),
            "ras": (~pads.ras, pins.ras_n),
            "cas": (~pads.cas, pins.cas_n),
            "we": (~pads.we, pins.we_n),
            "bank": (pads.ba, pins.bank),
            "address": (pads.a, pins.address),
            "mask": (pads.dqm, pins.dqm),
        }
        for name, (pad, value) in outputs.items():
            buffer = io.Buffer("o", pad)
            m.submodules[name] = buffer
            m.d.comb += buffer.o.eq(value)
        m.submodules.clock = clock = io.DDRBuffer("o", pads.clk)
        m.submodules.data = data = io.Buffer("io", pads.dq)
        m.d.comb += [
            clock.o[0].eq(Const(0)),
            clock.o[1].eq(Const(1)),
            data.o.eq(pins.dq_o),
            data.oe.eq(pins.dq_oe),
            pins.dq_i.eq(data.i),
        ]
        return m
