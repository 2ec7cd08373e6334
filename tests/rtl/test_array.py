"""PE and array against exact golden sums."""

import pytest

from deepseek.rtl.array.fill import Fill
from deepseek.rtl.array.grid import Grid
from deepseek.rtl.array.pe import PE
from deepseek.rtl.array.row_engine import RowEngine
from deepseek.rtl.config import preset
from deepseek.sim.runner import run_bench


def test_pe():
    run_bench(PE(preset("tiny")), "deepseek.sim.benches.pe", preset="tiny")


@pytest.mark.parametrize("name", ["tiny"])
def test_array(name):
    run_bench(Grid(preset(name)), "deepseek.sim.benches.array", preset=name)


def test_row_engine():
    run_bench(RowEngine(preset("tiny")), "deepseek.sim.benches.row_engine", preset="tiny")


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_fill(name):
    run_bench(Fill(preset(name)), "deepseek.sim.benches.fill", preset=name)
