# amaranth: UnusedElaboratable=no
"""The memory system, behind its four ports and in front of its storage."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.memory.address import row_bits
from deepseek.rtl.memory.controller import Controller
from deepseek.rtl.memory.system import MemorySystem
from deepseek.rtl.memory.timing import HBM3_6400
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_memory(name):
    run_bench(MemorySystem(preset(name)), "deepseek.sim.benches.memory", preset=name)


@pytest.mark.parametrize(("name", "cycles"), [("ecp5", 20800), ("sim", 6500)])
def test_bandwidth(name, cycles):
    """Sequential reads over ``cycles`` cycles, other patterns over one refresh interval."""
    run_bench(
        MemorySystem(preset(name)),
        "deepseek.sim.benches.memory_bandwidth",
        preset=name,
        env={"MEMORY_CYCLES": str(cycles)},
    )


def test_parameters():
    with pytest.raises(ValueError, match="hbm_channels"):
        MemorySystem(dataclasses.replace(preset("tiny"), hbm_channels=4))
    small = dataclasses.replace(preset("tiny"), memory_bytes=1 << 18)
    with pytest.raises(ValueError, match="memory_bytes"):
        row_bits(small)
    with pytest.raises(ValueError, match="depth"):
        Controller(row_bits=12, timing=HBM3_6400, depth=12)
