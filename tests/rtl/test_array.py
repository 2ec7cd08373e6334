"""PE and array against exact golden sums."""

from deepseek.rtl.array.grid import Grid
from deepseek.rtl.config import preset
from deepseek.sim.benches.prepared import PreparedPE
from deepseek.sim.runner import run_bench


def test_pe():
    run_bench(PreparedPE(preset("tiny")), "deepseek.sim.benches.pe", preset="tiny")


def test_array():
    run_bench(Grid(preset("tiny")), "deepseek.sim.benches.array", preset="tiny")
