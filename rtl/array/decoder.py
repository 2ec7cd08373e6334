"""The granule decoder: a stream's granules become weights with their k, one a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE
from ..isa import Status
from .command import chosen, stream_command_layout
from .ports import visit_layout
from .walk import step_layout

__all__ = ["Decoder", "head_layout"]

_HALF = 4 * GRANULE
"""Bits of half a granule."""

_FORM = (
    "stream_format",
    "per_granule",
    "nibbles",
    "place_bits",
    "places",
    "place_mask",
    "pairs",
    "low_bits",
)
"""What the decoder keeps of the command of the visit that it decodes."""


def head_layout() -> data.StructLayout:
    """Layout of what the decoder gives to issue.

    ``value`` is a number of ``format`` with anything above it, ``k`` its place in the slice.
    ``first`` and ``last`` mark the ends of a visit. ``final``: the visit is the engine's last one
    of its slice, of ``length`` numbers. An empty visit that is final comes, too, with ``k`` 0 and
    without ``valid``.
    """
    return data.StructLayout(
        {
            "value": unsigned(16),
            "format": unsigned(8),
            "k": unsigned(16),
            "length": unsigned(16),
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
            "final": unsigned(1),
        }
    )


def _pick(m: Module, word, at, unit: int, bits: int, name: str) -> Signal:
    """Return ``bits`` bits of a word from ``at * unit`` on; zeros from its end on.

    The largest step comes first, so that each needs few bits.
    """
    for i in reversed(range(len(at))):
        step = unit << i
        picked = Signal(bits + step - unit, name=f"{name}_{i}")
        m.d.comb += picked.eq(Mux(at[i], word[step:], word))
        word = picked
    return word


class Decoder(wiring.Component):
    """Decodes streams (`DirectoryEntry`), and describes their visits to the epilogue lane.

    There is no bubble between granules, visits or iterations. These belong to the two ``commands``
    by turns, the first one after a reset to the first.

    Members
    -------
    commands : ``In(stream_command_layout).array(2)``
        Each is still from its iteration's first visit until the last one has begun.
    step : ``In(stream)``
        The visits (`step_layout`).
    granule : ``In(stream)``
    visit : ``Out(stream)``
        Descriptor of each visit (`visit_layout`), before its first weight.
    head : ``Out(stream)``
        The weights (`head_layout`), from a register.
    busy : ``Out(1)``
        A visit has weights that are not on ``head`` yet.
    error : ``Out(2)``, status : ``Out(Status)``
        Pulses, in an iteration of the first or the second command, when an entry or a stream is
        wrong.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "commands": In(stream_command_layout()).array(2),
                "step": In(stream.Signature(step_layout())),
                "granule": In(stream.Signature(8 * GRANULE)),
                "visit": Out(stream.Signature(visit_layout())),
                "head": Out(stream.Signature(head_layout())),
                "busy": Out(1),
                "error": Out(2),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.error.eq(0)
        layout = data.StructLayout({name: stream_command_layout()[name].shape for name in _FORM})
        self._turn = Signal()  # of the iteration whose visit is next
        new = dict(zip(_FORM, chosen(m, self.commands, self._turn, *_FORM), strict=True))
        form = Signal(layout, reset_less=True)

        # The visit that is decoded.
        in_visit = Signal(16)  # entries of it that are still to come
        turn = Signal(reset_less=True)
        length = Signal(16, reset_less=True)
        first, final = Signal(reset_less=True), Signal(reset_less=True)
        head, head_valid = Signal(head_layout(), reset_less=True), Signal()
        head_free = ~head_valid | self.head.ready
        decode, last = Signal(), Signal()
        m.d.comb += [
            decode.eq(head_free & self.granule.valid & in_visit.any()),
            last.eq(in_visit == 1),
            self.head.payload.eq(head),
            self.head.valid.eq(head_valid),
            self.busy.eq(in_visit.any()),
        ]
        begin = self._begin(m, ~in_visit.any() | (decode & last), head_free & ~decode)
        value, skip = self._entry(m, decode, last, begin, form, new)
        entry_k = self._count(m, decode, begin, skip, form, turn)
        with m.If(head_free):
            m.d.sync += head_valid.eq(decode)
        with m.If(decode):
            m.d.sync += [
                head.value.eq(value),
                head.format.eq(form.stream_format),
                head.k.eq(entry_k),
                head.length.eq(length),
                head.valid.eq(1),
                head.first.eq(first),
                head.last.eq(last),
                head.final.eq(final),
                in_visit.eq(in_visit - 1),
                first.eq(0),
            ]
            with m.If(entry_k >= length):
                self._fail(m, turn, Status.BAD_INDEX)
        with m.If(begin):
            step = self.step.payload
            m.d.sync += [
                *(form[name].eq(value) for name, value in new.items()),
                turn.eq(self._turn),
                self._turn.eq(self._turn ^ step.iteration_last),
                in_visit.eq(self._entries),
                length.eq(step.length),
                first.eq(1),
                final.eq(step.final),
            ]
            # An empty visit passes the head only where it ends the engine's work on a slice.
            with m.If(self.visit.payload.empty & step.final):
                m.d.sync += [
                    head_valid.eq(1),
                    head.k.eq(0),
                    head.length.eq(step.length),
                    head.valid.eq(0),
                    head.first.eq(0),
                    head.last.eq(0),
                    head.final.eq(1),
                ]
        return m

    def _fail(self, m: Module, turn, status: Status) -> None:
        m.d.sync += [self.error.eq(Mux(turn, 2, 1)), self.status.eq(status)]

    def _begin(self, m: Module, wanted, head_idle) -> Signal:
        """Take the next visit: describe it, and check its entry."""
        step, visit = self.step.payload, self.visit.payload
        begin = Signal()
        empty = Signal()
        self._entries = Signal(16)
        m.d.comb += [
            empty.eq(step.absent | ~step.entry.count.any()),
            self._entries.eq(Mux(step.absent, 0, step.entry.count)),
            self.visit.valid.eq(self.step.valid & wanted & (~(empty & step.final) | head_idle)),
            begin.eq(self.visit.valid & self.visit.ready),
            self.step.ready.eq(begin),
            visit.address.eq(step.output + step.entry.out_offset),
            visit.bias.eq(step.entry.bias),
            visit.scale.eq(step.entry.scale),
            visit.empty.eq(empty),
        ]
        for name in ("slot", "slice_first", "slice_last", "block_first", "block_new"):
            m.d.comb += visit[name].eq(step[name])
        m.d.comb += visit.iteration_last.eq(step.iteration_last)
        dense, odd_bits = chosen(m, self.commands, self._turn, "dense", "odd_bits")
        exponent = step.entry.scale[23:31]
        with m.If(begin & ~empty):
            with m.If((step.entry.out_offset[:2] & odd_bits).any()):
                self._fail(m, self._turn, Status.BAD_ALIGNMENT)
            with m.Elif(~exponent.any() | exponent.all()):
                self._fail(m, self._turn, Status.BAD_SCALE)
            with m.Elif(dense & (step.entry.count != step.length)):
                self._fail(m, self._turn, Status.BAD_INDEX)
        return begin

    def _entry(self, m: Module, decode, last, begin, form, new):
        """Return the next entry's value, and what its granule says of its k.

        Neither crosses the middle of the granule. The granule stays in its queue meanwhile.
        """
        low, high = self.granule.payload[:_HALF], self.granule.payload[_HALF:]
        left = Signal(range(33), reset_less=True)  # entries of the granule from this one on
        nibble, place = Signal(5, reset_less=True), Signal(7, reset_less=True)  # where it lies
        ends = (left == 1) | last
        m.d.comb += self.granule.ready.eq(decode & ends)
        with m.If((decode & ends) | begin):
            m.d.sync += [
                left.eq(Mux(begin, new["per_granule"], form.per_granule)),
                nibble.eq(0),
                place.eq(Mux(begin, new["places"], form.places)),
            ]
        with m.Elif(decode):
            m.d.sync += [
                left.eq(left - 1),
                nibble.eq(nibble + form.nibbles),
                place.eq(place + form.place_bits),
            ]
        # Only deltas of INT4 are in the lower half, from its sixth byte on.
        places = Mux(place[-1], high, Cat(Const(0, 40), low[40:]))
        window = _pick(m, places, place[3:-1], 8, 11, "places")
        few = _pick(m, window, place[:3], 1, 3, "place")
        value = _pick(m, Mux(nibble[-1], high, low), nibble[:-1], 4, 16, "value")
        return value, Cat(few, window[3:8]) & form.place_mask

    def _count(self, m: Module, decode, begin, skip, form, turn) -> Signal:
        """Return the k of the next entry, and move on with each that is decoded."""
        k = Signal(16, reset_less=True)  # of the next entry or group, if nothing is skipped
        entry_k = Signal(16)
        second = Signal(reset_less=True)  # the next entry is the second of its group
        place = Signal(2, reset_less=True)  # of the first
        m.d.comb += entry_k.eq(k + skip)
        with m.If(decode):
            m.d.sync += [second.eq(form.pairs & ~second), place.eq(skip)]
            with m.If(~form.pairs | second):
                m.d.sync += k.eq((entry_k | form.low_bits) + 1)
            with m.If(second & (skip[:2] <= place)):
                self._fail(m, turn, Status.BAD_INDEX)
        with m.If(begin):
            m.d.sync += [k.eq(0), second.eq(0)]
        return entry_k
