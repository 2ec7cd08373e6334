"""The shell that a board gets: its card, and what holds the card's memory."""

from ..rtl.config import CardConfig
from ..rtl.memory.sdram import SdramController
from ..rtl.memory.sdram_timing import SdramTiming
from ..rtl.shell import Shell

__all__ = ["board_shell"]


def board_shell(
    config: CardConfig,
    *,
    clock_hz: int,
    baud: int,
    build_hash: int,
    sdram: SdramTiming | None = None,
) -> Shell:
    """Make the shell. ``sdram`` is what holds the card's memory; without it block RAM does."""
    memory = None
    if sdram is not None:
        memory = SdramController(
            sdram, clock_hz=clock_hz, bytes=config.memory_bytes, beat_bytes=config.bus_bytes
        )
    return Shell(config, clock_hz=clock_hz, baud=baud, build_hash=build_hash, memory=memory)
