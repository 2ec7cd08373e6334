"""PE and array against exact golden sums."""

import pytest

from deepseek.rtl.array.grid import Grid
from deepseek.rtl.config import preset
from deepseek.rtl.tech import ECP5, GENERIC, still
from deepseek.sim.benches.prepared import PreparedPE
from deepseek.sim.runner import run_bench


@pytest.fixture(params=[GENERIC, ECP5], autouse=True)
def copies(request, monkeypatch):
    """The mode as a wire to each PE, as in simulation, and in registers, as on a device."""
    monkeypatch.setattr(still, "technology", lambda platform: request.param)


def test_pe():
    run_bench(PreparedPE(preset("tiny")), "deepseek.sim.benches.pe", preset="tiny")


def test_array():
    run_bench(Grid(preset("tiny")), "deepseek.sim.benches.array", preset="tiny")


def test_a_copy_has_bits():
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        still.Still(0)
