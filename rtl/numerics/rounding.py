"""Rounding of an exact sum to FP32."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..tech.choose import Choose4
from .pipeline import carry, fine_shift, stage_enables

__all__ = ["SumToFp32"]

_SEGMENT = 24
_LOW = 5  # units of four bits below a window's upper half and the bits that round it


class SumToFp32(wiring.Component):
    """Rounds an exact sum to FP32, to nearest even.

    The sum is ``(whole * 2**48 + part) * 2**weight``: the two halves of 96 bits. Integers have a
    ``part`` of zero and the weight -48. With weights from -126 to 32 nothing is subnormal or
    overflows: the last bit is at least the smallest normal number, and the magnitude at most
    2^(95 + 32). Zero becomes +0. NaN and infinity flags override the sum, and both infinities make
    a NaN.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its sum.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    weight : ``In(signed(8))``
        Stands still while sums are inside.
    valid_i : ``In(1)``
    whole : ``In(signed(48))``
    part : ``In(48)``
    nan, inf_pos, inf_neg : ``In(1)``
    valid_o : ``Out(1)``
    result : ``Out(32)``
    """

    LATENCY = 8

    ce: In(1)
    weight: In(signed(8))
    valid_i: In(1)
    whole: In(signed(48))
    part: In(48)
    nan: In(1)
    inf_pos: In(1)
    inf_neg: In(1)
    valid_o: Out(1)
    result: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)

        # Magnitude: complement, and carry the 1 into the low half, then into the high half.
        low1, high1 = Signal(49, reset_less=True), Signal(48, reset_less=True)
        sign = self.whole[-1]
        with m.If(enable[0]):
            m.d.sync += [
                low1.eq((self.part ^ sign.replicate(48)) + sign),
                high1.eq(self.whole ^ sign.replicate(48)),
            ]
        # What takes the place of the number: infinity or NaN. Neither that nor zero has a sign but
        # infinity.
        nan = self.nan | (self.inf_pos & self.inf_neg)
        sign = carry(m, enable[:7], ~self.nan & ~self.inf_pos & (self.inf_neg | sign), "sign")
        nan3 = carry(m, enable[:3], nan, "nan")
        special3 = carry(m, enable[:3], self.nan | self.inf_pos | self.inf_neg, "special")

        low2, high2 = Signal(48, reset_less=True), Signal(48, reset_less=True)
        with m.If(enable[1]):
            m.d.sync += [low2.eq(low1), high2.eq(high1 + low1[48])]

        # The leading non-zero segment and the one below it hold at least 25 significant bits.
        both = Cat(low2, high2)
        segment = [both[i : i + _SEGMENT] for i in range(0, 96, _SEGMENT)]
        any3 = carry(m, enable[2:3], Cat(part.any() for part in segment), "any3")
        low3, high3 = (
            carry(m, enable[2:3], half, name) for half, name in ((low2, "low3"), (high2, "high3"))
        )
        segment = [half[i : i + _SEGMENT] for half in (low3, high3) for i in (0, _SEGMENT)]
        leading, below = Signal(2), Signal()
        m.submodules.segments = segments = Choose4(2 * _SEGMENT)
        # Bit b of segment s weighs 2^(24 s + b + weight).
        lowest = Signal(8)
        m.d.sync += lowest.eq(self.weight + (127 + _SEGMENT - 1))
        m.d.comb += [
            leading.eq(Cat(any3[3] | (~any3[2] & any3[1]), any3[3] | any3[2])),
            below.eq(Mux(any3[3], any3[:2].any(), any3[2] & any3[0])),
            segments.index.eq(leading),
            *(
                word.eq(Cat(low, high))
                for word, low, high in zip(
                    segments.words, (Const(0, _SEGMENT), *segment), segment, strict=False
                )
            ),
        ]
        window4 = carry(m, enable[3:4], segments.chosen, "window4")
        below4 = carry(m, enable[3:4], below, "below4")
        # Of zero, infinity and NaN the exponent is made here, and a significand that no shift
        # changes two stages on.
        step = Mux(leading[1], *(Mux(leading[0], 24 * i + 24, 24 * i) for i in (2, 0)))
        step4 = carry(m, enable[3:4], Mux(special3, 0xFF, step), "step4")
        forced4 = carry(m, enable[3:4], special3 | ~any3.any(), "forced4")
        nan5 = carry(m, enable[3:5], nan3, "later_nan")
        forced5 = carry(m, enable[4:5], forced4, "forced5")
        exponent5 = carry(m, enable[4:5], (Mux(forced4, 0, lowest) + step4)[:8], "exponent5")

        # Normalise, at first by whole units of four bits. The lowest five only matter in that they
        # are not zero.
        window5 = carry(m, enable[4:5], window4, "window5")
        unit = [window4[i : i + 4].any() for i in range(0, 2 * _SEGMENT, 4)]
        first, second, third, fourth, fifth = unit[:-6:-1]
        first = first | forced4
        coarse = Cat(
            ~first & (second | (~third & (fourth | ~fifth))),
            ~(first | second) & (third | fourth),
            ~(first | second | third | fourth),
        )
        coarse5 = carry(m, enable[4:5], coarse, "coarse5")
        low5 = carry(m, enable[4:5], Cat(unit[:_LOW]), "low5")
        below5 = carry(m, enable[4:5], below4, "below5")
        far = Signal(2 * _SEGMENT)
        m.d.comb += far.eq(
            Mux(coarse5[2], window5.shift_left(16), window5) & ~forced5.replicate(2 * _SEGMENT)
            | Cat(Const(0, 2 * _SEGMENT - 2), nan5, forced5)
        )
        m.submodules.units = units = Choose4(2 * _SEGMENT - 4 * _LOW)
        m.d.comb += [
            units.index.eq(coarse5[:2]),
            *(word.eq(far.shift_left(4 * i)[4 * _LOW :]) for i, word in enumerate(units.words)),
        ]
        window6 = carry(m, enable[5:6], units.chosen, "window6")
        passed = Cat(some & (coarse5 < _LOW - i) for i, some in enumerate(low5))
        below6 = carry(m, enable[5:6], below5 | passed.any(), "below6")
        exponent6 = carry(m, enable[5:6], (exponent5 - Cat(Const(0, 2), coarse5))[:8], "exponent6")

        # By single bits. Whether it is rounded up is found out for each shift.
        by = fine_shift(window6[-4:])
        m.submodules.fine = fine = Choose4(_SEGMENT)
        for i, word in enumerate(fine.words):
            half, *rest = reversed(window6[: 4 - i])
            up = half & (window6[4 - i] | below6 | Cat(rest).any())
            m.d.comb += word.eq(Cat(up, window6[4 - i :]))
        m.d.comb += fine.index.eq(by)
        up7 = carry(m, enable[6:7], fine.chosen[0], "up7")
        fraction7 = carry(m, enable[6:7], fine.chosen[1:], "fraction7")
        exponent7 = carry(m, enable[6:7], (exponent6 - by)[:8], "exponent7")

        # The carry of the rounding adds 1 to the exponent.
        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        with m.If(enable[7]):
            m.d.sync += result.eq(Cat((Cat(fraction7, exponent7) + up7)[:31], sign))
        return m
