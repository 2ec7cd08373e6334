"""One lane of the vector unit's requantization: from exact integers to INT8."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import VectorBody, VectorOp
from ..numerics.pipeline import (
    FP32,
    carry,
    coarse_shift,
    fine_shift,
    shift_left,
    shift_sticky,
    stage_enables,
)
from ..tech.adder import SegmentAdder
from ..tech.multiply import Multiply

__all__ = ["SUM_BITS", "RequantizeLane", "pair_layout"]

SUM_BITS = 24
"""Of the sum of a window of signed bytes."""

_SIGNIFICAND = 24
_HALF = 12
"""Bits of half a significand."""

_BIAS = 127
_SATURATED = 63
"""A shift after which nothing but the sign is left."""


def pair_layout() -> data.StructLayout:
    """Layout of what one result is made from.

    ``sum``: of the window's bytes, or the first input's. ``other``: the second input's byte.
    """
    return data.StructLayout({"sum": signed(SUM_BITS), "other": signed(8)})


class RequantizeLane(wiring.Component):
    """Makes one result after the other, as `VectorBody` says: one a cycle, never refused.

    A result comes ``LATENCY`` cycles after its pair.

    Members
    -------
    command : ``In(VectorBody)``
        Stands still from two cycles before the first pair until the last result.
    zero : ``In(signed(SUM_BITS))``
        What a ``sum`` of zero points would be. It comes a cycle after its pair.
    valid_i : ``In(1)``
    pair : ``In(pair_layout())``
    valid_o : ``Out(1)``
    result : ``Out(8)``
    """

    LATENCY = 28

    command: In(VectorBody)
    zero: In(signed(SUM_BITS))
    valid_i: In(1)
    pair: In(pair_layout())
    valid_o: Out(1)
    result: Out(8)

    def elaborate(self, platform: object) -> Module:
        # Each number of a name is the cycle after the pair's in which a value is there.
        m = Module()
        enable = stage_enables(m, Const(1), self.valid_i, self.valid_o, self.LATENCY)
        a, b = self._integers(m, enable)
        a, b = self._products(m, enable, a, b)
        number = self._sum(m, enable, a, b)
        self._round(m, enable, *number)
        return m

    def _operation(self, m: Module, op: VectorOp) -> Signal:
        """Return whether the command's operation is ``op``, from a register."""
        chosen = Signal(name=f"is_{op.name.lower()}")
        m.d.sync += chosen.eq(self.command.op == op.value)
        return chosen

    def _integers(self, m: Module, enable: list) -> tuple:
        """Return magnitude and sign of the integers to scale, at 6."""
        total1 = carry(m, enable[:1], self.pair.sum, "total").as_signed()
        byte1 = carry(m, enable[:1], self.pair.other, "byte").as_signed()
        integer2 = carry(m, enable[1:2], total1 - self.zero, "integer").as_signed()
        other2 = carry(m, enable[1:2], byte1 - self.command.b_zero, "other").as_signed()
        sign2, other_sign2 = integer2[-1], other2[-1]
        magnitude3 = carry(m, enable[2:3], _magnitude(integer2), "magnitude")
        other3 = carry(m, enable[2:3], _magnitude(other2), "other_magnitude")

        m.submodules.multiply = multiply = Multiply(9, 9, 16)
        m.d.comb += [multiply.a.eq(magnitude3[:8]), multiply.b.eq(other3)]
        magnitude6 = carry(m, enable[3:6], magnitude3, "magnitude_later")
        other6 = carry(m, enable[3:6], other3, "other_later")
        sign6 = carry(m, enable[2:6], sign2, "sign")
        other_sign6 = carry(m, enable[2:6], other_sign2, "other_sign")
        multiplies = self._operation(m, VectorOp.MULTIPLY)
        magnitude6 = Mux(multiplies, multiply.p.as_unsigned(), magnitude6)
        return (magnitude6, sign6 ^ (multiplies & other_sign6)), (other6, other_sign6)

    def _products(self, m: Module, enable: list, a: tuple, b: tuple) -> list[tuple]:
        """Return FP32 products of integers at 6 with their scales.

        Of each at 16: exponent, which may be past FP32's and is 0 of a zero; significand; sign.
        """
        adds = self._operation(m, VectorOp.ADD)
        scale_a, scale_b = (
            data.View(FP32, word) for word in (self.command.a_scale, self.command.b_scale)
        )
        normals = [
            _normalise(m, enable, magnitude, scale.exponent, name)
            for (magnitude, _), scale, name in ((a, scale_a, "a"), (b, scale_b, "b"))
        ]
        (significand_a, exponent_a, zero_a), (significand_b, exponent_b, zero_b) = normals

        # Two products of 12 and 24 bits: the halves of one number with one scale, or, with ADD,
        # two numbers, which have 8 bits, with two scales.
        fraction_b = Signal(23)
        m.d.sync += fraction_b.eq(Mux(adds, scale_b.fraction, scale_a.fraction))
        low9 = Mux(adds, Cat(Const(0, 4), significand_b), significand_a[:_HALF])
        parts = []
        for name, half, fraction in (
            ("high", significand_a[_HALF:], scale_a.fraction),
            ("low", low9, fraction_b),
        ):
            products = []
            for side, factor in (
                ("low", fraction[:_HALF]),
                ("high", Cat(fraction[_HALF:], Const(1, 1))),
            ):
                multiply = Multiply(_HALF + 1, _HALF + 1, 2 * _HALF)
                m.submodules[f"multiply_{name}_{side}"] = multiply
                m.d.comb += [multiply.a.eq(half), multiply.b.eq(factor)]
                products.append(multiply.p.as_unsigned())
            low, high = products
            total = Cat(low[:_HALF], (low[_HALF:] + high)[: 2 * _HALF])
            parts.append(carry(m, enable[12:13], total, f"part_{name}"))
        high13, low13 = parts
        product_b14 = carry(m, enable[13:14], low13, "product_b")
        m.submodules.upper = upper = SegmentAdder(3 * _HALF)
        m.d.comb += [
            upper.total.eq(low13[_HALF:]),
            upper.addend.eq(high13),
            upper.first.eq(adds),
        ]
        product = Cat(low13[:_HALF] & ~adds.replicate(_HALF), upper.sum[: 3 * _HALF])
        product_a14 = carry(m, enable[13:14], product, "product_a")

        exponent_a10 = carry(m, enable[9:10], Mux(zero_a, 0, exponent_a), "exponent_a10")
        exponent_b10 = carry(m, enable[9:10], Mux(zero_b | ~adds, 0, exponent_b), "exponent_b10")
        return [
            (
                *_rounded(m, enable, product, exponent, name),
                carry(m, enable[6:16], sign ^ scale.sign, f"sign_{name}"),
            )
            for product, exponent, (_, sign), scale, name in (
                (product_a14, exponent_a10, a, scale_a, "a"),
                (product_b14, exponent_b10, b, scale_b, "b"),
            )
        ]

    def _sum(self, m: Module, enable: list, a: tuple, b: tuple) -> tuple:
        """Return the sum of two numbers at 16, and how it is to be shifted, at 21.

        The sum is that of significands with three more bits, in the complement of 2, of 29 bits,
        with the sign of the number that has the larger exponent. The last of its bits stands for
        all below. Then: that sign; whether the number is beyond all shifts to the right; and how
        far to shift, so that an exponent of 40 is not shifted at all.
        """
        exponent_a, significand_a, sign_a = a
        exponent_b, significand_b, sign_b = b
        difference17 = carry(m, enable[16:17], exponent_a - exponent_b, "difference")
        reverse17 = carry(m, enable[16:17], (exponent_b - exponent_a)[:9], "reverse")
        # Infinities become no number if their signs differ; what is beyond FP32 is infinite.
        opposite = sign_a ^ sign_b
        infinite = [value[8] | value[:8].all() for value in (exponent_a, exponent_b)]
        nan17 = carry(m, enable[16:17], infinite[0] & infinite[1] & opposite, "nan")
        number_a17, number_b17 = (
            carry(m, enable[16:17], Cat(significand, exponent, sign), name)
            for significand, exponent, sign, name in (
                (significand_a, exponent_a, sign_a, "number_a"),
                (significand_b, exponent_b, sign_b, "number_b"),
            )
        )

        swap = difference17[-1]
        large18 = carry(m, enable[17:18], Mux(swap, number_b17, number_a17), "large")
        small18 = carry(m, enable[17:18], Mux(swap, number_a17, number_b17)[:_SIGNIFICAND], "small")
        distance = Mux(swap, reverse17, difference17[:9])
        distance18 = carry(m, enable[17:18], distance[:5], "distance")
        gone18 = carry(m, enable[17:18], distance[5:].any(), "gone")
        exponent18 = large18[_SIGNIFICAND : _SIGNIFICAND + 9]

        aligned, below = shift_sticky(
            m, Cat(Const(0, 2), small18), Const(0, 1), distance18, (16, 8), "far"
        )
        aligned19 = carry(m, enable[18:19], Mux(gone18, 0, aligned), "aligned")
        below19 = carry(m, enable[18:19], Mux(gone18, small18[-1], below), "below")
        distance19 = carry(m, enable[18:19], distance18[:3], "distance_near")
        aligned, below = shift_sticky(m, aligned19, below19, distance19, (4, 2, 1), "near")
        opposite19 = carry(m, enable[16:19], opposite, "opposite")
        opposite20 = carry(m, enable[19:20], opposite19, "opposite20")
        addend = Cat(below, aligned) ^ opposite19.replicate(27)
        addend20 = carry(m, enable[19:20], addend, "addend")
        large20 = carry(m, enable[18:20], large18[:_SIGNIFICAND], "large_later")
        total = Cat(opposite20, Const(0, 3), large20, Const(0, 2)) + Cat(
            opposite20, addend20, opposite20.replicate(2)
        )
        sum21 = carry(m, enable[20:21], total[1:30], "sum")

        shift19 = carry(m, enable[18:19], (_BIAS + 40) - exponent18, "shift").as_signed()
        nan19 = carry(m, enable[17:19], nan17, "nan_later")
        beyond21 = carry(m, enable[19:21], shift19[-1] & ~nan19, "beyond")
        most = nan19 | (shift19[6:] != 0)
        amount21 = carry(m, enable[19:21], shift19[:6] | most.replicate(6), "amount")
        sign21 = carry(m, enable[18:21], large18[-1], "sign")
        return sum21, sign21, beyond21, amount21

    def _round(self, m: Module, enable: list, sum21, sign21, beyond21, amount21) -> None:
        """From a number at 21 to the result.

        It is rounded to FP32 and then to an integer. If the first rounding goes up, its carry
        matters only where all bits below the half of the integer are ones, or all are zeros: bits
        that FP32 has no room for are set if it goes up, and cleared otherwise. (Where FP32 has no
        bit below the half of an integer, the number is too large to care.)
        """
        minus = sum21[28]
        carried, full = sum21[27] & ~minus, sum21[26] & ~minus
        up = Signal()
        m.d.comb += up.eq(
            Mux(
                carried,
                sum21[3] & (sum21[:3].any() | sum21[4]),
                Mux(
                    full,
                    sum21[2] & (sum21[:2].any() | sum21[3]),
                    sum21[1] & (sum21[0] | sum21[2]),
                ),
            )
        )
        filled = Cat(
            up, up, Mux(carried | full, up, sum21[2]), Mux(carried, up, sum21[3]), sum21[4:]
        )
        number22 = carry(m, enable[21:22], filled, "number")
        some22 = carry(m, enable[21:22], beyond21 & sum21.any(), "some")
        amount22 = carry(m, enable[21:22], amount21, "amount_later")
        negative25 = carry(m, enable[21:25], sign21, "negative")

        # Right by 48, 32 or 16. Bit 0 of what stays is the half.
        minus = number22[-1]
        by = amount22[4:]
        window23 = carry(
            m,
            enable[22:23],
            Mux(
                by[1],
                Mux(by[0], minus.replicate(34), Cat(number22[17:], minus.replicate(22))),
                Mux(
                    by[0],
                    Cat(number22[1:], minus.replicate(6)),
                    Cat(Const(0, 15), number22[:19]),
                ),
            ),
            "window",
        )
        some = Mux(by[1], number22[:17].any(), by[0] & number22[0])
        every = Mux(by[1], number22[:17].all(), by[0] & number22[0])
        huge = some22 | ((by == 0) & _differ(number22[18:], minus))
        flags23 = carry(m, enable[22:23], Cat(some, every, huge, minus), "flags23")
        amount23 = carry(m, enable[22:23], amount22[:4], "amount23")

        window, flags = _shift(window23, flags23, amount23, (8, 4))
        window24 = carry(m, enable[23:24], window, "window24")
        flags24 = carry(m, enable[23:24], flags, "flags24")
        amount24 = carry(m, enable[23:24], amount23[:2], "amount24")
        window, flags = _shift(window24, flags24, amount24, (2, 1))
        window25 = carry(m, enable[24:25], window, "window25")
        some25, every25, huge25, minus25 = carry(m, enable[24:25], flags, "flags25")

        # The negative of a magnitude is its complement plus 1, so rounding up takes 1 away.
        half, odd = window25[0], window25[1]
        up = Mux(half, some25 | odd, every25 & odd)
        carry26 = carry(m, enable[25:26], up ^ negative25, "carry")
        integer = window25[1:] ^ negative25.replicate(18)
        integer26 = carry(m, enable[25:26], integer, "rounded26").as_signed()
        left, right = (
            Cat(carry26, value).as_signed() for value in (integer26, self.command.zero_point)
        )
        rounded27 = carry(m, enable[26:27], (left + right)[1:], "rounded27").as_signed()
        huge27 = carry(m, enable[25:27], huge25 | (window25[-1] ^ minus25), "huge")
        negative27 = carry(m, enable[25:27], negative25 ^ minus25, "negative_later")

        low, high = self.command.clamp_low, self.command.clamp_high
        low28 = carry(m, enable[27:28], Mux(huge27, negative27, rounded27 < low), "low28")
        high28 = carry(m, enable[27:28], Mux(huge27, ~negative27, rounded27 > high), "high28")
        rounded28 = carry(m, enable[27:28], rounded27[:8], "rounded28")
        crossed, edge = Signal(), Signal(8)
        m.d.sync += [
            crossed.eq(low > high),
            edge.eq(Mux(crossed, high[:8], low[:8])),
        ]
        m.d.comb += self.result.eq(Mux(low28, edge, Mux(high28, high[:8], rounded28)))


def _magnitude(value: Value) -> Value:
    """Return the magnitude of a signed value that is not the most negative one."""
    width = len(value) - 1
    return ((value[:-1] ^ value[-1].replicate(width)) + value[-1])[:width]


def _normalise(m: Module, enable: list, magnitude: Value, exponent: Value, name: str) -> tuple:
    """Shift a magnitude of 6 to the left, to the top.

    Returns it at 9; the exponent there of its product with a number of the ``exponent``; and
    whether it is zero.
    """
    width = len(magnitude)
    nibbles = [magnitude[i : i + 4].any() for i in range(width - 4, -1, -4)]
    coarse7 = carry(m, enable[6:7], coarse_shift(nibbles), f"coarse_{name}")
    magnitude7 = carry(m, enable[6:7], magnitude, f"magnitude_{name}8")
    distances = [distance for distance in (16, 8, 4) if distance < width]
    shifted = shift_left(m, magnitude7, coarse7, distances, f"coarse_{name}")
    magnitude8 = carry(m, enable[7:8], shifted, f"magnitude_{name}9")
    largest = Signal(9, name=f"largest_{name}")
    m.d.sync += largest.eq(exponent + (width - 1))
    shift7 = coarse7[: len(distances)]
    exponent8 = carry(m, enable[7:8], (largest - Cat(Const(0, 2), shift7))[:9], f"exponent_{name}9")
    by = fine_shift(magnitude8[-4:])
    fine = shift_left(m, magnitude8, by, (2, 1), f"fine_{name}")
    magnitude9 = carry(m, enable[8:9], fine, f"magnitude_{name}10")
    exponent9 = carry(m, enable[8:9], (exponent8 - by)[:9], f"exponent_{name}10")
    zero9 = carry(m, enable[8:9], ~magnitude8[-4:].any(), f"zero_{name}10")
    return magnitude9, exponent9, zero9


def _rounded(m: Module, enable: list, product: Value, exponent10: Value, name: str) -> tuple:
    """Round a product at 14 of normal numbers to 24 bits; return exponent and significand."""
    below = len(product) - 2 - _SIGNIFICAND  # bits below the half, of a product below 2
    large = product[-1]
    window15 = carry(
        m, enable[14:15], Mux(large, product[below + 1 :], product[below:-1]), f"window_{name}"
    )
    rest = product[:below].any() | (large & product[below])
    rest15 = carry(m, enable[14:15], rest, f"rest_{name}")
    exponent14 = carry(m, enable[10:14], exponent10, f"exponent_{name}")
    exponent15 = carry(m, enable[14:15], (exponent14 + large)[:9], f"exponent_{name}16")
    up = window15[0] & (rest15 | window15[1])
    number16 = carry(
        m, enable[15:16], (Cat(window15[1:24], exponent15) + up)[:32], f"number_{name}"
    )
    hidden16 = carry(m, enable[15:16], window15[-1], f"hidden_{name}")
    return number16[23:], Cat(number16[:23], hidden16)


def _differ(bits: Value, sign: Value) -> Value:
    """Return whether any bit differs from a sign."""
    return Mux(sign, ~bits.all(), bits.any())


def _shift(window: Value, flags: Value, amount: Value, distances: tuple[int, int]) -> tuple:
    """Shift a window to the right by those of the falling ``distances`` that are in ``amount``.

    Returns it without the bits at its top that a full shift leaves equal to the sign, and the
    flags: whether some, and whether every, bit is set of those that were shifted out; whether one
    of those left out at the top differed from the sign; the sign.
    """
    some, every, huge, minus = flags
    for distance in distances:
        shift = amount[distance.bit_length() - 1]
        kept = len(window) - distance
        out = window[:distance]
        some = some | (shift & out.any())
        every = every & (~shift | out.all())
        huge = huge | (~shift & _differ(window[kept:], minus))
        window = Mux(shift, window[distance:], window[:kept])
    return window, Cat(some, every, huge, minus)
