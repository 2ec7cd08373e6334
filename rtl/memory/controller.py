"""The HBM controller of one pseudo-channel."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .address import BANKS, access_layout
from .device import ColumnKind, RowKind, column_command_layout, row_command_layout
from .gaps import account, countdown, matured, soon
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
        run = Signal()

        # The queue. A place that is free may be written at any time.
        index_bits = (self.depth - 1).bit_length()
        layout = access_layout(self.row_bits)
        m.submodules.queue = queue = Memory(shape=layout, depth=self.depth, init=[])
        queue_write = queue.write_port()
        tail = Signal(index_bits + 1)
        held = Signal(index_bits + 1)
        put = Signal()
        burst_done = Signal()
        m.d.comb += [
            self.request.ready.eq(~held[-1]),
            put.eq(self.request.valid & self.request.ready),
            queue_write.addr.eq(tail),
            queue_write.data.eq(self.request.payload),
            queue_write.en.eq(self.request.ready),
        ]
        # Without an enable: whether a burst comes is known late.
        less = burst_done & ~put
        m.d.sync += [
            tail.eq(tail + put),
            held.eq(held + Cat(put ^ burst_done, less.replicate(index_bits))),
        ]

        block = Signal(3, reset_less=True)  # the next that column moves
        resume = Signal()  # after a refresh, in which column's burst had begun

        def fetch(place: Signal, name: str) -> tuple[Value, data.View, Signal]:
            """Return whether the burst at ``place`` is here, its entry, and its first block."""
            port = queue.read_port(domain="comb")
            first = Signal(3, name=f"{name}_first")
            m.d.comb += [
                port.addr.eq(place[:index_bits]),
                first.eq(Mux(resume, block, port.data.first)),
            ]
            return run & (place[: index_bits + 1] != tail), port.data, first

        activate, precharge, precharge_all, refresh = (
            Signal(name=name) for name in ("activate", "precharge", "precharge_all", "refresh")
        )
        activate_ready, precharge_ready, column = Signal(), Signal(), Signal()
        row_free = countdown(
            m, "row_bus", activate | precharge | precharge_all | refresh, t.row_bus
        )
        m.d.comb += [
            activate.eq(activate_ready & row_free),
            precharge.eq(precharge_ready & row_free & ~activate_ready),
        ]

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
        due, scrub = Signal(), Signal()
        until_due = Signal(range(t.refi), init=t.refi - 1)
        pause = Signal(range(max(t.rp, t.rfc, BANKS)), init=BANKS - 1)
        write_over = countdown(m, "quiet_write", column & writing, t.precharge_after_write)
        row_time = max(t.ras, t.rc - t.rp)  # with this one, `rc` is kept as well
        quiet = Signal()
        m.d.sync += quiet.eq(
            countdown(m, "quiet_activate", activate, row_time)
            & countdown(m, "quiet_read", column & ~writing, t.rtp)
            & write_over
            & row_free
        )
        with m.If(until_due == 0):
            m.d.sync += [until_due.eq(t.refi - 1), due.eq(1)]
        with m.Else():
            m.d.sync += until_due.eq(until_due - 1)
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.FSM(init="Refresh"):
            with m.State("Run"):
                with m.If(due):
                    m.d.sync += run.eq(0)
                    m.next = "Stop"
            with m.State("Stop"):  # what was ready before still takes place
                m.next = "Wait"
            with m.State("Wait"):
                m.next = "Close"
            with m.State("Close"):
                with m.If(quiet):
                    m.d.comb += precharge_all.eq(1)
                    m.d.sync += pause.eq(t.rp - 1)
                    m.next = "Closed"
            with m.State("Closed"):
                m.d.comb += scrub.eq(1)
                with m.If(pause == 0):
                    m.d.comb += refresh.eq(1)
                    # No row command comes within four clocks of `run`.
                    m.d.sync += [due.eq(0), pause.eq(max(t.rfc - 5, BANKS - 1))]
                    m.next = "Refresh"
            with m.State("Refresh"):
                m.d.comb += scrub.eq(1)
                with m.If(pause == 0):
                    m.d.sync += run.eq(1)
                    m.next = "Run"
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

        def age(name: str, event: Value, bank: Value, flag: Value) -> tuple[Value, Value]:
            """Return the clocks since the event in close's bank, two clocks ago, and its flag."""
            shape = data.StructLayout({"time": unsigned(_TIME_BITS), "flag": unsigned(1)})
            memory = Memory(shape=shape, depth=BANKS, init=[])
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            passed = Signal(_TIME_BITS, name=f"{name}_age", reset_less=True)
            flagged = Signal(name=f"{name}_flag", reset_less=True)
            m.d.comb += [
                write.en.eq(event),
                write.addr.eq(bank),
                write.data.time.eq(now),
                write.data.flag.eq(flag),
                read.addr.eq(close_bank),
            ]
            m.d.sync += [passed.eq(now - read.data.time), flagged.eq(read.data.flag)]
            return passed, flagged

        now = Signal(_TIME_BITS)
        m.d.sync += now.eq(now + 1)
        activate_age, _ = age("activate_time", activate, open_bank, Const(0, 1))
        # Reads soon after a write may follow one in their bank: they wait as if they were one.
        column_age, long = age("column_time", column, column_bank, writing | ~write_over)
        may_close = Signal(reset_less=True)
        known, same = Signal(reset_less=True), Signal(reset_less=True)
        user_age = Signal(_ORDER_BITS, reset_less=True)
        ahead = Signal(range(self.depth + 1))  # bursts before close's
        ahead_then = Signal.like(ahead, reset_less=True)
        in_use = Signal(reset_less=True)
        looked = Signal(2)  # how long what has been found out concerns this step
        close_second, close_single = Signal(reset_less=True), Signal(reset_less=True)
        close_pass, close_end = Signal(), Signal()
        m.d.comb += [
            wanted_read.addr.eq(close_bank),
            wanted_write.en.eq(close_pass | scrub),
            wanted_write.addr.eq(close_bank),
            wanted_write.data.row.eq(close_row),
            wanted_write.data.known.eq(~scrub),
            wanted_write.data.user.eq(close_number),
            close_pass.eq(precharge | (run & looked[0] & (same | ~known))),
            close_end.eq(close_pass & (close_single | close_second)),
        ]
        m.d.sync += [
            known.eq(wanted_read.data.known),
            same.eq(wanted_read.data.known & (wanted_read.data.row == close_row)),
            user_age.eq(wanted_read.data.user - done_at),
            ahead_then.eq(ahead),
            in_use.eq(user_age < ahead_then),
            may_close.eq(
                (activate_age >= row_time - 3)
                & (column_age >= Mux(long, t.precharge_after_write - 3, max(t.rtp - 3, 0)))
            ),
            looked.eq(Mux(close_pass, 0, Cat(close_valid, looked))),
            precharge_ready.eq(run & looked[1] & known & ~same & ~in_use & may_close & ~precharge),
            ahead.eq(ahead + close_end - burst_done),
        ]
        here, entry, first = fetch(close_next, "close")
        with m.If(close_pass):
            m.d.sync += [close_second.eq(1), close_bank[0].eq(~close_bank[0])]
        with m.If(close_end | ~close_valid):
            m.d.sync += [
                close_valid.eq(here),
                close_number.eq(close_next),
                close_bank.eq(entry.bank ^ first[0]),
                close_row.eq(entry.row),
                close_single.eq(first == entry.last),
                close_second.eq(0),
            ]
            with m.If(here):
                m.d.sync += close_next.eq(close_next + 1)

        # What open and column learn of the steps: whether the bank is to be activated, and whether
        # it has been precharged for that.
        step_layout = data.StructLayout({"activate": unsigned(1), "precharge": unsigned(1)})
        steps = [Memory(shape=step_layout, depth=self.depth, init=[]) for _ in range(2)]
        for number, memory in enumerate(steps):
            m.submodules[f"steps_{number}"] = memory
            step_write = memory.write_port()
            m.d.comb += [
                step_write.en.eq(close_pass & (close_second == number)),
                step_write.addr.eq(close_number[:index_bits]),
                step_write.data.activate.eq(~same),
                step_write.data.precharge.eq(known & ~same),
            ]

        def step(index: Value, second: Value) -> data.View:
            ports = [memory.read_port(domain="comb") for memory in steps]
            m.d.comb += [port.addr.eq(index) for port in ports]
            return step_layout(Mux(second, ports[1].data.as_value(), ports[0].data.as_value()))

        # Open.
        open_second, open_single = Signal(reset_less=True), Signal(reset_less=True)
        open_pass, open_end = Signal(), Signal()
        closed = account(m, "closed", 2 * self.depth, close_pass, open_pass, precharge_all)
        opening = step(open_index, open_second)
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
            activate_ready.eq(
                open_here
                & opening.activate
                & (precharged | ~opening.precharge)
                & soon(m, "rrds", activate, t.rrds)
                & (soon(m, "rrdl", activate, t.rrdl) | (open_bank[0:2] != last_group))
                & ~in_window[2]
                & ~activate
            ),
        ]
        m.d.comb += [
            open_here.eq(run & open_valid & closed.any()),
            open_pass.eq(activate | (open_here & ~opening.activate)),
            open_end.eq(open_pass & (open_single | open_second)),
        ]
        here, entry, first = fetch(open_next, "open")
        with m.If(activate):
            m.d.sync += last_group.eq(open_bank[0:2])
        with m.If(open_pass):
            m.d.sync += [open_second.eq(1), open_bank[0].eq(~open_bank[0])]
        open_write = Signal(reset_less=True)
        with m.If(open_end | ~open_valid):
            m.d.sync += [
                open_valid.eq(here),
                open_index.eq(open_next),
                open_bank.eq(entry.bank ^ first[0]),
                open_row.eq(entry.row),
                open_write.eq(entry.write),
                open_single.eq(first == entry.last),
                open_second.eq(0),
            ]
            with m.If(here):
                m.d.sync += open_next.eq(open_next + 1)

        # Column. The first column commands of a burst, one for each of its banks, are steps.
        step_number = Signal(2, reset_less=True)  # 2: all have been made
        is_step = ~step_number[1]
        group = Signal(2)
        opened = account(m, "opened", 2 * self.depth, open_pass, column & is_step, precharge_all)
        moving = step(done_at[:index_bits], step_number[0])
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
            & (~is_step | (opened.any() & (~moving.activate | Mux(writing, for_write, for_read))))
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
                close_next.eq(done_at),
                open_next.eq(done_at),
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
