"""The granule decoder: a stream's granules become weights with their k, one a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE
from ..isa import Mode, Status
from ..numerics.widen import begin_widening, halfway_layout, number_layout
from ..tech.copy import copies
from .command import chosen, stream_command_layout
from .picker import Picker, form_layout
from .ports import visit_layout
from .walk import step_layout

__all__ = ["Decoder", "head_layout"]

_QUEUE = 4
"""Weights that wait to be issued: a power of two, which the top bit of a count tells."""


def head_layout() -> data.StructLayout:
    """Layout of what the decoder gives to issue.

    ``value`` is a number on half the way to the array's mode (`halfway_layout`), ``k`` its place in
    the slice.
    ``first`` and ``last`` mark the ends of a visit. ``final``: the visit is the engine's last one
    of its slice, of ``length_less + 1`` numbers. An empty visit that is final comes, too, with
    ``k`` 0 and without ``valid``.
    """
    return data.StructLayout(
        {
            "value": halfway_layout(),
            "k": unsigned(16),
            "length_less": unsigned(16),
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
            "final": unsigned(1),
        }
    )


def _visit_layout() -> data.StructLayout:
    """Layout of what is to be known of a visit to decode it: it has ``count`` entries.

    Of an empty one only its end is to be told, as if it had one entry. ``form`` is of its command.
    """
    return data.StructLayout(
        {
            "count": unsigned(16),
            "length_less": unsigned(16),
            "final": unsigned(1),
            "empty": unsigned(1),
            "turn": unsigned(1),
            "form": form_layout(),
        }
    )


_ENTRY = data.StructLayout(
    {
        "value": 16,
        "low": 4,
        "high": 5,
        "odd": 1,
        "place_mask": 8,
        "first": 1,
        "last": 1,
        "length_less": 16,
        "final": 1,
        "empty": 1,
        "turn": 1,
        "number": number_layout(),
        "dense": 1,
        "pairs": 1,
        "low_bits": 3,
    }
)
"""An entry of a stream: its value; what tells its k, of which ``low`` has the low three bits from
bit ``odd`` on, and ``high`` the others; and what else belongs to it."""


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
        Still from a cycle before weights are decoded on.
    step : ``In(stream)``
        The visits (`step_layout`).
    output : ``In(32)``
        Byte address of the output of the visit that was taken last.
    granule, granule_valid, granule_ready : ``In(128)``, ``In(1)``, ``Out(1)``
        Taken where it is valid and ready.
    visit : ``Out(stream)``
        Descriptor of each visit (`visit_layout`), before its first weight; from registers, its
        address the sum of two.
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
                "output": In(32),
                "granule": In(8 * GRANULE),
                "granule_valid": In(1),
                "granule_ready": Out(1),
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

        # A weight is picked where there is room for it behind those that are on their way, and an
        # entry to pick it from: found out in the cycle before, as it decides much.
        picked, picked_valid, next_room = Signal(), Signal(), Signal()
        of_granule = Signal()  # it is picked from the granule
        granule, granule_valid = Signal(8 * GRANULE, reset_less=True), Signal()
        begin, form = Signal(), now.form
        m.submodules.picker = picker = Picker()
        m.d.comb += [
            picker.granule.eq(granule),
            picker.form.eq(form),
            picker.next_form.eq(following.form),
            picker.begin.eq(begin),
            picker.picked.eq(picked),
            picker.last.eq(last),
        ]
        next_valid, next_granule, next_empty = Signal(), Signal(), Signal()
        m.d.comb += [
            begin.eq(following_valid & (~now_valid | (picked & last))),
            self.granule_ready.eq(~granule_valid | (of_granule & picker.granule_last)),
            self.busy.eq(following_valid | now_valid | picked_valid),
        ]
        m.d.comb += [
            next_valid.eq(Mux(begin | picked, begin | ~last, now_valid)),
            next_granule.eq(Mux(self.granule_ready, self.granule_valid, granule_valid)),
            next_empty.eq(Mux(begin, following.empty, now.empty)),
        ]
        m.d.sync += [
            picked.eq(next_valid & (next_granule | next_empty) & next_room),
            of_granule.eq(next_valid & next_granule & ~next_empty & next_room),
            picked_valid.eq(picked),
            now_valid.eq(next_valid),
            granule_valid.eq(next_granule),
        ]
        self._describe(m, platform, following, following_valid, begin)
        with m.If(self.granule_ready):
            m.d.sync += granule.eq(self.granule)

        single = Signal()
        m.d.comb += single.eq(following.empty | (following.count == 1))
        with m.If(begin):
            m.d.sync += now.eq(following)
        # One condition for all that these may become: it is their enable.
        with m.If(begin | picked):
            m.d.sync += [
                now.count.eq(Mux(begin, following.count, now.count - 1)),
                last.eq(Mux(begin, single, now.count == 2)),
                first.eq(begin),
            ]

        entry = Signal(_ENTRY, reset_less=True)
        with m.If(picked):
            m.d.sync += [
                entry.value.eq(picker.value),
                entry.low.eq(picker.low),
                entry.high.eq(picker.high),
                entry.odd.eq(picker.odd),
                entry.place_mask.eq(Mux(now.empty, 0, form.place_mask)),
                entry.first.eq(first),
                entry.last.eq(last),
                entry.length_less.eq(now.length_less),
                entry.final.eq(now.final),
                entry.empty.eq(now.empty),
                entry.turn.eq(now.turn),
                entry.number.eq(form.number),
                entry.dense.eq(form.dense),
                entry.pairs.eq(form.pairs),
                entry.low_bits.eq(form.low_bits),
            ]
        self._count(m, entry, picked, picked_valid, next_room)
        return m

    def _fail(self, m: Module, turn: Value, status: Status) -> None:
        m.d.sync += [self.error.eq(Mux(turn, 2, 1)), self.status.eq(status)]

    def _describe(self, m: Module, platform: object, following, valid, begin) -> None:
        """Take the next visit: describe it, check its entry, and keep what is to be decoded."""
        step = self.step.payload
        visit, visit_valid = Signal(visit_layout(), reset_less=True), Signal()
        turn = Signal()  # of the iteration whose visit is next
        ready, next_ready, taken = Signal(init=1), Signal(), Signal()
        m.d.comb += [
            self.visit.payload.eq(visit),
            self.visit.payload.address.eq(self.output + visit.address),
            self.visit.valid.eq(visit_valid),
            self.step.ready.eq(ready),
            taken.eq(self.step.valid & ready),
            # There is room when neither register is taken.
            next_ready.eq(~taken & ~(valid & ~begin) & ~(visit_valid & ~self.visit.ready)),
        ]
        m.d.sync += ready.eq(next_ready)
        (loads,) = copies(m, platform, next_ready, 1, name="loads")
        with m.If(self.visit.ready):
            m.d.sync += visit_valid.eq(0)
        with m.If(begin):
            m.d.sync += valid.eq(0)
        *forms, odd_bits = chosen(m, self.commands, turn, *form_layout().members, "odd_bits")
        with m.If(taken):
            m.d.sync += [
                visit_valid.eq(1),
                # An empty visit is decoded only where it ends the engine's work on a slice.
                valid.eq(~step.empty | step.final),
                turn.eq(turn ^ step.iteration_last),
            ]
        # What is void otherwise is taken in any case: it has not to wait for whether one is here.
        with m.If(loads):
            m.d.sync += [
                visit.address.eq(step.entry.out_offset),
                visit.bias.eq(step.entry.bias),
                visit.scale.eq(step.entry.scale),
                visit.empty.eq(step.empty),
                visit.iteration_last.eq(step.iteration_last),
                following.count.eq(step.entry.count),
                following.length_less.eq(step.length_less),
                following.final.eq(step.final),
                following.empty.eq(step.empty),
                *(
                    following.form[name].eq(value)
                    for name, value in zip(form_layout().members, forms, strict=True)
                ),
                following.turn.eq(turn),
            ]
            for name in ("slot", "slice_first", "slice_last", "block_first", "block_new"):
                m.d.sync += visit[name].eq(step[name])

        # What is wrong is found a cycle later, and told in the one after that.
        checked, checked_odd = Signal(), Signal(2)
        odd, scale = (Signal(name=f"wrong_{name}") for name in ("address", "scale"))
        wrong_turn = Signal(reset_less=True)
        exponent = visit.scale[23:31]
        m.d.sync += [
            checked.eq(taken & ~step.empty),
            checked_odd.eq(odd_bits & step.entry.out_offset[:2]),
            odd.eq(checked & checked_odd.any()),
            scale.eq(checked & (~exponent.any() | exponent.all())),
            wrong_turn.eq(following.turn),
        ]
        with m.If(odd):
            self._fail(m, wrong_turn, Status.BAD_ALIGNMENT)
        with m.Elif(scale):
            self._fail(m, wrong_turn, Status.BAD_SCALE)

    def _count(self, m: Module, entry, picked, valid, next_room) -> None:
        """Tell the k of each entry, and put it into the queue; say whether there will be room."""
        m.submodules.heads = heads = Memory(
            shape=unsigned(head_layout().size), depth=_QUEUE, init=[]
        )
        write, read = heads.write_port(), heads.read_port(domain="comb")
        level, taken = Signal(range(_QUEUE + 1)), Signal()
        # What is picked and not known to have been taken: that is late.
        ahead, next_ahead, left = Signal.like(level), Signal.like(level), Signal()
        m.d.comb += [
            next_ahead.eq(ahead + picked - left),
            next_room.eq(~next_ahead[-1]),
            taken.eq(self.head.valid & self.head.ready),
            write.en.eq(valid),
            self.head.payload.eq(read.data),
            self.head.valid.eq(level.any()),
        ]
        m.d.sync += [
            level.eq(level + valid - taken),
            ahead.eq(next_ahead),
            left.eq(taken),
            write.addr.eq(write.addr + valid),
            read.addr.eq(read.addr + taken),
        ]

        # The last k of the entry or group before; its next one's low bits are as they are told.
        mode = Signal(Mode)  # a copy: the mode has many users
        m.d.sync += mode.eq(self.mode)
        k = Signal(16, init=0xFFFF)
        second = Signal()  # the next entry is the second of its group
        place = Signal(2, reset_less=True)  # of the first
        skip, here, group = Signal(8), Signal(16), Signal(16)
        few = Mux(entry.odd, entry.low[1:], entry.low[:3])
        head = Signal(head_layout())
        in_group = entry.low_bits
        m.d.comb += [
            skip.eq(Cat(few, entry.high) & entry.place_mask),
            # One more than their sum, by a carry in.
            group.eq((Cat(1, k) + Cat(1, skip | in_group))[1:]),
            here.eq(Cat((in_group & skip[:3]) | (~in_group & group[:3]), group[3:])),
            write.data.eq(head),
            head.value.eq(begin_widening(m, entry.value, entry.number, mode, name="weight")),
            head.k.eq(here),
            head.length_less.eq(entry.length_less),
            head.valid.eq(~entry.empty),
            head.first.eq(entry.first & ~entry.empty),
            head.last.eq(entry.last & ~entry.empty),
            head.final.eq(entry.final),
        ]
        with m.If(valid):
            m.d.sync += [place.eq(skip), second.eq(entry.pairs & ~second & ~entry.last)]
        with m.If(valid & entry.last):
            m.d.sync += k.eq(k.init)
        with m.Elif(valid & (~entry.pairs | second)):
            m.d.sync += k.eq(group)

        # What is wrong is found a cycle later, and told in the one after that.
        fresh, order = Signal(), Signal(reset_less=True)
        seen_k, seen_length = Signal(16, reset_less=True), Signal(16, reset_less=True)
        short, wrong = Signal(reset_less=True), Signal()
        turns = Signal(2, reset_less=True)
        m.d.sync += [
            fresh.eq(valid & ~entry.empty),
            seen_k.eq(here),
            seen_length.eq(entry.length_less),
            order.eq(~second | (skip[:2] > place)),
            short.eq(entry.dense & entry.last),
            wrong.eq(fresh & ((seen_k > seen_length) | (short & (seen_k != seen_length)) | ~order)),
            turns.eq(Cat(entry.turn, turns)),
        ]
        with m.If(wrong):
            self._fail(m, turns[-1], Status.BAD_INDEX)
