"""Area and clock of one unit."""

import pytest

from deepseek.boards.board import BoardError
from deepseek.boards.unit import measure
from deepseek.rtl.config import preset


def test_a_unit_alone():
    found = measure("array.prepare:PrepareWeight", preset("tiny"), clock=True)
    assert found["comb"] > 50 and found["ff"] > 50 and found["dsp"] == 0
    assert 50 < found["mhz"] < 1000


@pytest.mark.parametrize("name", ["array.nope:PE", "array.pe:Nope", "pe"])
def test_no_such_unit(name):
    with pytest.raises(BoardError, match="no component"):
        measure(name, preset("tiny"))
