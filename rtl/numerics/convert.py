"""Conversion of FP32 results to the narrower output formats."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import FP32, pack_rounded, shift_right, stage_enables

__all__ = ["NarrowFp32"]

_FP16_INFINITY = 0x7C00
_FP16_NAN = 0x7E00
# Integers of this magnitude are beyond every sum of a 16-bit zero point and a 16-bit clamp.
_HUGE_BITS = 17


class NarrowFp32(wiring.Component):
    """Converts FP32 to FP16 or INT8, to nearest even.

    FP16: with subnormal numbers; too large becomes infinite; the NaN is 0x7E00. INT8: the rounded
    value (0 for NaN) plus ``zero_point``, then raised to ``clamp_low`` if it is below, then lowered
    to ``clamp_high`` if it is above, then cut to 8 bits.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its number.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    fp16 : ``In(1)``
        FP16 if high, else INT8. This and the three below stand still while numbers are inside.
    zero_point, clamp_low, clamp_high : ``In(signed(16))``
    valid_i : ``In(1)``
    number : ``In(32)``
    valid_o : ``Out(1)``
    result : ``Out(16)``
        INT8 has its value in the low byte, and zeros above.
    """

    LATENCY = 5

    ce: In(1)
    fp16: In(1)
    zero_point: In(signed(16))
    clamp_low: In(signed(16))
    clamp_high: In(signed(16))
    valid_i: In(1)
    number: In(32)
    valid_o: Out(1)
    result: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)

        # How far to the right the significand must move to have its last bit at weight 1.
        fields = data.View(FP32, self.number)
        exponent = fields.exponent
        to_integer = Mux(exponent < 150 - 25, 25, 150 - exponent)
        smallest, bias = 113, 112  # FP32 exponent of the smallest normal FP16; difference of biases
        to_fp16 = Mux(exponent < smallest - 12, 25, Mux(exponent < smallest, 126 - exponent, 13))
        significand1 = Signal(24, reset_less=True)
        shift1 = Signal(range(26), reset_less=True)
        exponent1 = Signal(5, reset_less=True)
        nan, huge = exponent.all() & fields.fraction.any(), Signal()
        m.d.comb += huge.eq(exponent >= Mux(self.fp16, bias + 31, 127 + _HUGE_BITS))
        with m.If(enable[0]):
            m.d.sync += [
                significand1.eq(Cat(fields.fraction, exponent.any())),
                shift1.eq(Mux(self.fp16, to_fp16, to_integer)),
                exponent1.eq(Mux(exponent < smallest, 1, exponent - bias)),
            ]
        kind = Cat(fields.sign, huge, nan)
        for stage in range(2):
            step = Signal(3, name=f"kind{stage + 1}", reset_less=True)
            with m.If(enable[stage]):
                m.d.sync += step.eq(kind)
            kind = step

        kept2 = Signal(_HUGE_BITS, reset_less=True)
        half2, below2 = Signal(reset_less=True), Signal(reset_less=True)
        exponent2 = Signal(5, reset_less=True)
        kept, half, below = shift_right(m, significand1, shift1, "aligned")
        with m.If(enable[1]):
            m.d.sync += [
                kept2.eq(kept),
                half2.eq(half),
                below2.eq(below),
                exponent2.eq(exponent1),
            ]

        magnitude3 = Signal(_HUGE_BITS + 1, reset_less=True)
        sign3 = Signal(reset_less=True)
        sign, huge2, nan2 = kind
        with m.If(enable[2]):
            m.d.sync += sign3.eq(sign & ~nan2)
            with m.If(nan2):
                m.d.sync += magnitude3.eq(Mux(self.fp16, _FP16_NAN, 0))
            with m.Elif(huge2):
                m.d.sync += magnitude3.eq(Mux(self.fp16, _FP16_INFINITY, 1 << _HUGE_BITS))
            with m.Elif(self.fp16):
                m.d.sync += magnitude3.eq(pack_rounded(exponent2, kept2[:11], half2, below2))
            with m.Else():
                m.d.sync += magnitude3.eq(kept2 + (half2 & (below2 | kept2[0])))

        shifted4 = Signal(signed(_HUGE_BITS + 3), reset_less=True)
        negated = Cat(magnitude3, Const(0, 1)) ^ sign3.replicate(_HUGE_BITS + 2)
        with m.If(enable[3]):
            with m.If(self.fp16):
                m.d.sync += shifted4.eq(Cat(magnitude3[:15], sign3))
            with m.Else():
                m.d.sync += shifted4.eq(negated.as_signed() + self.zero_point + sign3)

        result = Signal(16, reset_less=True)
        raised = Signal(signed(_HUGE_BITS + 3))
        lowered = Signal(signed(16))
        m.d.comb += [
            raised.eq(Mux(shifted4 < self.clamp_low, self.clamp_low, shifted4)),
            lowered.eq(Mux(raised > self.clamp_high, self.clamp_high, raised)),
            self.result.eq(result),
        ]
        with m.If(enable[4]):
            m.d.sync += result.eq(Mux(self.fp16, shifted4[:16], lowered[:8]))
        return m
