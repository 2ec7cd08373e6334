"""Rounding of an exact sum to FP32."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .pipeline import CANONICAL_NAN, normalise, pack_rounded, stage_enables

__all__ = ["SumToFp32"]

_SEGMENT = 24
_SEGMENTS = 4


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

    LATENCY = 6

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
        for stage in range(self.LATENCY - 1):
            step = Signal(3, name=f"kind{stage + 1}", reset_less=True)
            with m.If(enable[stage]):
                m.d.sync += step.eq(kind)
            kind = step

        low2, high2 = Signal(48, reset_less=True), Signal(48, reset_less=True)
        with m.If(enable[1]):
            m.d.sync += [low2.eq(low1), high2.eq(high1 + low1[48])]

        # The leading non-zero segment and the one below it hold at least 25 significant bits.
        window3 = Signal(2 * _SEGMENT, reset_less=True)
        below3 = Signal(reset_less=True)
        leading3 = Signal(range(_SEGMENTS), reset_less=True)
        segment = [half[i : i + _SEGMENT] for half in (low2, high2) for i in range(0, 48, _SEGMENT)]
        with m.If(enable[2]):
            with m.If(segment[3].any()):
                m.d.sync += [
                    window3.eq(Cat(segment[2], segment[3])),
                    below3.eq(low2.any()),
                    leading3.eq(3),
                ]
            with m.Elif(segment[2].any()):
                m.d.sync += [
                    window3.eq(Cat(segment[1], segment[2])),
                    below3.eq(segment[0].any()),
                    leading3.eq(2),
                ]
            with m.Elif(segment[1].any()):
                m.d.sync += [window3.eq(low2), below3.eq(0), leading3.eq(1)]
            with m.Else():
                m.d.sync += [window3.eq(low2.shift_left(_SEGMENT)), below3.eq(0), leading3.eq(0)]

        # Bit b of segment s weighs 2^(24 s + b + weight).
        lowest, top_exponent = Signal(8), Signal(8)
        m.d.sync += lowest.eq(self.weight + (127 + _SEGMENT - 1))
        m.d.comb += top_exponent.eq(_SEGMENT * leading3 + lowest)
        window4 = Signal(2 * _SEGMENT, reset_less=True)
        below4 = Signal(reset_less=True)
        exponent4 = Signal(8, reset_less=True)
        coarse, _, shift = normalise(m, window3, (16, 8, 4), "coarse")
        with m.If(enable[3]):
            m.d.sync += [
                window4.eq(coarse),
                below4.eq(below3),
                exponent4.eq(top_exponent - shift),
            ]

        significand5 = Signal(_SEGMENT, reset_less=True)
        half5, below5, zero5 = (
            Signal(name=name, reset_less=True) for name in ("half5", "below5", "zero5")
        )
        exponent5 = Signal(8, reset_less=True)
        fine, _, shift = normalise(m, window4, (2, 1), "fine")
        with m.If(enable[4]):
            m.d.sync += [
                significand5.eq(fine[_SEGMENT:]),
                half5.eq(fine[_SEGMENT - 1]),
                below5.eq(below4 | fine[: _SEGMENT - 1].any()),
                zero5.eq(~fine[-1]),
                exponent5.eq(exponent4 - shift),
            ]

        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        sign, infinite, nan = kind
        with m.If(enable[5]):
            with m.If(nan):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(infinite):
                m.d.sync += result.eq(Cat(Const(0xFF << 23, 31), sign))
            with m.Elif(zero5):
                m.d.sync += result.eq(0)
            with m.Else():
                number = pack_rounded(exponent5, significand5, half5, below5)
                m.d.sync += result.eq(Cat(number[:31], sign))
        return m
