"""The DRAM as its controller sees it: commands, and a model that refuses illegal ones."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .address import BANKS
from .gaps import countdown
from .timing import Timing

__all__ = [
    "ColumnKind",
    "Device",
    "RowKind",
    "Rule",
    "column_command_layout",
    "row_command_layout",
]

_TIME_BITS = 16
"""Stamps are void after a refresh, which comes long before they wrap."""


class RowKind(enum.Enum, shape=unsigned(3)):
    """Commands of the row bus."""

    NONE = 0
    ACTIVATE = 1
    PRECHARGE = 2
    PRECHARGE_ALL = 3
    REFRESH = 4


class ColumnKind(enum.Enum, shape=unsigned(2)):
    """Commands of the column bus."""

    NONE = 0
    READ = 1
    WRITE = 2


class Rule(enum.Enum, shape=unsigned(4)):
    """Which rule an illegal command broke; constraints carry their JEDEC names."""

    NONE = 0
    STATE = 1
    """An activate of an open bank, a column of a row that is not open, a refresh of an open bank"""
    RP = 2
    RAS = 3
    RC = 4
    RRD = 5
    FAW = 6
    RCD = 7
    CCD = 8
    RTP = 9
    WR = 10
    WTR = 11
    RTW = 12
    RFC = 13
    REFI = 14
    """Two refresh intervals passed without a refresh"""
    ROW_BUS = 15


def row_command_layout(row_bits: int) -> data.StructLayout:
    """Layout of a command on the row bus."""
    return data.StructLayout({"kind": RowKind, "bank": unsigned(4), "row": unsigned(row_bits)})


def column_command_layout(row_bits: int) -> data.StructLayout:
    """Layout of a command on the column bus; ``row`` is the row that it means to access."""
    return data.StructLayout(
        {
            "kind": ColumnKind,
            "bank": unsigned(4),
            "column": unsigned(5),
            "row": unsigned(row_bits),
        }
    )


class _Stamps:
    """Times of the last event by key (bank or bank group), forgotten at a refresh."""

    def __init__(self, m: Module, name: str, depth: int, now: Signal, clear: Value) -> None:
        memory = Memory(shape=unsigned(_TIME_BITS), depth=depth, init=[])
        m.submodules[name] = memory
        self._m, self._memory, self._now = m, memory, now
        self._write = memory.write_port()
        self._known = Signal(depth, name=f"{name}_known")
        self._depth = depth
        with m.If(clear):
            m.d.sync += self._known.eq(0)

    def record(self, event: Value, key: Value) -> None:
        """Note ``event`` of ``key`` now. Called once."""
        self._m.d.comb += [
            self._write.en.eq(event),
            self._write.addr.eq(key),
            self._write.data.eq(self._now),
        ]
        with self._m.If(event):
            self._m.d.sync += self._known.eq(self._known | (1 << key))

    def reader(self, key: Value):
        """Return a function of a limit: is the last event of ``key`` less than that ago?"""
        port = self._memory.read_port(domain="comb")
        self._m.d.comb += port.addr.eq(key)
        age = (self._now - port.data)[:_TIME_BITS]
        known = self._known.bit_select(key, 1)
        return lambda limit: known & (age < limit)


class Device(wiring.Component):
    """State and timing of one pseudo-channel of 16 banks; keeps no bytes.

    Knows nothing of the controller: it remembers when what happened to each bank and bank group
    and checks every command against the timing.

    Parameters
    ----------
    row_bits : int
    timing : Timing

    Members
    -------
    row, column : ``In``
        Commands of this clock.
    illegal : ``Out(1)``
        High in the cycle after an illegal command.
    rule : ``Out(Rule)``
        The rule that it broke, one of them where there are several.
    """

    def __init__(self, *, row_bits: int, timing: Timing) -> None:
        self.row_bits = row_bits
        self.timing = timing
        super().__init__(
            {
                "row": In(row_command_layout(row_bits)),
                "column": In(column_command_layout(row_bits)),
                "illegal": Out(1),
                "rule": Out(Rule),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        t = self.timing
        row, column = self.row, self.column
        activate = Signal()
        precharge = Signal()
        precharge_all = Signal()
        refresh = Signal()
        read = Signal()
        write = Signal()
        m.d.comb += [
            activate.eq(row.kind == RowKind.ACTIVATE),
            precharge.eq(row.kind == RowKind.PRECHARGE),
            precharge_all.eq(row.kind == RowKind.PRECHARGE_ALL),
            refresh.eq(row.kind == RowKind.REFRESH),
            read.eq(column.kind == ColumnKind.READ),
            write.eq(column.kind == ColumnKind.WRITE),
        ]

        # An illegal refresh leaves open banks and their times alone.
        open_banks = Signal(BANKS)
        forget = refresh & (open_banks == 0)

        now = Signal(_TIME_BITS)
        m.d.sync += now.eq(now + 1)

        def stamps(name: str, depth: int, event: Value, key: Value) -> _Stamps:
            table = _Stamps(m, name, depth, now, forget)
            table.record(event, key)
            return table

        row_group, column_group = row.bank[0:2], column.bank[0:2]
        activated = stamps("activated", BANKS, activate, row.bank)
        precharged = stamps("precharged", BANKS, precharge, row.bank)
        read_bank = stamps("read_bank", BANKS, read, column.bank)
        written_bank = stamps("written_bank", BANKS, write, column.bank)
        activated_group = stamps("activated_group", 4, activate, row_group)
        used_group = stamps("used_group", 4, read | write, column_group)
        written_group = stamps("written_group", 4, write, column_group)

        any_row = row.kind != RowKind.NONE
        rrds = countdown(m, "rrds", activate, t.rrds)
        ccds = countdown(m, "ccds", read | write, t.ccds)
        wtrs = countdown(m, "wtrs", write, t.cwl + t.bl + t.wtrs)
        rtw = countdown(m, "rtw", read, t.rtw)
        ras_all = countdown(m, "ras_all", activate, t.ras)
        rc_all = countdown(m, "rc_all", activate, t.rc)
        rp_all = countdown(m, "rp_all", precharge | precharge_all, t.rp)
        rp_all_banks = countdown(m, "rp_all_banks", precharge_all, t.rp)
        rtp_all = countdown(m, "rtp_all", read, t.rtp)
        wr_all = countdown(m, "wr_all", write, t.precharge_after_write)
        rfc = countdown(m, "rfc", refresh, t.rfc)
        row_bus = countdown(m, "row_bus", any_row, t.row_bus)

        # The fourth activate back.
        recent = Array(Signal(_TIME_BITS, name=f"recent_{i}") for i in range(4))
        recent_known = Signal(4)
        oldest = Signal(2)
        with m.If(activate):
            m.d.sync += [
                recent[oldest].eq(now),
                recent_known.bit_select(oldest, 1).eq(1),
                oldest.eq(oldest + 1),
            ]
        with m.If(forget):
            m.d.sync += recent_known.eq(0)
        in_window = recent_known.bit_select(oldest, 1) & (
            (now - recent[oldest])[:_TIME_BITS] < t.faw
        )

        m.submodules.rows = rows = Memory(shape=unsigned(self.row_bits), depth=BANKS, init=[])
        rows_write = rows.write_port()
        rows_read = rows.read_port(domain="comb")
        m.d.comb += [
            rows_write.en.eq(activate),
            rows_write.addr.eq(row.bank),
            rows_write.data.eq(row.row),
            rows_read.addr.eq(column.bank),
        ]
        m.d.sync += open_banks.eq(
            (open_banks | (activate << row.bank)) & ~(precharge << row.bank)[:BANKS]
        )
        with m.If(precharge_all):
            m.d.sync += open_banks.eq(0)

        since_refresh = Signal(range(2 * t.refi + 1))
        with m.If(refresh):
            m.d.sync += since_refresh.eq(0)
        with m.Elif(since_refresh != 2 * t.refi):
            m.d.sync += since_refresh.eq(since_refresh + 1)

        late = since_refresh == 2 * t.refi
        bank_activated = activated.reader(row.bank)
        bank_read = read_bank.reader(row.bank)
        bank_written = written_bank.reader(row.bank)
        column_activated = activated.reader(column.bank)
        bank_open = open_banks.bit_select(row.bank, 1)
        column_open = open_banks.bit_select(column.bank, 1) & (rows_read.data == column.row)
        used = used_group.reader(column_group)(t.ccdl)
        # A column command of a bank that is precharged in the same clock.
        at_once = (precharge & (row.bank == column.bank)) | precharge_all

        broken = {
            Rule.STATE: (activate & bank_open)
            | (refresh & (open_banks != 0))
            | ((read | write) & ~column_open),
            Rule.RP: (activate & (precharged.reader(row.bank)(t.rp) | ~rp_all_banks))
            | (refresh & ~rp_all),
            Rule.RAS: (precharge & bank_activated(t.ras)) | (precharge_all & ~ras_all),
            Rule.RC: (activate & bank_activated(t.rc)) | (refresh & ~rc_all),
            Rule.RRD: activate & (~rrds | activated_group.reader(row_group)(t.rrdl)),
            Rule.FAW: activate & in_window,
            Rule.RCD: (read & column_activated(t.rcdrd)) | (write & column_activated(t.rcdwr)),
            Rule.CCD: (read | write) & (~ccds | used),
            Rule.RTP: (precharge & bank_read(t.rtp))
            | (precharge_all & ~rtp_all)
            | (at_once & read),
            Rule.WR: (precharge & bank_written(t.precharge_after_write))
            | (precharge_all & ~wr_all)
            | (at_once & write),
            Rule.WTR: read & (~wtrs | written_group.reader(column_group)(t.read_after_write)),
            Rule.RTW: write & ~rtw,
            Rule.RFC: any_row & ~rfc,
            Rule.REFI: late,
            Rule.ROW_BUS: any_row & ~row_bus,
        }
        flags = Signal(16)
        with m.If(any_row | read | write | late):
            m.d.comb += flags.eq(Cat(broken.get(rule, Const(0, 1)) for rule in Rule))
        m.d.sync += self.illegal.eq(flags != 0)
        first = Rule.NONE.value
        for rule in reversed(Rule):
            first = Mux(flags[rule.value], rule.value, first)
        m.d.sync += self.rule.eq(first)
        return m
