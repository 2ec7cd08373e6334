# amaranth: UnusedElaboratable=no
"""What a board adds to the card: its memory, its registers, its lights."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.hostport.shell import Lasting, ShellRegisters
from deepseek.rtl.memory.block import BlockStorage, StorageLane
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize(("name", "kilobytes"), [("tiny", 256), ("ecp5", 32)])
def test_block_storage(name, kilobytes):
    """Two banks of bytes in each lane, and one."""
    config = dataclasses.replace(preset(name), memory_bytes=kilobytes << 10)
    run_bench(BlockStorage(config), "deepseek.sim.benches.block", preset=config)


def test_registers():
    # The low word of the counter overflows during each test.
    registers = ShellRegisters(clock_hz=123_456_789, cycles=(7 << 32) - 500)
    run_bench(registers, "deepseek.sim.benches.shell", name="ShellRegisters")


def test_lights():
    run_bench(Lasting(width=2), "deepseek.sim.benches.lights")


def test_parameters():
    for clock_hz in (0, 1 << 32):
        with pytest.raises(ValueError, match=r"clock_hz must be from 1 to \d+, not"):
            ShellRegisters(clock_hz=clock_hz)
    with pytest.raises(ValueError, match="cycles must fit 64 bits, not -1"):
        ShellRegisters(clock_hz=1, cycles=-1)
    with pytest.raises(ValueError, match="depth must be a power of two, not 12"):
        StorageLane(depth=12)
