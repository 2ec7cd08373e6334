"""PE and array against exact golden sums."""

from deepseek.rtl.array.grid import Grid
from deepseek.rtl.array.pe import PE
from deepseek.rtl.config import preset
from deepseek.sim.runner import run_bench


def test_pe():
    run_bench(PE(preset("tiny")), "deepseek.sim.benches.pe", preset="tiny")


def test_array():
    run_bench(Grid(preset("tiny")), "deepseek.sim.benches.array", preset="tiny")
