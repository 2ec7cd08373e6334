"""Row engines that share an epilogue lane."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.share import LaneShare
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("engines", [2, 4])
def test_share(engines: int) -> None:
    config = dataclasses.replace(preset("tiny"), name="shared", engines_per_lane=engines)
    run_bench(LaneShare(config), "deepseek.sim.benches.share", preset=config)


def test_refusals() -> None:
    tiny = preset("tiny")
    with pytest.raises(ValueError, match="at least 2 engines, not 1"):
        LaneShare(tiny)
    for engines in (0, 3, 8):
        with pytest.raises(ValueError, match=f"divides the 4 rows, not {engines}"):
            dataclasses.replace(tiny, engines_per_lane=engines)
    for engines, beats in ((4, 1024), (1, 4096)):
        told = f"{beats} are {beats // 8} for each of {engines}"
        with pytest.raises(ValueError, match=told):
            dataclasses.replace(tiny, engines_per_lane=engines, partial_beats=beats)
    assert dataclasses.replace(tiny, engines_per_lane=2).min_visit == 2 * tiny.min_visit
