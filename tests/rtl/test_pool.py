"""Pooling and elementwise operations against the golden model."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.pool import PoolUnit
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize(
    "lanes, testcase",
    [(2, None), (8, ["random_traffic", "all_pairs", "speed"])],
)
def test_pool(lanes, testcase):
    config = dataclasses.replace(preset("tiny"), vector_lanes=lanes)
    module = "deepseek.sim.benches.pool"
    run_bench(PoolUnit(config), module, preset=config, testcase=testcase)


@pytest.mark.parametrize("lanes", [0, 3, 32])
def test_lanes_divide_a_granule(lanes):
    with pytest.raises(ValueError, match=f"vector_lanes must divide .* not {lanes}"):
        dataclasses.replace(preset("tiny"), vector_lanes=lanes)
