"""The HBM controller of one pseudo-channel."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .address import BANKS, access_layout
from .device import ColumnKind, RowKind, column_command_layout, row_command_layout
from .timing import Timing

__all__ = ["Controller"]

_TIME_BITS = 16
"""Stamps of banks wrap, which can only delay a command of a bank that was long unused."""

_ORDER_BITS = 8
"""Bits of the count of bursts; more than the queue needs, so that old counts seldom look new."""


class Controller(wiring.Component):
    """Turns bursts into DRAM commands, one row and one column command a clock at most.

    Columns go in the order of the bursts. Three places walk along the queue, so that rows open
    long before their columns come: *close* precharges banks that hold another row, *open* follows
    and activates, *column* follows and moves the data. Rows stay open until another is wanted. A
    refresh of all banks begins as soon as it is due; then the open rows are opened again.

    Parameters
    ----------
    row_bits : int
    timing : Timing
    depth : int
        Bursts in the queue, a power of two from 2 to 64.

    Members
    -------
    request : ``In(stream)``
        A burst (`access_layout`).
    row, column : ``Out``
        Commands to the device.
    done : ``Out(1)``
        The data of one column, the oldest, have all passed the device's pins.
    row_hit, activate, refresh : ``Out(1)``
        Events: a column command that is not the first since its row was opened, an activate, a
        refresh.
    """

    def __init__(self, *, row_bits: int, timing: Timing, depth: int = 16) -> None:
        if not 2 <= depth <= 64 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two from 2 to 64, not {depth!r}")
        self.row_bits = row_bits
        self.timing = timing
        self.depth = depth
        super().__init__(
            {
                "request": In(stream.Signature(access_layout(row_bits))),
                "row": Out(row_command_layout(row_bits)),
                "column": Out(column_command_layout(row_bits)),
                "done": Out(1),
                "row_hit": Out(1),
                "activate": Out(1),
                "refresh": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        t = self.timing

        # The queue. Its places count bursts and wrap at _ORDER_BITS.
        layout = access_layout(self.row_bits)
        m.submodules.queue = queue = Memory(shape=layout, depth=self.depth, init=[])
        index_bits = (self.depth - 1).bit_length()
        tail = Signal(_ORDER_BITS)
        close_at = Signal(_ORDER_BITS)
        open_at = Signal(_ORDER_BITS)
        column_at = Signal(_ORDER_BITS)
        queue_write = queue.write_port()
        m.d.comb += [
            self.request.ready.eq((tail - column_at)[:_ORDER_BITS] != self.depth),
            queue_write.addr.eq(tail),
            queue_write.data.eq(self.request.payload),
            queue_write.en.eq(self.request.valid & self.request.ready),
        ]
        m.d.sync += tail.eq(tail + queue_write.en)

        def entry(place: Signal):
            port = queue.read_port(domain="comb")
            m.d.comb += port.addr.eq(place[:index_bits])
            return port.data

        # Time: per-bank stamps in memories, and countdowns for what concerns the whole channel.
        now = Signal(_TIME_BITS, init=1 << (_TIME_BITS - 1))
        m.d.sync += now.eq(now + 1)

        def stamps(name: str, event: Value, bank: Value):
            memory = Memory(shape=unsigned(_TIME_BITS), depth=BANKS, init=[])
            m.submodules[name] = memory
            write = memory.write_port()
            m.d.comb += [write.en.eq(event), write.addr.eq(bank), write.data.eq(now)]

            def passed(bank: Value, limit: Value | int) -> Value:
                port = memory.read_port(domain="comb")
                m.d.comb += port.addr.eq(bank)
                return (now - port.data)[:_TIME_BITS] >= limit

            return passed

        def countdown(name: str, event: Value, limit: int) -> Value:
            left = Signal(range(limit), name=name)
            with m.If(event):
                m.d.sync += left.eq(limit - 1)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
            return left == 0

        activate = Signal()
        precharge = Signal()
        precharge_all = Signal()
        refresh = Signal()
        read = Signal()
        write = Signal()
        close_bank = Signal(4)
        open_bank = Signal(4)
        column_bank = Signal(4)
        activate_passed = stamps("activate_time", activate, open_bank)
        precharge_passed = stamps("precharge_time", precharge, close_bank)
        read_passed = stamps("read_time", read, column_bank)
        write_passed = stamps("write_time", write, column_bank)
        row_bus_free = countdown(
            "row_bus", activate | precharge | precharge_all | refresh, t.row_bus
        )

        # A refresh waits until every bank may be precharged, and stops everything else meanwhile.
        due = Signal()
        until_due = Signal(range(t.refi), init=t.refi - 1)
        refreshing = Signal()
        closed = Signal()
        run = Signal()
        quiet = (
            countdown("quiet_activate", activate, max(t.ras, t.rc - t.rp))
            & countdown("quiet_read", read, t.rtp)
            & countdown("quiet_write", write, t.precharge_after_write)
            & row_bus_free
        )
        closed_long = countdown("closed_long", precharge_all, t.rp)
        refreshed = countdown("refreshed", refresh, t.rfc)
        with m.If(until_due == 0):
            m.d.sync += [until_due.eq(t.refi - 1), due.eq(1)]
        with m.Else():
            m.d.sync += until_due.eq(until_due - 1)
        m.d.comb += [
            run.eq(~due & ~refreshing),
            precharge_all.eq(due & ~closed & quiet),
            refresh.eq(due & closed & closed_long),
        ]
        with m.If(precharge_all):
            m.d.sync += closed.eq(1)
        with m.If(refresh):
            m.d.sync += [due.eq(0), closed.eq(0), refreshing.eq(1)]
        with m.Elif(refreshed):
            m.d.sync += refreshing.eq(0)

        # Close. A bank's wanted row is that of the last burst, counted by user, that passed here.
        opened = Signal(BANKS)
        closing = entry(close_at)
        close_second = Signal()
        close_single = closing.first == closing.last
        m.submodules.wanted = wanted = Memory(
            shape=data.StructLayout({"row": self.row_bits, "user": _ORDER_BITS}),
            depth=BANKS,
            init=[],
        )
        wanted_read = wanted.read_port(domain="comb")
        wanted_write = wanted.write_port()
        same_row = wanted_read.data.row == closing.row
        in_use = (wanted_read.data.user - column_at)[:_ORDER_BITS] < (close_at - column_at)[
            :_ORDER_BITS
        ]
        must_close = opened.bit_select(close_bank, 1) & ~same_row
        close_valid = run & (close_at != tail)
        close_passes = Signal()
        m.d.comb += [
            close_bank.eq(closing.bank ^ (closing.first[0] ^ close_second)),
            wanted_read.addr.eq(close_bank),
            precharge.eq(
                close_valid
                & must_close
                & ~in_use
                & ~activate
                & row_bus_free
                & activate_passed(close_bank, t.ras)
                & read_passed(close_bank, t.rtp)
                & write_passed(close_bank, t.precharge_after_write)
            ),
            close_passes.eq(close_valid & (same_row | (~in_use & (~must_close | precharge)))),
            wanted_write.en.eq(close_passes),
            wanted_write.addr.eq(close_bank),
            wanted_write.data.row.eq(closing.row),
            wanted_write.data.user.eq(close_at),
        ]
        with m.If(close_passes):
            m.d.sync += close_second.eq(~close_second & ~close_single)
            with m.If(close_single | close_second):
                m.d.sync += close_at.eq(close_at + 1)

        # Open.
        opening = entry(open_at)
        open_second = Signal()
        open_single = opening.first == opening.last
        open_valid = run & (open_at != close_at)
        already_open = opened.bit_select(open_bank, 1)
        last_group = Signal(2)
        rrds = countdown("rrds", activate, t.rrds)
        rrdl = countdown("rrdl", activate, t.rrdl)
        recent = Array(Signal(_TIME_BITS, name=f"recent_{i}") for i in range(4))
        oldest = Signal(2)
        m.d.comb += [
            open_bank.eq(opening.bank ^ (opening.first[0] ^ open_second)),
            activate.eq(
                open_valid
                & ~already_open
                & row_bus_free
                & rrds
                & (rrdl | (open_bank[0:2] != last_group))
                & ((now - recent[oldest])[:_TIME_BITS] >= t.faw)
                & precharge_passed(open_bank, t.rp)
                & activate_passed(open_bank, t.rc)
            ),
        ]
        with m.If(activate):
            m.d.sync += [
                last_group.eq(open_bank[0:2]),
                recent[oldest].eq(now),
                oldest.eq(oldest + 1),
            ]
        with m.If(open_valid & (already_open | activate)):
            m.d.sync += open_second.eq(~open_second & ~open_single)
            with m.If(open_single | open_second):
                m.d.sync += open_at.eq(open_at + 1)

        # Column. Both banks of a burst are activated once `open` has passed it.
        moving = entry(column_at)
        offset = Signal(3)
        block = (moving.first + offset)[:3]
        column_group = Signal(2)
        column_valid = run & (column_at != open_at)
        ccds = countdown("ccds", read | write, t.ccds)
        ccdl = countdown("ccdl", read | write, t.ccdl)
        # The longer of the two gaps from write to read, whatever the bank groups.
        wtr = countdown("wtr", write, t.read_after_write)
        rtw = countdown("rtw", read, t.rtw)
        column_ready = (
            column_valid
            & ccds
            & (ccdl | (column_bank[0:2] != column_group))
            & activate_passed(column_bank, Mux(moving.write, t.rcdwr, t.rcdrd))
        )
        m.d.comb += [
            column_bank.eq(moving.bank ^ block[0]),
            read.eq(column_ready & ~moving.write & wtr),
            write.eq(column_ready & moving.write & rtw),
        ]
        with m.If(read | write):
            m.d.sync += [column_group.eq(column_bank[0:2]), offset.eq(offset + 1)]
            with m.If(block == moving.last):
                m.d.sync += [offset.eq(0), column_at.eq(column_at + 1)]

        m.d.sync += opened.eq(
            (opened | (activate << open_bank)) & ~(precharge << close_bank)[:BANKS]
        )
        with m.If(precharge_all):
            m.d.sync += [
                opened.eq(0),
                close_at.eq(column_at),
                open_at.eq(column_at),
                close_second.eq(0),
                open_second.eq(0),
            ]

        # Commands are registered; data pass in order, so their ends fit into one line of bits.
        fresh = Signal(BANKS)
        line = Signal(max(t.cl, t.cwl) + t.bl + 1)
        m.d.sync += [
            line.eq((line >> 1) | (read << (t.cl + t.bl)) | (write << (t.cwl + t.bl))),
            self.row.kind.eq(RowKind.NONE),
            self.column.kind.eq(ColumnKind.NONE),
            self.row_hit.eq((read | write) & ~fresh.bit_select(column_bank, 1)),
            self.activate.eq(activate),
            self.refresh.eq(refresh),
            fresh.eq((fresh & ~((read | write) << column_bank)[:BANKS]) | (activate << open_bank)),
        ]
        m.d.comb += self.done.eq(line[0])
        with m.If(precharge):
            m.d.sync += [self.row.kind.eq(RowKind.PRECHARGE), self.row.bank.eq(close_bank)]
        with m.If(precharge_all):
            m.d.sync += self.row.kind.eq(RowKind.PRECHARGE_ALL)
        with m.If(refresh):
            m.d.sync += self.row.kind.eq(RowKind.REFRESH)
        with m.If(read | write):
            m.d.sync += [
                self.column.kind.eq(Mux(write, ColumnKind.WRITE.value, ColumnKind.READ.value)),
                self.column.bank.eq(column_bank),
                self.column.column.eq(Cat(block[1:3], moving.high)),
                self.column.row.eq(moving.row),
            ]
        with m.If(activate):
            m.d.sync += [
                self.row.kind.eq(RowKind.ACTIVATE),
                self.row.bank.eq(open_bank),
                self.row.row.eq(opening.row),
            ]
        return m
