"""Memory that takes its time, for a card whose clock stands still meanwhile."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.memory.held import HeldStorage
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "ecp5"])
def test_held_storage(name: str) -> None:
    config = dataclasses.replace(preset(name), memory_bytes=1 << 14)
    run_bench(HeldStorage(config), "deepseek.sim.benches.held", preset=config)
