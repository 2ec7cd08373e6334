"""A lane of the vector unit's requantization against the golden model."""

from deepseek.rtl.core.requantize_lane import RequantizeLane
from deepseek.sim.runner import run_bench


def test_lane():
    run_bench(RequantizeLane(), "deepseek.sim.benches.requantize")
