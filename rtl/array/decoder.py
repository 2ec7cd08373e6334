"""The granule decoder: a stream's granules become weights with their k, one a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE
from ..isa import ENTRIES, Encoding, Format, MatmulBody, Status
from .ports import visit_layout
from .walk import step_layout, width_of

__all__ = ["Decoder", "head_layout"]

_PLACE_BITS = {
    Encoding.DENSE: 0,
    Encoding.DELTA: 8,
    Encoding.SPARSE_2_4: 2,
    Encoding.SPARSE_1_4: 2,
    Encoding.SPARSE_1_8: 3,
}
"""Bits that tell an entry's k."""

_HALF = 4 * GRANULE
"""Bits of half a granule."""

_RESULT_BITS = {Format.FP16: 16, Format.BF16: 16, Format.FP32: 32, Format.INT32: 32}
"""Results of more than a byte, which must be aligned."""


def head_layout() -> data.StructLayout:
    """Layout of what the decoder gives to issue.

    ``value`` is a number of the stream's format with anything above it, ``k`` its place in the
    slice. ``first`` and ``last`` mark the ends of a visit. ``final``: the visit is the engine's
    last one of its slice, of ``length`` numbers. An empty visit that is final comes, too, with
    ``k`` 0 and without ``valid``.
    """
    return data.StructLayout(
        {
            "value": unsigned(16),
            "k": unsigned(16),
            "length": unsigned(16),
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
            "final": unsigned(1),
        }
    )


def _form_layout() -> data.StructLayout:
    """Layout of where things lie in a granule of a command: how many entries, half-bytes of a
    value, bits of what tells its k, where these begin, and a mask for them."""
    return data.StructLayout(
        {
            "entries": unsigned(6),
            "nibbles": unsigned(3),
            "place_bits": unsigned(4),
            "places": unsigned(7),
            "place_mask": unsigned(8),
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

    There is no bubble between granules, or between visits.

    Members
    -------
    body : ``In(MatmulBody)``
        The command; still from two cycles before its first visit until its last one has ended.
    last_length : ``In(16)``
        Length of the last slice.
    step : ``In(stream)``
        The visits (`step_layout`).
    granule : ``In(stream)``
    visit : ``Out(stream)``
        Descriptor of each visit (`visit_layout`), before its first weight.
    head : ``Out(stream)``
        The weights (`head_layout`), from a register.
    busy : ``Out(1)``
        A visit has weights that are not on ``head`` yet.
    error : ``Out(1)``, status : ``Out(Status)``
        Pulses when an entry or a stream is wrong.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "body": In(MatmulBody),
                "last_length": In(16),
                "step": In(stream.Signature(step_layout())),
                "granule": In(stream.Signature(8 * GRANULE)),
                "visit": Out(stream.Signature(visit_layout())),
                "head": Out(stream.Signature(head_layout())),
                "busy": Out(1),
                "error": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.error.eq(0)
        pairs, low_bits, form = self._forms(m)

        # The visit that is decoded.
        in_visit = Signal(16)  # entries of it that are still to come
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
        value, skip = self._entry(m, decode, last, begin, form)
        entry_k = self._count(m, decode, begin, skip, pairs, low_bits)
        with m.If(head_free):
            m.d.sync += head_valid.eq(decode)
        with m.If(decode):
            m.d.sync += [
                head.value.eq(value),
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
                self._fail(m, Status.BAD_INDEX)
        with m.If(begin):
            step = self.step.payload
            m.d.sync += [
                in_visit.eq(self._entries),
                length.eq(self._length),
                first.eq(1),
                final.eq(step.final),
            ]
            # An empty visit passes the head only where it ends the engine's work on a slice.
            with m.If(self.visit.payload.empty & step.final):
                m.d.sync += [
                    head_valid.eq(1),
                    head.k.eq(0),
                    head.length.eq(self._length),
                    head.valid.eq(0),
                    head.first.eq(0),
                    head.last.eq(0),
                    head.final.eq(1),
                ]
        return m

    def _fail(self, m: Module, status: Status) -> None:
        m.d.sync += [self.error.eq(1), self.status.eq(status)]

    def _begin(self, m: Module, wanted, head_idle) -> Signal:
        """Take the next visit: describe it, and check its entry."""
        body, step, visit = self.body, self.step.payload, self.visit.payload
        begin = Signal()
        empty = Signal()
        self._entries, self._length = Signal(16), Signal(16)
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
        # An engine without a row in a block is done with all of its slices at once.
        m.d.comb += self._length.eq(body.slice)
        with m.If(step.slice_last):
            m.d.comb += self._length.eq(Mux(step.slice_first, body.k, self.last_length))

        odd_bits = Signal(2)  # those of a result's address that must be zero
        with m.Switch(body.out_format):
            for bits in (16, 32):
                with m.Case(*(f.value for f, size in _RESULT_BITS.items() if size == bits)):
                    m.d.comb += odd_bits.eq(bits // 8 - 1)
        exponent = step.entry.scale[23:31]
        with m.If(begin & ~empty):
            with m.If((step.entry.out_offset[:2] & odd_bits).any()):
                self._fail(m, Status.BAD_ALIGNMENT)
            with m.Elif(~exponent.any() | exponent.all()):
                self._fail(m, Status.BAD_SCALE)
            with m.Elif(self._dense & (step.entry.count != self._length)):
                self._fail(m, Status.BAD_INDEX)
        return begin

    def _forms(self, m: Module):
        """Derive from the command, into registers: whether two entries share a group, the low bits
        of the last k of a group, and where things lie in a granule."""
        body = self.body
        widths = width_of(m, body.stream_format)
        form, now = Signal(_form_layout(), reset_less=True), Signal(_form_layout())
        m.d.sync += form.eq(now)
        for bits, used in widths.items():
            with m.If(used):
                m.d.comb += now.nibbles.eq(bits // 4)
        for encoding, entries in ENTRIES.items():
            with m.If(body.encoding == encoding.value):
                m.d.comb += [
                    now.place_bits.eq(_PLACE_BITS[encoding]),
                    now.place_mask.eq((1 << _PLACE_BITS[encoding]) - 1),
                ]
                for bits, count in entries.items():
                    with m.If(widths[bits]):
                        start = -(-count * bits // 8) * 8
                        m.d.comb += now.entries.eq(count)
                        if encoding is not Encoding.DENSE:
                            m.d.comb += now.places.eq(start)
        self._dense, pairs, low_bits = Signal(), Signal(), Signal(3, reset_less=True)
        m.d.sync += [
            self._dense.eq(body.encoding == Encoding.DENSE.value),
            pairs.eq(body.encoding == Encoding.SPARSE_2_4.value),
            low_bits.eq(0),
        ]
        with m.Switch(body.encoding):
            with m.Case(Encoding.SPARSE_2_4.value, Encoding.SPARSE_1_4.value):
                m.d.sync += low_bits.eq(3)
            with m.Case(Encoding.SPARSE_1_8.value):
                m.d.sync += low_bits.eq(7)
        return pairs, low_bits, form

    def _entry(self, m: Module, decode, last, begin, form):
        """Return the next entry's value, and what its granule says of its k.

        Neither crosses the middle of the granule. The granule stays in its queue meanwhile.
        """
        low, high = self.granule.payload[:_HALF], self.granule.payload[_HALF:]
        left = Signal(range(33), reset_less=True)  # entries of the granule from this one on
        nibble, place = Signal(5, reset_less=True), Signal(7, reset_less=True)  # where it lies
        ends = (left == 1) | last
        m.d.comb += self.granule.ready.eq(decode & ends)
        with m.If((decode & ends) | begin):
            m.d.sync += [left.eq(form.entries), nibble.eq(0), place.eq(form.places)]
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

    def _count(self, m: Module, decode, begin, skip, pairs, low_bits) -> Signal:
        """Return the k of the next entry, and move on with each that is decoded."""
        k = Signal(16, reset_less=True)  # of the next entry or group, if nothing is skipped
        entry_k = Signal(16)
        second = Signal(reset_less=True)  # the next entry is the second of its group
        place = Signal(2, reset_less=True)  # of the first
        m.d.comb += entry_k.eq(k + skip)
        with m.If(decode):
            m.d.sync += [second.eq(pairs & ~second), place.eq(skip)]
            with m.If(~pairs | second):
                m.d.sync += k.eq((entry_k | low_bits) + 1)
            with m.If(second & (skip[:2] <= place)):
                self._fail(m, Status.BAD_INDEX)
        with m.If(begin):
            m.d.sync += [k.eq(0), second.eq(0)]
        return entry_k
