"""REFORMAT against the golden model."""

from deepseek.rtl.config import preset
from deepseek.rtl.core.reformat import ReformatUnit
from deepseek.sim.runner import run_bench


def test_reformat():
    config = preset("tiny")
    run_bench(ReformatUnit(config), "deepseek.sim.benches.reformat", preset=config)
