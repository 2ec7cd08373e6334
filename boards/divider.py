"""The clock of a card where place and route knows no PLL: the oscillator's, or a fraction of it."""

import dataclasses
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal

from .families.base import ClockSource, nearest

__all__ = ["Divider", "DividerSetting", "divider_setting", "divider_settings"]

MOST_DIVIDER = 64

SETTLE_CYCLES = 16
"""The clock can be used so long after configuration: not all registers of a device start with the
same edge."""


@dataclasses.dataclass(frozen=True, order=True)
class DividerSetting:
    """A divider.

    Parameters
    ----------
    hz : int
        Output, rounded down.
    divider : int
        1 or even.
    """

    hz: int
    divider: int


def divider_settings(oscillator_hz: int) -> list[DividerSetting]:
    """Return a setting for every frequency that can be made, in ascending order."""
    dividers = (1, *range(2, MOST_DIVIDER + 1, 2))
    return sorted(DividerSetting(oscillator_hz // divider, divider) for divider in dividers)


def divider_setting(oscillator_hz: int, hz: float) -> DividerSetting:
    """Return the setting of the highest frequency that is not above ``hz``.

    Raises
    ------
    BoardError
        If there is none; says the lowest and the highest one.
    """
    return nearest(divider_settings(oscillator_hz), oscillator_hz, hz, "clock divider")


class Divider(ClockSource):
    """Divides a clock, by 1 or by an even number."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.fast = ClockDomain(local=True, reset_less=True)
        m.d.comb += ClockSignal("fast").eq(self.oscillator)
        half = self.setting.divider // 2
        if half == 0:
            m.d.comb += self.clock.eq(self.oscillator)
        else:
            count = Signal(range(half))
            divided = Signal()
            m.d.fast += count.eq(count + 1)
            with m.If(count == half - 1):
                m.d.fast += [count.eq(0), divided.eq(~divided)]
            m.d.comb += self.clock.eq(divided)
        cycles = SETTLE_CYCLES * self.setting.divider
        settling = Signal(range(cycles + 1), init=cycles)
        with m.If(settling != 0):
            m.d.fast += settling.eq(settling - 1)
        m.d.comb += self.locked.eq(settling == 0)
        return m
