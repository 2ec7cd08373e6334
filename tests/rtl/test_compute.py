"""The compute unit, fed with commands that follow each other."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.compute import ComputeUnit
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("engines", [1, 2])
def test_compute(engines: int) -> None:
    """Each row engine with an epilogue lane of its own, or two with one."""
    config = dataclasses.replace(preset("tiny"), name="shared", engines_per_lane=engines)
    run_bench(ComputeUnit(config), "deepseek.sim.benches.compute", preset=config)
