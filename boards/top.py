"""What is around the shell on a board: clock, reset, serial pins and LEDs."""

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Const, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import connect

from ..rtl.tech.clock_gate import ClockGate
from ..rtl.tech.spread import Spread
from .board import Board
from .families import ClockSetting
from .sdram import SdramPads

__all__ = ["BoardTop"]


class BoardTop(Elaboratable):
    """The top of a board. It is elaborated with the board's platform.

    Parameters
    ----------
    board : Board
    shell : Component
        `deepseek.rtl.shell.Shell`, or something else with ``rx``, ``tx``, ``running``,
        ``activity`` and ``error``. If it has ``gate``, its domain ``card`` is made here; if it has
        ``pins``, they are those of the board's SDRAM.
    setting : ClockSetting
        Of the clock.
    """

    def __init__(self, board: Board, shell: wiring.Component, setting: ClockSetting) -> None:
        self.board = board
        self.shell = shell
        self.setting = setting

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        board, shell = self.board, self.shell
        m.submodules.oscillator = oscillator = io.Buffer(
            "i", platform.request(board.oscillator, 0, dir="-")
        )
        m.submodules.clock = clock = board.family.make_clock(self.setting)
        m.domains.sync = ClockDomain()
        m.d.comb += clock.oscillator.eq(oscillator.i)
        self._clocks(m, clock.clock)
        # Registers start as if in reset, and leave it when the clock can be used.
        m.submodules.spread = spread = Spread()
        m.submodules.reset = FFSynchronizer(~clock.locked, spread.bit, init=1)
        m.d.comb += ResetSignal().eq(spread.everywhere)
        m.submodules.shell = shell

        uart = platform.request(*board.uart, dir="-")
        m.submodules.rx_pin = rx_pin = io.Buffer("i", uart.rx)
        m.submodules.tx_pin = tx_pin = io.Buffer("o", uart.tx)
        m.d.comb += shell.rx.eq(rx_pin.i)
        sent = Signal(init=1)  # no glitches on the line
        m.d.sync += sent.eq(shell.tx)
        m.d.comb += tx_pin.o.eq(sent)

        if "pins" in shell.signature.members:
            m.submodules.sdram = sdram = SdramPads()
            connect(m, shell.pins, sdram.pins)

        beats = Signal((self.setting.hz - 1).bit_length(), reset_less=True)
        m.d.sync += beats.eq(beats + 1)
        shown = {
            "heartbeat": beats[-1],
            "running": shell.running,
            "activity": shell.activity,
            "error": shell.error,
        }
        requested: dict[tuple[str, int], Any] = {}
        for name, (resource, number, *part) in board.leds.items():
            if (resource, number) not in requested:
                requested[resource, number] = platform.request(resource, number, dir="-")
            pin = requested[resource, number]
            pin = getattr(pin, part[0]) if part else pin
            m.submodules[f"led_{name}"] = led = io.Buffer("o", pin)
            m.d.comb += led.o.eq(shown[name])
        for number, resource in enumerate(board.high):
            m.submodules[f"high_{number}"] = high = io.Buffer(
                "o", platform.request(*resource, dir="-")
            )
            m.d.comb += high.o.eq(1)
        return m

    def _clocks(self, m: Module, source: Signal) -> None:
        """Make the clock of everything, and that of the card if it stands still at times."""
        if "gate" not in self.shell.signature.members:
            m.d.comb += ClockSignal().eq(source)
            return
        m.domains.card = ClockDomain()
        for name, domain, enable in (
            ("free", "sync", Const(1)),
            ("gate", "card", self.shell.gate),
        ):
            m.submodules[name] = gate = ClockGate()
            m.d.comb += [
                gate.source.eq(source),
                gate.enable.eq(enable),
                ClockSignal(domain).eq(gate.clock),
            ]
        m.d.comb += ResetSignal("card").eq(ResetSignal())
