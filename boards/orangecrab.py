"""OrangeCrab r0.2 with LFE5U-85F: 48 MHz oscillator, no serial bridge.

The serial line is on the pins that the board calls 0 (into the card) and 1 (out of it), for a
bridge with levels of 3.3 V.
"""

from amaranth.build import Attrs, Pins, Resource, Subsignal

from .board import Board

__all__ = ["BOARD"]

BOARD = Board(
    name="orangecrab",
    summary="OrangeCrab r0.2, LFE5U-85F grade 8, serial line on pins 0 (in) and 1 (out)",
    device="LFE5U-85F",
    speed="8",
    clock_hz=90_000_000,
    baud=3_000_000,
    platform="amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_85FPlatform",
    oscillator="clk",
    oscillator_hz=48_000_000,
    leds={
        "heartbeat": ("rgb_led", 0, "b"),
        "running": ("rgb_led", 0, "g"),
        "error": ("rgb_led", 0, "r"),
    },
    resources=(
        Resource(
            "uart",
            0,
            Subsignal("rx", Pins("N17", dir="i"), Attrs(PULLMODE="UP")),
            Subsignal("tx", Pins("M18", dir="o")),
            Attrs(IO_TYPE="LVCMOS33"),
        ),
    ),
    programmer="orangeCrab",
    # The board's flash is read slowly at power-up.
    pack=("--compress", "--freq", "38.8"),
)
