"""The host's registers: one declared list, and the bank made from it."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..core.select import select
from ..isa import ABI_VERSION, Csr, Queue
from ..tech.select import select as tech_select
from .counters import CounterBank

__all__ = [
    "ALL_ENGINES",
    "HOST_READ_LATENCY",
    "ID",
    "WATCHDOG_RESET",
    "CsrBank",
    "Events",
    "HostPort",
    "geometry",
]

HOST_READ_LATENCY = 3
"""Cycles from the address of a register to its data."""

ID = int.from_bytes(b"DPSK", "little")
WATCHDOG_RESET = 100_000
ALL_ENGINES = 0xFF
"""`Csr.COUNT_ENGINE` for all engines."""

_RING_ALIGN_BITS = 7
_COUNTER_WORD = Csr.CYCLES // 4
_STEP_BITS = 16
_COPIES = 16
"""Written registers that follow each other are told apart by as many low bits of their number."""


class HostPort(wiring.Signature):
    """Access to the registers, seen from the host.

    Members
    -------
    address : ``Out(8)``
        Byte address; its two lowest bits are ignored.
    write, write_data : ``Out(1)``, ``Out(32)``
    read_data : ``In(32)``
        The register that ``address`` named `HOST_READ_LATENCY` cycles before, as all writes before
        that left it. Reads change nothing, and there may be one in every cycle.
    """

    def __init__(self) -> None:
        super().__init__(
            {"address": Out(8), "write": Out(1), "write_data": Out(32), "read_data": In(32)}
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostPort)


class Events(wiring.Signature):
    """What the counters count in a cycle, seen from the units.

    Members
    -------
    mac_active, stall_stream, stall_fill, stall_drain : ``Out``
        Row engines in each state, of those that are counted; the others have no work.
    working : ``Out(1)``
        A row engine has work, counted or not.
    read_beat, write_beat : ``Out(1)``
        A beat moved on the card memory bus.
    row_hit, activate, refresh : ``Out(2)``
        HBM commands.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        engines = range(config.rows + 1)
        super().__init__(
            {
                "mac_active": Out(engines),
                "stall_stream": Out(engines),
                "stall_fill": Out(engines),
                "stall_drain": Out(engines),
                "working": Out(1),
                "read_beat": Out(1),
                "write_beat": Out(1),
                "row_hit": Out(2),
                "activate": Out(2),
                "refresh": Out(2),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Events) and self.config == other.config


def geometry(config: CardConfig) -> int:
    """Return the value of `Csr.GEOMETRY`."""
    return config.rows | config.cols << 8 | config.bus_bytes << 16 | config.hbm_channels << 24


class CsrBank(wiring.Component):
    """The registers of `Csr`.

    ``ring_base`` ignores its low 7 bits; `Csr.MEMORY_MODE` ignores writes while a job runs.

    Parameters
    ----------
    config : CardConfig
    build_hash : int
        64 bits that `Csr.BUILD_LOW` and `Csr.BUILD_HIGH` show.

    Members
    -------
    host : ``In(HostPort)``
    events : ``In(Events)``
    reset, abort : ``Out(1)``
        In the cycle after a write to `Csr.CONTROL`. ``reset`` clears the host's registers, too.
    ring_base, ring_size, ring_tail, watchdog : ``Out(32)``
    ideal, irq : ``Out(1)``
    count_engine : ``Out(8)``
        Whose cycles ``events`` shows three cycles later.
    running : ``In(1)``
        A job runs: the counters count.
    start : ``In(1)``
        Clears the counters.
    took : ``In(1)``
        A command has been taken out of the ring.
    pause : ``Out(1)``
        No further one may be: there are no steps left (`Csr.STEP`). It is up to date 2 cycles
        after ``took``.
    transferring : ``In(1)``
        A load or store unit has work.
    busy : ``In(7)``
        By `Unit`.
    ring_head, completed, error, error_command, stall, stall_semaphore : ``In``
        Read as they are.
    cycles : ``Out(32)``
        Low word of `Csr.CYCLES`.
    """

    def __init__(self, config: CardConfig, build_hash: int = 0) -> None:
        if not 0 <= build_hash < 1 << 64:
            raise ValueError(f"build_hash must fit 64 bits, not {build_hash!r}")
        self.config = config
        self.build_hash = build_hash
        super().__init__(
            {
                "host": In(HostPort()),
                "events": In(Events(config)),
                "reset": Out(1),
                "abort": Out(1),
                "ring_base": Out(32),
                "ring_size": Out(32),
                "ring_tail": Out(32),
                "watchdog": Out(32, init=WATCHDOG_RESET),
                "ideal": Out(1),
                "irq": Out(1),
                "count_engine": Out(8, init=ALL_ENGINES),
                "running": In(1),
                "start": In(1),
                "took": In(1),
                "pause": Out(1),
                "transferring": In(1),
                "busy": In(7),
                "ring_head": In(32),
                "completed": In(32),
                "error": In(16),
                "error_command": In(32),
                "stall": In(4 * len(Queue)),
                "stall_semaphore": In(4 * len(Queue)),
                "cycles": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, host = self.config, self.host
        ack = Signal(32)
        self._given = Signal(32, reset_less=True)  # what the host wrote in the cycle before
        m.d.sync += self._given.eq(host.write_data)

        written = {
            Csr.RING_BASE: self.ring_base,
            Csr.RING_SIZE: self.ring_size,
            Csr.RING_TAIL: self.ring_tail,
            Csr.ACK: ack,
            Csr.WATCHDOG: self.watchdog,
            Csr.MEMORY_MODE: self.ideal,
            Csr.COUNT_ENGINE: self.count_engine,
        }
        readable: dict[Csr, Value] = {
            Csr.ID: Const(ID, 32),
            Csr.ABI: Const(ABI_VERSION, 32),
            Csr.BUILD_LOW: Const(self.build_hash & 0xFFFFFFFF, 32),
            Csr.BUILD_HIGH: Const(self.build_hash >> 32, 32),
            Csr.GEOMETRY: Const(geometry(config), 32),
            Csr.SCRATCHPAD_BYTES: Const(config.scratchpad_bytes, 32),
            Csr.MEMORY_BYTES: Const(config.memory_bytes, 32),
            Csr.OPERAND_DEPTH: Const(config.operand_depth, 32),
            Csr.PARTS: Const(config.parts_mask, 32),
            Csr.STATE: Cat(self.running, Const(0, 7), self.busy),
            Csr.ERROR: self.error,
            Csr.STALL: self.stall,
            Csr.STALL_SEMAPHORE: self.stall_semaphore,
            Csr.MEMORY_MODE: self.ideal,
            Csr.COUNT_ENGINE: self.count_engine,
            Csr.STEP: self._elaborate_steps(m),
        }
        m.submodules.counters = counters = self._elaborate_counters(m)
        words: list[ValueLike] = [Const(0)] * (_COUNTER_WORD + 32)
        for address, value in readable.items():
            words[address.value // 4] = value

        # The first cycle of a read is the address's way here, the second one chooses, the third one
        # adds up.
        word = host.address[2:]
        asked, wide = Signal(len(word), reset_less=True), Signal(2, reset_less=True)
        of_counter, counted = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            asked.eq(word),
            wide.eq(0),
            of_counter.eq((word >= _COUNTER_WORD) & (word != Csr.COUNT_ENGINE // 4)),
            counted.eq(of_counter),
        ]
        with m.Switch(word):
            for kind, csr in enumerate((Csr.RING_HEAD, Csr.COMPLETED, Csr.ERROR_COMMAND), 1):
                with m.Case(csr.value // 4):
                    m.d.sync += wide.eq(kind)
        copied = [csr for csr in written if csr not in readable]
        copy = self._elaborate_copies(m, asked, copied)
        wides = [Const(0, 32), self.ring_head, self.completed, self.error_command]
        wide_word, other_word = Signal(32, reset_less=True), Signal(32, reset_less=True)
        m.d.sync += [
            wide_word.eq(tech_select(m, platform, wide, wides, name="wide_choice")),
            other_word.eq(select(asked, words)),
            host.read_data.eq(Mux(counted, counters.value, wide_word | other_word | copy)),
        ]
        m.d.comb += counters.address.eq(asked)

        # A reset comes a cycle late, when the next write may be there, which wins.
        control = self._written(Csr.CONTROL)
        m.d.sync += [
            self.reset.eq(control & host.write_data[0]),
            self.abort.eq(control & host.write_data[1]),
            self.irq.eq(self.completed != ack),
        ]
        with m.If(self.reset):
            m.d.sync += [value.eq(value.init) for value in written.values()]
        with m.If(host.write), m.Switch(word):
            for address, value in written.items():
                with m.Case(address // 4):
                    if address is Csr.RING_BASE:
                        m.d.sync += value[_RING_ALIGN_BITS:].eq(host.write_data[_RING_ALIGN_BITS:])
                    elif address is Csr.MEMORY_MODE:
                        with m.If(~self.running | self.reset):
                            m.d.sync += value.eq(host.write_data)
                    else:
                        m.d.sync += value.eq(host.write_data)
        return m

    def _written(self, csr: Csr) -> Value:
        """Return whether the host writes the register in this cycle."""
        return self.host.write & (self.host.address[2:] == csr.value // 4)

    def _elaborate_steps(self, m: Module) -> Value:
        """Count the steps down; return what `Csr.STEP` reads."""
        data = self._given
        enable, left = Signal(), Signal(_STEP_BITS)
        hit = Signal()
        m.d.sync += hit.eq(self._written(Csr.STEP))
        with m.If(hit):
            m.d.sync += [
                Cat(left, enable).eq(Cat(data[:_STEP_BITS], data[-1])),
                self.pause.eq(data[-1] & ~data[:_STEP_BITS].any()),
            ]
        with m.Elif(self.reset):
            m.d.sync += [enable.eq(0), left.eq(0), self.pause.eq(0)]
        with m.Elif(self.took & enable & ~self.pause):
            m.d.sync += [left.eq(left - 1), self.pause.eq(left == 1)]
        return Cat(left, Const(0, 31 - _STEP_BITS), enable)

    def _elaborate_copies(self, m: Module, asked: Signal, csrs: list[Csr]) -> Value:
        """Keep what the host wrote in a memory, to be read; return what ``csrs`` read, or 0.

        ``asked`` is the host port's word of the cycle before; so late, too, is a write. What is
        returned comes a cycle after ``asked``.
        """
        m.submodules.copies = copies = memory.Memory(
            shape=unsigned(32), depth=_COPIES, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = copies.write_port(), copies.read_port(domain="comb")
        m.d.sync += write.en.eq(Cat(self._written(csr) for csr in csrs).any())
        m.d.comb += [
            write.addr.eq(asked),
            write.data.eq(self._given),
            read.addr.eq(asked),
        ]
        known, void = Signal(), (asked == Csr.RING_BASE // 4).replicate(_RING_ALIGN_BITS)
        for csr in csrs:
            written = Signal(name=f"{csr.name.lower()}_written")
            with m.If(asked == csr.value // 4):
                m.d.comb += known.eq(written)
                with m.If(write.en):
                    m.d.sync += written.eq(1)
            with m.If(self.reset):
                m.d.sync += written.eq(0)
        found, at_reset = Signal(32, reset_less=True), Signal(reset_less=True)
        holds = Signal(reset_less=True)
        m.d.sync += [
            found.eq(Cat(read.data[:_RING_ALIGN_BITS] & ~void, read.data[_RING_ALIGN_BITS:])),
            holds.eq(known),
            at_reset.eq(~known & (asked == Csr.WATCHDOG // 4)),
        ]
        return (found & holds.replicate(32)) | (WATCHDOG_RESET & at_reset.replicate(32))

    def _elaborate_counters(self, m: Module) -> CounterBank:
        """Count events: two cycles later, as they come from all over the device."""
        rows = self.config.rows
        bus_shift = (self.config.bus_bytes - 1).bit_length()

        def later(value: ValueLike, name: str) -> Signal:
            result = Signal(len(Value.cast(value)), name=f"{name}_later", reset_less=True)
            m.d.sync += result.eq(value)
            return result

        events = {
            name: later(getattr(self.events, name), name) for name in self.events.signature.members
        }
        working, transferring = events["working"], later(self.transferring, "transferring")
        # All but those that worked were idle, at one cause a cycle: nothing is counted twice.
        engines = Signal(range(rows + 1))  # as many are counted; later, when events show them
        idle = Signal(range(rows + 1))
        with m.If(self.count_engine == ALL_ENGINES):
            m.d.sync += engines.eq(rows)
        with m.Else():
            m.d.sync += engines.eq(self.count_engine < rows)
        for i in range(3):
            engines = later(engines, f"engines{i}")
        stalled = events["stall_stream"] + events["stall_fill"] + events["stall_drain"]
        m.d.comb += idle.eq(engines - events["mac_active"] - stalled)
        amounts: dict[Csr, tuple[ValueLike, int, int]] = {  # amount, the largest one, zeros behind
            Csr.CYCLES: (1, 1, 0),
            Csr.MAC_ACTIVE: (events["mac_active"], rows, 0),
            Csr.STALL_STREAM: (events["stall_stream"], rows, 0),
            Csr.STALL_FILL: (events["stall_fill"], rows, 0),
            Csr.STALL_DRAIN: (events["stall_drain"], rows, 0),
            Csr.IDLE_IMBALANCE: (Mux(working, idle, 0), rows, 0),
            Csr.IDLE_MEMORY: (Mux(~working & transferring, idle, 0), rows, 0),
            Csr.IDLE_OTHER: (Mux(~working & ~transferring, idle, 0), rows, 0),
            Csr.BYTES_READ: (events["read_beat"], 1, bus_shift),
            Csr.BYTES_WRITTEN: (events["write_beat"], 1, bus_shift),
            Csr.HBM_ROW_HITS: (events["row_hit"], 3, 0),
            Csr.HBM_ACTIVATES: (events["activate"], 3, 0),
            Csr.HBM_REFRESHES: (events["refresh"], 3, 0),
        }
        order = sorted(amounts)
        counters = CounterBank(tuple(amounts[csr][1:] for csr in order))
        begun, count = Signal(), Signal()  # what clears and counts, later by a cycle
        m.d.sync += [
            begun.eq(self.start),
            counters.clear.eq(begun),
            count.eq(self.running),
            counters.count.eq(count),
        ]
        for n, csr in enumerate(order):
            if csr != Csr.CYCLES + 8 * n:
                raise ValueError(f"counters must follow each other, not skip to {csr!r}")
            m.d.sync += getattr(counters, f"amount_{n}").eq(amounts[csr][0])
        # The completion record takes its cycles while they are counted.
        with m.If(self.start):
            m.d.sync += self.cycles.eq(0)
        with m.Elif(self.running):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        return counters
