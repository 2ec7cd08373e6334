"""From drain beats to exact sums."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..array.ports import SEGMENT, drain_layout
from ..config import CardConfig

__all__ = ["SumResolver", "partial_layout", "sum_flags_layout"]

_VISITS_IN_BUFFER = 2


def sum_flags_layout() -> data.StructLayout:
    """Layout of the flags of a sum, as `array.ports.drain_layout` explains them."""
    return data.StructLayout({"nan": 1, "inf_pos": 1, "inf_neg": 1, "below": 1, "above": 1})


def partial_layout() -> data.StructLayout:
    """Layout of a beat of a partial sum: half an accumulator, its carries added."""
    return data.StructLayout({"value": 2 * SEGMENT, "flags": sum_flags_layout()})


class SumResolver(wiring.Component):
    """Buffers drain beats and adds up what their carries, partial sums and the bias stand for.

    A beat is taken from the buffer, what is kept of it from the slices before is added, and if that
    was the last slice the sum goes on: with fixed-point sums the two beats as one, with INT4 one
    beat as two sums. The bias is added to integers, exactly. Integer sums are within 32 bits, as
    dot products of `config.MAX_K` numbers are.

    A beat that finds nothing before it is taken in the cycle after it came, where engines share the
    lane in the cycle in which it comes; its sum comes 4 cycles later, the second one of INT4 5
    cycles later.

    Parameters
    ----------
    config : CardConfig
    pause : int
        Cycles to leave before a visit if ``pauses`` is high.

    Members
    -------
    go : ``In(1)``
        The beat that comes next may be taken.
    room, pauses : ``In(1)``
        A beat may be taken in the next cycle, and of the visit that comes next then.
    fixed, int4 : ``In(1)``
        The sums are fixed-point, INT4, or else INT8. These stand still while sums are inside.
    drain : ``In(drain_layout())``
        ``2 * cols`` beats a visit, at any pace, of two visits at most that are not yet credited.
        Where engines share the lane nothing is buffered: a beat stays until it is taken.
    credit : ``Out(1)``
        Pulses when the last beat of a visit has left the buffer. Where engines share the lane: the
        beat is taken.
    take, take_end : ``Out(1)``
        A beat is taken; it is the last of its visit.
    last : ``In(1)``
        Of the beat taken two cycles ago: its visit is of the last slice.
    kept : ``In(partial_layout())``
        What is to be added to that beat.
    keep : ``Out(partial_layout())``
        ``KEEP`` cycles after a beat was taken: the sum so far, to be added to the beat of the next
        slice.
    bias : ``In(signed(32))``
        Added to integers; 0 where sums are fixed-point.
    bias_end : ``Out(1)``
        In the next cycle ``bias`` is used for the last sum of a visit. Void where sums are
        fixed-point.
    valid, end : ``Out(1)``
        A sum; it is the last of its visit.
    whole : ``Out(signed(48))``
        The sum, or the upper half of a fixed-point sum.
    part : ``Out(48)``
        The lower half, or 0.
    flags : ``Out(sum_flags_layout())``
    """

    KEEP = 3
    """Cycles from taking a beat to ``keep``."""

    def __init__(self, config: CardConfig, *, pause: int = 0) -> None:
        self._config = config
        self._pause = pause
        super().__init__(
            {
                "go": In(1),
                "fixed": In(1),
                "int4": In(1),
                "room": In(1),
                "pauses": In(1),
                "drain": In(drain_layout()),
                "credit": Out(1),
                "take": Out(1),
                "take_end": Out(1),
                "last": In(1),
                "kept": In(partial_layout()),
                "keep": Out(partial_layout()),
                "bias": In(signed(32)),
                "bias_end": Out(1),
                "valid": Out(1),
                "end": Out(1),
                "whole": Out(signed(2 * SEGMENT)),
                "part": Out(2 * SEGMENT),
                "flags": Out(sum_flags_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat, odd, end, taken = self._take(m)
        valid1, valid2, valid3, valid4 = (Signal(name=f"valid{i}") for i in range(1, 5))

        # The carries between a beat's segments, and from the lower beat.
        word1 = Signal(2 * SEGMENT, reset_less=True)
        carry1 = Signal(2, reset_less=True)
        word = Signal(2 * SEGMENT + 1)
        upper = self.fixed & odd
        m.d.comb += word.eq(
            beat.segment.as_value()
            + Cat(
                Mux(upper, carry1, 0),
                Const(0, SEGMENT - 2),
                beat.carry[0] & ~self.int4,
            )
        )
        m.d.sync += word1.eq(word)
        with m.If(taken):
            m.d.sync += carry1.eq(word[-1] + beat.carry[1])
        marks = data.StructLayout({"odd": 1, "end": 1, "flags": sum_flags_layout()})
        marks1, marks2, marks3 = (
            Signal(marks, name=f"marks{i}", reset_less=True) for i in range(1, 4)
        )
        m.d.sync += [
            marks1.odd.eq(odd),
            marks1.end.eq(end),
            marks1.flags.eq(Cat(beat[name] for name, _ in sum_flags_layout())),
            marks2.eq(marks1),
            valid1.eq(taken),
            valid2.eq(valid1),
        ]

        # What was kept. INT4: no carry passes the place between its two sums.
        word2 = Signal(2 * SEGMENT, reset_less=True)
        word3, carry3 = Signal(2 * SEGMENT, reset_less=True), Signal(reset_less=True)
        kept = self.kept.value
        carry_in = carry3 & self.fixed & marks2.odd
        total = Signal(2 * SEGMENT + 3)
        m.d.comb += [
            total.eq(
                Cat(carry_in, word2[:SEGMENT], ~self.int4, word2[SEGMENT:])
                + Cat(carry_in, kept[:SEGMENT], Const(0, 1), kept[SEGMENT:])
            ),
            self.keep.value.eq(word3),
            self.keep.flags.eq(marks3.flags),
        ]
        m.d.sync += [
            word2.eq(word1),
            valid3.eq(valid2 & self.last & ~(self.fixed & ~marks2.odd)),
        ]
        with m.If(valid2):
            m.d.sync += [
                marks3.eq(marks2),
                marks3.flags.eq(marks2.flags.as_value() | self.kept.flags.as_value()),
                word3[:SEGMENT].eq(total[1 : SEGMENT + 1]),
                word3[SEGMENT:].eq(total[SEGMENT + 2 : -1]),
                carry3.eq(total[-1]),
            ]

        # The bias, and the two sums of an INT4 beat one after the other.
        second = Signal()
        number, total4 = Signal(signed(2 * SEGMENT)), Signal(signed(2 * SEGMENT), reset_less=True)
        part4 = Signal(2 * SEGMENT, reset_less=True)
        end4, flags4 = Signal(reset_less=True), Signal(sum_flags_layout(), reset_less=True)
        halves = Signal()  # as `int4`, which has many loads
        fill = Signal(reset_less=True)  # the sign of the half
        m.d.sync += [
            halves.eq(self.int4),
            fill.eq(Mux(valid3 & self.int4, word3[-1], total[SEGMENT])),
        ]
        half = Mux(second, word3[SEGMENT:], word3[:SEGMENT])  # `second` is only high with INT4
        m.d.comb += number.eq(Cat(half, Mux(halves, fill.replicate(SEGMENT), word3[SEGMENT:])))
        present = Signal()
        last_sum = marks3.end & (second | ~self.int4)
        m.d.comb += [
            present.eq(valid3 | second),
            self.bias_end.eq(Mux(self.int4, valid3 & marks3.end, valid2 & self.last & marks2.end)),
            self.valid.eq(valid4),
            self.end.eq(end4),
            self.whole.eq(total4),
            self.part.eq(part4),
            self.flags.eq(flags4),
        ]
        m.d.sync += [
            second.eq(valid3 & self.int4),
            valid4.eq(present),
            end4.eq(last_sum),
            flags4.eq(Mux(self.fixed, marks3.flags.as_value(), 0)),
        ]
        with m.If(present):
            m.d.sync += total4.eq(number + self.bias)
        with m.If(~self.fixed):
            m.d.sync += part4.eq(0)
        with m.Elif(~marks3.odd):
            m.d.sync += part4.eq(word3)
        return m

    def _take(self, m: Module):
        """Take beats from the buffer; INT4 beats every second cycle, as each makes two sums.

        Returns the beat, whether it is an odd one, the last of its visit, and whether it is taken.
        """
        beats = 2 * self._config.cols
        beat = Signal(drain_layout())
        kept = beat.as_value()[:-1]  # but `valid`
        count = Signal(range(beats))
        end = Signal()  # `count` is at the last: a register, as much depends on it
        blocked = Signal()  # all that speaks against it but `go`, found out a cycle ahead
        rest = Signal(range(max(self._pause, 1) + 1))
        rests, next_rests = Signal(), Signal()  # it is not 0
        comes, waits = self.drain.as_value()[:-1], Signal()
        m.d.comb += [
            self.take.eq(waits & self.go & ~blocked),
            self.take_end.eq(end),
            next_rests.eq(Mux(self.take & end, self._pause > 0, rests & (rest != 1))),
        ]
        # INT4: every second cycle.
        m.d.sync += [
            rests.eq(next_rests),
            blocked.eq((self.take & self.int4) | ~self.room | (self.pauses & next_rests)),
        ]
        if self._config.engines_per_lane > 1:
            m.d.comb += [kept.eq(comes), waits.eq(self.drain.valid), self.credit.eq(self.take)]
        else:
            depth = _VISITS_IN_BUFFER * beats
            m.submodules.buffer = buffer = SyncFIFO(width=len(kept), depth=depth)
            m.d.comb += [
                buffer.w_en.eq(self.drain.valid),
                buffer.w_data.eq(comes),
                kept.eq(buffer.r_data),
                waits.eq(buffer.r_rdy),
                buffer.r_en.eq(self.take),
            ]
            m.d.sync += self.credit.eq(self.take & end)
        with m.If(self.take):
            m.d.sync += [count.eq(Mux(end, 0, count + 1)), end.eq(count == beats - 2)]
        with m.If(self.take & end):
            m.d.sync += rest.eq(self._pause)
        with m.Elif(rests):
            m.d.sync += rest.eq(rest - 1)
        return beat, count[0], end, self.take
