"""The registers and the lights of the shell around the card."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa.link import SHELL_BASE, ShellCsr
from ..numerics.delay import delayed
from .csr import HOST_READ_LATENCY, HostPort
from .requests import RegisterPort

__all__ = ["Lasting", "ShellRegisters"]


class ShellRegisters(wiring.Component):
    """Shares the link's accesses to registers out to the card and the shell, and holds `ShellCsr`.

    Parameters
    ----------
    clock_hz : int
        What `ShellCsr.CLOCK_HZ` shows.
    cycles : int
        What `ShellCsr.CYCLES` starts at.

    Members
    -------
    link : ``In(RegisterPort)``
    card : ``Out(HostPort)``
        Serves what is below `SHELL_BASE`.
    capture : ``Out(RegisterPort)``
        Serves what the shell does not know.
    irq : ``In(1)``
    dropped : ``In(32)``
    """

    def __init__(self, *, clock_hz: int, cycles: int = 0) -> None:
        if not 1 <= clock_hz < 1 << 32:
            raise ValueError(f"clock_hz must be from 1 to {(1 << 32) - 1}, not {clock_hz!r}")
        if not 0 <= cycles < 1 << 64:
            raise ValueError(f"cycles must fit 64 bits, not {cycles!r}")
        self._clock_hz = clock_hz
        self._cycles = cycles
        super().__init__(
            {
                "link": In(RegisterPort()),
                "card": Out(HostPort()),
                "capture": Out(RegisterPort()),
                "irq": In(1),
                "dropped": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        link, card, capture = self.link, self.card, self.capture

        # What is here waits for the card to answer, and is found in the last cycle of that.
        asked = delayed(m, 1, link.address, HOST_READ_LATENCY - 2, "asked")
        of_card, was_of_card = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [of_card.eq(asked < SHELL_BASE), was_of_card.eq(of_card)]

        def named(csr: ShellCsr) -> Signal:
            """Return whether the register is asked for, a cycle behind ``asked``."""
            found = Signal(name=f"{csr.name.lower()}_named", reset_less=True)
            m.d.sync += found.eq(asked == csr)
            return found

        # The high word follows the low one by a cycle, and is taken a cycle later.
        low = Signal(32, init=self._cycles & 0xFFFFFFFF)
        high, carry = Signal(32, init=self._cycles >> 32), Signal()
        held, take = Signal(32, reset_less=True), Signal(reset_less=True)
        named_low = named(ShellCsr.CYCLES)
        m.d.sync += [
            Cat(low, carry).eq(low + 1),
            high.eq(high + carry),
            take.eq(named_low),
        ]
        with m.If(take):
            m.d.sync += held.eq(high)

        readable: list[tuple[Signal, Value]] = [
            (named(ShellCsr.CLOCK_HZ), Const(self._clock_hz, 32)),
            (named_low, low),
            (named(ShellCsr.CYCLES_HIGH), held),
            (named(ShellCsr.FRAMES_DROPPED), self.dropped),
            (named(ShellCsr.SHELL_STATE), self.irq),
        ]
        own = Signal(32, reset_less=True)
        m.d.sync += own.eq(reduce(or_, (Mux(found, value, 0) for found, value in readable)))
        m.d.comb += [
            card.address.eq(link.address[: len(card.address)]),
            card.write.eq(link.write & (link.address < SHELL_BASE)),
            card.write_data.eq(link.write_data),
            capture.address.eq(link.address),
            capture.write.eq(link.write),
            capture.write_data.eq(link.write_data),
            link.read_data.eq(
                (card.read_data & was_of_card.replicate(32)) | own | capture.read_data
            ),
        ]
        return m


class Lasting(wiring.Component):
    """Makes events last until they can be seen.

    Members
    -------
    tick : ``In(1)``
        One cycle in a long time.
    events, lights : ``In``, ``Out``
        A light is on from the cycle after its event on, for one to two ticks.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__({"tick": In(1), "events": In(width), "lights": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        recent, before = Signal.like(self.events), Signal.like(self.events)
        with m.If(self.tick):
            m.d.sync += [recent.eq(self.events), before.eq(recent)]
        with m.Else():
            m.d.sync += recent.eq(recent | self.events)
        m.d.comb += self.lights.eq(recent | before)
        return m
