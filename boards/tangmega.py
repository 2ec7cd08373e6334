"""Tang Mega 138K Pro Dock with GW5AST-138: USB serial bridge, 50 MHz oscillator."""

from .board import Board

__all__ = ["BOARD"]

BOARD = Board(
    name="tangmega",
    summary="Tang Mega 138K Pro, GW5AST-138 grade C1/I0, USB serial",
    device="GW5AST-LV138FPG676A",
    speed="C1/I0",
    clock_hz=50_000_000,  # the oscillator's: place and route has no PLL of this device
    baud=3_000_000,
    platform="amaranth_boards.tang_mega_138k_pro_dock:TangMega138kProDockPlatform",
    oscillator="clk50",
    oscillator_hz=50_000_000,
    leds={
        "heartbeat": ("led", 0),
        "running": ("led", 1),
        "activity": ("led", 2),
        "error": ("led", 3),
    },
    programmer="tangmega138k",
)
