"""What a board adds to the card: memory, the link to the host, a few registers."""

from amaranth.hdl import Cat, DomainRenamer, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from .card import Card
from .config import CardConfig
from .hostport.capture import Capture
from .hostport.link import Link
from .hostport.shell import Lasting, ShellRegisters
from .memory.block import BlockStorage
from .memory.held import HeldStorage

__all__ = ["Shell"]


class Shell(wiring.Component):
    """The card with its memory and a serial line to the host.

    It is reset at power-up only: the host resets the card with `Csr.CONTROL`.

    With memory that makes it wait, the card, the registers and the capture are in a domain of their
    own, ``card``, whose clock stands still while an answer is due (`HeldStorage`): they count the
    same cycles as with block RAM. The line does not stand still. That domain is the surroundings',
    with the reset of ``sync``, and the clock that a `ClockGate` passes on for ``gate``.

    Parameters
    ----------
    config : CardConfig
    clock_hz, baud : int
        Frequency of the clock and bits of the line a second; see `Link`.
    build_hash : int
        See `Card`.
    memory : Component, optional
        Keeps ``memory_bytes``, and has the members ``request`` and ``read`` as `HeldStorage` needs
        them, and maybe ``pins``, which the shell has then, too. Without it all of card memory is in
        block RAM.
    card : Component, optional
        Something with the members of `Card` in its place.

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
    gate : ``Out(1)``
        With ``memory`` only: for `ClockGate`.
    pins : ``Out``
        Those of the memory, if it has some.
    """

    def __init__(
        self,
        config: CardConfig,
        *,
        clock_hz: int,
        baud: int,
        build_hash: int = 0,
        memory: wiring.Component | None = None,
        card: wiring.Component | None = None,
    ) -> None:
        self.config = config
        self._card = card or Card(config, build_hash=build_hash)
        self._memory = memory
        self._tick_bits = (clock_hz // 16).bit_length()
        self._registers = ShellRegisters(clock_hz=clock_hz)
        self._link = Link(config, clock_hz=clock_hz, baud=baud)
        members = {
            "rx": In(1),
            "tx": Out(1),
            **{name: Out(1) for name in ("busy", "running", "activity", "error")},
        }
        if memory is not None:
            members["gate"] = Out(1)
            if "pins" in memory.signature.members:
                members["pins"] = memory.signature.members["pins"]
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        card, registers, capture = self._card, self._registers, Capture()
        parts = {"card": card, "registers": registers, "capture": capture}
        m.submodules.link = link = self._link
        if self._memory is None:
            m.submodules.storage = storage = BlockStorage(self.config)
        else:
            m.submodules.storage = storage = HeldStorage(self.config)
            self._hold(m, storage)
            parts = {name: DomainRenamer("card")(part) for name, part in parts.items()}
            m.d.comb += link.csr_held.eq(~storage.advance)
        for name, part in parts.items():
            m.submodules[name] = part
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

    def _hold(self, m: Module, storage: HeldStorage) -> None:
        """Put the memory behind the card's storage."""
        memory = self._memory
        m.submodules.backing = memory
        connect(m, storage.request, memory.request)
        connect(m, memory.read, storage.read)
        if "pins" in self.signature.members:
            connect(m, flipped(self.pins), memory.pins)
        m.d.comb += self.gate.eq(storage.gate)
