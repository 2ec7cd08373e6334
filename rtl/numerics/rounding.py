"""Rounding of an exact sum to FP32."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .pipeline import (
    CANONICAL_NAN,
    carry,
    coarse_shift,
    fine_shift,
    pack_rounded,
    shift_left,
    stage_enables,
)

__all__ = ["SumToFp32"]

_SEGMENT = 24


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
        # Sign, NaN and infinity travel beside the number.
        kind = Signal(3)
        infinite = self.inf_pos | self.inf_neg
        nan = self.nan | (self.inf_pos & self.inf_neg)
        m.d.comb += kind.eq(Cat(Mux(infinite, self.inf_neg, sign), infinite, nan))
        kind = carry(m, enable[:-1], kind, "kind")

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
        window4 = Signal(2 * _SEGMENT, reset_less=True)
        below4 = Signal(reset_less=True)
        exponent4 = Signal(8, reset_less=True)
        # Bit b of segment s weighs 2^(24 s + b + weight).
        lowest, leading = Signal(8), Signal(8)
        m.d.sync += lowest.eq(self.weight + (127 + _SEGMENT - 1))
        window, below = Signal(2 * _SEGMENT), Signal()
        with m.If(any3[3]):
            m.d.comb += [
                window.eq(Cat(segment[2], segment[3])),
                below.eq(any3[:2].any()),
                leading.eq(3 * _SEGMENT),
            ]
        with m.Elif(any3[2]):
            m.d.comb += [
                window.eq(Cat(segment[1], segment[2])),
                below.eq(any3[0]),
                leading.eq(2 * _SEGMENT),
            ]
        with m.Elif(any3[1]):
            m.d.comb += [window.eq(low3), leading.eq(_SEGMENT)]
        with m.Else():
            m.d.comb += window.eq(low3.shift_left(_SEGMENT))
        with m.If(enable[3]):
            m.d.sync += [window4.eq(window), below4.eq(below), exponent4.eq(lowest + leading)]

        # Normalise, at first by whole units of four bits.
        top = range(2 * _SEGMENT - 4, _SEGMENT - 1, -4)
        coarse5 = carry(
            m, enable[4:5], coarse_shift(window4[i : i + 4].any() for i in top), "coarse5"
        )
        window5 = carry(m, enable[4:5], window4, "window5")
        below5, exponent5 = (
            carry(m, enable[4:5], value, name)
            for value, name in ((below4, "below5"), (exponent4, "exponent5"))
        )
        window6 = carry(
            m, enable[5:6], shift_left(m, window5, coarse5, (16, 8, 4), "coarse"), "window6"
        )
        below6 = carry(m, enable[5:6], below5, "below6")
        exponent6 = carry(m, enable[5:6], (exponent5 - Cat(Const(0, 2), coarse5))[:8], "exponent6")
        by = fine_shift(window6[-4:])
        fine = shift_left(m, window6, by, (2, 1), "fine")
        significand7 = Signal(_SEGMENT, reset_less=True)
        half7, below7, zero7 = (
            Signal(name=name, reset_less=True) for name in ("half7", "below7", "zero7")
        )
        exponent7 = Signal(8, reset_less=True)
        with m.If(enable[6]):
            m.d.sync += [
                significand7.eq(fine[_SEGMENT:]),
                half7.eq(fine[_SEGMENT - 1]),
                below7.eq(below6 | fine[: _SEGMENT - 1].any()),
                zero7.eq(~window6[-4:].any()),
                exponent7.eq(exponent6 - by),
            ]

        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        sign, infinite, nan = kind
        with m.If(enable[7]):
            with m.If(nan):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(infinite):
                m.d.sync += result.eq(Cat(Const(0xFF << 23, 31), sign))
            with m.Elif(zero7):
                m.d.sync += result.eq(0)
            with m.Else():
                number = pack_rounded(exponent7, significand7, half7, below7)
                m.d.sync += result.eq(Cat(number[:31], sign))
        return m
