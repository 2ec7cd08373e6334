"""A clock without a PLL."""

import pytest
from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal
from amaranth.sim import Simulator

from deepseek.boards import BoardError
from deepseek.boards.divider import SETTLE_CYCLES, Divider, divider_setting, divider_settings


def test_settings():
    found = divider_settings(50_000_000)
    assert found == sorted(found)
    assert [x.hz for x in found[-4:]] == [8_333_333, 12_500_000, 25_000_000, 50_000_000]
    assert all(x.divider == 1 or x.divider % 2 == 0 for x in found)


@pytest.mark.parametrize(("mhz", "divider"), [(50, 1), (49.9, 2), (25, 2), (20, 4), (1, 50)])
def test_nearest_below(mhz, divider):
    assert divider_setting(50_000_000, mhz * 1e6).divider == divider


@pytest.mark.parametrize("hz", [0, 1e5, 50.1e6])
def test_out_of_range(hz):
    with pytest.raises(BoardError, match=r"the clock divider makes .* to 50 MHz .*--freq"):
        divider_setting(50_000_000, hz)


@pytest.mark.parametrize("hz", [50_000_000, 25_000_000, 12_500_000, 8_333_333])
def test_clock(hz):
    """Edges of the clock that is made, counted, and when it is said to be usable."""
    setting = divider_setting(50_000_000, hz)
    m = Module()
    m.domains.osc = ClockDomain(reset_less=True)
    m.domains.sync = ClockDomain(reset_less=True)
    m.submodules.divider = divider = Divider(setting)
    edges = Signal(16)
    m.d.sync += edges.eq(edges + 1)
    m.d.comb += [divider.oscillator.eq(ClockSignal("osc")), ClockSignal().eq(divider.clock)]
    ready = []

    async def bench(context):
        for _ in range(100 * setting.divider):
            await context.tick("osc")
            if context.get(divider.locked):
                ready.append(context.get(edges))
        assert abs(context.get(edges) - 100) <= 1

    simulator = Simulator(m)
    simulator.add_clock(20e-9, domain="osc")
    simulator.add_testbench(bench)
    simulator.run()
    assert abs(ready[0] - SETTLE_CYCLES) <= 1
