"""The compute unit, fed with commands that follow each other."""

from deepseek.rtl.config import preset
from deepseek.rtl.core.compute import ComputeUnit
from deepseek.sim.runner import run_bench


def test_compute() -> None:
    run_bench(ComputeUnit(preset("tiny")), "deepseek.sim.benches.compute", preset="tiny")
