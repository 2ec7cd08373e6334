"""The board that is simulated: its bitstream only says which card to simulate."""

from ..rtl.memory.sdram_timing import SdramTiming
from .board import Board

__all__ = ["BOARD"]

BOARD = Board(
    name="virtual",
    summary="the board simulated: shell and card in Verilator behind a pseudo-terminal",
    device="virtual",
    speed="",
    # As few cycles a bit as the receiver takes: the line slows the simulation down.
    clock_hz=8_000_000,
    baud=4_000_000,
    sdram=SdramTiming(),
)
