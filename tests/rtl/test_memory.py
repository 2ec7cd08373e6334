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


def test_small_memory():
    """As much as block RAM holds on a board: rows of four bits."""
    config = dataclasses.replace(preset("tiny"), memory_bytes=256 << 10)
    assert row_bits(config) == 4
    run_bench(MemorySystem(config), "deepseek.sim.benches.memory", preset=config)


def test_memory_without_hbm():
    """A card without HBM channels is ideal memory, whatever is asked for."""
    config = dataclasses.replace(preset("tiny"), memory_bytes=256 << 10, hbm_channels=0)
    run_bench(
        MemorySystem(config),
        "deepseek.sim.benches.memory",
        preset=config,
        testcase=[
            "random_traffic/ideal=True/stall=0.0",
            "random_traffic/ideal=True/stall=0.5",
            "halt_and_flush",
            "ideal_bandwidth",
            "ideal_short_bursts",
        ],
    )


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
    for name, bits in (("tiny", 14), ("sim", 19)):
        small = dataclasses.replace(preset(name), memory_bytes=1 << bits)
        with pytest.raises(ValueError, match=r"memory_bytes must leave \d+ rows"):
            row_bits(small)
    with pytest.raises(ValueError, match="depth"):
        Controller(row_bits=12, timing=HBM3_6400, depth=12)
