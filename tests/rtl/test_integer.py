# amaranth: UnusedElaboratable=no

import pytest

from deepseek.rtl.numerics.integer import IntegerToFp32
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("width", [9, 25])
def test_integer(width):
    run_bench(IntegerToFp32(width), "deepseek.sim.benches.integer")


@pytest.mark.parametrize("width", [1, 26])
def test_refuses_width(width):
    with pytest.raises(ValueError, match=f"width must be from 2 to 25, not {width}"):
        IntegerToFp32(width)
