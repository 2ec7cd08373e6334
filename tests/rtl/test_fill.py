"""The fill path: every window, format and mode against the words that they must become."""

import pytest

from deepseek.rtl.array.fill import Fill
from deepseek.rtl.config import preset
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_fill(name):
    run_bench(Fill(preset(name)), "deepseek.sim.benches.fill", preset=name)
