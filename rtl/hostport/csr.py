"""The host's registers: one declared list, the bank made from it, and the counters."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import ABI_VERSION, Csr, Queue

__all__ = ["ALL_ENGINES", "ID", "WATCHDOG_RESET", "CsrBank", "Events", "HostPort", "geometry"]

ID = int.from_bytes(b"DPSK", "little")
WATCHDOG_RESET = 100_000
ALL_ENGINES = 0xFF
"""`Csr.COUNT_ENGINE` for all engines."""

_RING_ALIGN_BITS = 7


class HostPort(wiring.Signature):
    """Access to the registers, seen from the host.

    Members
    -------
    address : ``Out(8)``
        Byte address; its two lowest bits are ignored.
    write, write_data : ``Out(1)``, ``Out(32)``
    read_data : ``In(32)``
        The register that ``address`` named in the cycle before. Reads change nothing.
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


class Counter(wiring.Component):
    """A counter of 64 bits whose high half follows the low one by a cycle.

    Members
    -------
    clear, count : ``In(1)``
        ``clear`` wins.
    amount : ``In``
    low, high : ``Out(32)``
    """

    def __init__(self, *, width: int) -> None:
        super().__init__(
            {
                "clear": In(1),
                "count": In(1),
                "amount": In(width),
                "low": Out(32),
                "high": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        carry = Signal()
        with m.If(self.clear):
            m.d.sync += [self.low.eq(0), self.high.eq(0), carry.eq(0)]
        with m.Else():
            m.d.sync += [
                Cat(self.low, carry).eq(self.low + Mux(self.count, self.amount, 0)),
                self.high.eq(self.high + carry),
            ]
        return m


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
        In the cycle of a write to `Csr.CONTROL`. ``reset`` clears the host's registers, too.
    ring_base, ring_size, ring_tail, watchdog : ``Out(32)``
    ideal, irq : ``Out(1)``
    count_engine : ``Out(8)``
        What ``events`` shows two cycles later.
    running : ``In(1)``
        A job runs: the counters count.
    start : ``In(1)``
        Clears the counters.
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
            Csr.STATE: Cat(self.running, Const(0, 7), self.busy),
            Csr.RING_HEAD: self.ring_head,
            Csr.COMPLETED: self.completed,
            Csr.ERROR: self.error,
            Csr.ERROR_COMMAND: self.error_command,
            Csr.STALL: self.stall,
            Csr.STALL_SEMAPHORE: self.stall_semaphore,
            **written,
        }
        counters = self._elaborate_counters(m)
        registers = {address.value: value for address, value in readable.items()}
        for address, counter in counters.items():
            registers[address.value] = counter.low
            registers[address.value + 4] = counter.high
        m.d.comb += self.cycles.eq(counters[Csr.CYCLES].low)

        word = host.address[2:]
        with m.Switch(word):
            for address, value in registers.items():
                with m.Case(address // 4):
                    m.d.sync += host.read_data.eq(value)
            with m.Default():
                m.d.sync += host.read_data.eq(0)

        control = host.write & (word == Csr.CONTROL // 4)
        m.d.comb += [
            self.reset.eq(control & host.write_data[0]),
            self.abort.eq(control & host.write_data[1]),
        ]
        with m.If(host.write), m.Switch(word):
            for address, value in written.items():
                with m.Case(address // 4):
                    if address is Csr.RING_BASE:
                        m.d.sync += value[_RING_ALIGN_BITS:].eq(host.write_data[_RING_ALIGN_BITS:])
                    elif address is Csr.MEMORY_MODE:
                        with m.If(~self.running):
                            m.d.sync += value.eq(host.write_data)
                    else:
                        m.d.sync += value.eq(host.write_data)
        with m.If(self.reset):
            m.d.sync += [value.eq(value.init) for value in written.values()]
        m.d.sync += self.irq.eq(self.completed != ack)
        return m

    def _elaborate_counters(self, m: Module) -> dict[Csr, Counter]:
        events = self.events
        bus_bytes, rows = self.config.bus_bytes, self.config.rows
        # All but those that worked were idle, at one cause a cycle: nothing is counted twice.
        engines = Signal(range(rows + 1))  # as many are counted
        engines_next = Signal(range(rows + 1))
        idle = Signal(range(rows + 1))
        with m.If(self.count_engine == ALL_ENGINES):
            m.d.sync += engines_next.eq(rows)
        with m.Else():
            m.d.sync += engines_next.eq(self.count_engine < rows)
        m.d.sync += engines.eq(engines_next)
        stalled = events.stall_stream + events.stall_fill + events.stall_drain
        m.d.comb += idle.eq(engines - events.mac_active - stalled)
        amounts: dict[Csr, Value] = {
            Csr.CYCLES: Const(1, 1),
            Csr.MAC_ACTIVE: events.mac_active,
            Csr.STALL_STREAM: events.stall_stream,
            Csr.STALL_FILL: events.stall_fill,
            Csr.STALL_DRAIN: events.stall_drain,
            Csr.IDLE_IMBALANCE: Mux(events.working, idle, 0),
            Csr.IDLE_MEMORY: Mux(~events.working & self.transferring, idle, 0),
            Csr.IDLE_OTHER: Mux(~events.working & ~self.transferring, idle, 0),
            Csr.BYTES_READ: Mux(events.read_beat, bus_bytes, 0),
            Csr.BYTES_WRITTEN: Mux(events.write_beat, bus_bytes, 0),
            Csr.HBM_ROW_HITS: events.row_hit,
            Csr.HBM_ACTIVATES: events.activate,
            Csr.HBM_REFRESHES: events.refresh,
        }
        counters = {}
        for address, amount in amounts.items():
            counter = Counter(width=len(amount))
            m.submodules[address.name.lower()] = counter
            m.d.comb += [
                counter.clear.eq(self.start),
                counter.count.eq(self.running),
                counter.amount.eq(amount),
            ]
            counters[address] = counter
        return counters
