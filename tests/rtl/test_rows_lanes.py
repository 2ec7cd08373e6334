"""Row operations of one lane and of four against the functional simulator."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.rows import RowsUnit
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize(
    "lanes, tests",
    [(1, ["affine", "normalize"]), (4, ["affine", "softmax", "speed"])],
)
def test_rows_lanes(lanes, tests):
    config = dataclasses.replace(preset("tiny"), row_lanes=lanes)
    run_bench(RowsUnit(config), "deepseek.sim.benches.rows", preset=config, testcase=tests)
