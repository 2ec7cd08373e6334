"""ECPIX-5 with LFE5UM5G-85F: USB serial bridge FT2232H, 100 MHz oscillator."""

from .board import Board

__all__ = ["BOARD"]

BOARD = Board(
    name="ecpix5",
    summary="ECPIX-5, LFE5UM5G-85F grade 8, USB serial",
    device="LFE5UM5G-85F",
    speed="8",
    clock_hz=90_000_000,
    baud=3_000_000,
    platform="amaranth_boards.ecpix5:ECPIX585Platform",
    oscillator="clk100",
    oscillator_hz=100_000_000,
    leds={
        "heartbeat": ("rgb_led", 0, "g"),
        "running": ("rgb_led", 1, "g"),
        "activity": ("rgb_led", 2, "b"),
        "error": ("rgb_led", 3, "r"),
    },
    programmer="ecpix5",
)
