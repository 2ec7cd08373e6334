"""Conversion of FP32 results to the narrower output formats."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Format
from .pipeline import FP32, carry, shift_sticky, stage_enables

__all__ = ["NarrowFp32"]

# Integers of this magnitude are beyond every sum of a 16-bit zero point and a 16-bit clamp.
_HUGE_BITS = 17
_LOST = 25  # a significand of 24 bits that moves so far, or further, rounds to zero

# Bits of the fraction, exponent bias, magnitude of what is too large, and of the NaN.
_FLOATS = {
    Format.FP16: (10, 15, 0x7C00, 0x7E00),
    Format.BF16: (7, 127, 0x7F80, 0x7FC0),
    Format.E4M3: (3, 7, 0x7F, 0x7F),
    Format.E5M2: (2, 15, 0x7C, 0x7E),
}


def _of(chosen, values, otherwise=0):
    """Return the value of the one format of `_FLOATS` that is ``chosen``, or else of none."""
    found = Mux(chosen.any(), 0, otherwise)
    for format_chosen, form in zip(chosen, _FLOATS, strict=True):
        found = found | Mux(format_chosen, values.get(form, 0), 0)
    return found


class NarrowFp32(wiring.Component):
    """Converts FP32 to a format of at most 16 bits, to nearest even.

    FP16, BF16, E4M3, E5M2: with subnormal numbers. Too large becomes infinite, in E4M3 the NaN of
    its sign. NaNs become 0x7E00, 0x7FC0, 0x7F, 0x7E. INT8 and INT4: the rounded value (0 for NaN)
    plus ``zero_point``, then raised to ``clamp_low`` if it is below, then lowered to
    ``clamp_high`` if it is above, then cut to 8 bits.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its number.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    format : ``In(Format)``
        A float format, or else the result is an integer. This and the three below stand still from
        two cycles before the first number until the last result.
    zero_point, clamp_low, clamp_high : ``In(signed(16))``
    valid_i : ``In(1)``
    number : ``In(32)``
    valid_o : ``Out(1)``
    result : ``Out(16)``
        Formats of 8 bits, and integers, have zeros in the high byte.
    overflow : ``Out(1)``
        A finite number was too large for a float format.
    nan : ``Out(1)``
        The result, or of an integer the number, is not a number.
    """

    LATENCY = 7

    ce: In(1)
    format: In(Format)
    zero_point: In(signed(16))
    clamp_low: In(signed(16))
    clamp_high: In(signed(16))
    valid_i: In(1)
    number: In(32)
    valid_o: Out(1)
    result: Out(16)
    overflow: Out(1)
    nan: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)
        kind_bits = Value.cast(self.format)[:3]  # in these all formats of results differ

        # What the format decides. A number of FP32 exponent ``smallest`` or more is normal and its
        # significand moves by ``normal_shift``, one below that by ``reach - exponent``: integers
        # have only such numbers. From the exponent ``huge`` on all are too large.
        smallest, normal_shift = Signal(8), Signal(range(_LOST + 1))
        reach, huge_from, top, canonical = Signal(8), Signal(8), Signal(15), Signal(15)
        integer, byte, e4m3 = Signal(), Signal(), Signal()
        lowest = {form: 127 - bias + 1 for form, (_, bias, *_) in _FLOATS.items()}
        moves = {form: 23 - fraction for form, (fraction, *_) in _FLOATS.items()}
        beyond = {form: exponent + 30 for form, exponent in lowest.items()}
        beyond |= {Format.BF16: 255, Format.E4M3: 136}
        chosen = Signal(len(_FLOATS), reset_less=True)
        m.d.sync += [
            chosen.eq(Cat(kind_bits == form.value for form in _FLOATS)),
            integer.eq(~chosen.any()),
            smallest.eq(_of(chosen, lowest, 255)),
            normal_shift.eq(_of(chosen, moves)),
            reach.eq(_of(chosen, {form: moves[form] + lowest[form] for form in moves}, 127 + 23)),
            huge_from.eq(_of(chosen, beyond, 127 + _HUGE_BITS)),
            top.eq(_of(chosen, {form: infinity for form, (*_, infinity, _) in _FLOATS.items()})),
            canonical.eq(_of(chosen, {form: nan for form, (*_, nan) in _FLOATS.items()})),
            byte.eq(_of(chosen, {Format.E4M3: 1, Format.E5M2: 1})),
            e4m3.eq(_of(chosen, {Format.E4M3: 1})),
        ]

        # How far to the right the significand must move.
        fields = data.View(FP32, self.number)
        normal = fields.exponent.any()
        exponent = Cat(fields.exponent[0] | ~normal, fields.exponent[1:])
        special = fields.exponent.all()
        kind = Cat(fields.sign, exponent >= huge_from, special, special & fields.fraction.any())
        kinds = [kind]
        for stage in range(self.LATENCY - 1):
            kinds.append(carry(m, enable[stage : stage + 1], kinds[-1], f"kind{stage + 1}"))
        above1 = carry(m, enable[:1], exponent - smallest, "above1")
        needed1 = carry(m, enable[:1], reach - exponent, "needed1")
        small1 = above1[-1]  # the differences have signs
        significand2 = carry(m, enable[:2], Cat(fields.fraction, normal), "significand")
        shift2 = Signal(range(_LOST + 1), reset_less=True)
        raised2 = Signal(8, reset_less=True)  # exponent of the result, less 1
        with m.If(enable[1]):
            m.d.sync += [
                shift2.eq(Mux(small1, needed1[:5] | needed1[5:].any().replicate(5), normal_shift)),
                raised2.eq(Mux(small1, 0, above1)),
            ]

        # The significand and the bit below it, and the OR of all others.
        aligned, below = shift_sticky(
            m, Cat(Const(0, 1), significand2), Const(0, 1), shift2, (16, 8), "far"
        )
        aligned3 = carry(m, enable[2:3], aligned, "aligned3")
        below3 = carry(m, enable[2:3], below, "below3")
        shift3 = carry(m, enable[2:3], shift2[:3], "shift3")
        raised3 = carry(m, enable[2:3], raised2, "raised3")
        aligned, below = shift_sticky(m, aligned3, below3, shift3, (4, 2, 1), "near")
        _, huge3, _, nan3 = kinds[3]
        kept4 = Signal(_HUGE_BITS + 1, reset_less=True)
        half4, below4 = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(enable[3]):
            m.d.sync += [kept4.eq(aligned[1:]), half4.eq(aligned[0]), below4.eq(below)]
            with m.If(nan3 | huge3):
                m.d.sync += [kept4.eq(Mux(nan3, 0, 1 << _HUGE_BITS)), half4.eq(0)]

        # One addition: exponent and rounded significand, or the rounded integer and the zero
        # point. The negative of a magnitude is its complement plus 1, so rounding up takes 1 away.
        rounded5 = Signal(signed(_HUGE_BITS + 3), reset_less=True)
        base = _of(
            chosen, {form: raised3 << fraction for form, (fraction, *_) in _FLOATS.items()}
        ) | Mux(integer, Cat(self.zero_point, self.zero_point[-1]), 0)
        base4 = carry(m, enable[3:4], base[:17], "base4").as_signed()
        sign4, _, _, nan4 = kinds[4]
        negate = integer & sign4 & ~nan4
        magnitude = Cat(kept4, Const(0, 1)) ^ negate.replicate(_HUGE_BITS + 2)
        up = half4 & (below4 | kept4[0])
        with m.If(enable[4]):
            m.d.sync += rounded5.eq(magnitude.as_signed() + base4 + (up ^ negate))

        # What is beyond an edge, and then the result.
        negative, flags = Signal(), Signal(4)
        sign5, huge5, special5, nan5 = kinds[5]
        m.d.comb += [
            negative.eq(sign5 & ~nan5),
            flags.eq(
                Cat(
                    huge5 | (rounded5[:16] >= top),
                    rounded5 < self.clamp_low,
                    rounded5 > self.clamp_high,
                    special5,
                )
            ),
        ]
        large6, low6, high6, special6 = carry(m, enable[5:6], flags, "flags6")
        negative6 = carry(m, enable[5:6], negative, "negative6")
        rounded6 = carry(m, enable[5:6], rounded5, "rounded6")
        nan6 = kinds[6][3]
        result = Signal(16, reset_less=True)
        overflow, nan = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += [self.result.eq(result), self.overflow.eq(overflow), self.nan.eq(nan)]
        edge = Signal(signed(16))
        crossed = Signal()
        m.d.sync += [
            crossed.eq(self.clamp_low > self.clamp_high),
            edge.eq(Mux(crossed, self.clamp_high, self.clamp_low)),
        ]
        number = Mux(nan6, canonical, Mux(large6, top, rounded6[:15]))
        clamped = Mux(high6, self.clamp_high, rounded6)
        with m.If(enable[6]):
            with m.If(integer):
                m.d.sync += result.eq(Mux(low6, edge, clamped)[:8])
            with m.Elif(byte):
                m.d.sync += result.eq(Cat(number[:7], negative6))
            with m.Else():
                m.d.sync += result.eq(Cat(number, negative6))
            m.d.sync += [
                overflow.eq(~integer & ~special6 & large6),
                nan.eq(nan6 | (~integer & e4m3 & large6)),
            ]
        return m
