"""FP32 multiplication and addition."""

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import (
    CANONICAL_NAN,
    FP32,
    carry,
    coarse_shift,
    fine_shift,
    pack_rounded,
    shift_left,
    shift_sticky,
    stage_enables,
)

__all__ = ["Fp32Add", "Fp32Multiply"]

_INFINITY = 0xFF << 23


def _unpack(word):
    """Return sign, exponent (1 for subnormal numbers), significand, and the special classes."""
    fields = data.View(FP32, word)
    normal = fields.exponent.any()
    exponent = Cat(fields.exponent[0] | ~normal, fields.exponent[1:])
    top = fields.exponent.all()
    fraction = fields.fraction.any()
    return (
        fields.sign,
        exponent,
        Cat(fields.fraction, normal),
        {"nan": top & fraction, "inf": top & ~fraction},
    )


class Fp32Multiply(wiring.Component):
    """Multiplies two FP32 numbers: IEEE 754, to nearest even, canonical NaN.

    Results may be subnormal. An operand that is subnormal counts as zero of its sign.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its operands.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    valid_i : ``In(1)``
    a, b : ``In(32)``
    valid_o : ``Out(1)``
    result : ``Out(32)``
    overflow : ``Out(1)``
        Finite operands have an infinite result.
    """

    LATENCY = 9

    ce: In(1)
    valid_i: In(1)
    a: In(32)
    b: In(32)
    valid_o: Out(1)
    result: Out(32)
    overflow: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)

        # The multipliers' own input registers.
        a1, b1 = carry(m, enable[:1], self.a, "a"), carry(m, enable[:1], self.b, "b")
        sign_a, exponent_a, significand_a, class_a = _unpack(a1)
        sign_b, exponent_b, significand_b, class_b = _unpack(b1)
        zero_a, zero_b = ~significand_a[-1], ~significand_b[-1]
        kind = Cat(
            sign_a ^ sign_b,
            zero_a | zero_b,
            class_a["inf"] | class_b["inf"],
            class_a["nan"] | class_b["nan"] | (class_a["inf"] & zero_b) | (class_b["inf"] & zero_a),
        )
        kind = carry(m, enable[1:-1], kind, "kind")

        # Quarters of the product, each the size of a hardware multiplier. Numbers whose hidden bit
        # is not one count as zero.
        halves_a, halves_b = ([fields[:12], Cat(fields[12:23], Const(1, 1))] for fields in (a1, b1))
        ll2, lh2, hl2, hh2 = (
            carry(m, enable[1:2], a * b, name)
            for (a, b), name in zip(
                itertools.product(halves_a, halves_b), ("ll2", "lh2", "hl2", "hh2"), strict=True
            )
        )
        exponent2 = carry(m, enable[1:2], exponent_a + exponent_b, "exponent2")
        middle3 = carry(m, enable[2:3], lh2 + hl2, "middle3")
        outer3 = carry(m, enable[2:3], Cat(ll2, hh2), "outer3")
        exponent3 = carry(m, enable[2:3], (exponent2 - 127)[:10], "exponent3")
        product4 = carry(m, enable[3:4], Cat(outer3[:12], (outer3[12:] + middle3)[:36]), "product4")
        exponent4 = carry(m, enable[3:4], exponent3, "exponent4").as_signed()

        # The product of two significands lies in [1, 4): 25 bits and the OR of the rest.
        window5 = Signal(25, reset_less=True)
        below5 = Signal(reset_less=True)
        exponent5 = Signal(signed(10), reset_less=True)
        large = product4[-1]
        with m.If(enable[4]):
            m.d.sync += [
                window5.eq(Mux(large, product4[23:], product4[22:])),
                below5.eq(product4[:22].any() | (large & product4[22])),
                exponent5.eq(exponent4 + large),
            ]

        # A result below the smallest exponent loses bits until it has that exponent.
        shift6 = Signal(5, reset_less=True)
        exponent6 = Signal(8, reset_less=True)
        huge6 = Signal(reset_less=True)
        missing = Signal(signed(11))
        m.d.comb += missing.eq(1 - exponent5)
        guarded = ~missing[-1]
        with m.If(enable[5]):
            m.d.sync += [
                shift6.eq(Mux(guarded, missing[:5] | missing[5:].any().replicate(5), 0)),
                exponent6.eq(Mux(guarded, 1, exponent5)),
                huge6.eq(~guarded & (exponent5 >= 255)),
            ]
        window6 = carry(m, enable[5:6], window5, "window6")
        below6 = carry(m, enable[5:6], below5, "below6")
        window, below = shift_sticky(m, window6, below6, shift6, (16, 8), "far")
        window7 = carry(m, enable[6:7], window, "window7")
        below7 = carry(m, enable[6:7], below, "below7")
        shift7 = carry(m, enable[6:7], shift6[:3], "shift7")
        window, below = shift_sticky(m, window7, below7, shift7, (4, 2, 1), "near")
        window8 = carry(m, enable[7:8], window, "window8")
        below8 = carry(m, enable[7:8], below, "below8")
        exponent8 = carry(m, enable[6:8], exponent6, "exponent8")
        huge8 = carry(m, enable[6:8], huge6, "huge8")

        result, overflow = Signal(32, reset_less=True), Signal(reset_less=True)
        m.d.comb += [self.result.eq(result), self.overflow.eq(overflow)]
        sign, zero, infinite, nan = kind
        # The largest numbers overflow only as they are rounded.
        number = pack_rounded(exponent8, window8[1:], window8[0], below8)
        with m.If(enable[8]):
            up = (exponent8 == 254) & window8.all()
            m.d.sync += overflow.eq((huge8 | up) & ~(zero | infinite | nan))
            with m.If(nan):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(infinite | (huge8 & ~zero)):
                m.d.sync += result.eq(Cat(Const(_INFINITY, 31), sign))
            with m.Elif(zero):
                m.d.sync += result.eq(Cat(Const(0, 31), sign))
            with m.Else():
                m.d.sync += result.eq(Cat(number[:31], sign))
        return m


class Fp32Add(wiring.Component):
    """Adds two FP32 numbers: IEEE 754, to nearest even, subnormal numbers, canonical NaN.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its operands.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    valid_i : ``In(1)``
    a, b : ``In(32)``
    valid_o : ``Out(1)``
    result : ``Out(32)``
    overflow : ``Out(1)``
        Finite operands have an infinite result.
    """

    LATENCY = 9

    ce: In(1)
    valid_i: In(1)
    a: In(32)
    b: In(32)
    valid_o: Out(1)
    result: Out(32)
    overflow: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)

        # The larger magnitude goes first.
        swap = self.a[:31] < self.b[:31]
        large1, small1 = Signal(32, reset_less=True), Signal(32, reset_less=True)
        with m.If(enable[0]):
            m.d.sync += [
                large1.eq(Mux(swap, self.b, self.a)),
                small1.eq(Mux(swap, self.a, self.b)),
            ]

        sign_l, exponent_l, significand_l, class_l = _unpack(large1)
        sign_s, exponent_s, significand_s, class_s = _unpack(small1)
        opposite = sign_l ^ sign_s
        # An exact zero is +0, unless both operands are -0.
        kind = Cat(
            sign_l,
            opposite,
            class_l["inf"],
            class_l["nan"] | class_s["nan"] | (class_s["inf"] & opposite),
        )
        kind4 = carry(m, enable[1:4], kind, "kind")
        kind = carry(m, enable[4:-1], kind4, "later_kind")
        significand4 = carry(m, enable[1:4], significand_l, "significand")
        exponent4 = carry(m, enable[1:4], exponent_l, "exponent")
        small2 = carry(m, enable[1:2], significand_s, "small2")
        distance2 = carry(m, enable[1:2], (exponent_l - exponent_s)[:8], "distance2")

        # Align: two bits and the OR of the rest below the significand are enough, because only a
        # difference of numbers at most one binade apart loses more than one bit at the top.
        gone = distance2[5:].any()
        aligned, below = shift_sticky(
            m, Cat(Const(0, 2), small2), Const(0, 1), distance2, (16, 8), "far"
        )
        small3 = carry(m, enable[2:3], Mux(gone, 0, aligned), "small3")
        below3 = carry(m, enable[2:3], below | (gone & small2.any()), "below3")
        distance3 = carry(m, enable[2:3], distance2[:3], "distance3")
        aligned, below = shift_sticky(m, small3, below3, distance3, (4, 2, 1), "near")
        small4 = carry(m, enable[3:4], Cat(below, aligned), "small4")

        subtract4 = kind4[1]
        sum5 = Signal(28, reset_less=True)
        addend = Signal(28)
        m.d.comb += addend.eq(small4 ^ subtract4.replicate(28))
        with m.If(enable[4]):
            m.d.sync += sum5.eq(
                (Cat(subtract4, Const(0, 3), significand4) + Cat(subtract4, addend))[1:]
            )

        # Normalise, but not below the smallest exponent: a flag stops the shift there.
        nibbles = len(sum5) // 4
        stop = Cat(~exponent4[5:].any() & (exponent4[2:5] == i) for i in range(nibbles + 1))
        stop5 = carry(m, enable[4:5], stop, "stop5")
        exponent5 = carry(m, enable[4:5], exponent4, "exponent5")
        coarse = Signal(3)
        m.d.comb += coarse.eq(
            coarse_shift(sum5[-4 - 4 * i :][:4].any() | stop5[i] for i in range(nibbles))
        )
        coarse6 = carry(m, enable[5:6], coarse, "coarse6")
        stop6 = carry(m, enable[5:6], (8 >> exponent5[:2])[:4] & stop5.any().replicate(4), "stop6")
        stop_at6 = carry(m, enable[5:6], exponent5[2:5], "stop_at6")
        stopped = coarse6 == stop_at6
        sum6 = carry(m, enable[5:6], sum5, "sum6")
        exponent6 = carry(m, enable[5:6], (exponent5 + 1)[:8], "exponent6")

        sum7 = carry(m, enable[6:7], shift_left(m, sum6, coarse6, (16, 8, 4), "coarse"), "sum7")
        stop7 = carry(m, enable[6:7], stop6 & stopped.replicate(4), "stop7")
        exponent7 = carry(m, enable[6:7], (exponent6 - Cat(Const(0, 2), coarse6))[:8], "exponent7")
        by = fine_shift(sum7[-4:] | stop7)
        sum8 = carry(m, enable[7:8], shift_left(m, sum7, by, (2, 1), "fine"), "sum8")
        exponent8 = carry(m, enable[7:8], (exponent7 - by)[:8], "exponent8")

        result, overflow = Signal(32, reset_less=True), Signal(reset_less=True)
        m.d.comb += [self.result.eq(result), self.overflow.eq(overflow)]
        sign, opposite, infinite, nan = kind
        number = pack_rounded(exponent8, sum8[4:], sum8[3], sum8[:3].any())
        with m.If(enable[8]):
            # Of finite numbers only a sum that carries has the largest exponent, or one that is
            # rounded up to it.
            up = (exponent8 == 254) & sum8[3:].all()
            m.d.sync += overflow.eq((exponent8.all() | up) & ~(infinite | nan))
            # The number of an exact zero is 0. Written as gates, as a reset would come late.
            void = nan | infinite | exponent8.all()
            m.d.sync += [
                result[:22].eq(number & ~void.replicate(22)),
                result[22].eq(nan | (number[22] & ~void)),
                result[23:31].eq(number[23:31] | void.replicate(8)),
                result[31].eq(sign & ~nan & ~(opposite & ~void & ~sum8.any())),
            ]
        return m
