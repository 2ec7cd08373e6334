"""Picks an entry of a stream out of its granule: a value, and what tells its k."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE
from ..tech.choose import Choose4
from ..tech.choose8 import Choose8
from .command import stream_command_layout

__all__ = ["Picker", "form_layout"]

_FORM = (
    "number",
    "dense",
    "per_granule",
    "nibbles",
    "place_bits",
    "places",
    "place_mask",
    "pairs",
    "low_bits",
)

_FIRST_PLACE = 5
"""The lowest byte of a granule that tells any k."""


def form_layout() -> data.StructLayout:
    """Layout of what is to be known of a command to decode its streams; the fields are those of
    `stream_command_layout`."""
    command = stream_command_layout()
    return data.StructLayout({name: command[name].shape for name in _FORM})


class Picker(wiring.Component):
    """Gives out one entry after the other, combinationally from where it is.

    A value lies at a multiple of its own width, and neither crosses the middle of the granule.

    Members
    -------
    granule : ``In(128)``
    form, next_form : ``In(form_layout)``
        Of the visit that is decoded and, with ``begin``, of the one that begins.
    begin : ``In(1)``
        A visit begins: its first entry is the next one, and the first one of a granule.
    picked : ``In(1)``
        The entry is taken.
    last : ``In(1)``
        It is the last one of its visit.
    granule_last : ``Out(1)``
        It is the last one of its granule, or of its visit.
    value : ``Out(16)``
        An INT4 number is extended to 8 bits.
    low, high, odd : ``Out``
        What tells its k: ``low`` has the low three bits from bit ``odd`` on, and ``high`` the
        others.
    """

    granule: In(8 * GRANULE)
    form: In(form_layout())
    next_form: In(form_layout())
    begin: In(1)
    picked: In(1)
    last: In(1)
    granule_last: Out(1)
    value: Out(16)
    low: Out(4)
    high: Out(5)
    odd: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(range(33), reset_less=True)  # entries of the granule behind this one
        nibble, place = Signal(5, reset_less=True), Signal(7, reset_less=True)  # where it lies
        one_left = Signal(reset_less=True)
        m.d.comb += self.granule_last.eq(one_left | self.last)
        with m.If(self.picked | self.begin):
            anew, coming = Signal(), Signal(form_layout())
            m.d.comb += [
                anew.eq(self.begin | self.granule_last),
                coming.eq(Mux(self.begin, self.next_form.as_value(), self.form.as_value())),
            ]
            m.d.sync += [
                left.eq(Mux(anew, coming.per_granule, left - 1)),
                one_left.eq(~anew & (left == 2)),
                nibble.eq(Mux(anew, 0, nibble + self.form.nibbles)),
                place.eq(Mux(anew, coming.places, place + self.form.place_bits)),
            ]

        m.submodules.word = word = Choose8(16)
        m.submodules.least = least = Choose4(4)
        m.d.comb += [
            word.index.eq(nibble[2:]),
            *(each.eq(self.granule.word_select(i, 16)) for i, each in enumerate(word.words)),
            least.index.eq(nibble[:2]),
            *(each.eq(word.chosen.word_select(i, 4)) for i, each in enumerate(least.words)),
        ]
        # INT4 becomes INT8 here.
        more = Mux(nibble[1], word.chosen[12:], word.chosen[4:8])
        sign = least.chosen[3].replicate(4)
        m.d.comb += self.value.eq(
            Cat(least.chosen, Mux(self.form.number.is_int4, sign, more), word.chosen[8:])
        )

        # What tells k is a byte, or a few bits from any bit of a byte on: of the bytes from the
        # fifth to the seventh or of those behind them.
        m.submodules.early, m.submodules.late = early, late = Choose4(10), Choose8(10)
        window = Signal(10)
        bytes_ = [self.granule[8 * i : 8 * i + 10] for i in range(GRANULE)]
        m.d.comb += [
            early.index.eq(place[3:5]),
            *(each.eq(bytes_[max(4 + i, _FIRST_PLACE)]) for i, each in enumerate(early.words)),
            late.index.eq(place[3:6]),
            *(each.eq(bytes_[8 + i]) for i, each in enumerate(late.words)),
            window.eq(Mux(place[6], late.chosen, early.chosen)),
        ]
        m.submodules.low_bits = low = Choose4(4)
        m.d.comb += [
            low.index.eq(place[1:3]),
            *(each.eq(window[2 * i :]) for i, each in enumerate(low.words)),
            self.low.eq(low.chosen),
            self.high.eq(window[3:8]),
            self.odd.eq(place[0]),
        ]
        return m
