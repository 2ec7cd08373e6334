"""Clocks that a PLL can make."""

import pytest

from deepseek.boards import BOARDS, BoardError
from deepseek.boards.pll import PFD_HZ, VCO_HZ, pll_setting, pll_settings

OSCILLATORS = (25_000_000, 48_000_000, 100_000_000)


@pytest.mark.parametrize("oscillator", OSCILLATORS)
def test_settings_keep_to_the_device(oscillator):
    settings = pll_settings(oscillator)
    assert len({setting.hz for setting in settings}) == len(settings) > 40
    assert settings == sorted(settings)
    for setting in settings:
        detector = oscillator / setting.divider
        assert PFD_HZ[0] <= detector <= PFD_HZ[1]
        assert setting.hz == oscillator * setting.feedback // setting.divider
        assert VCO_HZ[0] <= setting.hz * setting.output <= VCO_HZ[1]


@pytest.mark.parametrize("oscillator", OSCILLATORS)
@pytest.mark.parametrize("mhz", [50, 99.9, 100, 120, 125, 140, 153.2])
def test_nearest_below(oscillator, mhz):
    found = pll_setting(oscillator, mhz * 1e6)
    assert found.hz <= mhz * 1e6
    assert all(x.hz <= found.hz or x.hz > mhz * 1e6 for x in pll_settings(oscillator))
    assert mhz * 1e6 - found.hz < 3_125_000


def test_exact_where_it_can_be():
    for oscillator, hz in ((25_000_000, 100_000_000), (25_000_000, 140_000_000)):
        assert pll_setting(oscillator, hz).hz == hz


@pytest.mark.parametrize("hz", [1e6, 1e9, 0, -1])
def test_out_of_range(hz):
    with pytest.raises(BoardError, match=r"the PLL makes .* to .* MHz .*--freq"):
        pll_setting(25_000_000, hz)


def test_boards_have_a_clock():
    for board in BOARDS.values():
        if not board.is_virtual:
            assert board.clock(board.clock_hz).hz > 0.95 * board.clock_hz
        assert 2 * board.baud <= board.clock_hz
