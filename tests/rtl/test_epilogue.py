import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.epilogue import EpilogueLane
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "ecp5"])
def test_epilogue(name):
    run_bench(EpilogueLane(preset(name)), "deepseek.sim.benches.epilogue", preset=name)
