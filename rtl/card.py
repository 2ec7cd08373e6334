"""The card: sequencer, units, scratchpad and memory system."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .config import CardConfig
from .core.compute import ComputeUnit
from .core.load import LoadUnit
from .core.scratchpad import Scratchpad
from .core.sequencer import Sequencer
from .core.store import StoreUnit
from .core.vector import VectorUnit
from .hostport.csr import HostPort
from .isa.probe import Probe
from .memory.bus import Storage
from .memory.system import MemorySystem
from .tech.spread import Spread

__all__ = ["Card"]


class Card(wiring.Component):
    """A whole card.

    Everything that a failed job may leave in the middle of its work is in the clock domain
    ``core``, which has the same clock and is also reset by the sequencer.

    Parameters
    ----------
    config : CardConfig
    build_hash : int
        64 bits by which software recognises the build.

    Members
    -------
    host : ``In(HostPort)``
        Control and status registers.
    storage : ``Out(Storage)``
        The bytes of card memory.
    irq : ``Out(1)``
        A job has ended that the host has not acknowledged.
    running, failed : ``Out(1)``
        A job runs; one has failed since the last reset.
    probe : ``Out(Probe)``
        What a capture on the chip sees.
    """

    def __init__(self, config: CardConfig, *, build_hash: int = 0) -> None:
        self.config = config
        self.build_hash = build_hash
        super().__init__(
            {
                "host": In(HostPort()),
                "storage": Out(Storage(config)),
                "irq": Out(1),
                "running": Out(1),
                "failed": Out(1),
                "probe": Out(Probe),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        sequencer = Sequencer(config, build_hash=self.build_hash)
        load0, load1, store = LoadUnit(config), LoadUnit(config), StoreUnit(config)
        compute, vector = ComputeUnit(config), VectorUnit(config)
        memory = MemorySystem(config)

        # In order of priority. Loads come first: their data cannot wait. Streams come before the
        # fill, which runs ahead of them.
        readers = [*compute.stream_read, compute.fill_read, vector.read, store.read]
        writers = [load0.write, load1.write, compute.write, vector.write]
        scratchpad = Scratchpad(
            config,
            readers=[port.signature.granules for port in readers],
            writers=[port.signature.granules for port in writers],
        )

        m.domains.core = core = ClockDomain()
        # From a register: else Verilator takes all that a reset reaches for logic behind an input,
        # and evaluates it at both edges of the clock. The core leaves the reset a cycle later than
        # the sequencer, which has nothing for it so early.
        reset = Signal(init=1)
        m.submodules.core_reset = core_reset = Spread()
        m.d.sync += reset.eq(sequencer.core_reset)
        m.d.comb += [
            core.clk.eq(ClockSignal()),
            core_reset.bit.eq(reset),
            core.rst.eq(core_reset.everywhere),
        ]
        m.submodules.sequencer = sequencer
        for name, unit in {
            "load0": load0,
            "load1": load1,
            "store": store,
            "compute": compute,
            "vector": vector,
            "scratchpad": scratchpad,
            "memory": memory,
        }.items():
            setattr(m.submodules, name, DomainRenamer("core")(unit))

        for port, reader in zip(scratchpad.read_ports, readers, strict=True):
            connect(m, reader, port)
        for port, writer in zip(scratchpad.write_ports, writers, strict=True):
            connect(m, writer, port)
        connect(m, flipped(self.host), sequencer.host)
        connect(m, memory.storage, flipped(self.storage))
        connect(m, sequencer.bus, memory.fetch)
        for name, unit in (("load0", load0), ("load1", load1), ("store", store)):
            connect(m, unit.bus, getattr(memory, name))
            connect(m, getattr(sequencer, name), unit.unit)
        connect(m, sequencer.compute, compute.unit)
        connect(m, sequencer.vector, vector.unit)

        events, engines = sequencer.events, compute.events
        m.d.comb += [
            self.irq.eq(sequencer.irq),
            self.running.eq(sequencer.running),
            self.failed.eq(sequencer.failed),
            sequencer.memory_idle.eq(memory.idle),
            sequencer.memory_illegal.eq(memory.illegal),
            memory.halt.eq(sequencer.halt),
            memory.flush.eq(0),  # the memory system is reset with its requesters
            memory.ideal.eq(sequencer.ideal),
            events.mac_active.eq(engines.active),
            events.stall_stream.eq(engines.stall_stream),
            events.stall_fill.eq(engines.stall_fill),
            events.stall_drain.eq(engines.stall_drain),
            events.working.eq(engines.working),
            compute.count_engine.eq(sequencer.count_engine),
            sequencer.flags.eq(compute.flags),
            *(
                getattr(events, name).eq(getattr(memory, name))
                for name in ("read_beat", "write_beat", "row_hit", "activate", "refresh")
            ),
        ]

        # Two cycles later will do for the watchdog, and end long paths here.
        ports = (compute.fill_read, compute.write, vector.read)
        others = Cat(memory.read_beat, memory.write_beat, engines.active)
        valid, ready = Signal(len(ports)), Signal(len(ports))
        moved = Signal(len(others))
        m.d.sync += [
            valid.eq(Cat(port.valid for port in ports)),
            ready.eq(Cat(port.ready for port in ports)),
            moved.eq(others),
            sequencer.progress.eq((valid & ready).any() | moved.any()),
        ]

        probe = self.probe
        m.d.comb += [
            probe.irq.eq(sequencer.irq),
            probe.host_write.eq(self.host.write),
            probe.host_address.eq(self.host.address[2:]),
            probe.halt.eq(sequencer.halt),
            probe.core_reset.eq(sequencer.core_reset),
            probe.memory_idle.eq(memory.idle),
            *(
                getattr(probe, name).eq(getattr(events, name))
                for name, _ in events.signature.members.items()
            ),
        ]
        for name in ("load0", "load1", "compute", "vector", "store"):
            unit = getattr(sequencer, name)
            m.d.comb += [
                probe[name].start.eq(unit.start.valid),
                probe[name].ready.eq(unit.start.ready),
                probe[name].done.eq(unit.done),
                probe[name].error.eq(unit.error),
            ]
        return m
