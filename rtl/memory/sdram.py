"""Controller of an SDRAM (single data rate), 16 bits wide.

The board sends the chip the inverse of the controller's clock: the chip sees commands and data in
the middle of the cycle in which the pins have them.
"""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .sdram_timing import SdramTiming

__all__ = ["SdramController", "SdramPins", "SdramRefresh", "SdramTiming", "sdram_request_layout"]

_FALLING_BELOW = 80_000_000
"""Clocks below this take the chip's data at the falling edge.

Through both pads and the board, data come about 12 ns after the chip's edge at the latest, and stay
for 4 to 8 ns after the next one at least. That is the middle of a cycle: for slow clocks its
falling edge is between, for fast ones the rising edge behind it.
"""


def sdram_request_layout(*, bytes: int, beat_bytes: int) -> data.StructLayout:
    """Layout of a request: address in beats, write, data with their mask."""
    return data.StructLayout(
        {
            "address": range(bytes // beat_bytes),
            "write": unsigned(1),
            "data": unsigned(8 * beat_bytes),
            "mask": unsigned(beat_bytes),
        }
    )


class SdramPins(wiring.Signature):
    """Pins of the chip but its clock, seen from the controller.

    Members
    -------
    cke, cs_n, ras_n, cas_n, we_n, bank, address, dqm : ``Out``
    dq_o, dq_oe : ``Out``
        Data to the chip, and whether they are driven.
    dq_i : ``In``
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "cke": Out(1, init=1),
                "cs_n": Out(1, init=1),
                "ras_n": Out(1, init=1),
                "cas_n": Out(1, init=1),
                "we_n": Out(1, init=1),
                "bank": Out(2),
                "address": Out(13),
                "dqm": Out(2, init=0b11),
                "dq_o": Out(16),
                "dq_oe": Out(1),
                "dq_i": In(16),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SdramPins)


def _later(m: Module, name: str, event: Value, most: int) -> list[Value]:
    """Return whether the event was 0, 1, ... ``most`` cycles ago."""
    line = Signal(max(most, 1), name=f"{name}_line")
    m.d.sync += line.eq(Cat(event, line))
    return [event, *line]


class SdramRefresh(wiring.Component):
    """Says when to refresh, and initialises the chip in the same way.

    The chip has its time to power up; then each refresh sets the mode, until there were eight.

    Parameters
    ----------
    timing : SdramTiming
    clock_hz : int

    Members
    -------
    quiet : ``In(1)``
        All banks may be precharged in the next cycle.
    hold : ``Out(1)``
        From a register: no command but the ones from here.
    precharge, refresh, mode : ``Out(1)``
        Give the chip a command: precharge all banks, refresh, set the mode register.
    end : ``Out(1)``
        Last cycle of `hold`; all rows are closed.
    up : ``Out(1)``
        From a register: the chip is initialised.
    """

    def __init__(self, timing: SdramTiming, *, clock_hz: int) -> None:
        self.cycles = timing.cycles(clock_hz)
        super().__init__(
            {
                "quiet": In(1),
                "hold": Out(1),
                "precharge": Out(1),
                "refresh": Out(1),
                "mode": Out(1),
                "end": Out(1),
                "up": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles = self.cycles
        left = Signal(range(cycles.refresh), init=cycles.refresh - 1)
        tick, asked = Signal(), Signal()
        m.d.sync += [
            left.eq(Mux(tick, cycles.refresh - 1, left - 1)),
            tick.eq(left == 1),
        ]
        # The count's highest bit says that power is up, and bit 3, that it was eight refreshes ago.
        waits = -(-cycles.power_up // cycles.refresh)
        top = max(4, waits.bit_length())
        count = Signal(top + 1, init=(1 << top) - waits)
        powered = count[top]
        m.d.sync += self.up.eq(powered & count[3])
        with m.If(tick & ~self.up):
            m.d.sync += count.eq(count + 1)

        start = asked & self.quiet
        since = _later(m, "since", start, cycles.rp + cycles.rfc + cycles.mrd)
        last = since[cycles.rp + cycles.rfc]
        m.d.comb += [
            self.precharge.eq(start),
            self.refresh.eq(since[cycles.rp]),
            self.mode.eq(last & ~self.up),
            self.end.eq(since[cycles.rp + cycles.rfc - 1]),
        ]
        m.d.sync += [
            asked.eq(tick & powered | asked & ~start),
            self.hold.eq(tick & powered | self.hold & ~self.end),
        ]
        return m


class SdramController(wiring.Component):
    """Serves requests of one beat each, in their order. Rows stay open until another one of their
    bank is asked for, or a refresh comes.

    Consecutive beats fill a row of one bank, then of the next.

    Parameters
    ----------
    timing : SdramTiming
    clock_hz : int
    bytes : int
        Memory in use: a power of two, at most the chip's size.
    beat_bytes : int
        8 or 16.
    delay : int
        Cycles that registers outside add to the way to the chip and back.

    Members
    -------
    request : ``In(stream.Signature(sdram_request_layout(...)))``
        Not accepted until the chip is initialised. `ready` is a register.
    read : ``Out(stream.Signature(unsigned(8 * beat_bytes), always_ready=True))``
        What reads have read, in their order.
    pins : ``Out(SdramPins())``
        All outputs are registers or constant.
    """

    def __init__(
        self, timing: SdramTiming, *, clock_hz: int, bytes: int, beat_bytes: int, delay: int = 0
    ) -> None:
        if beat_bytes not in (8, 16):
            raise ValueError(f"beat_bytes must be 8 or 16, not {beat_bytes!r}")
        row_bytes = 2 * timing.columns
        if not 8 * row_bytes <= bytes <= timing.bytes or bytes & (bytes - 1):
            raise ValueError(
                f"bytes must be a power of two from {8 * row_bytes} to {timing.bytes}, "
                f"not {bytes!r}"
            )
        if delay < 0:
            raise ValueError(f"delay must not be negative, not {delay!r}")
        self.timing, self.clock_hz, self.beat_bytes = timing, clock_hz, beat_bytes
        self.bytes, self.delay = bytes, delay
        self.cycles = timing.cycles(clock_hz)
        layout = sdram_request_layout(bytes=bytes, beat_bytes=beat_bytes)
        super().__init__(
            {
                "request": In(stream.Signature(layout)),
                "read": Out(stream.Signature(unsigned(8 * beat_bytes), always_ready=True)),
                "pins": Out(SdramPins()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles, pins = self.cycles, self.pins
        request, wanted = self.request, self.request.payload
        burst = self.beat_bytes // 2
        m.submodules.refresher = refresher = SdramRefresh(self.timing, clock_hz=self.clock_hz)
        hold, end = refresher.hold, refresher.end

        # The request in hand, if any, waits to close its bank (which has another row open), to open
        # its row, or for the pins to be free; or it is on the way to the next of these.
        beat_bits = (burst - 1).bit_length()
        column_bits = (self.timing.columns - 1).bit_length() - beat_bits
        address = wanted.address
        wanted_bank = address[column_bits : column_bits + 2]
        wanted_row = address[column_bits + 2 :]
        full, looking = Signal(), Signal()  # there is one; it was taken a cycle ago
        to_close, to_open, to_move = Signal(), Signal(), Signal()
        closing, opening, column = Signal(), Signal(), Signal()
        write = Signal(reset_less=True)
        bank, last_bank = Signal(2, reset_less=True), Signal(2, reset_less=True)
        row = Signal(len(wanted_row), reset_less=True)
        place = Signal(column_bits, reset_less=True)
        words = Signal(8 * self.beat_bytes, reset_less=True)
        silent = Signal(self.beat_bytes, reset_less=True)  # bytes that are not written
        ready = request.ready
        with m.If(ready):
            m.d.sync += [
                write.eq(wanted.write),
                bank.eq(wanted_bank),
                row.eq(wanted_row),
                place.eq(address[:column_bits]),
                words.eq(wanted.data),
                silent.eq(Mux(wanted.write, ~wanted.mask, 0)),
            ]

        # When the last column commands, activates and precharges were.
        go, read, close, open_row = Signal(), Signal(), Signal(), Signal()
        since_go = _later(m, "go", go, burst)
        since_read = _later(m, "read", read, burst + cycles.cas + 1 + self.delay)
        since_close = _later(m, "close", close, cycles.rp - 1)
        since_open = _later(m, "open", open_row, cycles.ras - 1)
        busy, turning = Signal(), Signal()
        m.d.sync += [
            # A burst follows, in one cycle less than it is long.
            busy.eq(go | busy & ~since_go[burst - 1]),
            # Behind the data of a read, the pins are free for a cycle.
            turning.eq(Cat(since_read[burst - 1 : burst + cycles.cas]).any()),
        ]
        young = Cat(since_open[1:]).any()
        # Neither a read nor a write lasts longer for its bank.
        recent = busy | since_go[burst]
        m.d.comb += [
            go.eq(column & ~busy & ~hold & ~(write & turning)),
            read.eq(go & ~write),
            close.eq(closing & ~hold & ~young & ~(recent & (bank == last_bank))),
            open_row.eq(opening & ~hold),
            refresher.quiet.eq(~recent & ~young & (~full | to_close | to_open | to_move)),
        ]
        with m.If(go):
            m.d.sync += last_bank.eq(bank)

        is_open = Signal(4)
        m.submodules.rows = rows = Memory(shape=unsigned(len(row)), depth=4, init=[])
        opened, looked = rows.write_port(), rows.read_port(domain="comb")
        m.d.comb += [
            opened.addr.eq(bank),
            opened.data.eq(row),
            opened.en.eq(open_row),
            looked.addr.eq(wanted_bank),
        ]
        # Requests may come late from a memory: the comparison of rows ends a cycle later.
        taken, was_open = Signal(), Signal(reset_less=True)
        parts = range(0, len(row), 4)
        differs = Signal(len(parts), reset_less=True)
        m.d.comb += [
            taken.eq(ready & request.valid),
            closing.eq(to_close | (looking & was_open & differs.any())),
            opening.eq(to_open | (looking & ~was_open)),
            column.eq(to_move | (looking & was_open & ~differs.any())),
        ]
        m.d.sync += [
            looking.eq(taken),
            was_open.eq(~end & is_open.bit_select(wanted_bank, 1)),
            differs.eq(Cat(looked.data[i : i + 4] != wanted_row[i : i + 4] for i in parts)),
            ready.eq(refresher.up & (go | ~(full | taken))),
            full.eq(taken | full & ~go),
            # After a refresh every row is closed.
            to_close.eq(closing & ~close & ~end),
            to_open.eq(Mux(end, full, since_close[cycles.rp - 1] | opening & ~open_row)),
            to_move.eq((since_open[cycles.rcd - 1] | column & ~go) & ~end),
        ]
        for i in range(4):
            m.d.sync += is_open[i].eq(~end & (is_open[i] | open_row & (bank == i)))

        up, precharge = refresher.up, refresher.precharge
        refresh, mode = refresher.refresh, refresher.mode
        mode_word = Const(cycles.cas << 4 | beat_bits, len(pins.address))
        padded_row = Cat(row, Const(0, len(pins.address) - len(row)))
        padded_place = Cat(Const(0, beat_bits), place)
        m.d.comb += [pins.cke.eq(1), pins.cs_n.eq(0)]
        m.d.sync += [
            pins.ras_n.eq(~(close | open_row | precharge | refresh | mode)),
            pins.cas_n.eq(~(go | refresh | mode)),
            pins.we_n.eq(~(go & write | close | precharge | mode)),
            pins.bank.eq(Mux(up, bank, 0)),
            pins.address.eq(Mux(up, Mux(opening, padded_row, padded_place), mode_word)),
            # All banks, or one; a column without a precharge behind it.
            pins.address[10].eq(precharge | opening & padded_row[10]),
        ]

        # What a burst writes is taken over as long as none is under way: no need to know that one
        # begins.
        later_words = Signal(len(words) - 16, reset_less=True)
        later_silent = Signal(len(silent) - 2, reset_less=True)
        m.d.sync += [
            Cat(pins.dq_o, later_words).eq(Mux(busy, later_words, words)),
            later_silent.eq(Mux(busy, later_silent[2:], silent[2:])),
            pins.dqm.eq(Mux(busy, later_silent[:2], Mux(go, silent[:2], 0)) | (~up).replicate(2)),
            pins.dq_oe.eq(Mux(busy, pins.dq_oe, go & write)),
        ]

        arrived = pins.dq_i
        if self.clock_hz < _FALLING_BELOW:
            m.domains.falling = ClockDomain(clk_edge="neg", reset_less=True, local=True)
            m.d.comb += ClockSignal("falling").eq(ClockSignal())
            arrived = Signal(16, reset_less=True)
            m.d.falling += arrived.eq(pins.dq_i)
        gathered = Signal(len(words), reset_less=True)
        m.d.sync += gathered.eq(Cat(gathered[16:], arrived))
        m.d.comb += [
            self.read.payload.eq(gathered),
            self.read.valid.eq(since_read[-1]),
        ]
        return m
