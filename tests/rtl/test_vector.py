"""The vector unit against NumPy."""

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.vector import VectorUnit
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny"])
def test_pool(name):
    config = preset(name)
    run_bench(VectorUnit(config), "deepseek.sim.benches.vector", preset=config)
