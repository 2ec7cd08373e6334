"""A small design in the place of the card, whose cycles can be told from outside."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from identity import Identity

from deepseek.rtl.hostport.csr import HostPort
from deepseek.rtl.isa.probe import Probe
from deepseek.rtl.memory.bus import STORAGE_LATENCY, Storage
from deepseek.rtl.memory.sdram import SdramController
from deepseek.rtl.numerics.delay import delayed
from deepseek.rtl.shell import Shell

START, CYCLES = 0x80, 0x84


class Mirror(wiring.Component):
    """Copies memory, inverted: beats 0 to ``n - 1`` to beats ``2 n - 1`` down to ``n``, once the
    host writes ``n`` to `START`. It reads in every other cycle, and writes what comes in the
    cycle in which it comes: ``2 n + 2`` cycles, which it counts in `CYCLES`. Some registers keep
    what is written."""

    def __init__(self, config, *, build_hash):
        self._build_hash = build_hash
        members = {name: Out(1) for name in ("irq", "running", "failed")}
        members |= {"host": In(HostPort()), "storage": Out(Storage(config)), "probe": Out(Probe)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        host, storage = self.host, self.storage
        left, at, cycles = Signal(16), Signal(16), Signal(32)
        odd = Signal()
        writes = delayed(m, 1, left.any() & ~odd, STORAGE_LATENCY, "writes")
        target = Signal(16)
        with m.If(host.write & (host.address == START)):
            m.d.sync += [left.eq(host.write_data), odd.eq(0), at.eq(0), cycles.eq(0)]
            m.d.sync += target.eq((host.write_data << 1) - 1)
        with m.Elif(self.running):
            m.d.sync += [odd.eq(~odd), cycles.eq(cycles + 1)]
            with m.If(odd & left.any()):
                m.d.sync += [left.eq(left - 1), at.eq(at + 1)]
        with m.If(writes):
            m.d.sync += target.eq(target - 1)
        pending = delayed(m, 1, left.any(), STORAGE_LATENCY - 1, "pending")
        m.d.comb += [
            self.running.eq(left.any() | pending),
            storage.enable.eq(writes | (left.any() & ~odd)),
            storage.write.eq(writes),
            storage.address.eq(target),
            storage.write_data.eq(~storage.read_data),
            storage.write_mask.eq(-1),
            self.probe.working.eq(self.running),
            self.probe.read_beat.eq(storage.enable & ~storage.write),
            self.probe.write_beat.eq(writes),
        ]
        with m.If(~writes):
            m.d.comb += storage.address.eq(at)

        m.submodules.identity = identity = Identity(self._build_hash, {CYCLES: cycles})
        connect(m, flipped(host), identity.host)
        return m


def mirror_shell(config, *, clock_hz, baud, build_hash, sdram):
    """Return a shell around a `Mirror`, with its memory in SDRAM."""
    memory = SdramController(
        sdram, clock_hz=clock_hz, bytes=config.memory_bytes, beat_bytes=config.bus_bytes
    )
    card = Mirror(config, build_hash=build_hash)
    return Shell(config, clock_hz=clock_hz, baud=baud, memory=memory, card=card)
