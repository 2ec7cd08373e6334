# amaranth: UnusedElaboratable=no
"""Block-scaled numbers to BF16, all of them."""

import pytest

from deepseek.rtl.numerics.mx import MxToBf16
from deepseek.sim.runner import run_bench


def test_mx():
    run_bench(MxToBf16(8), "deepseek.sim.benches.mx")


def test_lanes():
    with pytest.raises(ValueError, match="lanes must be at least 1, not 0"):
        MxToBf16(0)
