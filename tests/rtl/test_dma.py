"""Load and store units, against a model of card memory and of the scratchpad."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.load import LoadUnit
from deepseek.rtl.core.store import StoreUnit
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "ecp5", "sim"])
@pytest.mark.parametrize("unit", [LoadUnit, StoreUnit], ids=["load", "store"])
def test_transfer(unit, name):
    # The benches compare all of memory after every command.
    config = dataclasses.replace(preset(name), memory_bytes=1 << 17, scratchpad_bytes=64 << 10)
    env = {"UNIT": "load" if unit is LoadUnit else "store"}
    # A beat is half a granule, one granule, four: the middle one is the plain case.
    tests = ["random_traffic", "speed"] if name == "ecp5" else None
    run_bench(unit(config), "deepseek.sim.benches.dma", preset=config, env=env, testcase=tests)
