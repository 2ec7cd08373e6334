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
    with pytest.raises(ValueError, match="at most 256 rows, not of 4 engines with 128"):
        dataclasses.replace(tiny, engines_per_lane=4, partial_beats=1024)
    assert dataclasses.replace(tiny, engines_per_lane=2).min_visit == 2 * tiny.min_visit
