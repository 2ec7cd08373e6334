"""What one PE multiplies: decode, multiply, shift, and place over the accumulator's segments."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Mode
from .ports import SEGMENT

__all__ = ["SEGMENTS", "Product", "offset_of"]

SEGMENTS = 4
"""Segments of an accumulator."""

_TOP = 88
"""Where a product's lowest bit may come to lie at most, counted from 24 bits below segment 0."""

_NOWHERE, _BELOW, _ABOVE = 5, 6, 7
"""Places in no segment: special values; all of the product is below the window, or above it."""

# What is known of a product of floats beside its magnitude, in cycle 2 and in cycle 3.
_KIND = data.StructLayout({"special": 1, "nan": 1, "nonzero": 1, "minus": 1})
_MARKS = data.StructLayout({"nan": 1, "inf": 1, "minus": 1, "below": 1, "above": 1})


def offset_of(mode: Mode, anchor: int = 0) -> int:
    """Return the `Product.offset` of a mode; 0 for integers.

    Parameters
    ----------
    mode : Mode
    anchor : int
        `MatmulBody.anchor`, for `Mode.BF16`.
    """
    return {Mode.FP16: -22, Mode.BF16: 244 + anchor}.get(mode, 0)


def _look_up(table: list[int], index: Value) -> Value:
    """Return ``table[index]``, of two bits."""
    return Const(sum(value << 2 * i for i, value in enumerate(table)), 32).word_select(index, 2)


def _extend(value: Value, width: int) -> Value:
    """Return a two's complement number with more bits of sign.

    As a choice between two constants: Verilator makes long code of many copies of one bit.
    """
    more = width - len(value)
    if not more:
        return value
    return Cat(value, Mux(value[-1], Const((1 << more) - 1, more), Const(0, more)))


def _integer(value: Value, int8: Value, width: int) -> Value:
    """Return an INT8 or INT4 number in the low bits of a word."""
    return Mux(int8, _extend(value[:8], width), _extend(value[:4], width))


def _factor(byte: Value, int8: Value) -> Value:
    """Return an INT8 number, or two INT4 numbers as one, ``high * 2**12 + low``."""
    low, high = byte[:4], byte[4:]
    pair = Cat(_extend(low, 12), (_extend(high, 5) - low[3])[:5])
    return Mux(int8, _extend(byte, 17), pair)


def _significand(value: Value, bf16: Value) -> Value:
    """Return a float's fraction with the hidden bit."""
    return Mux(bf16, Cat(value[:7], value[7:15].any()), Cat(value[:10], value[10:15].any()))


def _exponent(value: Value, bf16: Value) -> Value:
    """Return a float's exponent field, 1 where it is 0."""
    bf16_field, fp16_field = value[7:15], value[10:15]
    return Mux(bf16, bf16_field | ~bf16_field.any(), fp16_field | ~fp16_field.any())


def _is_special(value: Value, bf16: Value) -> Value:
    """Return whether a float is an infinity or NaN."""
    return Mux(bf16, value[7:15].all(), value[10:15].all())


class Product(wiring.Component):
    """Multiplies a weight by an operand word and spreads the products over four segments.

    What is to be added to segment i is ``addend[i] + carry_in[i]``. INT8: segments 0 and 1 are the
    48-bit product of lane 0, segments 2 and 3 that of lane 1 (24 low bits first). INT4: segment i
    is the 24-bit product of lane i. FP16 and BF16: the segments are one 96-bit number in units of
    2^-48, or of 2^anchor. All are two's complement; carries out of the last segment of a number do
    not matter.

    FP16, BF16: the product's lowest bit lies ``e_w + e_x - offset - 24`` bits above bit 0 of
    segment 0, where e are the exponent fields (1 if 0). What of its magnitude lies below is cut
    off. One whose lowest bit lies more than 64 bits above (only in BF16) adds nothing, and counts
    as an infinity of its sign. Zero times anything adds nothing and sets no flag; nor do integers.

    Outputs belong to the inputs `LATENCY` cycles earlier, and are void where ``valid_o`` is low.

    Members
    -------
    mode : ``In(Mode)``
        Still while products are on their way.
    offset : ``In(signed(10))``
        `offset_of` the mode; still, too. Without effect on integers.
    valid_i, valid_o : ``In(1)``, ``Out(1)``
    w, x : ``In(16)``
        A weight as in `stream_layout`, an operand word as in `fill_layout`.
    addend : ``Out(24).array(4)``
    carry_in : ``Out(4)``
    nan, inf_pos, inf_neg : ``Out(1)``
        The product is NaN; it is an infinity, or above the window.
    below, above : ``Out(1)``
        Bits other than zero were cut off; the product is above the window.
    """

    LATENCY = 4

    mode: In(Mode)
    offset: In(signed(10))
    valid_i: In(1)
    w: In(16)
    x: In(16)
    valid_o: Out(1)
    addend: Out(SEGMENT).array(SEGMENTS)
    carry_in: Out(SEGMENTS)
    nan: Out(1)
    inf_pos: Out(1)
    inf_neg: Out(1)
    below: Out(1)
    above: Out(1)

    def elaborate(self, platform: object) -> Module:
        # For the speed of simulation each register is assigned once, under one condition, and what
        # two expressions share has a name: of such a PE Verilator writes short code, and the same
        # function for many PEs.
        m = Module()
        wide, bf16, int8 = Signal(), Signal(), Signal()
        valid = Signal(self.LATENCY)
        m.d.comb += [
            wide.eq((self.mode == Mode.FP16) | (self.mode == Mode.BF16)),
            bf16.eq(self.mode == Mode.BF16),
            int8.eq(self.mode == Mode.INT8),
            self.valid_o.eq(valid[-1]),
        ]
        m.d.sync += valid.eq(Cat(self.valid_i, valid))
        w, x = self.w, self.x

        # Cycle 1: decode. What only floats need stands still for integers.
        a0, b0 = Signal(signed(12), reset_less=True), Signal(signed(17), reset_less=True)
        a1, b1 = Signal(signed(8), reset_less=True), Signal(signed(17), reset_less=True)
        base = Signal(signed(10), reset_less=True)
        exponent = Signal(8, reset_less=True)
        special, minus = Signal(2, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            a0.eq(Mux(wide, _significand(w, bf16), _integer(w, int8, 12))),
            a1.eq(_integer(w, int8, 8)),
            b0.eq(Mux(wide, _significand(x, bf16), _factor(x[:8], int8))),
            b1.eq(_factor(x[8:], int8)),
        ]
        with m.If(wide):
            m.d.sync += [
                base.eq(_exponent(w, bf16) - self.offset),
                exponent.eq(_exponent(x, bf16)),
                special.eq(Cat(_is_special(w, bf16), _is_special(x, bf16))),
                minus.eq(w[15] ^ x[15]),
            ]

        # Cycle 2: multiply; divide the shift by 24.
        p0, p1 = Signal(signed(24), reset_less=True), Signal(signed(20), reset_less=True)
        fine, place = Signal(5, reset_less=True), Signal(3, reset_less=True)
        kind = Signal(_KIND, reset_less=True)
        shift = Signal(signed(10))
        eights = shift[3:7]  # a segment is three of them
        fractions = [Mux(bf16, value[:7], value[:10]).any() for value in (a0, b0)]
        m.d.comb += shift.eq(base + exponent)
        m.d.sync += [p0.eq(a0 * b0), p1.eq(a1 * b1)]
        with m.If(wide):
            inside = _look_up([min(i // 3, 3) for i in range(16)], eights)
            finite = Mux(shift < 0, _BELOW, Mux(shift > _TOP, _ABOVE, inside))
            m.d.sync += [
                fine.eq(Cat(shift[:3], _look_up([i % 3 for i in range(16)], eights))),
                place.eq(Mux(special.any(), _NOWHERE, finite)),
                kind.special.eq(special.any()),
                kind.nan.eq((special[0] & fractions[0]) | (special[1] & fractions[1])),
                kind.nonzero.eq(a0.any() & b0.any()),
                kind.minus.eq(minus),
            ]

        # Cycle 3: shift by less than a segment.
        shifted = Signal(2 * SEGMENT, reset_less=True)
        pair1 = Signal(signed(20), reset_less=True)
        place3, marks = Signal(3, reset_less=True), Signal(_MARKS, reset_less=True)
        m.d.sync += [shifted.eq(p0 << Mux(wide, fine, 0)), pair1.eq(p1)]
        with m.If(wide):
            m.d.sync += [
                place3.eq(place),
                marks.nan.eq(kind.nan & kind.nonzero),
                # A special value is nowhere, so that it is neither below nor above.
                marks.inf.eq(kind.nonzero & Mux(kind.special, ~kind.nan, place == _ABOVE)),
                marks.minus.eq(kind.minus),
                marks.below.eq(kind.nonzero & (place == _BELOW)),
                marks.above.eq(kind.nonzero & (place == _ABOVE)),
            ]

        # Cycle 4: place.
        addend = [Signal(SEGMENT, name=f"addend{i}", reset_less=True) for i in range(SEGMENTS)]
        carry_in = Signal(SEGMENTS, reset_less=True)
        flags = Signal(5, reset_less=True)
        m.d.comb += [
            *(self.addend[i].eq(segment) for i, segment in enumerate(addend)),
            self.carry_in.eq(carry_in),
            Cat(self.nan, self.inf_pos, self.inf_neg, self.below, self.above).eq(
                Mux(wide, flags, 0)
            ),
        ]
        low, high = shifted[:SEGMENT], shifted[SEGMENT:]
        # The complement now, and the missing 1 with the accumulator's addition.
        floats = [
            Mux(place3 == i, high, Mux(place3 == i + 1, low, 0))
            ^ Mux(marks.minus, (1 << SEGMENT) - 1, 0)
            for i in range(SEGMENTS)
        ]
        # A lower lane that is negative has borrowed from the upper one: carry_in gives it back.
        sign = Mux(pair1[-1], (1 << SEGMENT) - 1, 0)
        bytes_ = [low, high, _extend(pair1, SEGMENT), sign]
        nibbles = [
            _extend(part, SEGMENT) for pair in (low, pair1) for part in (pair[:12], pair[12:20])
        ]
        m.d.sync += [
            *(
                segment.eq(Mux(wide, floats[i], Mux(int8, bytes_[i], nibbles[i])))
                for i, segment in enumerate(addend)
            ),
            carry_in.eq(Mux(wide, marks.minus, Mux(int8, 0, Cat(0, low[11], 0, pair1[11])))),
        ]
        with m.If(wide):
            m.d.sync += flags.eq(
                Cat(
                    marks.nan,
                    marks.inf & ~marks.minus,
                    marks.inf & marks.minus,
                    marks.below | ((place3 == 0) & low.any()),
                    marks.above,
                )
            )
        return m
