# amaranth: UnusedElaboratable=no
import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.partials import PartialMemory
from deepseek.sim.benches.described import DescribedLane
from deepseek.sim.runner import run_bench

BENCH = "deepseek.sim.benches.epilogue"


def test_epilogue():
    run_bench(DescribedLane(preset("tiny")), BENCH, preset="tiny")


def test_wider():
    run_bench(
        DescribedLane(preset("ecp5")),
        BENCH,
        preset="ecp5",
        testcase=["all_paths/stall=0.0", "full_rate/stride=1/blocks=True", "latency"],
    )


def test_shortest_visits():
    """Visits of 4 beats are shorter than the addition of running sums."""
    config = dataclasses.replace(preset("tiny"), name="narrow", cols=2, partial_beats=16)
    run_bench(
        DescribedLane(config),
        BENCH,
        preset=config,
        testcase=["slices_back_to_back", "slow_writes"],
    )


def test_shared():
    """Behind engines that share it the lane takes beats as it needs them."""
    config = dataclasses.replace(preset("tiny"), name="shared", engines_per_lane=2)
    run_bench(
        DescribedLane(config),
        BENCH,
        preset=config,
        testcase=["commands_follow/stall=0.3", "full_rate/stride=1/blocks=False", "slow_writes"],
    )


def test_refusals():
    for near, far in ((1, 2), (3, 2)):
        with pytest.raises(ValueError, match="near and far must be"):
            PartialMemory(preset("tiny"), visits=16, width=53, near=near, far=far)
    with pytest.raises(ValueError, match="visits must be a power of two from 2 on, not 12"):
        PartialMemory(preset("tiny"), visits=12, width=53, near=3, far=12)
