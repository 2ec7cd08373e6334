"""Numbers as PEs want them: what all PEs of a row or of a column would do is done once before them.

A float becomes a signed significand, so that a product needs no sign, and an exponent. The low two
bits of the exponent shift the significand, a weight's here and an operand's in the PE: so products
are to be shifted by whole units of four bits. BF16 significands are shifted up first, an operand's
by 3 (to where an FP16 number has its sign) and a weight's by 1 (to a whole unit with the other's).
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Mode

__all__ = ["OPERAND", "PrepareOperand", "PrepareWeight", "weight_layout"]

OPERAND = 18
"""Bits of a prepared operand word."""

_NAN, _ZERO, _INFINITY = 1, 2, 4
"""What a special number has for a significand; the low two bits tell it with either sign."""


def weight_layout() -> data.StructLayout:
    """Layout of a prepared weight.

    ``factor``: an integer, or a float's significand with its sign, shifted by ``fine``. A
    ``special`` number is an infinity (the low two bits of ``factor`` are 0), a zero (2) or a NaN
    (else); integers never are special. ``coarse``: where the product with an operand of exponent 0
    lies, in units of four bits from 24 bits below the sum on.
    """
    return data.StructLayout(
        {
            "factor": signed(15),
            "coarse": signed(8),
            "fine": unsigned(2),
            "special": unsigned(1),
        }
    )


def _take_apart(m: Module, value: Value, mode: Value) -> tuple[Signal, Signal, Signal]:
    """Return, a cycle later: significand or special mark of 11 bits, sign, and what is special.

    Only BF16 and FP16 numbers are.
    """
    bf16 = mode == Mode.BF16
    wide = bf16 | (mode == Mode.FP16)
    magnitude = Signal(11, reset_less=True)
    minus, special = Signal(reset_less=True), Signal(reset_less=True)
    fraction, ones, none = Signal(10), Signal(), Signal()
    m.d.comb += [
        fraction.eq(Mux(bf16, value[:7], value[:10])),
        ones.eq(value[10:15].all() & (~bf16 | value[7:10].all())),
        none.eq(~value[10:15].any() & (~bf16 | ~value[7:10].any())),
    ]
    m.d.sync += [
        minus.eq(value[15]),
        special.eq(wide & (ones | (none & ~fraction.any()))),
    ]
    with m.If(ones):
        m.d.sync += magnitude.eq(Mux(fraction.any(), _NAN, _INFINITY))
    with m.Elif(none & ~fraction.any()):
        m.d.sync += magnitude.eq(_ZERO)
    with m.Elif(bf16):
        m.d.sync += magnitude.eq(Cat(value[:7], ~none))
    with m.Else():
        m.d.sync += magnitude.eq(Cat(value[:10], ~none))
    return magnitude, minus, special


def _exponent(value: Value, mode: Value) -> Value:
    """Return a float's exponent field, 1 where it is 0."""
    bf16_field, fp16_field = value[7:15], value[10:15]
    return Mux(mode == Mode.BF16, bf16_field | ~bf16_field.any(), fp16_field | ~fp16_field.any())


class PrepareWeight(wiring.Component):
    """Prepares a weight each cycle, `LATENCY` cycles later.

    Members
    -------
    mode, offset : ``In``
        As those of `Grid`.
    value : ``In(16)``
        As in `stream_layout`.
    weight : ``Out(weight_layout)``
    """

    LATENCY = 3

    mode: In(Mode)
    offset: In(signed(10))
    value: In(16)
    weight: Out(weight_layout())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = self.value
        magnitude, minus, special = _take_apart(m, value, self.mode)
        base, raw = Signal(signed(10), reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [base.eq(_exponent(value, self.mode) - self.offset), raw.eq(value)]

        bf16, shift = Signal(), Signal(3)
        shifted = Signal(14, reset_less=True)
        coarse, fine = Signal(signed(8), reset_less=True), Signal(2, reset_less=True)
        raw1, minus1 = Signal(8, reset_less=True), Signal(reset_less=True)
        special1 = Signal(reset_less=True)
        m.d.comb += [
            bf16.eq(self.mode == Mode.BF16),
            shift.eq(Mux(special, 0, base[:2] + bf16)),
        ]
        m.d.sync += [
            shifted.eq(magnitude << shift),
            coarse.eq((base >> 2) - bf16),
            fine.eq(base[:2]),
            raw1.eq(raw),
            minus1.eq(minus),
            special1.eq(special),
        ]

        weight = Signal(weight_layout(), reset_less=True)
        m.d.comb += self.weight.eq(weight)
        m.d.sync += [
            weight.coarse.eq(coarse),
            weight.fine.eq(fine),
            weight.special.eq(special1),
        ]
        with m.Switch(self.mode):
            with m.Case(Mode.INT8):
                m.d.sync += weight.factor.eq(raw1.as_signed())
            with m.Case(Mode.INT4):
                m.d.sync += weight.factor.eq(raw1[:4].as_signed())
            with m.Default():
                m.d.sync += weight.factor.eq(Mux(minus1, -shifted, shifted))
        return m


class PrepareOperand(wiring.Component):
    """Prepares an operand word each cycle, `LATENCY` cycles later.

    A prepared float: bit 17 says that it is special (as in `weight_layout`, with the significand
    in bits 0 to 11); else bits 12 to 16 are the low bits of the exponent, and the significand is in
    bits 0 to 11, or, of BF16, in bits 3 to 11, and the exponent's three high bits are in 0 to 2.
    INT8: bits 0 to 7 are lane 0; 12 to 15 and 8 to 11 are the low and the high half of lane 1.
    INT4: bits 0 to 3 are lane 0, 12 to 15 lane 2; lanes 1 and 3 are in 8 to 11 and 16, and in 4 to
    7 and 17, and are less by 1 if the lane before is negative: two lanes together are one factor.

    Members
    -------
    mode : ``In(Mode)``
    value : ``In(16)``
        As in `fill_layout`.
    word : ``Out(18)``
    """

    LATENCY = 2

    mode: In(Mode)
    value: In(16)
    word: Out(OPERAND)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = self.value
        magnitude, minus, special = _take_apart(m, value, self.mode)
        exponent, raw = Signal(8, reset_less=True), Signal(16, reset_less=True)
        m.d.sync += [exponent.eq(_exponent(value, self.mode)), raw.eq(value)]

        word = Signal(OPERAND, reset_less=True)
        significand = Signal(12)
        m.d.comb += [
            significand.eq(Mux(minus, -magnitude, magnitude)),
            self.word.eq(word),
        ]
        nibbles = [raw.word_select(i, 4) for i in range(4)]
        less = [(nibbles[i + 1].as_signed() - nibbles[i][3])[:5] for i in (0, 2)]
        with m.Switch(self.mode):
            with m.Case(Mode.INT8):
                m.d.sync += word.eq(Cat(raw[:8], nibbles[3], nibbles[2]))
            with m.Case(Mode.INT4):
                m.d.sync += word.eq(
                    Cat(nibbles[0], less[1][:4], less[0][:4], nibbles[2], less[0][4], less[1][4])
                )
            with m.Default():
                bf16 = (self.mode == Mode.BF16) & ~special
                low = Mux(bf16, Cat(exponent[5:], significand[:9]), significand)
                m.d.sync += word.eq(Cat(low, exponent[:5], special))
        return m
