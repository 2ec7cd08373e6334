import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.output import OutputMerge
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_output(name):
    run_bench(OutputMerge(preset(name)), "deepseek.sim.benches.output", preset=name)
