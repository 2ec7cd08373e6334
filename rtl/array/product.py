"""What one PE multiplies: factors, product, and its place over the accumulator's segments."""

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Mode
from ..tech.choose import Choose4
from ..tech.multiply import Multiply
from ..tech.still import Still
from .ports import SEGMENT
from .prepare import OPERAND, weight_layout

__all__ = ["SEGMENTS", "Product", "offset_of"]

SEGMENTS = 4
"""Segments of an accumulator."""

_BYTES = 12
"""Bytes of an accumulator; a product's four lie from three bytes below it on."""

_INT8_BYTES = {6: 0, 7: 1}
_INT4_BYTES = {3: 1, 6: 0, 9: 1}
"""Bytes of an accumulator that take other bytes than those of a float: which of its product."""

_BOTTOM = 3
"""Bytes of a product that may lie below the accumulator."""

_TOP = 21
"""Highest place of a product in the window, where the two significands have not been shifted."""

_WORD = data.StructLayout({"word": OPERAND, "lowest": 3, "fine": 2, "special": 1})
"""An operand; with the low bits and the shift of its significand, and whether it is special."""

_EARLY = data.StructLayout({"over0": 1, "over4": 1, "special": 1, "nan": 1, "zero": 1, "minus": 1})
"""What is known of a product of floats at first: about how far significands are shifted, and of
special values."""

_PLACE = data.StructLayout({"half": 1, "turn": 2, "taken": _BYTES, "filled": _BYTES})
"""Where a product lies: whether it is shifted by four bits, how many bytes it is turned by, which
bytes of the accumulator are its own, and which are copies of its sign."""

_MARKS = data.StructLayout({"nan": 1, "inf": 1, "minus": 1, "below": 1, "above": 1, "cut": _BOTTOM})
"""What is known of a product of floats beside its value; with the bytes below the accumulator that
may be its own."""


def offset_of(mode: Mode, anchor: int = 0) -> int:
    """Return the `Grid.offset` of a mode; 0 for integers.

    Parameters
    ----------
    mode : Mode
    anchor : int
        `MatmulBody.anchor`, for `Mode.BF16`.
    """
    return {Mode.FP16: -22, Mode.BF16: 244 + anchor}.get(mode, 0)


def _copies(bit: Value, count: int) -> Value:
    """Return copies of a bit.

    As a choice between two constants: Verilator makes long code of many copies of one bit.
    """
    return Mux(bit, Const((1 << count) - 1, count), Const(0, count))


def _mask(bits: Iterable[int]) -> int:
    return sum(1 << bit for bit in bits)


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

    Outputs belong to the weights `LATENCY` cycles earlier, and are void where ``valid_o`` is low.

    Members
    -------
    mode : ``In(Mode)``
        Still from a cycle before the first operand on, while products are on their way.
    valid_i, valid_o : ``In(1)``, ``Out(1)``
    w : ``In(weight_layout)``
    x : ``In(18)``
        An operand word from `PrepareOperand`, a cycle before its weight.
    addend : ``Out(24).array(4)``
    carry_in : ``Out(4)``
    nan, inf_pos, inf_neg : ``Out(1)``
        The product is NaN; it is an infinity, or above the window.
    below, above : ``Out(1)``
        Bits other than zero were cut off; the product is above the window.
    """

    LATENCY = 2 + Multiply.LATENCY

    mode: In(Mode)
    valid_i: In(1)
    w: In(weight_layout())
    x: In(OPERAND)
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
        self._wide, self._bf16 = Signal(), Signal()
        self._int8, self._int4 = Signal(), Signal()
        valid = Signal(self.LATENCY)
        m.submodules.modes = modes = Still(4)
        m.d.comb += [
            modes.value.eq(
                Cat(
                    (self.mode == Mode.FP16) | (self.mode == Mode.BF16),
                    self.mode == Mode.BF16,
                    self.mode == Mode.INT8,
                    self.mode == Mode.INT4,
                )
            ),
            Cat(self._wide, self._bf16, self._int8, self._int4).eq(modes.near),
            self.valid_o.eq(valid[-1]),
        ]
        m.d.sync += valid.eq(Cat(self.valid_i, valid))
        # Cycle 0, before the weight's: what is made of the operand word by the mode alone.
        self._x = Signal(_WORD, reset_less=True)
        m.d.sync += self._x.eq(
            Cat(
                self.x,
                Mux(self._bf16, 0, self.x[:3]),
                Mux(self._wide, self.x[12:14], 0),
                self._wide & self.x[17],
            )
        )
        p0, p1 = self._multiply(m)
        place, marks = self._place(m)
        self._spread(m, p0, p1, place, marks)
        return m

    def _multiply(self, m: Module) -> tuple[Signal, Signal]:
        """Return the products, `Multiply.LATENCY` cycles later: of a float, or of lanes 0 and 1,
        and of lanes 2 and 3."""
        x, int4 = self._x.word, self._int4
        # Cycle 1: the exponent's low bits shift a significand up.
        m.submodules.fine = fine = Choose4(15)
        significand = Signal(signed(12))
        m.d.comb += [
            significand.eq(Cat(self._x.lowest, x[3:12])),
            fine.index.eq(self._x.fine),
            *(word.eq(significand << i) for i, word in enumerate(fine.words)),
        ]
        m.submodules.first = first = Multiply(15, 15, 30)
        m.submodules.second = second = Multiply(15, 13, 16)
        shifted = fine.chosen
        # Of integers, bits 0 to 3 and 8 to 11 have not been shifted.
        middle = Mux(int4, _copies(x[3], 4), shifted[4:8])
        upper = Mux(self._int8, _copies(x[7], 4), shifted[8:12])
        high = Mux(self._wide, shifted[12:], _copies(Mux(int4, x[16], x[7]), 3))
        m.d.comb += [
            first.a.eq(self.w.factor),
            second.a.eq(self.w.factor),
            first.b.eq(Cat(shifted[:4], middle, upper, high)),
            second.b.eq(
                Cat(
                    x[12:16],
                    Mux(int4, _copies(x[15], 4), x[8:12]),
                    Mux(int4, Cat(x[4:8], x[17]), _copies(x[11], 5)),
                )
            ),
        ]
        return first.p, second.p

    def _place(self, m: Module) -> tuple[Signal, Signal]:
        """Return where a product belongs, and its marks, when it leaves the multiplier."""
        w, x, wide = self.w, self._x.word, self._wide
        # Cycle 1: add the exponents. Integers lie at the bottom of the accumulator.
        exponent = Cat(x[14:17], Mux(self._bf16, x[:3], 0))
        place, early = Signal(signed(8), reset_less=True), Signal(_EARLY, reset_less=True)
        rest = Signal(3)
        m.d.comb += rest.eq(w.fine + x[12:14])
        w_special, x_special = w.special, self._x.special
        m.d.sync += [
            place.eq(Mux(wide, w.coarse + exponent, 2 * _BOTTOM)),
            early.eq(
                Cat(
                    rest > 0,
                    rest > 4,
                    w_special | x_special,
                    (w_special & w.factor[0]) | (x_special & x[0]),
                    (w_special & (w.factor[:2] == 2)) | (x_special & (x[:2] == 2)),
                    w.factor[-1] ^ x[11],
                )
            ),
        ]

        # Cycle 2: is it in the window?
        byte, nowhere = Signal(5, reset_less=True), Signal(reset_less=True)
        marks = Signal(5, reset_less=True)
        below, above = place[-1], Signal()
        # A table instead of a comparison: it needs no carry chain.
        low, beyond = place[:5], Const(sum(1 << i for i in range(_TOP + 1, 32)), 32)
        m.d.comb += above.eq(
            ~below
            & (
                place[5:-1].any()
                | beyond.bit_select(low, 1)
                | ((low == _TOP) & early.over0)
                | ((low == _TOP - 1) & early.over4)
            )
        )
        m.d.sync += [byte.eq(place), nowhere.eq(early.special | below | above)]
        with m.If(wide):
            m.d.sync += marks.eq(
                Cat(
                    early.nan & ~early.zero,
                    ~early.zero & Mux(early.special, ~early.nan, above),
                    early.minus,
                    ~early.special & below,
                    ~early.special & above,
                )
            )

        # Cycle 3: what becomes of each byte. In INT4 there is more than one product.
        placed, marked = Signal(_PLACE, reset_less=True), Signal(_MARKS, reset_less=True)
        taken, filled, cut = Signal(_BYTES), Signal(_BYTES), Signal(_BOTTOM)
        int4, at = self._int4, byte[1:]
        m.d.comb += [
            taken.eq(Mux(nowhere, 0, (Const(0xF, 4) << at)[_BOTTOM:])),
            filled.eq(Mux(nowhere, 0, Const(0xFFE, 12) << at)),
            cut.eq(Mux(nowhere | (at > 2), 0, Const(7, 3) << at[:2])),
        ]
        m.d.sync += [
            placed.eq(Cat(byte[:3], Mux(int4, 1, taken), Mux(int4, 0xFFF, filled))),
            marked.eq(Cat(marks, cut)),
        ]
        return placed, marked

    def _spread(self, m: Module, p0: Signal, p1: Signal, place: Signal, marks: Signal) -> None:
        """Turn the product's bytes to their places, and put them there."""
        wide, int8, int4 = self._wide, self._int8, self._int4
        # Cycle 4: byte i of the product goes to those of the accumulator that are `turn` above
        # it, but for multiples of 4, counted from the bottom on.
        m.submodules.turn = turned = Choose4(32)
        word = Signal(32)
        m.d.comb += [
            word.eq(Mux(place.half, p0[:28] << 4, p0)),
            turned.index.eq(place.turn),
            *(
                choice.eq(word.rotate_left(8 * (i - _BOTTOM)))
                for i, choice in enumerate(turned.words)
            ),
        ]
        bytes_, pair1 = Signal(32, reset_less=True), Signal(16, reset_less=True)
        # For each byte: it is a product's; it is a copy of a 1, or of the other byte of two.
        own, other = Signal(_BYTES, reset_less=True), Signal(_BYTES, reset_less=True)
        minus, marks4 = Signal(reset_less=True), Signal(_MARKS, reset_less=True)
        others, signs = Signal(_BYTES), Signal(_BYTES)
        sign = p0[-1]
        m.d.comb += [
            others.eq(Mux(int8, _mask(_INT8_BYTES), Mux(int4, _mask(_INT4_BYTES), 0))),
            signs.eq(_copies(sign, _BYTES)),
        ]
        with m.If(int8):
            m.d.comb += signs.eq(Cat(_copies(sign, 6), _copies(p1[15], 6)))
        with m.If(int4):
            lanes = (p0[7], p0[15], p1[7], p1[15])
            m.d.comb += signs.eq(Cat(_copies(lane, 3) for lane in lanes))
        m.d.sync += [
            bytes_.eq(turned.chosen),
            pair1.eq(p1),
            minus.eq(sign),
            own.eq(place.taken | others),
            other.eq((place.filled & signs) | others),
            marks4.eq(marks),
        ]

        # Cycle 5: each byte of the accumulator is a copy of a sign, or a byte of a product.
        addend = [Signal(SEGMENT, name=f"addend{i}", reset_less=True) for i in range(SEGMENTS)]
        carry_in = Signal(SEGMENTS, reset_less=True)
        flags = Signal(5, reset_less=True)
        placed = []
        for k in range(_BYTES):
            byte = bytes_.word_select(k % 4, 8)
            if k in _INT8_BYTES:
                byte = Mux(other[k], pair1.word_select(_INT8_BYTES[k], 8), byte)
            elif k in _INT4_BYTES:
                source = bytes_ if k < 6 else pair1
                byte = Mux(other[k], source.word_select(_INT4_BYTES[k], 8), byte)
            placed.append(Mux(own[k], byte, _copies(other[k], 8)))
        # What is cut off a negative number would make it larger: magnitudes are truncated.
        lost = Signal()
        m.d.comb += lost.eq(
            Cat(marks4.cut[i] & bytes_.word_select(i + 1, 8).any() for i in range(_BOTTOM)).any()
        )
        m.d.sync += [
            *(segment.eq(Cat(placed[3 * i : 3 * i + 3])) for i, segment in enumerate(addend)),
            # A lower lane that is negative has borrowed from the upper one: it is given back.
            carry_in.eq(Mux(int4, Cat(0, bytes_[7], 0, pair1[7]), lost & minus)),
        ]
        with m.If(wide):
            m.d.sync += flags.eq(
                Cat(
                    marks4.nan,
                    marks4.inf & ~marks4.minus,
                    marks4.inf & marks4.minus,
                    marks4.below | lost,
                    marks4.above,
                )
            )
        m.d.comb += [
            *(self.addend[i].eq(segment) for i, segment in enumerate(addend)),
            self.carry_in.eq(carry_in),
            Cat(self.nan, self.inf_pos, self.inf_neg, self.below, self.above).eq(
                Mux(wide, flags, 0)
            ),
        ]
