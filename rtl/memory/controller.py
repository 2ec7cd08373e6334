"""The HBM controller of one pseudo-channel."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..tech.gate import Gate
from .address import BANKS, access_layout
from .bursts import Bursts
from .device import ColumnKind, RowKind, column_command_layout, row_command_layout
from .gaps import account, age, countdown, goes_on, matured, soon
from .refresh import Refresh
from .steps import Steps
from .timing import Timing

__all__ = ["Controller"]

_TIME_BITS = 12
"""Stamps of banks wrap, which can only delay a command of a bank that was long unused."""

_ORDER_BITS = 8
"""Bits of the count of bursts; more than the queue needs, so that old counts seldom look new."""


class Controller(wiring.Component):
    """Turns bursts into DRAM commands, one row and one column command a clock at most.

    Columns go in the order of the bursts. Three places walk along the queue, so that rows open
    long before their columns come: *close* precharges banks that hold another row, *open* follows
    and activates, *column* follows and moves the data. Rows stay open until another is wanted. A
    refresh of all banks begins as soon as it is due; then the open rows are opened again.

    A burst has a step for each of its banks, one or two, and a place goes from step to step: close
    in two clocks, open in one, column with the first command to the bank. What a command must wait
    for is found out a clock ahead, in registers.

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
        m.submodules.refresher = refresher = Refresh(t)
        run, scrub = refresher.run, refresher.scrub
        precharge_all, refresh = refresher.precharge_all, refresher.refresh

        index_bits = (self.depth - 1).bit_length()
        bursts = Bursts(m, self.depth, self.request)
        burst_done = bursts.done

        block = Signal(3, reset_less=True)  # the next that column moves
        resume = Signal()  # after a refresh, in which column's burst had begun

        def fetch(place: Signal, name: str) -> tuple[Value, data.View, Signal]:
            """Return whether the burst at ``place`` is here, its entry, and its first block."""
            here, entry = bursts.at(place, name)
            first = Signal(3, name=f"{name}_first")
            m.d.comb += first.eq(Mux(resume, block, entry.first))
            return run & here, entry, first

        # What is decided on, and what is given in the next clock.
        activate_next, precharge_next = Signal(), Signal()
        activate, precharge, column = Signal(), Signal(), Signal()
        m.d.sync += [activate.eq(activate_next), precharge.eq(precharge_next & ~activate_next)]
        any_row = Signal()
        m.d.comb += any_row.eq(activate | precharge | precharge_all | refresh)
        row_free = countdown(m, "row_bus", any_row, t.row_bus)
        row_soon = soon(m, "row_bus_soon", any_row, t.row_bus) & (~any_row | (t.row_bus == 1))

        # The bursts that the places have come to.
        done_at = Signal(_ORDER_BITS)  # number of the oldest burst
        close_next = Signal(_ORDER_BITS)
        close_number = Signal(_ORDER_BITS, reset_less=True)
        open_next, column_next = Signal(index_bits + 1), Signal(index_bits + 1)
        open_index = Signal(index_bits, reset_less=True)
        close_valid, open_valid, column_valid = Signal(), Signal(), Signal()
        close_bank = Signal(4)
        open_bank, column_bank = Signal(4, reset_less=True), Signal(4, reset_less=True)
        close_row = Signal(self.row_bits, reset_less=True)
        open_row = Signal(self.row_bits, reset_less=True)
        column_row = Signal(self.row_bits, reset_less=True)
        left = Signal(3, reset_less=True)  # blocks after this one
        final = Signal(reset_less=True)  # there are none
        high = Signal(3, reset_less=True)
        writing = Signal(reset_less=True)

        # A refresh waits until every bank may be precharged, and stops everything else meanwhile.
        # Then the places begin anew at the oldest burst, with what is left of it.
        write_over = countdown(m, "quiet_write", column & writing, t.precharge_after_write)
        row_time = max(t.ras, t.rc - t.rp)  # with this one, `rc` is kept as well
        m.d.sync += refresher.quiet.eq(
            countdown(m, "quiet_activate", activate, row_time)
            & countdown(m, "quiet_read", column & ~writing, t.rtp)
            & write_over
            & row_free
        )
        with m.If(precharge_all):
            m.d.sync += resume.eq(column_valid)
        with m.If(run):
            m.d.sync += resume.eq(0)

        # Close. A bank's entry: the row of the last burst that passed here, counted by `user`, and
        # whether one did since the refresh.
        wanted_layout = data.StructLayout(
            {"row": unsigned(self.row_bits), "known": unsigned(1), "user": unsigned(_ORDER_BITS)}
        )
        m.submodules.wanted = wanted = Memory(shape=wanted_layout, depth=BANKS, init=[])
        wanted_read, wanted_write = wanted.read_port(domain="comb"), wanted.write_port()

        now = Signal(_TIME_BITS)
        m.d.sync += now.eq(now + 1)
        activate_age, _ = age(m, "activate_time", now, activate, open_bank, Const(0, 1), close_bank)
        # Reads soon after a write may follow one in their bank: they wait as if they were one.
        like_write = writing | ~write_over
        column_age, long = age(m, "column_time", now, column, column_bank, like_write, close_bank)
        may_close = Signal(reset_less=True)
        same = Signal(reset_less=True)  # it holds the row that is wanted
        may_pass = Signal(reset_less=True)  # that one, or none
        user_age = Signal(_ORDER_BITS, reset_less=True)
        ahead = Signal(range(self.depth + 1))  # bursts before close's
        ahead_then = Signal.like(ahead, reset_less=True)
        in_use = Signal(reset_less=True)
        looked = Signal(2, reset_less=True)  # how long what has been found out concerns this step
        close_second, close_last = Signal(reset_less=True), Signal(reset_less=True)
        close_pass, close_end = Signal(), Signal()
        close_here, entry, first = fetch(close_next, "close")
        m.submodules.closes = closes = Gate(lambda given, looked, may, _: given or (looked and may))
        m.d.comb += [
            wanted_read.addr.eq(close_bank),
            wanted_write.en.eq(close_pass | scrub),
            wanted_write.addr.eq(close_bank),
            wanted_write.data.row.eq(close_row),
            wanted_write.data.known.eq(~scrub),
            wanted_write.data.user.eq(close_number),
            closes.bits.eq(Cat(precharge, looked[0], may_pass)),
            close_pass.eq(closes.out),
            close_end.eq(close_pass & close_last),
            precharge_next.eq(
                run & looked[1] & ~may_pass & ~in_use & may_close & row_soon & ~precharge
            ),
        ]
        m.d.sync += [
            same.eq(wanted_read.data.known & (wanted_read.data.row == close_row)),
            may_pass.eq(~wanted_read.data.known | (wanted_read.data.row == close_row)),
            user_age.eq(wanted_read.data.user - done_at),
            ahead_then.eq(ahead),
            in_use.eq(user_age < ahead_then),
            may_close.eq(
                (activate_age >= row_time - 3)
                & (column_age >= Mux(long, t.precharge_after_write - 3, max(t.rtp - 3, 0)))
            ),
            looked.eq(Mux(run & ~close_pass, Cat(close_valid, looked), 0)),
            ahead.eq(ahead + close_end - burst_done),
        ]
        with m.If(close_pass):
            m.d.sync += [close_second.eq(1), close_last.eq(1), close_bank[0].eq(~close_bank[0])]
        step_ends = (close_valid, close_pass, close_last)
        with m.If(goes_on(m, "closes_next", *step_ends, Const(1, 1))):
            m.d.sync += [
                close_valid.eq(close_here),
                close_number.eq(close_next),
                close_bank.eq(entry.bank ^ first[0]),
                close_row.eq(entry.row),
                close_last.eq(first == entry.last),
                close_second.eq(0),
            ]
        with m.If(goes_on(m, "closes_on", *step_ends, close_here | scrub)):
            m.d.sync += close_next.eq(Mux(scrub, done_at, close_next + 1))

        steps = Steps(m, self.depth)
        steps.write(
            close_pass,
            close_number[:index_bits],
            close_second,
            activate=~same,
            precharge=~may_pass,
        )

        # Open.
        open_second, open_last = Signal(reset_less=True), Signal(reset_less=True)
        open_pass = Signal()
        next_here, entry, first = fetch(open_next, "open")
        m.submodules.opens = opens = Gate(
            lambda given, here, activate, _: given or (here and not activate)
        )
        closed = account(m, "closed", 2 * self.depth, close_pass, open_pass, precharge_all)
        opening = steps.read(open_index, open_second)
        precharged = matured(
            m, "precharged", BANKS, precharge, t.rp, activate & opening.precharge, ~run
        )
        open_here = Signal()
        last_group = Signal(2)
        in_window = Signal(3)
        window = Signal(t.faw - 2)
        m.d.sync += [
            window.eq(Cat(activate, window)),
            in_window.eq(in_window + activate - window[-1]),
        ]
        m.d.comb += [
            activate_next.eq(
                open_here
                & row_soon
                & opening.activate
                & (precharged | ~opening.precharge)
                & soon(m, "rrds", activate, t.rrds)
                & (soon(m, "rrdl", activate, t.rrdl) | (open_bank[0:2] != last_group))
                & ~in_window[2]
                & ~activate
            ),
            open_here.eq(run & open_valid & closed),
            opens.bits.eq(Cat(activate, open_here, opening.activate)),
            open_pass.eq(opens.out),
        ]
        with m.If(activate):
            m.d.sync += last_group.eq(open_bank[0:2])
        open_write = Signal(reset_less=True)
        step_ends = (open_valid, open_pass, open_last)
        opens_next = goes_on(m, "opens_next", *step_ends, Const(1, 1))
        # The second step, or the next burst: which one is known late.
        with m.If(open_pass | ~open_valid):
            m.d.sync += [
                open_second.eq(~opens_next),
                open_last.eq(~opens_next | (first == entry.last)),
                open_bank[0].eq(Mux(opens_next, entry.bank[0] ^ first[0], ~open_bank[0])),
            ]
        with m.If(opens_next):
            m.d.sync += [
                open_valid.eq(next_here),
                open_index.eq(open_next),
                open_bank[1:].eq(entry.bank[1:]),
                open_row.eq(entry.row),
                open_write.eq(entry.write),
            ]
        with m.If(goes_on(m, "opens_on", *step_ends, next_here | scrub)):
            m.d.sync += open_next.eq(Mux(scrub, done_at, open_next + 1))

        # Column. The first column commands of a burst, one for each of its banks, are steps.
        step_number = Signal(2, reset_less=True)  # 2: all have been made
        is_step = ~step_number[1]
        group = Signal(2)
        opened = account(m, "opened", 2 * self.depth, open_pass, column & is_step, precharge_all)
        moving = steps.read(done_at[:index_bits], step_number[0])
        first_use = is_step & moving.activate
        for_read = matured(
            m,
            "for_read",
            BANKS,
            activate & ~open_write,
            t.rcdrd,
            column & first_use & ~writing,
            ~run,
        )
        for_write = matured(
            m,
            "for_write",
            BANKS,
            activate & open_write,
            t.rcdwr,
            column & first_use & writing,
            ~run,
        )
        # The longer of the two gaps from write to read, whatever the bank groups.
        turned = Mux(
            writing,
            soon(m, "rtw", column & ~writing, t.rtw),
            soon(m, "wtr", column & writing, t.read_after_write),
        )
        far = soon(m, "ccdl", column, t.ccdl) | (column_bank[0:2] != group)
        m.d.sync += column.eq(
            run
            & column_valid
            & (~is_step | (opened & (~moving.activate | Mux(writing, for_write, for_read))))
            & soon(m, "ccds", column, t.ccds)
            & far
            & turned
            & ~column
        )
        here, entry, first = fetch(column_next, "column")
        m.d.comb += burst_done.eq(column & final)
        m.d.sync += done_at.eq(done_at + burst_done)
        with m.If(column):
            m.d.sync += [
                group.eq(column_bank[0:2]),
                column_bank[0].eq(~column_bank[0]),
                block.eq(block + 1),
                left.eq(left - 1),
                final.eq(left == 1),
                step_number.eq(step_number + is_step),
            ]
        with m.If(burst_done | ~column_valid):
            m.d.sync += column_valid.eq(here)
            # While it does not run, the block that comes next is still to be known.
            with m.If(run):
                m.d.sync += [
                    column_bank.eq(entry.bank ^ first[0]),
                    column_row.eq(entry.row),
                    block.eq(first),
                    left.eq(entry.last - first),
                    final.eq(entry.last == first),
                    high.eq(entry.high),
                    writing.eq(entry.write),
                    step_number.eq(0),
                ]
            with m.If(here):
                m.d.sync += column_next.eq(column_next + 1)

        with m.If(precharge_all):
            m.d.sync += [
                close_valid.eq(0),
                open_valid.eq(0),
                column_valid.eq(0),
                column_next.eq(done_at),
                ahead.eq(0),
            ]
        with m.If(scrub):
            m.d.sync += close_bank.eq(close_bank + 1)

        # Commands are registered; data pass in order, so their ends fit into one line of bits.
        line = Signal(max(t.cl, t.cwl) + t.bl + 1)
        read, write = column & ~writing, column & writing
        m.d.comb += self.done.eq(line[0])
        m.d.sync += [
            line.eq((line >> 1) | (read << (t.cl + t.bl)) | (write << (t.cwl + t.bl))),
            self.row.kind.eq(RowKind.NONE),
            self.column.kind.eq(ColumnKind.NONE),
            self.column.bank.eq(column_bank),
            self.column.column.eq(Cat(block[1:3], high)),
            self.column.row.eq(column_row),
            self.row.bank.eq(Mux(activate, open_bank, close_bank)),
            self.row.row.eq(open_row),
            self.row_hit.eq(column & ~first_use),
            self.activate.eq(activate),
            self.refresh.eq(refresh),
        ]
        for event, kind in (
            (activate, RowKind.ACTIVATE),
            (precharge, RowKind.PRECHARGE),
            (precharge_all, RowKind.PRECHARGE_ALL),
            (refresh, RowKind.REFRESH),
        ):
            with m.If(event):
                m.d.sync += self.row.kind.eq(kind)
        with m.If(column):
            m.d.sync += self.column.kind.eq(
                Mux(writing, ColumnKind.WRITE.value, ColumnKind.READ.value)
            )
        return m
