"""Decoding of numbers of a tensor to FP32."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Format
from .pipeline import normalise, pack_rounded, stage_enables

__all__ = ["DecodeFp32"]

_FP16 = data.StructLayout({"fraction": unsigned(10), "exponent": unsigned(5), "sign": unsigned(1)})
_BITS = 33
"""Of the magnitude of an INT32 number less its zero and with its bias."""

_TOP = 127 + _BITS - 1
"""Exponent of an integer with the highest of these bits."""


class DecodeFp32(wiring.Component):
    """Converts INT8, INT32, FP16, BF16 and FP32 to FP32.

    Floats stay what they are, FP16 with its subnormal numbers. Of an integer the exact
    ``number - zero + bias`` is rounded to nearest even; zero becomes +0. NaNs stay NaNs.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its number.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    format : ``In(Format)``
        This and the next stand still from two cycles before the first number.
    zero : ``In(signed(8))``
    valid_i : ``In(1)``
    number : ``In(32)``
        In the low bits.
    bias : ``In(signed(32))``
        Of floats without effect.
    valid_o : ``Out(1)``
    result : ``Out(32)``
    """

    LATENCY = 6

    ce: In(1)
    format: In(Format)
    zero: In(signed(8))
    valid_i: In(1)
    number: In(32)
    bias: In(signed(32))
    valid_o: Out(1)
    result: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)
        byte, integer, fp16, bf16 = (
            Signal(name=name) for name in ("byte", "integer", "fp16", "bf16")
        )
        m.d.sync += [
            byte.eq(self.format == Format.INT8),
            integer.eq((self.format == Format.INT8) | (self.format == Format.INT32)),
            fp16.eq(self.format == Format.FP16),
            bf16.eq(self.format == Format.BF16),
        ]

        # What is FP32 already stays as it is: plain. Else the magnitude's highest bit weighs
        # 2^(top - 127).
        value1 = Signal(signed(_BITS), reset_less=True)
        bias1 = Signal(signed(32), reset_less=True)
        sign1, plain1 = Signal(reset_less=True), Signal(reset_less=True)
        top1 = Signal(8, reset_less=True)
        half = data.View(_FP16, self.number[:16])
        normal, special = half.exponent.any(), half.exponent.all()
        with m.If(enable[0]):
            m.d.sync += [
                bias1.eq(self.bias),
                sign1.eq(Mux(fp16 | bf16, self.number[15], self.number[31])),
                plain1.eq(~integer & (~fp16 | special)),
                top1.eq(_TOP),
            ]
            with m.If(integer):
                whole = Mux(byte, self.number[:8].as_signed(), self.number.as_signed())
                m.d.sync += value1.eq(whole - self.zero)
            with m.Elif(fp16):
                m.d.sync += [
                    value1.eq(Cat(half.fraction, normal)),
                    top1.eq(Cat(half.exponent[0] | ~normal, half.exponent[1:]) + (_TOP - 25)),
                ]
                with m.If(special):
                    m.d.sync += value1.eq(Cat(Const(0, 13), half.fraction, Const(0xFF, 8)))
            with m.Else():
                word = Mux(bf16, Cat(Const(0, 16), self.number[:15]), self.number[:31])
                m.d.sync += value1.eq(word)

        value2 = Signal(signed(_BITS + 1), reset_less=True)
        sign2, plain2 = Signal(reset_less=True), Signal(reset_less=True)
        top2 = Signal(8, reset_less=True)
        with m.If(enable[1]):
            m.d.sync += [
                value2.eq(value1 + Mux(integer, bias1, 0)),
                sign2.eq(sign1),
                plain2.eq(plain1),
                top2.eq(top1),
            ]

        # A plain number has a 1 above it, and stays in its place.
        magnitude3 = Signal(_BITS, reset_less=True)
        sign3, plain3 = Signal(reset_less=True), Signal(reset_less=True)
        top3 = Signal(8, reset_less=True)
        negative = Signal()
        m.d.comb += negative.eq(integer & value2[-1])
        with m.If(enable[2]):
            m.d.sync += [
                magnitude3.eq(
                    Mux(
                        plain2,
                        Cat(value2[:31], Const(2, 2)),
                        (value2[:_BITS] ^ negative.replicate(_BITS)) + negative,
                    )
                ),
                sign3.eq(Mux(integer, negative, sign2)),
                plain3.eq(plain2),
                top3.eq(top2),
            ]

        coarse4, top4 = Signal(_BITS, reset_less=True), Signal(8, reset_less=True)
        sign4, plain4 = Signal(reset_less=True), Signal(reset_less=True)
        coarse, _, shift = normalise(m, magnitude3, (32, 16, 8, 4), "coarse")
        with m.If(enable[3]):
            m.d.sync += [
                coarse4.eq(coarse),
                top4.eq(top3 - shift),
                sign4.eq(sign3),
                plain4.eq(plain3),
            ]

        fine5, top5 = Signal(_BITS, reset_less=True), Signal(8, reset_less=True)
        sign5, plain5 = Signal(reset_less=True), Signal(reset_less=True)
        fine, _, shift = normalise(m, coarse4, (2, 1), "fine")
        with m.If(enable[4]):
            m.d.sync += [
                fine5.eq(fine),
                top5.eq(top4 - shift),
                sign5.eq(sign4),
                plain5.eq(plain4),
            ]

        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        rounded = pack_rounded(top5, fine5[-24:], fine5[-25], fine5[:-25].any())
        with m.If(enable[5]):
            with m.If(plain5):
                m.d.sync += result.eq(Cat(fine5[:31], sign5))
            with m.Elif(~fine5[-1]):
                m.d.sync += result.eq(Cat(Const(0, 31), sign5))
            with m.Else():
                m.d.sync += result.eq(Cat(rounded[:31], sign5))
        return m
