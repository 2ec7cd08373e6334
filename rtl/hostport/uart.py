"""Serial line: bytes as a start bit, eight bits from the lowest on, and a stop bit."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]

_MAX_PHASE_BITS = 24
_RATE_ERROR = 1e-3


def _phase(clock_hz: int, baud: int) -> tuple[int, int]:
    """Return bits of a phase accumulator and its step: it overflows ``baud`` times a second.

    As few bits as keep the rate within a thousandth.
    """
    for name, value in (("clock_hz", clock_hz), ("baud", baud)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    if 2 * baud > clock_hz:
        raise ValueError(f"baud must be at most half of clock_hz {clock_hz}, not {baud!r}")
    for bits in range(1, _MAX_PHASE_BITS + 1):
        step = ((baud << bits) + clock_hz // 2) // clock_hz
        if step and abs(step * clock_hz / (baud << bits) - 1) <= _RATE_ERROR:
            return bits, step
    raise ValueError(f"baud must be at least {clock_hz >> 14} for clock_hz {clock_hz}, not {baud}")


class UartReceiver(wiring.Component):
    """Takes bytes from a line.

    A start bit is looked at again in its middle; a byte with a wrong stop bit is dropped, and the
    line has to be idle before the next one.

    Parameters
    ----------
    clock_hz, baud : int
        ``baud`` is at most half of ``clock_hz``; with 16 clocks a bit the two sides' clocks may
        differ by 2 % and more.

    Members
    -------
    rx : ``In(1)``
        The pin, in no clock's domain.
    bytes : ``Out(stream, always_ready)``
        Bytes are at least nine bits of the line apart.
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self._bits, self._step = _phase(clock_hz, baud)
        super().__init__(
            {"rx": In(1), "bytes": Out(stream.Signature(unsigned(8), always_ready=True))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line, before = Signal(init=1), Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        m.d.sync += before.eq(line)

        phase, overflow = Signal(self._bits), Signal()
        busy, first = Signal(), Signal()
        # Ones, then from the top what was sampled: the start bit at the bottom ends a byte.
        shift = Signal(10, init=0x3FF)
        m.d.comb += self.bytes.payload.eq(shift[1:9])
        m.d.sync += self.bytes.valid.eq(0)
        with m.If(busy):
            m.d.sync += Cat(phase, overflow).eq(phase + self._step)
            with m.If(overflow):
                m.d.sync += [shift.eq(Cat(shift[1:], line)), first.eq(0)]
                with m.If(first & line):
                    m.d.sync += busy.eq(0)
                with m.If(~shift[1]):
                    m.d.sync += [busy.eq(0), self.bytes.valid.eq(line)]
        with m.Elif(before & ~line):
            # The line fell up to a clock ago, and this takes effect in the next clock: from there
            # it is half a bit less two clocks to the middle of the start bit. Not earlier than at
            # once, which matters at two clocks a bit.
            ahead = (1 << self._bits >> 1) + 2 * self._step
            latest = (1 << self._bits) + self._step - 1
            m.d.sync += [
                busy.eq(1),
                first.eq(1),
                shift.eq(shift.init),
                Cat(phase, overflow).eq(min(ahead, latest)),
            ]
        return m


class UartTransmitter(wiring.Component):
    """Sends bytes over a line.

    Parameters
    ----------
    clock_hz, baud : int
        ``baud`` is at most half of ``clock_hz``.

    Members
    -------
    bytes : ``In(stream)``
        What is there in time follows without a pause: ten bits of the line a byte.
    tx : ``Out(1)``
        The pin; idle is high.
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self._bits, self._step = _phase(clock_hz, baud)
        super().__init__({"bytes": In(stream.Signature(unsigned(8))), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase, overflow = Signal(self._bits), Signal()
        m.d.sync += Cat(phase, overflow).eq(phase + self._step)
        # A one above what is still to be sent: alone, it is the stop bit.
        shift, idle = Signal(9, reset_less=True), Signal(init=1)
        m.d.comb += self.bytes.ready.eq(overflow & idle)
        with m.If(overflow):
            with m.If(idle):
                m.d.sync += [
                    shift.eq(Cat(self.bytes.payload, 1)),
                    idle.eq(~self.bytes.valid),
                    self.tx.eq(~self.bytes.valid),
                ]
            with m.Else():
                m.d.sync += [
                    shift.eq(shift >> 1),
                    idle.eq(shift[1:] == 0),
                    self.tx.eq(shift[0]),
                ]
        return m
