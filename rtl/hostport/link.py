"""The board's end of the serial link to the host."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import CardConfig
from ..elastic import Elastic
from ..memory.bus import Storage
from .buffer import FrameBuffer
from .framing import Deframer, Framer, item_layout
from .requests import RegisterPort, Requests
from .uart import UartReceiver, UartTransmitter

__all__ = ["Link", "RegisterPort"]


class Link(wiring.Component):
    """Serves the host over a serial line, as `deepseek.rtl.isa.link` says.

    Frames are received whatever else goes on; those that wait are kept in block RAM. Nothing that
    comes over the line stops it.

    Parameters
    ----------
    config : CardConfig
    clock_hz, baud : int
        Frequency of the clock and bits of the line a second; ``baud`` is at most half of
        ``clock_hz``.

    Members
    -------
    rx : ``In(1)``
        The pin, in no clock's domain.
    tx : ``Out(1)``
    csr : ``Out(RegisterPort)``
        Registers of the card, and of the shell from `SHELL_BASE` on.
    csr_held : ``In(1)``
        The registers do not live this cycle: ``csr`` stands still, and the cycle is not counted.
    memory : ``Out(Storage(config))``
        A byte at a time.
    memory_ready : ``In(1)``
        ``memory`` is served in this cycle. An access waits for it, unchanged, and what it reads is
        there in the cycle after.
    dropped : ``Out(32)``
        Frames dropped since reset, modulo 2^32: check sequence or length was wrong, or there was
        no room.
    """

    def __init__(self, config: CardConfig, *, clock_hz: int, baud: int) -> None:
        self.config = config
        self._receiver = UartReceiver(clock_hz=clock_hz, baud=baud)
        self._transmitter = UartTransmitter(clock_hz=clock_hz, baud=baud)
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                "csr": Out(RegisterPort()),
                "csr_held": In(1),
                "memory": Out(Storage(config)),
                "memory_ready": In(1),
                "dropped": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = self._receiver
        m.submodules.deframer = deframer = Deframer()
        m.submodules.buffer = buffer = FrameBuffer()
        m.submodules.requests = requests = Requests(self.config)
        # Between the two machines' states is a register.
        m.submodules.replies = replies = Elastic(item_layout())
        m.submodules.framer = framer = Framer()
        m.submodules.transmitter = transmitter = self._transmitter
        connect(m, receiver.bytes, deframer.bytes)
        connect(m, deframer.content, buffer.content)
        connect(m, buffer.bytes, requests.frames)
        connect(m, requests.items, replies.source)
        connect(m, replies.target, framer.items)
        connect(m, framer.bytes, transmitter.bytes)
        connect(m, flipped(self.csr), requests.csr)
        connect(m, flipped(self.memory), requests.memory)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            buffer.end.eq(deframer.end),
            buffer.good.eq(deframer.good),
            requests.left.eq(buffer.left),
            requests.memory_ready.eq(self.memory_ready),
            requests.csr_held.eq(self.csr_held),
            self.tx.eq(transmitter.tx),
            self.dropped.eq(buffer.dropped),
        ]
        return m
