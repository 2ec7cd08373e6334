# amaranth: UnusedElaboratable=no
"""The two ends of a serial line."""

import pytest
from amaranth.hdl import Module, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from deepseek.rtl.hostport.uart import UartReceiver, UartTransmitter
from deepseek.sim.runner import run_bench

RATES = ((16, 1), (2, 1), (3, 1), (50, 12), (48_000_000, 3_000_000), (12_000_000, 115_200))


class Lines(wiring.Component):
    """A receiver and a transmitter for each of some pairs of clock and baud."""

    def __init__(self, rates: tuple[tuple[int, int], ...]) -> None:
        self.rates = rates
        byte = stream.Signature(unsigned(8))
        always = stream.Signature(unsigned(8), always_ready=True)
        count = len(rates)
        super().__init__(
            {
                "rx": In(1).array(count),
                "received": Out(always).array(count),
                "sent": In(byte).array(count),
                "tx": Out(1).array(count),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for n, (clock_hz, baud) in enumerate(self.rates):
            m.submodules[f"receiver_{n}"] = receiver = UartReceiver(clock_hz=clock_hz, baud=baud)
            m.submodules[f"sender_{n}"] = sender = UartTransmitter(clock_hz=clock_hz, baud=baud)
            connect(m, receiver.bytes, flipped(self.received[n]))
            connect(m, flipped(self.sent[n]), sender.bytes)
            m.d.comb += [receiver.rx.eq(self.rx[n]), self.tx[n].eq(sender.tx)]
        return m


def test_lines() -> None:
    env = {"CLOCKS_A_BIT": " ".join(str(clock_hz / baud) for clock_hz, baud in RATES)}
    run_bench(Lines(RATES), "deepseek.sim.benches.uart", env=env)


@pytest.mark.parametrize("end", [UartReceiver, UartTransmitter])
@pytest.mark.parametrize(
    ("clock_hz", "baud", "message"),
    [
        (0, 1, "clock_hz must be a positive integer, not 0"),
        (16, 1.5, "baud must be a positive integer, not 1.5"),
        (16, 9, "baud must be at most half of clock_hz 16, not 9"),
        (100_000_000, 300, "baud must be at least 6103 for clock_hz 100000000, not 300"),
    ],
)
def test_rates_that_are_none(end: type, clock_hz: int, baud: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        end(clock_hz=clock_hz, baud=baud)
