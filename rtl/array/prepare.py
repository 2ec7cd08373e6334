"""Numbers as PEs want them: what all PEs of a row or of a column would do is done once before them.

A float becomes a signed significand, so that a product needs no sign, and an exponent. The low two
bits of the exponent shift the significand, a weight's here and an operand's in the PE: so products
are to be shifted by whole units of four bits. BF16 significands are shifted up first, an operand's
by 3 (to where an FP16 number has its sign) and a weight's by 1 (to a whole unit with the other's).
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Mode
from ..numerics.widen import halfway_layout, normalize, parts_layout
from ..tech.negate import Negate

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


def decode_mode(m: Module, mode: Value, *modes: Mode) -> list[Signal]:
    """Return whether the mode is each of these, from registers: it has many users."""
    flags = [Signal(name=f"is_{each.name.lower()}") for each in modes]
    m.d.sync += [flag.eq(mode == each) for flag, each in zip(flags, modes, strict=True)]
    return flags


def _take_apart(m: Module, value: Value, bf16: Value, fp16: Value) -> tuple[Signal, ...]:
    """Return, a cycle later: significand, sign, whether a number is special, and its mark then.

    Only BF16 and FP16 numbers are.
    """
    wide = bf16 | fp16
    magnitude, mark = Signal(11, reset_less=True), Signal(3, reset_less=True)
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
    m.d.sync += [
        mark.eq(Mux(ones, Mux(fraction.any(), _NAN, _INFINITY), _ZERO)),
        magnitude.eq(Mux(bf16, Cat(value[:7], ~none), Cat(value[:10], ~none))),
    ]
    return magnitude, minus, special, mark


def _exponent(value: Value, bf16: Value) -> Value:
    """Return a float's exponent field, 1 where it is 0."""
    bf16_field, fp16_field = value[7:15], value[10:15]
    return Mux(bf16, bf16_field | ~bf16_field.any(), fp16_field | ~fp16_field.any())


class PrepareWeight(wiring.Component):
    """Prepares a weight each cycle, `LATENCY` cycles later.

    Members
    -------
    mode, offset : ``In``
        As those of `Grid`; both are there a cycle before the first number.
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
        modes = (Mode.BF16, Mode.FP16, Mode.INT8, Mode.INT4)
        bf16, fp16, int8, int4 = decode_mode(m, self.mode, *modes)
        magnitude, minus, special, mark = _take_apart(m, value, bf16, fp16)
        offset = Signal.like(self.offset)  # a copy: it comes from far
        m.d.sync += offset.eq(self.offset)
        base, raw = Signal(signed(10), reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [base.eq(_exponent(value, bf16) - offset), raw.eq(value)]

        shift = Signal(3)
        shifted = Signal(14, reset_less=True)
        coarse, fine = Signal(signed(8), reset_less=True), Signal(2, reset_less=True)
        raw1, minus1 = Signal(8, reset_less=True), Signal(reset_less=True)
        special1 = Signal(reset_less=True)
        m.d.comb += shift.eq(base[:2] + bf16)
        m.d.sync += [
            shifted.eq(Mux(special, mark, magnitude << shift)),
            coarse.eq((base >> 2) - bf16),
            fine.eq(base[:2]),
            raw1.eq(raw),
            minus1.eq(minus),
            special1.eq(special),
        ]

        m.submodules.negate = negate = Negate(len(shifted) + 2)
        m.d.comb += [negate.number.eq(shifted), negate.minus.eq(minus1)]
        weight = Signal(weight_layout(), reset_less=True)
        m.d.comb += self.weight.eq(weight)
        m.d.sync += [
            weight.coarse.eq(coarse),
            weight.fine.eq(fine),
            weight.special.eq(special1),
        ]
        with m.If(int8):
            m.d.sync += weight.factor.eq(raw1.as_signed())
        with m.Elif(int4):
            m.d.sync += weight.factor.eq(raw1[:4].as_signed())
        with m.Else():
            m.d.sync += weight.factor.eq(negate.result)
        return m


class PrepareOperand(wiring.Component):
    """Prepares an operand word each cycle, `LATENCY` cycles later; first it finishes its widening.

    A prepared float: bit 17 says that it is special (as in `weight_layout`, with its sign in bit 11
    and what it is in bits 0 and 1); else bits 12 to 16 are the low bits of the exponent, and the
    significand is in bits 0 to 11, or, of BF16, in bits 3 to 11, and the exponent's three high bits
    are in 0 to 2.
    INT8: bits 0 to 7 are lane 0; 12 to 15 and 8 to 11 are the low and the high half of lane 1.
    INT4: bits 0 to 3 are lane 0, 12 to 15 lane 2; lanes 1 and 3 are in 8 to 11 and 16, and in 4 to
    7 and 17, and are less by 1 if the lane before is negative: two lanes together are one factor.

    Members
    -------
    mode : ``In(Mode)``
        There a cycle before the first number.
    value : ``In(halfway_layout)``
        As in `fill_layout`.
    word : ``Out(18)``
    """

    LATENCY = 2

    mode: In(Mode)
    value: In(halfway_layout())
    word: Out(OPERAND)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, convert = self.value.number, self.value.convert
        parts = data.View(parts_layout(), value)
        bf16, int8, int4 = decode_mode(m, self.mode, Mode.BF16, Mode.INT8, Mode.INT4)

        # A number that is there already, and one that is to be converted: that is not subnormal.
        high, tiny, ones, fraction = Signal(3), Signal(), Signal(), Signal()
        m.d.comb += [
            high.eq(Mux(bf16, 0, value[7:10])),  # more of an FP16 fraction
            tiny.eq(~value[10:15].any() & (~bf16 | ~value[7:10].any())),
            ones.eq(value[10:15].all() & (~bf16 | value[7:10].all())),
            fraction.eq(value[:7].any() | high.any()),
        ]
        aligned, exponent = normalize(m, parts, name="value")
        given = Mux(bf16, Cat(value[:7], ~tiny, Const(0, 3)), Cat(value[:10], ~tiny))
        made = Mux(bf16, aligned, aligned << 3)
        # The bias less 1 is a power of two: it turns one bit round.
        given_exponent = Mux(bf16, value[7:15], value[10:15]) | tiny
        made_exponent = Mux(bf16, Cat(exponent[:7], ~exponent[7]), Cat(exponent[:4], ~exponent[4]))
        empty = Signal()
        m.d.comb += empty.eq(~parts.magnitude.any())

        # In the modes of integers the word's bits are where a float's parts are.
        magnitude, tenth = Signal(11, reset_less=True), Signal(reset_less=True)
        field, minus = Signal(8, reset_less=True), Signal(reset_less=True)
        special, nan, zero = (
            Signal(name=name, reset_less=True) for name in ("special", "nan", "zero")
        )
        m.d.sync += [
            magnitude.eq(Mux(convert, made, given)),
            field.eq(Mux(convert, made_exponent, given_exponent)),
            tenth.eq(value[10]),
            minus.eq(Mux(convert, self.value.sign, value[15])),
            special.eq(Mux(convert, parts.special | empty, ones | (tiny & ~fraction))),
            nan.eq(Mux(convert, parts.special & parts.nan, ones & fraction)),
            zero.eq(Mux(convert, empty, tiny & ~fraction)),
        ]

        word = Signal(OPERAND, reset_less=True)
        significand, lowest = Signal(12), Signal(3)
        m.submodules.negate = negate = Negate(len(significand))
        m.d.comb += [
            negate.number.eq(magnitude),
            negate.minus.eq(minus),
            significand.eq(negate.result),
            lowest.eq(
                Mux(special, Cat(nan, zero), Mux(bf16, field[5:], significand[:3])),
            ),
            self.word.eq(word),
        ]
        raw = Cat(magnitude[:10], tenth, field[1:5], minus)
        nibbles = [raw[4 * i : 4 * i + 4] for i in range(4)]
        less = [(nibbles[i + 1].as_signed() - nibbles[i][3])[:5] for i in (0, 2)]
        with m.If(int8):
            m.d.sync += word.eq(Cat(raw[:8], nibbles[3], nibbles[2]))
        with m.Elif(int4):
            m.d.sync += word.eq(
                Cat(nibbles[0], less[1][:4], less[0][:4], nibbles[2], less[0][4], less[1][4])
            )
        with m.Else():
            rest = Mux(bf16, significand[:9], significand[3:])
            m.d.sync += word.eq(Cat(lowest, rest, field[:5], special))
        return m
