"""Row operations of two lanes against the functional simulator."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.rows import RowsUnit
from deepseek.sim.runner import run_bench

TESTS = [
    *("affine", "softmax", "quantize", "normalize", "short_rows", "errors", "first_error_wins"),
    *("far_addresses", "reset_midway", "speed"),
]


def test_rows():
    config = dataclasses.replace(preset("tiny"), row_lanes=2)
    run_bench(RowsUnit(config), "deepseek.sim.benches.rows", preset=config, testcase=TESTS)


@pytest.mark.parametrize("lanes", [0, 3, 16])
def test_refuses_lanes(lanes):
    with pytest.raises(ValueError, match=f"row_lanes must be 1, 2, 4 or 8, not {lanes}"):
        dataclasses.replace(preset("tiny"), row_lanes=lanes)
