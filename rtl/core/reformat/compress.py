"""Dense rows to streams of `Encoding.DELTA`."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import GRANULE
from ...isa import ENTRIES, Encoding, Format
from .transpose import row_layout

__all__ = ["Compressor"]

_PLACES = GRANULE
"""Numbers in a granule at most."""

_REACH = 256
"""Places that an escape stands for."""

_ENTRIES = {bits // 8: ENTRIES[Encoding.DELTA][bits] for bits in (8, 16)}
"""Entries of a stream granule by bytes of a number."""

_EVENT = data.StructLayout(
    {
        "entry": unsigned(1),
        "place": unsigned(4),
        "value": unsigned(16),
        "last": unsigned(1),
        "row_last": unsigned(1),
        "places": unsigned(5),
    }
)
"""What is next in a granule of a row: an ``entry`` for ``value`` at ``place``, or nothing at all.
The ``last`` one steps over all the granule's ``places``."""

_ENTRY = data.StructLayout(
    {"valid": unsigned(1), "value": unsigned(16), "delta": unsigned(8), "last": unsigned(1)}
)
"""An entry of a stream, or none; the ``last`` step of its row."""


class Compressor(wiring.Component):
    """Makes streams of dense rows: one entry a cycle, and granules of zeros in one cycle.

    Members
    -------
    format : ``In(Format)``
        INT8, E4M3, E5M2, FP16 or BF16.
    tail : ``In(5)``
        Numbers in the last granule of a row. This and ``format`` stand still from the cycle before
        the first granule until the last count.
    row : ``In(stream.Signature(row_layout()))``
        ``last`` ends a row.
    valid : ``Out(1)``
        There is a granule of a stream or, after the last one of a stream, its count.
    is_count : ``Out(1)``
    granule : ``Out(128)``
        The count fills each of its 16-bit words.
    take : ``In(1)``
        Takes it; not without ``valid``.
    """

    format: In(Format)
    tail: In(5)
    row: In(stream.Signature(row_layout()))
    valid: Out(1)
    is_count: Out(1)
    granule: Out(8 * GRANULE)
    take: In(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wide, is_float = Signal(), Signal()
        m.d.comb += [
            wide.eq((self.format == Format.FP16) | (self.format == Format.BF16)),
            is_float.eq(self.format != Format.INT8),
        ]
        event, event_valid, event_ready = self._find(m, wide, is_float)
        entry, entry_valid, entry_ready = self._count_places(m, event, event_valid, event_ready)
        self._pack(m, wide, entry, entry_valid, entry_ready)
        return m

    def _find(self, m: Module, wide, is_float):
        """Find the numbers of each granule that are not zero, one a cycle."""
        numbers = Signal(8 * GRANULE, reset_less=True)
        left = Signal(_PLACES, reset_less=True)  # those that are still to come
        row_last = Signal(reset_less=True)
        here = Signal()
        event = Signal(_EVENT, reset_less=True)
        event_valid, event_ready = Signal(), Signal()

        lowest, after = Signal(_PLACES), Signal(_PLACES)
        place = Signal(4)
        last = Signal()
        move = Signal()
        m.d.comb += [
            after.eq(left & (left - 1)),
            lowest.eq(left & ~after),
            last.eq(~after.any()),
            move.eq(here & (~event_valid | event_ready)),
            self.row.ready.eq(~here | (move & last)),
        ]
        for bit in range(4):
            m.d.comb += place[bit].eq(Cat(lowest[i] for i in range(_PLACES) if i >> bit & 1).any())
        full = Mux(wide, _PLACES // 2, _PLACES)
        half = Signal(16)
        m.d.comb += half.eq(numbers.word_select(Mux(wide, place[:3], place[1:]), 16))

        with m.If(self.row.ready):
            m.d.sync += here.eq(self.row.valid)
        with m.If(move):
            m.d.sync += left.eq(after)
        with m.If(self.row.ready & self.row.valid):
            word = self.row.payload.data
            signs = Mux(is_float, 0x7F, 0xFF)
            low = [word[8 * i : 8 * i + 8] for i in range(GRANULE)]
            m.d.sync += [numbers.eq(word), row_last.eq(self.row.payload.last)]
            for i in range(_PLACES):
                number = (low[i] & signs).any()
                if 2 * i < GRANULE:
                    number = Mux(wide, Cat(low[2 * i], low[2 * i + 1][:7]).any(), number)
                else:
                    number &= ~wide
                inside = ~self.row.payload.last | (self.tail > i)
                m.d.sync += left[i].eq(number & inside)

        with m.If(event_ready):
            m.d.sync += event_valid.eq(0)
        with m.If(move):
            m.d.sync += [
                event_valid.eq(1),
                event.entry.eq(left.any()),
                event.place.eq(place),
                event.value.eq(Cat(Mux(~wide & place[0], half[8:], half[:8]), half[8:])),
                event.last.eq(last),
                event.row_last.eq(last & row_last),
                event.places.eq(Mux(row_last, self.tail, full)),
            ]
        return event, event_valid, event_ready

    def _count_places(self, m: Module, event, event_valid, event_ready):
        """Turn places into the zeros between entries."""
        # Places without an entry before this granule, less those of it up to the newest entry.
        before = Signal(signed(10))
        empty = Signal(init=1)  # there is no entry in this row yet
        gap = Signal(signed(10))
        escape, done = Signal(), Signal()
        entry = Signal(_ENTRY, reset_less=True)
        entry_valid, entry_ready = Signal(), Signal()
        move = Signal()
        m.d.comb += [
            gap.eq(before + Mux(event.entry, event.place, event.places)),
            escape.eq(gap[8] & ~gap[9]),
            move.eq(event_valid & (~entry_valid | entry_ready)),
            # Behind an escape its granule's entry is still to come.
            done.eq(~(escape & event.entry)),
            event_ready.eq(move & done),
        ]
        with m.If(entry_ready):
            m.d.sync += entry_valid.eq(0)
        with m.If(move):
            end = event.row_last & done
            m.d.sync += [
                entry_valid.eq(1),
                entry.valid.eq(event.entry | escape | (end & empty)),
                entry.value.eq(Mux(event.entry & ~escape, event.value, 0)),
                entry.delta.eq(Mux(escape, _REACH - 1, Mux(event.entry, gap[:8], 0))),
                entry.last.eq(end),
                empty.eq(end | (empty & ~event.entry & ~escape)),
            ]
            with m.If(end):
                m.d.sync += before.eq(0)
            with m.Elif(escape & event.entry):
                m.d.sync += before.eq(before - _REACH)
            with m.Elif(event.entry):
                m.d.sync += before.eq(
                    Mux(event.last, event.places, 0) + ~Cat(event.place, Const(0, 1)).as_signed()
                )
            with m.Else():
                m.d.sync += before.eq(gap[:8])
        return entry, entry_valid, entry_ready

    def _pack(self, m: Module, wide, entry, entry_valid, entry_ready) -> None:
        """Put entries side by side, and count those of a row."""
        word = [Signal(8, name=f"word{i}", reset_less=True) for i in range(GRANULE)]
        slot = Signal(3)
        entries = Signal(16)
        full, ended = Signal(), Signal(reset_less=True)
        total = Signal(16, reset_less=True)  # of the row that ends with this granule
        count_due = Signal()
        count = Signal(16, reset_less=True)

        take_word = Signal()
        accept = Signal()
        m.d.comb += [
            self.valid.eq(full | count_due),
            self.is_count.eq(count_due),
            self.granule.eq(Mux(count_due, count.replicate(GRANULE // 2), Cat(word))),
            take_word.eq(self.take & ~count_due),
            entry_ready.eq(~full | take_word),
            accept.eq(entry_valid & entry_ready),
        ]
        last_slot = Mux(wide, _ENTRIES[2] - 1, _ENTRIES[1] - 1)
        now = Signal(16)
        m.d.comb += now.eq(entries + entry.valid)
        with m.If(self.take):
            m.d.sync += count_due.eq(0)
        with m.If(take_word):
            m.d.sync += [full.eq(0), count_due.eq(ended), count.eq(total)]
        with m.If(accept):
            ends_word = Mux(entry.valid, entry.last | (slot == last_slot), slot.any() & entry.last)
            m.d.sync += [
                full.eq(ends_word),
                ended.eq(entry.last),
                total.eq(now),
                entries.eq(Mux(entry.last, 0, now)),
                slot.eq(Mux(ends_word, 0, slot + entry.valid)),
            ]
            # The row's last granule has been taken, or is in this cycle.
            with m.If(entry.last & ~ends_word):
                m.d.sync += [count_due.eq(1), count.eq(now)]
        with m.If(accept & entry.valid):
            for i, byte in enumerate(word):
                with m.If(slot == 0):
                    m.d.sync += byte.eq(0)
                with m.If(wide):
                    if i < 2 * _ENTRIES[2]:
                        with m.If(slot == i // 2):
                            m.d.sync += byte.eq(entry.value.word_select(i % 2, 8))
                    elif i < 3 * _ENTRIES[2]:
                        with m.If(slot == i - 2 * _ENTRIES[2]):
                            m.d.sync += byte.eq(entry.delta)
                with m.Elif(slot == i % _ENTRIES[1]):
                    m.d.sync += byte.eq(entry.value[:8] if i < _ENTRIES[1] else entry.delta)
