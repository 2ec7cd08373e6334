"""What a board has around a shell whose memory makes the card wait."""

from amaranth.hdl import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from ...rtl.memory.sdram_timing import SdramTiming
from ...rtl.tech.clock_gate import ClockGate
from ..sdram import SdramChip

__all__ = ["Surroundings"]


class Surroundings(wiring.Component):
    """A shell with the card's clock, and the model of an SDRAM at its ``pins``, if it has some.

    Verilog of it needs that of the model (`deepseek.sim.sdram`). Members are ``rx``, ``tx``,
    ``busy``, ``running``, ``activity`` and ``error`` of the shell, and ``fault``, an ``Out(8)``:
    the first of the chip's rules that was broken, 0 if none was.

    Parameters
    ----------
    shell : Component
    clock_hz : int
    sdram : SdramTiming, optional
        Of the chip: its size. The times that it watches are those of the model.
    """

    def __init__(
        self, shell: wiring.Component, *, clock_hz: int, sdram: SdramTiming | None = None
    ) -> None:
        self._shell, self._sdram = shell, sdram
        self._clock_hz = clock_hz
        members = dict(shell.signature.members.items())
        self._own = [name for name in members if name not in ("gate", "pins")]
        super().__init__({**{name: members[name] for name in self._own}, "fault": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.shell = shell = self._shell
        m.submodules.gate = gate = ClockGate()
        m.domains.card = ClockDomain()
        m.d.comb += [
            gate.source.eq(ClockSignal()),
            gate.enable.eq(shell.gate),
            ClockSignal("card").eq(gate.clock),
            ResetSignal("card").eq(ResetSignal()),
        ]
        if self._sdram is not None:
            m.submodules.chip = chip = SdramChip(
                clock_hz=self._clock_hz,
                ROW_BITS=(self._sdram.rows - 1).bit_length(),
                COLUMN_BITS=(self._sdram.columns - 1).bit_length(),
            )
            connect(m, shell.pins, chip.pins)
            m.d.comb += self.fault.eq(chip.fault)
        for name in self._own:
            own, other = getattr(self, name), getattr(shell, name)
            m.d.comb += other.eq(own) if name == "rx" else own.eq(other)
        return m
