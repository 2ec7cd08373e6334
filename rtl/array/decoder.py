"""The granule decoder: a stream's granules become weights with their k, one a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE
from ..isa import Mode, Status
from ..numerics.widen import begin_widening, halfway_layout
from .command import chosen, stream_command_layout
from .ports import visit_layout
from .walk import step_layout

__all__ = ["Decoder", "head_layout"]

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

_QUEUE = 4
"""Weights that wait to be issued."""

_FIRST_PLACE = 5
"""The lowest byte of a granule that tells any k."""


def head_layout() -> data.StructLayout:
    """Layout of what the decoder gives to issue.

    ``value`` is a number on half the way to the array's mode (`halfway_layout`), ``k`` its place in
    the slice.
    ``first`` and ``last`` mark the ends of a visit. ``final``: the visit is the engine's last one
    of its slice, of ``length`` numbers. An empty visit that is final comes, too, with ``k`` 0 and
    without ``valid``.
    """
    return data.StructLayout(
        {
            "value": halfway_layout(),
            "k": unsigned(16),
            "length": unsigned(16),
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
            "final": unsigned(1),
        }
    )


def _visit_layout() -> data.StructLayout:
    """Layout of what is to be known of a visit to decode it: ``count`` entries, of ``form``.

    An empty one, of which only its end is to be told, counts one.
    """
    command = stream_command_layout()
    return data.StructLayout(
        {
            "count": unsigned(16),
            "length": unsigned(16),
            "final": unsigned(1),
            "empty": unsigned(1),
            "turn": unsigned(1),
            "form": data.StructLayout({name: command[name].shape for name in _FORM}),
        }
    )


_ENTRY = data.StructLayout(
    {
        "value": 16,
        "window": 10,
        "bit": 3,
        "place_mask": 8,
        "first": 1,
        "last": 1,
        "length": 16,
        "final": 1,
        "empty": 1,
        "turn": 1,
        "format": 8,
        "pairs": 1,
        "low_bits": 3,
    }
)
"""An entry of a stream: its value; bits of its granule among which, from ``bit`` on, is what tells
its k; and what else belongs to it."""


class Decoder(wiring.Component):
    """Decodes streams (`DirectoryEntry`), and describes their visits to the epilogue lane.

    There is no bubble between granules, visits or iterations. These belong to the two ``commands``
    by turns, the first one after a reset to the first. A visit waits in a register while the one
    before it is decoded; a weight then takes two cycles: its value and what its granule says of its
    k are picked, and k is added up; then it waits in a queue.

    Members
    -------
    commands : ``In(stream_command_layout).array(2)``
        Each is still from its iteration's first visit until the last one has begun.
    mode : ``In(Mode)``
        Still while weights are decoded.
    step : ``In(stream)``
        The visits (`step_layout`).
    granule : ``In(stream)``
    visit : ``Out(stream)``
        Descriptor of each visit (`visit_layout`), before its first weight; from a register.
    head : ``Out(stream)``
        The weights (`head_layout`), from a queue.
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
                "mode": In(Mode),
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
        following, following_valid = Signal(_visit_layout(), reset_less=True), Signal()
        now, now_valid = Signal(_visit_layout(), reset_less=True), Signal()
        first, last = Signal(reset_less=True), Signal(reset_less=True)

        # A weight is picked where there is room for it behind those that are on their way.
        picked, picked_valid, room = Signal(), Signal(), Signal()
        granule, granule_valid = Signal(8 * GRANULE, reset_less=True), Signal()
        begin, granule_last = Signal(), Signal()
        m.d.comb += [
            picked.eq(now_valid & room & (granule_valid | now.empty)),
            begin.eq(following_valid & (~now_valid | (picked & last))),
            self.granule.ready.eq(~granule_valid | (picked & granule_last & ~now.empty)),
            self.busy.eq(following_valid | now_valid | picked_valid),
        ]
        m.d.sync += picked_valid.eq(picked)
        self._describe(m, following, following_valid, begin)
        with m.If(self.granule.ready):
            m.d.sync += [granule.eq(self.granule.payload), granule_valid.eq(self.granule.valid)]

        with m.If(picked):
            m.d.sync += [
                now.count.eq(now.count - 1),
                last.eq(now.count == 2),
                first.eq(0),
                now_valid.eq(~last),
            ]
        with m.If(begin):
            m.d.sync += [
                now.eq(following),
                last.eq(following.count == 1),
                first.eq(1),
                now_valid.eq(1),
            ]

        value, window, bit = self._pick(
            m, granule, now, picked, last, begin, following.form, granule_last
        )
        entry = Signal(_ENTRY, reset_less=True)
        with m.If(picked):
            m.d.sync += [
                entry.value.eq(value),
                entry.window.eq(window),
                entry.bit.eq(bit),
                entry.place_mask.eq(Mux(now.empty, 0, now.form.place_mask)),
                entry.first.eq(first),
                entry.last.eq(last),
                entry.length.eq(now.length),
                entry.final.eq(now.final),
                entry.empty.eq(now.empty),
                entry.turn.eq(now.turn),
                entry.format.eq(now.form.stream_format),
                entry.pairs.eq(now.form.pairs),
                entry.low_bits.eq(now.form.low_bits),
            ]
        self._count(m, entry, picked_valid, room)
        return m

    def _fail(self, m: Module, turn: Value, status: Status) -> None:
        m.d.sync += [self.error.eq(Mux(turn, 2, 1)), self.status.eq(status)]

    def _describe(self, m: Module, following: Signal, valid: Signal, begin: Signal) -> None:
        """Take the next visit: describe it, check its entry, and keep what is to be decoded."""
        step = self.step.payload
        visit, visit_valid = Signal(visit_layout(), reset_less=True), Signal()
        turn = Signal()  # of the iteration whose visit is next
        taken, empty = Signal(), Signal()
        m.d.comb += [
            self.visit.payload.eq(visit),
            self.visit.valid.eq(visit_valid),
            empty.eq(step.absent | ~step.entry.count.any()),
            self.step.ready.eq(~valid & ~visit_valid),
            taken.eq(self.step.valid & self.step.ready),
        ]
        with m.If(self.visit.ready):
            m.d.sync += visit_valid.eq(0)
        with m.If(begin):
            m.d.sync += valid.eq(0)
        forms = chosen(m, self.commands, turn, *_FORM)
        dense, odd_bits = chosen(m, self.commands, turn, "dense", "odd_bits")
        with m.If(taken):
            m.d.sync += [
                visit_valid.eq(1),
                visit.address.eq(step.output + step.entry.out_offset),
                visit.bias.eq(step.entry.bias),
                visit.scale.eq(step.entry.scale),
                visit.empty.eq(empty),
                visit.iteration_last.eq(step.iteration_last),
                # An empty visit is decoded only where it ends the engine's work on a slice.
                valid.eq(~empty | step.final),
                following.count.eq(Mux(empty, 1, step.entry.count)),
                following.length.eq(step.length),
                following.final.eq(step.final),
                following.empty.eq(empty),
                following.turn.eq(turn),
                *(following.form[name].eq(value) for name, value in zip(_FORM, forms, strict=True)),
                turn.eq(turn ^ step.iteration_last),
            ]
            for name in ("slot", "slice_first", "slice_last", "block_first", "block_new"):
                m.d.sync += visit[name].eq(step[name])

        # What is wrong is found a cycle later, and told in the one after that.
        checked, checked_dense, checked_odd = Signal(), Signal(), Signal(2)
        odd, scale, count = (Signal(name=f"wrong_{name}") for name in ("address", "scale", "count"))
        wrong_turn = Signal(reset_less=True)
        exponent = visit.scale[23:31]
        m.d.sync += [
            checked.eq(taken & ~empty),
            checked_dense.eq(dense),
            checked_odd.eq(odd_bits & step.entry.out_offset[:2]),
            odd.eq(checked & checked_odd.any()),
            scale.eq(checked & (~exponent.any() | exponent.all())),
            count.eq(checked & checked_dense & (following.count != following.length)),
            wrong_turn.eq(following.turn),
        ]
        with m.If(odd):
            self._fail(m, wrong_turn, Status.BAD_ALIGNMENT)
        with m.Elif(scale):
            self._fail(m, wrong_turn, Status.BAD_SCALE)
        with m.Elif(count):
            self._fail(m, wrong_turn, Status.BAD_INDEX)

    def _pick(self, m: Module, granule, now, picked, last, begin, form, granule_last):
        """Return the next entry's value, and where its granule says what of its k.

        A value lies at a multiple of its own width, and neither crosses the middle of the granule.
        """
        left = Signal(range(33), reset_less=True)  # entries of the granule behind this one
        nibble, place = Signal(5, reset_less=True), Signal(7, reset_less=True)  # where it lies
        one_left = Signal(reset_less=True)
        m.d.comb += granule_last.eq(one_left | last)
        with m.If(picked):
            m.d.sync += [
                left.eq(left - 1),
                one_left.eq(left == 2),
                nibble.eq(nibble + now.form.nibbles),
                place.eq(place + now.form.place_bits),
            ]
            with m.If(granule_last):
                m.d.sync += [
                    left.eq(now.form.per_granule),
                    one_left.eq(0),
                    nibble.eq(0),
                    place.eq(now.form.places),
                ]
        with m.If(begin):
            m.d.sync += [
                left.eq(form.per_granule),
                one_left.eq(0),
                nibble.eq(0),
                place.eq(form.places),
            ]

        word, low = Signal(16), Signal(8)
        m.d.comb += [
            word.eq(granule.word_select(nibble[2:], 16)),
            low.eq(Mux(nibble[1], word[8:], word[:8])),
        ]
        value = Cat(Mux(nibble[0], low[4:], low[:4]), low[4:], word[8:])

        # What tells k is a byte, or a few bits from any bit of a byte on.
        window = Signal(10)
        with m.Switch(place[3:]):
            for byte in range(_FIRST_PLACE, GRANULE - 1):
                with m.Case(byte):
                    m.d.comb += window.eq(granule[8 * byte :])
            with m.Default():
                m.d.comb += window.eq(granule[-8:])
        return value, window, place[:3]

    def _count(self, m: Module, entry, valid, room) -> None:
        """Tell the k of each entry, and put it into the queue."""
        m.submodules.heads = heads = Memory(
            shape=unsigned(head_layout().size), depth=_QUEUE, init=[]
        )
        write, read = heads.write_port(), heads.read_port(domain="comb")
        level, taken = Signal(range(_QUEUE + 1)), Signal()
        m.d.comb += [
            room.eq(level + valid < _QUEUE),
            taken.eq(self.head.valid & self.head.ready),
            write.en.eq(valid),
            self.head.payload.eq(read.data),
            self.head.valid.eq(level.any()),
        ]
        m.d.sync += [
            level.eq(level + valid - taken),
            write.addr.eq(write.addr + valid),
            read.addr.eq(read.addr + taken),
        ]

        k = Signal(16)  # of the next entry or group, if nothing is skipped
        second = Signal()  # the next entry is the second of its group
        place = Signal(2, reset_less=True)  # of the first
        skip, here = Signal(8), Signal(16)
        few = (entry.window >> entry.bit)[:3]
        head = Signal(head_layout())
        m.d.comb += [
            skip.eq(Cat(few, entry.window[3:8]) & entry.place_mask),
            here.eq(k + skip),
            write.data.eq(head),
            head.value.eq(begin_widening(m, entry.value, entry.format, self.mode, name="weight")),
            head.k.eq(here),
            head.length.eq(entry.length),
            head.valid.eq(~entry.empty),
            head.first.eq(entry.first & ~entry.empty),
            head.last.eq(entry.last & ~entry.empty),
            head.final.eq(entry.final),
        ]
        with m.If(valid):
            m.d.sync += [place.eq(skip), second.eq(entry.pairs & ~second & ~entry.last)]
            with m.If(~entry.pairs | second):
                # A group's entries are at its k and less than a group behind it.
                m.d.sync += k.eq(k + (skip | entry.low_bits) + 1)
            with m.If(entry.last):
                m.d.sync += k.eq(0)

        # What is wrong is found a cycle later, and told in the one after that.
        fresh, order = Signal(), Signal(reset_less=True)
        seen_k, seen_length = Signal(16, reset_less=True), Signal(16, reset_less=True)
        wrong = Signal()
        turns = Signal(2, reset_less=True)
        m.d.sync += [
            fresh.eq(valid & ~entry.empty),
            seen_k.eq(here),
            seen_length.eq(entry.length),
            order.eq(~second | (skip[:2] > place)),
            wrong.eq(fresh & ((seen_k >= seen_length) | ~order)),
            turns.eq(Cat(entry.turn, turns)),
        ]
        with m.If(wrong):
            self._fail(m, turns[-1], Status.BAD_INDEX)
