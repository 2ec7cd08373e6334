"""The fill path: every window, format and mode against the words that they must become."""

import pytest

from deepseek.rtl.config import preset
from deepseek.sim.benches.prepared import WidenedFill
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_fill(name):
    run_bench(WidenedFill(preset(name)), "deepseek.sim.benches.fill", preset=name)
