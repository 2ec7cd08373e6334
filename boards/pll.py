"""The clock of a card on ECP5: a PLL behind the board's oscillator."""

import dataclasses
from typing import Any

from amaranth.hdl import Const, Instance, Module

from .families.base import ClockSource, nearest

__all__ = ["Pll", "PllSetting", "pll_setting", "pll_settings"]

PFD_HZ = (3_125_000, 400_000_000)
"""Least and highest frequency of the phase detector."""

VCO_HZ = (400_000_000, 800_000_000)
"""Least and highest frequency of the oscillator in the PLL."""

MOST_DIVIDER = 128
MOST_FEEDBACK = 80


@dataclasses.dataclass(frozen=True, order=True)
class PllSetting:
    """Dividers of an EHXPLLL whose output is its own feedback.

    Parameters
    ----------
    hz : int
        Output, rounded down.
    divider : int
        Of the input.
    feedback : int
        Of the output, before it is compared with the input.
    output : int
        Of the PLL's own oscillator.
    """

    hz: int
    divider: int
    feedback: int
    output: int


def pll_settings(oscillator_hz: int) -> list[PllSetting]:
    """Return a setting for every frequency that the PLL can make, in ascending order."""
    found: dict[int, PllSetting] = {}
    for divider in range(1, MOST_DIVIDER + 1):
        if not PFD_HZ[0] * divider <= oscillator_hz <= PFD_HZ[1] * divider:
            continue
        for feedback in range(1, MOST_FEEDBACK + 1):
            hz = oscillator_hz * feedback // divider
            # Least dividers first: a faster detector, and less jitter. The PLL's oscillator is
            # nearest to the middle of its range.
            outputs = [
                output
                for output in range(1, MOST_DIVIDER + 1)
                if VCO_HZ[0] <= hz * output <= VCO_HZ[1]
            ]
            if outputs and hz not in found:
                middle = sum(VCO_HZ) // 2
                _, output = min((abs(hz * output - middle), output) for output in outputs)
                found[hz] = PllSetting(hz, divider, feedback, output)
    return sorted(found.values())


def pll_setting(oscillator_hz: int, hz: float) -> PllSetting:
    """Return the setting of the highest frequency that is not above ``hz``.

    Raises
    ------
    BoardError
        If there is none; says the lowest and the highest one.
    """
    return nearest(pll_settings(oscillator_hz), oscillator_hz, hz, "PLL")


class Pll(ClockSource):
    """A PLL that makes one clock."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        setting = self.setting
        m.submodules.pll = Instance(
            "EHXPLLL",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC",
            p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=setting.divider,
            p_CLKFB_DIV=setting.feedback,
            p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=setting.output,
            # As the vendor's and Trellis's own tools set it.
            p_CLKOP_CPHASE=setting.output // 2,
            p_CLKOP_FPHASE=0,
            i_CLKI=self.oscillator,
            i_CLKFB=self.clock,
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1),
            i_PHASELOADREG=Const(1),
            i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0),
            o_CLKOP=self.clock,
            o_LOCK=self.locked,
            a_FREQUENCY_PIN_CLKI=f"{platform.default_clk_frequency / 1e6:g}",
            a_FREQUENCY_PIN_CLKOP=f"{setting.hz / 1e6:g}",
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
        )
        return m
