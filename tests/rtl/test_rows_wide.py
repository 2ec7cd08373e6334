"""Row operations of eight lanes against the functional simulator."""

import dataclasses

from deepseek.rtl.config import preset
from deepseek.rtl.core.rows import RowsUnit
from deepseek.sim.runner import run_bench

TESTS = ["affine", "softmax", "quantize", "normalize", "short_rows", "longest_row", "speed"]


def test_rows_wide():
    config = dataclasses.replace(preset("tiny"), row_lanes=8)
    run_bench(RowsUnit(config), "deepseek.sim.benches.rows", preset=config, testcase=TESTS)
