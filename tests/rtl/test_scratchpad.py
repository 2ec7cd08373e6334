# amaranth: UnusedElaboratable=no
"""The scratchpad against a model of its bytes and of who is served."""

import dataclasses
import json

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.scratchpad import Scratchpad
from deepseek.sim.runner import run_bench

PORTS = {
    "tiny": ([1, 2, 1, 1], [1, 1, 1, 1]),
    "ecp5": ([1, 1, 2, 1, 1], [1, 1, 1, 1]),
    "sim": ([1, 1, 1, 1, 4, 1, 4], [4, 4, 1, 1]),
}


@pytest.mark.parametrize("name", PORTS)
def test_scratchpad(name):
    # Few rows: a build is quick, and every granule is visited.
    config = dataclasses.replace(preset(name), scratchpad_bytes=8 << 10)
    readers, writers = PORTS[name]
    run_bench(
        Scratchpad(config, readers=readers, writers=writers),
        "deepseek.sim.benches.scratchpad",
        preset=config,
        env={"READERS": json.dumps(readers), "WRITERS": json.dumps(writers)},
    )


@pytest.mark.parametrize(
    ("readers", "writers"), [([], [1]), ([3], [1]), ([1], [0]), ([4], [1]), ([1], [])]
)
def test_bad_ports_are_refused(readers, writers):
    with pytest.raises(ValueError, match=r"must be a list of widths from .*, not \["):
        Scratchpad(preset("tiny"), readers=readers, writers=writers)
