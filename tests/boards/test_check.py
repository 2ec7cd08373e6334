"""The recorded table of what blocks take, and the comparison with it."""

import csv

import pytest

from deepseek.boards import BOARDS, BoardError, check
from deepseek.boards.check import CELLS, HEAD, NS_PERCENT, PERCENT, TABLE, Row, differences
from deepseek.boards.flow.synthesis import Resources
from deepseek.rtl.config import PRESETS

ROWS = {"a": Row(1, Resources(1000, 2000, 3, 4), 10.0), "b": Row(2, Resources(10, 0, 0, 0))}


def changed(**amounts):
    fields = {"comb": 1000, "ff": 2000, "dsp": 3, "ebr": 4, **amounts}
    return {**ROWS, "a": Row(1, Resources(**fields), 10.0)}


def test_equal():
    assert differences(ROWS, ROWS) == []


@pytest.mark.parametrize("sign", [-1, 1])
def test_bounds(sign):
    comb, ff = round(1000 * PERCENT / 100), round(2000 * PERCENT / 100)
    assert differences(changed(comb=1000 + sign * comb, ff=2000 + sign * ff), ROWS) == []
    assert differences(changed(comb=1000 + sign * (comb + 1)), ROWS) == [
        f"a takes {1000 + sign * (comb + 1):,} COMB, recorded 1,000"
    ]
    assert len(differences(changed(ff=2000 + sign * (ff + 1)), ROWS)) == 1
    assert differences(changed(dsp=3 + sign), ROWS) == [f"a takes {3 + sign} DSP, recorded 3"]
    assert differences(changed(ebr=4 + sign), ROWS) == [f"a takes {4 + sign} EBR, recorded 4"]


def test_small_blocks_may_differ_by_some_cells():
    near = {**ROWS, "b": Row(2, Resources(10 + CELLS, 0, 0, 0))}
    far = {**ROWS, "b": Row(2, Resources(11 + CELLS, 0, 0, 0))}
    assert differences(near, ROWS) == []
    assert len(differences(far, ROWS)) == 1


def test_other_blocks():
    assert differences({"a": ROWS["a"]}, ROWS) == ["b is gone"]
    assert differences(ROWS, {"a": ROWS["a"]}) == ["b is new (10 COMB)"]
    more = Row(3, ROWS["b"].resources)
    assert differences({**ROWS, "b": more}, ROWS) == ["b is there 3 times, not 2"]


def test_a_path_may_become_shorter_but_not_much_longer():
    def with_path(ns):
        return {**ROWS, "a": Row(1, ROWS["a"].resources, ns)}

    most = 10.0 * (1 + NS_PERCENT / 100)
    assert differences(with_path(5.0), ROWS) == differences(with_path(most), ROWS) == []
    assert differences(with_path(most + 0.1), ROWS) == ["a has a path of 11.1 ns, recorded 10.0"]


def test_recorded_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "TABLE", tmp_path / "resources.csv")
    found = {**ROWS, "total": Row(1, Resources(1010, 2000, 3, 4), 10.0)}
    monkeypatch.setattr(check, "measure", lambda *_: found)
    board, other = BOARDS["ulx3s"], BOARDS["ecpix5"]
    check.record_resources(other, "tiny")
    check.record_resources(board, "tiny")
    check.record_resources(board, "tiny")
    lines = list(csv.DictReader((tmp_path / "resources.csv").open()))
    assert len(lines) == 6
    assert "2 blocks within" in check.check_resources(board, "tiny")
    found["a"] = Row(1, Resources(2000, 2000, 3, 4), 10.0)
    with pytest.raises(
        BoardError,
        match=r"a takes 2,000 COMB, recorded 1,000; .*--board ulx3s --preset tiny --record",
    ):
        check.check_resources(board, "tiny")
    with pytest.raises(BoardError, match="no table is recorded for ecp5 on ulx3s; record it:"):
        check.check_resources(board, "ecp5")


def test_no_device():
    with pytest.raises(BoardError, match="the board virtual has no device"):
        check.measure(BOARDS["virtual"], "tiny")


def test_the_table():
    """It is of boards and presets that exist, adds up, and fits."""
    lines = list(csv.DictReader(TABLE.open()))
    assert tuple(lines[0]) == HEAD
    builds = {(line["board"], line["preset"]) for line in lines}
    assert ("ulx3s", "tiny") in builds
    for board, preset in builds:
        assert preset in PRESETS
        rows = {x["block"]: x for x in lines if (x["board"], x["preset"]) == (board, preset)}
        total = rows.pop("total")
        for key in ("comb", "ff", "dsp", "ebr"):
            assert int(total[key]) == sum(int(row[key]) for row in rows.values())
            assert int(total[key]) <= getattr(BOARDS[board].capacity, key)
        assert float(total["ns"]) == max(float(row["ns"]) for row in rows.values()) > 0
