"""What a board adds to the card: memory in block RAM, the link to the host, a few registers."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect

from .card import Card
from .config import CardConfig
from .hostport.capture import Capture
from .hostport.link import Link
from .hostport.shell import Lasting, ShellRegisters
from .memory.block import BlockStorage

__all__ = ["Shell"]


class Shell(wiring.Component):
    """The card with memory in block RAM and a serial line to the host.

    It is reset at power-up only: the host resets the card with `Csr.CONTROL`.

    Parameters
    ----------
    config : CardConfig
        All of ``memory_bytes`` is in block RAM.
    clock_hz, baud : int
        Frequency of the clock and bits of the line a second; see `Link`.
    build_hash : int
        See `Card`.

    Members
    -------
    rx : ``In(1)``
        Serial line from the host, in no clock's domain.
    tx : ``Out(1)``
        Serial line to the host.
    busy : ``Out(1)``
        A job runs.
    running, activity, error : ``Out(1)``
        For the eye, each for at least a sixteenth of a second: a job runs; there are bits on the
        line; a job has failed since the card was last reset.
    """

    def __init__(
        self, config: CardConfig, *, clock_hz: int, baud: int, build_hash: int = 0
    ) -> None:
        self.config = config
        self._tick_bits = (clock_hz // 16).bit_length()
        self._build_hash = build_hash
        self._registers = ShellRegisters(clock_hz=clock_hz)
        self._link = Link(config, clock_hz=clock_hz, baud=baud)
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                **{name: Out(1) for name in ("busy", "running", "activity", "error")},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.card = card = Card(self.config, build_hash=self._build_hash)
        m.submodules.storage = storage = BlockStorage(self.config)
        m.submodules.link = link = self._link
        m.submodules.registers = registers = self._registers
        m.submodules.capture = capture = Capture()
        connect(m, card.storage, storage.card)
        connect(m, link.memory, storage.host)
        connect(m, link.csr, registers.link)
        connect(m, registers.card, card.host)

        line = Signal(init=1)
        m.submodules.line = FFSynchronizer(self.rx, line, init=1)
        m.submodules.lasting = lasting = Lasting(width=3)
        count, tick = Signal(self._tick_bits), Signal()
        m.d.sync += Cat(count, tick).eq(count + 1)
        m.d.comb += [
            link.rx.eq(self.rx),
            link.memory_ready.eq(storage.host_ready),
            self.tx.eq(link.tx),
            registers.irq.eq(card.irq),
            registers.dropped.eq(link.dropped),
            capture.probe.eq(card.probe),
            *(
                getattr(capture, name).eq(getattr(registers.capture, name))
                for name in ("address", "write", "write_data")
            ),
            registers.capture.read_data.eq(capture.read_data),
            self.busy.eq(card.running),
            lasting.tick.eq(tick),
            lasting.events.eq(Cat(card.running, ~line | ~link.tx, card.failed)),
            Cat(self.running, self.activity, self.error).eq(lasting.lights),
        ]
        return m
