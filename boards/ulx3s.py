"""ULX3S with LFE5U-85F: USB serial bridge FT231X, 25 MHz oscillator."""

from amaranth.build import Attrs, Pins, Resource

from ..rtl.memory.sdram_timing import SdramTiming
from .board import Board

__all__ = ["BOARD"]

BOARD = Board(
    name="ulx3s",
    summary="ULX3S, LFE5U-85F grade 6, USB serial",
    device="LFE5U-85F",
    speed="6",
    # Leaves room for a placement without luck: docs/fpga.md has what place and route makes.
    clock_hz=70_000_000,
    baud=3_000_000,  # the most that its bridge takes
    platform="amaranth_boards.ulx3s:ULX3S_85F_Platform",
    oscillator="clk25",
    oscillator_hz=25_000_000,
    leds={
        "heartbeat": ("led", 0),
        "running": ("led", 1),
        "activity": ("led", 2),
        "error": ("led", 7),
    },
    # Held low, this line of the ESP32 makes the board load its bootloader's design again.
    high=(("keep_design", 0),),
    resources=(
        Resource("keep_design", 0, Pins("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP")),
    ),
    programmer="ulx3s",
    # 32 MiB, of different makers: IS42S16160G, W9825G6KH, AS4C16M16SA or MT48LC16M16A2.
    sdram=SdramTiming(),
)
