"""The processing element: operand memory, multipliers, exact accumulator, drain."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from .ports import SEGMENT, drain_layout, fill_layout, stream_layout

__all__ = ["PE"]

_SEGMENTS = 4


def _delay(m: Module, value, cycles: int, name: str) -> Signal:
    """Return ``value`` as it was some cycles ago."""
    for i in range(1, cycles + 1):
        step = Signal(value.shape(), name=f"{name}_{i}")
        m.d.sync += step.eq(value)
        value = step
    return value


class PE(wiring.Component):
    """Multiplies the weights that pass by resident operands, and sums exactly.

    A weight reads the operand at its ring address. INT8 (``fp16`` low): the operand word holds two
    activations, low byte first; each has a sum of 48 bits. FP16: one 96-bit sum in units of 2^-48.
    Either way the accumulator is four segments of 24 bits, each with the carry out of its last
    addition saved, so that the loop is one short addition. Zero times anything adds nothing, even
    times an infinity or a NaN: skipped zeros never change a result.

    A weight is added 7 cycles after it left on ``stream_o``. Two cycles after its last weight was
    added, a visit's sums leave on ``drain_o``, in two beats; behind them passes what comes in on
    ``drain_i``. Visits therefore end at least `CardConfig.min_visit` cycles apart.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    fp16 : ``In(1)``
        Format; still while a tile runs.
    stream_i, stream_o : weights, one PE to the right each cycle
    fill_i, fill_o : operands, one PE down each cycle
    drain_i, drain_o : sums, one PE to the left each cycle
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "fp16": In(1),
                "stream_i": In(stream_layout(config)),
                "stream_o": Out(stream_layout(config)),
                "fill_i": In(fill_layout(config)),
                "fill_o": Out(fill_layout(config)),
                "drain_i": In(drain_layout()),
                "drain_o": Out(drain_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config

        m.submodules.operands = operands = Memory(
            shape=unsigned(16), depth=config.operand_depth, init=[]
        )
        write, read = operands.write_port(), operands.read_port()
        fill = Signal(fill_layout(config))
        weight = Signal(stream_layout(config))
        m.d.sync += [fill.eq(self.fill_i), weight.eq(self.stream_i)]
        m.d.comb += [
            self.fill_o.eq(fill),
            self.stream_o.eq(weight),
            write.en.eq(fill.valid),
            write.addr.eq(fill.address),
            write.data.eq(fill.value),
            read.en.eq(weight.valid),
            read.addr.eq(weight.address),
        ]

        # Block RAM takes one cycle to read and one for its output register.
        w1, w2, x2 = (Signal(16, reset_less=True, name=name) for name in ("w1", "w2", "x2"))
        m.d.sync += [w1.eq(weight.value), w2.eq(w1), x2.eq(read.data)]

        valid6 = _delay(m, weight.valid, 6, "valid")
        first6 = _delay(m, weight.first, 6, "first")
        last7 = _delay(m, weight.valid & weight.last, 7, "last")

        shifted, shift_segment, negative, specials, ints = self._multiply(m, w2, x2)
        addend = self._place(m, shifted, shift_segment, negative, ints)
        accumulator, carry, flags = self._accumulate(
            m, addend, valid6, first6, _delay(m, specials, 3, "specials")
        )

        # The two beats, then whatever comes from the right.
        pending = Signal()
        drain = Signal(drain_layout(), reset_less=True)
        high = Signal(drain_layout(), reset_less=True)
        drain_valid = Signal()
        m.d.comb += [self.drain_o.eq(drain), self.drain_o.valid.eq(drain_valid)]
        m.d.sync += pending.eq(last7)
        with m.If(last7):
            for half, beat in enumerate((drain, high)):
                for i in range(2):
                    m.d.sync += [
                        beat.segment[i].eq(accumulator[2 * half + i]),
                        beat.carry[i].eq(carry[2 * half + i]),
                    ]
                m.d.sync += Cat(beat.nan, beat.inf_pos, beat.inf_neg).eq(flags)
            m.d.sync += drain_valid.eq(1)
        with m.Elif(pending):
            m.d.sync += drain.eq(high)
        with m.Else():
            m.d.sync += [drain.eq(self.drain_i), drain_valid.eq(self.drain_i.valid)]
        return m

    def _multiply(self, m: Module, w: Signal, x: Signal):
        """Decode, multiply and shift by less than a segment: cycles 3 to 5.

        Returns the magnitude shifted by 0 to 23 (FP16), the segment it starts in, its sign, the
        special values as decoded (NaN, positive and negative infinity), and the two products
        (INT8), all but the special values in cycle 5.
        """
        half = data.StructLayout(
            {"fraction": unsigned(10), "exponent": unsigned(5), "sign": unsigned(1)}
        )
        fw, fx = data.View(half, w), data.View(half, x)
        a0, b0 = Signal(signed(12), reset_less=True), Signal(signed(12), reset_less=True)
        a1, b1 = Signal(signed(8), reset_less=True), Signal(signed(8), reset_less=True)
        shift = Signal(range(59), reset_less=True)
        minus = Signal(reset_less=True)
        specials = Signal(3, reset_less=True)  # NaN, +Inf, -Inf
        special_w, special_x = fw.exponent.all(), fx.exponent.all()
        zero = ~w[:15].any() | ~x[:15].any()
        sign = fw.sign ^ fx.sign
        nan = (special_w & fw.fraction.any()) | (special_x & fx.fraction.any())
        special = (special_w | special_x) & ~zero
        exponent_w = fw.exponent | ~fw.exponent.any()
        exponent_x = fx.exponent | ~fx.exponent.any()
        with m.If(self.fp16):
            m.d.sync += [
                a0.eq(Mux(special | zero, 0, Cat(fw.fraction, fw.exponent.any()))),
                b0.eq(Cat(fx.fraction, fx.exponent.any())),
                shift.eq(exponent_w + exponent_x - 2),
                minus.eq(sign),
                specials.eq(
                    Cat(special & nan, special & ~nan & ~sign, special & ~nan & sign),
                ),
            ]
        with m.Else():
            m.d.sync += [
                a0.eq(w[:8].as_signed()),
                b0.eq(x[:8].as_signed()),
                a1.eq(w[:8].as_signed()),
                b1.eq(x[8:].as_signed()),
                specials.eq(0),
            ]

        p0, p1 = Signal(signed(24), reset_less=True), Signal(signed(16), reset_less=True)
        fine, coarse = Signal(5, reset_less=True), Signal(2, reset_less=True)
        minus4 = Signal(reset_less=True)
        m.d.sync += [p0.eq(a0 * b0), p1.eq(a1 * b1), minus4.eq(minus)]
        with m.If(shift >= 2 * SEGMENT):
            m.d.sync += [fine.eq(shift - 2 * SEGMENT), coarse.eq(2)]
        with m.Elif(shift >= SEGMENT):
            m.d.sync += [fine.eq(shift - SEGMENT), coarse.eq(1)]
        with m.Else():
            m.d.sync += [fine.eq(shift), coarse.eq(0)]

        shifted = Signal(2 * SEGMENT, reset_less=True)
        coarse5, minus5 = Signal(2, reset_less=True), Signal(reset_less=True)
        i0, i1 = Signal(signed(16), reset_less=True), Signal(signed(16), reset_less=True)
        with m.If(self.fp16):
            m.d.sync += [shifted.eq(p0[:22] << fine), coarse5.eq(coarse), minus5.eq(minus4)]
        with m.Else():
            m.d.sync += [i0.eq(p0), i1.eq(p1)]
        return shifted, coarse5, minus5, specials, (i0, i1)

    def _place(self, m: Module, shifted, coarse, minus, ints):
        """Spread a product over the segments: cycle 6. Negative sums are complemented, so that
        the accumulator adds only the missing 1."""
        addend = [Signal(SEGMENT, name=f"addend{i}", reset_less=True) for i in range(_SEGMENTS)]
        plus_one = Signal(reset_less=True)
        low, high = shifted[:SEGMENT], shifted[SEGMENT:]
        with m.If(self.fp16):
            for i, segment in enumerate(addend):
                placed = Mux(coarse == i, low, Mux(coarse + 1 == i, high, 0))
                m.d.sync += segment.eq(placed ^ minus.replicate(SEGMENT))
            m.d.sync += plus_one.eq(minus)
        with m.Else():
            for lane, product in enumerate(ints):
                m.d.sync += [
                    addend[2 * lane].eq(product),
                    addend[2 * lane + 1].eq(product[-1].replicate(SEGMENT)),
                ]
            m.d.sync += plus_one.eq(0)
        return addend, plus_one

    def _accumulate(self, m: Module, addend, valid, first, specials):
        """Add to the segments: cycle 7."""
        addend, plus_one = addend
        accumulator = [
            Signal(SEGMENT, name=f"accumulator{i}", reset_less=True) for i in range(_SEGMENTS)
        ]
        carry = [Signal(name=f"carry{i}", reset_less=True) for i in range(_SEGMENTS)]
        flags = Signal(3, reset_less=True)
        with m.If(valid):
            for i in range(_SEGMENTS):
                if i == 0:
                    carry_in = plus_one
                elif i == 2:  # the border between the two INT8 sums
                    carry_in = carry[1] & ~first & self.fp16
                else:
                    carry_in = carry[i - 1] & ~first
                total = Mux(first, 0, accumulator[i]) + addend[i] + carry_in
                m.d.sync += Cat(accumulator[i], carry[i]).eq(total)
            m.d.sync += flags.eq(Mux(first, 0, flags) | specials)
        return accumulator, carry, flags
