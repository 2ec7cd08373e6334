"""The model of an SDRAM, for designs that are simulated."""

import re
from pathlib import Path
from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..rtl.memory.sdram import SdramPins

__all__ = ["SdramChip", "sdram_faults", "sdram_verilog"]

_SOURCE = Path(__file__).parent / "cells" / "sdram.v"


def sdram_verilog() -> str:
    """Return the model, the module ``sdram``: to append to the Verilog of a design that has it."""
    return _SOURCE.read_text(encoding="utf-8")


def sdram_faults() -> dict[str, int]:
    """Return the values of the model's ``fault`` by their names."""
    text = sdram_verilog()
    codes = text[text.index("localparam [7:0]") : text.index("// Times in cycles")]
    return {name: int(code) for name, code in re.findall(r"(\w+) = (\d+)[,;]", codes)}


class SdramChip(wiring.Component):
    """The chip with the inverse of the clock of ``sync``, for a design that is converted to
    Verilog; `sdram_verilog` has to be appended to it.

    Parameters
    ----------
    clock_hz : int
    halves : int
        Half cycles from the chip's edge to the pins of ``dq_i``: 0 to 2.
    **parameters
        Further parameters of the model, as it calls them.

    Members
    -------
    pins : ``In(SdramPins())``
    fault : ``Out(8)``
        The first rule that was broken (`sdram_faults`), or 0. Cleared by nothing.
    """

    def __init__(self, *, clock_hz: int, halves: int = 1, **parameters: int) -> None:
        if halves not in (0, 1, 2):
            raise ValueError(f"halves must be 0, 1 or 2, not {halves!r}")
        # A period that is too short by a fraction makes no rule easier.
        self.parameters = {
            "CLOCK_PS": 10**12 // clock_hz,
            "HALVES": halves,
            **parameters,
        }
        super().__init__({"pins": In(SdramPins()), "fault": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pins = self.pins
        ports: dict[str, Any] = {f"p_{name}": value for name, value in self.parameters.items()}
        for name in ("cke", "cs_n", "ras_n", "cas_n", "we_n", "bank", "address", "dqm"):
            ports[f"i_{name}"] = getattr(pins, name)
        clock = Signal()
        m.d.comb += clock.eq(~ClockSignal())
        m.submodules.chip = Instance(
            "sdram",
            i_clk=clock,
            i_restart=0,
            i_dq_i=pins.dq_o,
            i_dq_driven=pins.dq_oe,
            o_dq_o=pins.dq_i,
            o_dq_oe=Signal(name="driven"),
            o_fault=self.fault,
            **ports,
        )
        return m
