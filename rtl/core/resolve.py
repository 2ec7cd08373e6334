"""From drain beats to exact sums."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
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

    Everything but the arrival of beats stands still while ``ce`` is low. A beat that finds nothing
    before it is taken in the cycle after it came; its sum comes 3 (integers) or 2 cycles later.

    Parameters
    ----------
    config : CardConfig
    pause : int
        Cycles with ``ce`` high to leave between visits if ``pauses`` is high.

    Members
    -------
    ce : ``In(1)``
    go : ``In(1)``
        The beat that comes next may be taken.
    fixed, int4, pauses : ``In(1)``
        The sums are fixed-point, INT4, or else INT8. These stand still while sums are inside.
    drain : ``In(drain_layout())``
        ``2 * cols`` beats a visit, at any pace, of two visits at most that are not yet credited.
    credit : ``Out(1)``
        Pulses when the last beat of a visit has left the buffer.
    take, take_end : ``Out(1)``
        With ``ce`` high a beat is taken; it is the last of its visit.
    last : ``In(1)``
        Of the beat taken a cycle ago: its visit is of the last slice.
    kept : ``In(partial_layout())``
        What is to be added to that beat.
    keep : ``Out(partial_layout())``
        Two cycles after a beat was taken: the sum so far, to be added to the next slice's beat.
    bias : ``In(signed(32))``
        Added to integers.
    bias_end : ``Out(1)``
        ``bias`` is used for the last sum of a visit.
    valid, end : ``Out(1)``
        A sum; it is the last of its visit.
    whole : ``Out(signed(48))``
        The sum, or the upper half of a fixed-point sum.
    part : ``Out(48)``
        The lower half, or 0.
    flags : ``Out(sum_flags_layout())``
    """

    KEEP = 2
    """Cycles from taking a beat to ``keep``."""

    def __init__(self, config: CardConfig, *, pause: int = 0) -> None:
        self._config = config
        self._pause = pause
        super().__init__(
            {
                "ce": In(1),
                "go": In(1),
                "fixed": In(1),
                "int4": In(1),
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
        ce = self.ce
        beat, odd, end, taken = self._take(m)

        # The carry between a beat's segments.
        valid1, odd1, end1 = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        word1 = Signal(2 * SEGMENT, reset_less=True)
        carry1 = Signal(2, reset_less=True)
        flags1 = Signal(sum_flags_layout(), reset_less=True)
        upper = Signal(SEGMENT + 1)
        m.d.comb += upper.eq(beat.segment[1] + (beat.carry[0] & ~self.int4))
        with m.If(ce):
            m.d.sync += valid1.eq(taken)
        with m.If(ce & taken):
            m.d.sync += [
                word1.eq(Cat(beat.segment[0], upper[:SEGMENT])),
                carry1.eq(upper[-1] + beat.carry[1]),
                Cat(odd1, end1).eq(Cat(odd, end)),
                flags1.eq(Cat(beat[name] for name, _ in sum_flags_layout())),
            ]

        # What was kept, and the carry from the lower beat.
        valid2, end2 = Signal(), Signal(reset_less=True)
        word2, part2 = (Signal(2 * SEGMENT, reset_less=True, name=name) for name in ("w2", "p2"))
        carry2 = Signal(2, reset_less=True)
        flags2 = Signal(sum_flags_layout(), reset_less=True)
        low, high = Signal(SEGMENT + 2), Signal(SEGMENT + 2)
        lower = self.fixed & ~odd1
        m.d.comb += [
            low.eq(word1[:SEGMENT] + self.kept.value[:SEGMENT] + Mux(self.fixed & odd1, carry2, 0)),
            high.eq(word1[SEGMENT:] + self.kept.value[SEGMENT:] + Mux(self.int4, 0, low[SEGMENT:])),
            self.keep.value.eq(word2),
            self.keep.flags.eq(flags2),
        ]
        word = Cat(low[:SEGMENT], high[:SEGMENT])
        with m.If(ce):
            m.d.sync += valid2.eq(valid1 & self.last & ~lower)
        with m.If(ce & valid1):
            m.d.sync += [
                word2.eq(word),
                end2.eq(end1),
                flags2.eq(flags1.as_value() | self.kept.flags.as_value()),
            ]
            with m.If(lower):
                m.d.sync += [part2.eq(word), carry2.eq(carry1 + high[SEGMENT:])]

        # Integers: the bias, and the two sums of an INT4 beat one after the other.
        second = Signal()
        valid3, end3 = Signal(), Signal(reset_less=True)
        total3 = Signal(signed(2 * SEGMENT), reset_less=True)
        number = Signal(signed(2 * SEGMENT))
        with m.If(self.int4):
            half = Mux(second, word2[SEGMENT:], word2[:SEGMENT])
            m.d.comb += number.eq(half.as_signed())
        with m.Else():
            m.d.comb += number.eq(word2)
        present = (valid2 | second) & ~self.fixed
        last_sum = end2 & (second | ~self.int4)
        m.d.comb += self.bias_end.eq(ce & present & last_sum)
        with m.If(ce):
            m.d.sync += [second.eq(valid2 & self.int4), valid3.eq(present)]
            with m.If(present):
                m.d.sync += [total3.eq(number + self.bias), end3.eq(last_sum)]

        with m.If(self.fixed):
            m.d.comb += [
                self.valid.eq(valid2),
                self.end.eq(end2),
                self.whole.eq(word2),
                self.part.eq(part2),
                self.flags.eq(flags2),
            ]
        with m.Else():
            m.d.comb += [self.valid.eq(valid3), self.end.eq(end3), self.whole.eq(total3)]
        return m

    def _take(self, m: Module):
        """Take beats from the buffer; INT4 beats every second cycle, as each makes two sums.

        Returns the beat, whether it is an odd one, the last of its visit, and whether it is taken.
        """
        beats = 2 * self._config.cols
        beat = Signal(drain_layout())
        kept = beat.as_value()[:-1]  # but `valid`
        m.submodules.buffer = buffer = SyncFIFO(width=len(kept), depth=_VISITS_IN_BUFFER * beats)
        count = Signal(range(beats))
        end = Signal()
        wait = Signal(range(max(self._pause, 1) + 1))
        m.d.comb += [
            buffer.w_en.eq(self.drain.valid),
            buffer.w_data.eq(self.drain.as_value()[:-1]),
            kept.eq(buffer.r_data),
            end.eq(count == beats - 1),
            self.take.eq(buffer.r_rdy & ~wait.any() & self.go),
            self.take_end.eq(end),
            buffer.r_en.eq(self.ce & self.take),
        ]
        m.d.sync += self.credit.eq(buffer.r_en & end)
        with m.If(self.ce):
            with m.If(self.take):
                m.d.sync += count.eq(Mux(end, 0, count + 1))
                pauses = self.pauses & end if self._pause else 0
                m.d.sync += wait.eq(Mux(pauses, self._pause, self.int4))
            with m.Elif(wait.any()):
                m.d.sync += wait.eq(wait - 1)
        return beat, count[0], end, self.take
