"""FP32 multiplication and addition."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import CANONICAL_NAN, FP32, normalise, pack_rounded, shift_right, stage_enables

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

    LATENCY = 6

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
        a1, b1 = Signal(32, reset_less=True), Signal(32, reset_less=True)
        with m.If(enable[0]):
            m.d.sync += [a1.eq(self.a), b1.eq(self.b)]

        sign_a, exponent_a, significand_a, class_a = _unpack(a1)
        sign_b, exponent_b, significand_b, class_b = _unpack(b1)
        zero_a, zero_b = ~significand_a[-1], ~significand_b[-1]
        # Two halves of the product, each the size of a pair of hardware multipliers.
        low2, high2 = Signal(36, reset_less=True), Signal(36, reset_less=True)
        exponent2 = Signal(signed(10), reset_less=True)
        kind = Cat(
            sign_a ^ sign_b,
            zero_a | zero_b,
            class_a["inf"] | class_b["inf"],
            class_a["nan"] | class_b["nan"] | (class_a["inf"] & zero_b) | (class_b["inf"] & zero_a),
        )
        with m.If(enable[1]):
            m.d.sync += [
                low2.eq(significand_a * significand_b[:12]),
                high2.eq(significand_a * significand_b[12:]),
                exponent2.eq(exponent_a + exponent_b - 127),
            ]
        for stage in range(1, self.LATENCY - 1):
            step = Signal(4, name=f"kind{stage + 1}", reset_less=True)
            with m.If(enable[stage]):
                m.d.sync += step.eq(kind)
            kind = step

        product3 = Signal(48, reset_less=True)
        exponent3 = Signal(signed(10), reset_less=True)
        with m.If(enable[2]):
            m.d.sync += [
                product3.eq(low2 + Cat(Const(0, 12), high2)),
                exponent3.eq(exponent2),
            ]

        # The product of two significands lies in [1, 4): 26 bits and the OR of the rest.
        window4 = Signal(26, reset_less=True)
        exponent4 = Signal(signed(10), reset_less=True)
        large = product3[-1]
        with m.If(enable[3]):
            m.d.sync += [
                window4.eq(
                    Mux(
                        large,
                        Cat(product3[:23].any(), product3[23:]),
                        Cat(product3[:22].any(), product3[22:]),
                    )
                ),
                exponent4.eq(exponent3 + large),
            ]

        # A result below the smallest exponent loses bits until it has that exponent.
        significand5 = Signal(24, reset_less=True)
        half5, below5, huge5 = (
            Signal(name=name, reset_less=True) for name in ("half5", "below5", "huge5")
        )
        exponent5 = Signal(8, reset_less=True)
        missing = Signal(signed(11))
        shift = Signal(range(26))
        m.d.comb += missing.eq(1 - exponent4)
        with m.If(missing > 25):
            m.d.comb += shift.eq(25)
        with m.Elif(missing > 0):
            m.d.comb += shift.eq(missing)
        kept, half, below = shift_right(m, window4[2:], shift, "denormal")
        guarded = shift.any()
        with m.If(enable[4]):
            m.d.sync += [
                significand5.eq(kept),
                half5.eq(Mux(guarded, half, window4[1])),
                below5.eq(window4[0] | (guarded & (window4[1] | below))),
                exponent5.eq(Mux(guarded, 1, exponent4)),
                huge5.eq(exponent4 >= 255),
            ]

        result, overflow = Signal(32, reset_less=True), Signal(reset_less=True)
        m.d.comb += [self.result.eq(result), self.overflow.eq(overflow)]
        sign, zero, infinite, nan = kind
        # The largest numbers overflow only as they are rounded.
        number = pack_rounded(exponent5, significand5, half5, below5)
        with m.If(enable[5]):
            m.d.sync += overflow.eq((huge5 | number[23:31].all()) & ~(zero | infinite | nan))
            with m.If(nan):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(infinite | (huge5 & ~zero)):
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

    LATENCY = 7

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
        significand2, small2 = Signal(24, reset_less=True), Signal(24, reset_less=True)
        exponent2 = Signal(8, reset_less=True)
        shift2 = Signal(range(27), reset_less=True)
        distance = Signal(8)
        m.d.comb += distance.eq(exponent_l - exponent_s)
        opposite = sign_l ^ sign_s
        # An exact zero is +0, unless both operands are -0.
        kind = Cat(
            sign_l,
            opposite,
            class_l["inf"],
            class_l["nan"] | class_s["nan"] | (class_s["inf"] & opposite),
        )
        with m.If(enable[1]):
            m.d.sync += [
                significand2.eq(significand_l),
                small2.eq(significand_s),
                exponent2.eq(exponent_l),
                shift2.eq(Mux(distance > 26, 26, distance)),
            ]
        for stage in range(1, self.LATENCY - 1):
            step = Signal(4, name=f"kind{stage + 1}", reset_less=True)
            with m.If(enable[stage]):
                m.d.sync += step.eq(kind)
            kind = step
            if stage == 2:
                subtract3 = kind[1]

        # Align: two bits and the OR of the rest below the significand are enough, because only a
        # difference of numbers at most one binade apart loses more than one bit at the top.
        significand3, exponent3 = Signal(24, reset_less=True), Signal(8, reset_less=True)
        small3 = Signal(27, reset_less=True)
        wide = Signal(50)
        m.d.comb += wide.eq(Cat(Const(0, 26), small2) >> shift2)
        with m.If(enable[2]):
            m.d.sync += [
                significand3.eq(significand2),
                exponent3.eq(exponent2),
                small3.eq(Cat(wide[:24].any(), wide[24:])),
            ]

        sum4, exponent4 = Signal(28, reset_less=True), Signal(8, reset_less=True)
        with m.If(enable[3]):
            m.d.sync += [
                sum4.eq(
                    Cat(Const(0, 3), significand3) + (small3 ^ subtract3.replicate(28)) + subtract3
                ),
                exponent4.eq(exponent3),
            ]

        # Normalise, but not below the smallest exponent.
        sum5, exponent5 = Signal(28, reset_less=True), Signal(8, reset_less=True)
        room5 = Signal(5, reset_less=True)
        room = Signal(5)
        m.d.comb += room.eq(Mux(exponent4 > 31, 31, exponent4))
        coarse, left, shift = normalise(m, sum4, (16, 8, 4), "coarse", room)
        with m.If(enable[4]):
            m.d.sync += [sum5.eq(coarse), room5.eq(left), exponent5.eq(exponent4 + 1 - shift)]

        sum6, exponent6 = Signal(28, reset_less=True), Signal(8, reset_less=True)
        fine, _, shift = normalise(m, sum5, (2, 1), "fine", room5)
        with m.If(enable[5]):
            m.d.sync += [sum6.eq(fine), exponent6.eq(exponent5 - shift)]

        result, overflow = Signal(32, reset_less=True), Signal(reset_less=True)
        m.d.comb += [self.result.eq(result), self.overflow.eq(overflow)]
        sign, opposite, infinite, nan = kind
        number = pack_rounded(exponent6, sum6[4:], sum6[3], sum6[:3].any())
        with m.If(enable[6]):
            large = exponent6.all() | number[23:31].all()
            m.d.sync += overflow.eq(large & ~(infinite | nan))
            with m.If(nan):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(infinite | exponent6.all()):
                m.d.sync += result.eq(Cat(Const(_INFINITY, 31), sign))
            with m.Elif(~sum6.any()):
                m.d.sync += result.eq(Cat(Const(0, 31), sign & ~opposite))
            with m.Else():
                m.d.sync += result.eq(Cat(number[:31], sign))
        return m
