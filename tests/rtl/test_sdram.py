# amaranth: UnusedElaboratable=no
"""The controller of an SDRAM, with the model of the chip."""

import dataclasses

import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from deepseek.rtl.memory.sdram import SdramController, SdramTiming
from deepseek.sim.runner import run_bench
from deepseek.sim.sdram import SdramChip, sdram_verilog
from deepseek.sim.verilated.convert import to_verilog

TIMING = dataclasses.replace(SdramTiming(), power_up=20e3)
"""The chips' own, but up sooner."""


class Driven(wiring.Component):
    """A controller with its chip, registers between them where ``delay`` is 2, and a watch on the
    refreshes.

    Members
    -------
    fault : ``Out(8)``
        Of the chip.
    refreshes, worst : ``Out(32)``
        How many there were, and the most cycles from one to the next, or to now.
    """

    def __init__(
        self,
        timing: SdramTiming,
        *,
        clock_hz: int,
        beat_bytes: int,
        bytes: int,
        halves: int,
        delay: int,
    ) -> None:
        self.control = SdramController(
            timing, clock_hz=clock_hz, bytes=bytes, beat_bytes=beat_bytes, delay=delay
        )
        self.chip = SdramChip(
            clock_hz=clock_hz,
            halves=halves,
            ROW_BITS=(bytes // timing.columns // 8 - 1).bit_length(),
            COLUMN_BITS=(timing.columns - 1).bit_length(),
            POWER_UP_NS=int(timing.power_up),
        )
        members = dict(self.control.signature.members)
        super().__init__(
            {
                "request": members["request"],
                "read": members["read"],
                "fault": Out(8),
                "refreshes": Out(32),
                "worst": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.control = control = self.control
        m.submodules.chip = chip = self.chip
        connect(m, flipped(self.request), control.request)
        connect(m, control.read, flipped(self.read))
        pins = control.pins
        for name, member in pins.signature.members.items():
            own, other = getattr(pins, name), getattr(chip.pins, name)
            source, target = (own, other) if member.flow is Out else (other, own)
            domain = m.d.sync if control.delay else m.d.comb
            domain += target.eq(source)
        since, refresh = Signal(32), Signal()
        m.d.comb += [
            self.fault.eq(chip.fault),
            refresh.eq(~pins.ras_n & ~pins.cas_n & pins.we_n),
        ]
        m.d.sync += [
            since.eq(Mux(refresh, 0, since + 1)),
            self.refreshes.eq(self.refreshes + refresh),
        ]
        with m.If((self.refreshes != 0) & (since > self.worst)):
            m.d.sync += self.worst.eq(since)
        return m


@pytest.mark.parametrize("beat_bytes", [8, 16])
@pytest.mark.parametrize(
    # Slow clocks take data that come at once, fast ones such that come a whole cycle later.
    ("mhz", "halves"),
    [(50, 0), (60, 1), (90, 1), (120, 2)],
)
def test_controller(mhz: int, halves: int, beat_bytes: int) -> None:
    clock_hz = mhz * 1_000_000
    size = TIMING.bytes if (mhz, beat_bytes) == (60, 8) else 1 << 18
    top = Driven(
        TIMING,
        clock_hz=clock_hz,
        beat_bytes=beat_bytes,
        bytes=size,
        halves=halves,
        delay=2 if (mhz, beat_bytes) == (90, 16) else 0,
    )
    env = {
        "BEAT_BYTES": beat_bytes,
        "BYTES": size,
        "ROW_BYTES": 2 * TIMING.columns,
        "REFRESH": TIMING.cycles(clock_hz).refresh,
    }
    run_bench(
        to_verilog(top, "Driven") + sdram_verilog(),
        "deepseek.sim.benches.sdram",
        name="Driven",
        env={name: str(value) for name, value in env.items()},
    )


def test_cycles() -> None:
    """At 90 MHz, a cycle of 11.1 ns."""
    cycles = SdramTiming().cycles(90_000_000)
    assert (cycles.cas, cycles.rcd, cycles.rp, cycles.rfc) == (2, 2, 2, 7)
    assert cycles.rp + cycles.ras == 7  # rc
    assert cycles.power_up == 18_000
    assert cycles.refresh == 702  # of 703.1
    assert SdramTiming().cycles(120_000_000).cas == 3
    assert SdramTiming().bytes == 32 << 20


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clock_hz": 166_000_000}, "clock_hz must be from 8000000 to 133000000, not 166000000"),
        ({"beat_bytes": 64}, "beat_bytes must be 8 or 16, not 64"),
        ({"bytes": 1 << 26}, "bytes must be a power of two from 8192 to 33554432, not 67108864"),
        ({"bytes": 3 << 20}, "bytes must be a power of two .* not 3145728"),
        ({"delay": -1}, "delay must not be negative, not -1"),
    ],
)
def test_wrong(wrong: dict[str, int], message: str) -> None:
    right = {"clock_hz": 60_000_000, "bytes": 1 << 25, "beat_bytes": 8}
    with pytest.raises(ValueError, match=message):
        SdramController(SdramTiming(), **{**right, **wrong})


def test_wrong_timing() -> None:
    with pytest.raises(ValueError, match="columns must be a power of two up to 1024, not 2048"):
        SdramTiming(columns=2048)
    with pytest.raises(ValueError, match="rcd must be positive, not 0"):
        SdramTiming(rcd=0)
