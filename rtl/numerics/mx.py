"""Conversion of block-scaled numbers (the MX formats of OCP) to BF16."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Format
from .pipeline import shift_right, stage_enables

__all__ = ["MxToBf16"]

_NAN = 0x7FC0
_INFINITE = 0x7F80
_LOST = 9  # a significand of 8 bits that moves so far rounds to zero
_NO_SCALE = 255

# Bits of the fraction and of the exponent, and what the significand's lowest bit weighs with an
# exponent of 0.
_FLOATS = {Format.E4M3: (3, 4, -10), Format.E5M2: (2, 5, -17), Format.E2M1: (1, 2, -2)}
_INT8_WEIGHT = -6


class MxToBf16(wiring.Component):
    """Multiplies numbers by their common scale 2^(scale - 127), and rounds to BF16.

    To nearest even, with subnormal numbers; too large becomes infinite. A scale of 255 makes every
    number NaN; NaNs become 0x7FC0. An INT8 number counts in units of 2^-6.

    As many results a cycle, ``LATENCY`` cycles after their numbers.

    Parameters
    ----------
    lanes : int
        How many numbers share a scale.

    Members
    -------
    format : ``In(Format)``
        E4M3, E5M2, INT8 or E2M1. Stands still from the first number until the last result.
    valid_i : ``In(1)``
    numbers : ``In(ArrayLayout(8, lanes))``
        E2M1: in the low half of each.
    scale : ``In(8)``
    valid_o : ``Out(1)``
    results : ``Out(ArrayLayout(16, lanes))``
    """

    LATENCY = 5

    def __init__(self, lanes: int) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes!r}")
        self._lanes = lanes
        super().__init__(
            {
                "format": In(Format),
                "valid_i": In(1),
                "numbers": In(data.ArrayLayout(unsigned(8), lanes)),
                "scale": In(8),
                "valid_o": Out(1),
                "results": Out(data.ArrayLayout(unsigned(16), lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enables = stage_enables(m, Const(1), self.valid_i, self.valid_o, self.LATENCY)
        # What the scale adds to the field of a BF16 exponent, less 1.
        unit = Signal(signed(6))
        m.d.comb += unit.eq(_INT8_WEIGHT - 1)
        for form, (_, _, lowest) in _FLOATS.items():
            with m.If(self.format == form):
                m.d.comb += unit.eq(lowest - 1)
        weights = [Signal(signed(10), name=f"weight{i}", reset_less=True) for i in range(2)]
        no_number = Signal(4, reset_less=True)
        with m.If(enables[0]):
            m.d.sync += [
                weights[0].eq(self.scale + unit),
                no_number[0].eq(self.scale == _NO_SCALE),
            ]
        with m.If(enables[1]):
            m.d.sync += weights[1].eq(weights[0])
        for stage in (1, 2, 3):
            with m.If(enables[stage]):
                m.d.sync += no_number[stage].eq(no_number[stage - 1])
        for lane in range(self._lanes):
            self._elaborate_lane(m, lane, enables, weights[1], no_number[3])
        return m

    def _elaborate_lane(self, m: Module, lane: int, enables, weight, no_number) -> None:
        def register(shape, name):
            return Signal(shape, name=f"{name}_{lane}", reset_less=True)

        kind_layout = data.StructLayout({"sign": 1, "zero": 1, "infinite": 1, "nan": 1})
        kinds = [register(kind_layout, f"kind{i}") for i in range(4)]

        # Stage 1: an integer and a power of two.
        number = self.numbers[lane]
        sign = number[7]
        magnitude, power = register(8, "magnitude"), register(5, "power")
        with m.If(enables[0]):
            m.d.sync += [
                magnitude.eq((number ^ sign.replicate(8)) + sign),
                power.eq(0),
                kinds[0].eq(0),
                kinds[0].sign.eq(sign),
            ]
            for form, (fraction_bits, exponent_bits, _) in _FLOATS.items():
                fraction, rest = number[:fraction_bits], number[fraction_bits:]
                exponent = rest[:exponent_bits]
                with m.If(self.format == form):
                    m.d.sync += [
                        magnitude.eq(Cat(fraction, exponent.any())),
                        power.eq(Mux(exponent.any(), exponent, 1)),
                        kinds[0].sign.eq(rest[exponent_bits]),
                    ]
                    if form is Format.E4M3:
                        m.d.sync += kinds[0].nan.eq(number[:7].all())
                    elif form is Format.E5M2:
                        m.d.sync += [
                            kinds[0].infinite.eq(exponent.all() & ~fraction.any()),
                            kinds[0].nan.eq(exponent.all() & fraction.any()),
                        ]

        # Stage 2: a significand with its top bit set.
        lead = Signal(3, name=f"lead_{lane}")
        for bit in range(8):  # the last one that is set wins
            with m.If(magnitude[bit]):
                m.d.comb += lead.eq(bit)
        aligned, weighs = register(8, "aligned"), register(6, "weighs")
        with m.If(enables[1]):
            m.d.sync += [
                aligned.eq(magnitude << ~lead),  # 7 - lead
                weighs.eq(power + lead),
                kinds[1].eq(kinds[0]),
                kinds[1].zero.eq(~magnitude.any()),
            ]

        # Stage 3: scale. The exponent is the result's field, less 1.
        exponent, significand = register(signed(11), "exponent"), register(8, "significand")
        with m.If(enables[2]):
            m.d.sync += [
                exponent.eq(weight + weighs),
                significand.eq(aligned),
                kinds[2].eq(kinds[1]),
            ]

        # Stage 4: below 2^-126, move the significand to where bits weigh as in subnormal numbers.
        small = exponent[-1]
        further = Signal(10, name=f"further_{lane}")  # than by one bit
        amount = Signal(4, name=f"amount_{lane}")
        m.d.comb += further.eq(~exponent)
        with m.If(small):
            m.d.comb += amount.eq(Mux(further[3:].any(), _LOST, further[:3] + 1))
        shifted, half, below = shift_right(m, significand, amount, f"shifted_{lane}")
        moved = register(8, "moved")
        moved_half, moved_below = register(1, "half"), register(1, "below")
        field = register(8, "field")
        too_large = ~small & (exponent[8:].any() | exponent[1:8].all())
        with m.If(enables[3]):
            m.d.sync += [
                moved.eq(shifted),
                moved_half.eq(half),
                moved_below.eq(below),
                field.eq(Mux(small, 0, exponent)),
                kinds[3].eq(kinds[2]),
                kinds[3].infinite.eq(kinds[2].infinite | (too_large & ~kinds[2].zero)),
            ]

        # Stage 5: round. The hidden bit, or the carry of the rounding, adds 1 to the field.
        kind = kinds[3]
        up = moved_half & (moved_below | moved[0])
        result = Signal(15, name=f"result_{lane}")
        with m.If(kind.infinite):
            m.d.comb += result.eq(_INFINITE)
        with m.Elif(~kind.zero):
            m.d.comb += result.eq(Cat(Const(0, 7), field) + moved + up)
        with m.If(enables[4]):
            m.d.sync += self.results[lane].eq(
                Mux(kind.nan | no_number, _NAN, Cat(result, kind.sign))
            )
