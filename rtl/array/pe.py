"""The processing element: operand memory, multipliers, exact accumulator, drain."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import Mode
from .ports import SEGMENT, drain_layout, fill_layout, stream_layout
from .product import SEGMENTS, Product

__all__ = ["PE"]

_OPERAND = 2
"""Cycles from a weight to its operand: block RAM takes one to read and one for its output."""


class PE(wiring.Component):
    """Multiplies the weights that pass by resident operands, and sums exactly.

    A weight reads the operand word at its ring address: one FP16 or BF16 number, two INT8 or four
    INT4 numbers, each with a sum of its own (96, 48 or 24 bits). In all modes the accumulator is
    four segments of 24 bits, each with the carry out of its last addition saved, so that the loop
    is one short addition. What a product is, and what it adds, is told by `Product`.

    A visit's sums are on ``drain_o`` in the two cycles that come 9 and 10 cycles after that of its
    last weight on ``stream_i``; behind them passes, a cycle later, what comes in on ``drain_i``.
    Visits therefore end at least `CardConfig.min_visit` cycles apart.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
        Still from the first weight of a command to its last sums, as ``offset``.
    offset : ``In(signed(10))``
        `offset_of` the mode.
    stream_i, stream_o : weights, one PE to the right each cycle
    fill_i, fill_o : operands, one PE down each cycle
    drain_i, drain_o : sums, one PE to the left each cycle
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "mode": In(Mode),
                "offset": In(signed(10)),
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

        m.submodules.product = product = Product()
        w1, w2, x2 = (Signal(16, reset_less=True, name=name) for name in ("w1", "w2", "x2"))
        valid = Signal(_OPERAND)
        first = Signal(_OPERAND + Product.LATENCY, reset_less=True)
        last = Signal(_OPERAND + Product.LATENCY + 2)
        m.d.sync += [
            w1.eq(weight.value),
            w2.eq(w1),
            x2.eq(read.data),
            valid.eq(Cat(weight.valid, valid)),
            first.eq(Cat(weight.first, first)),
            last.eq(Cat(weight.valid & weight.last, last)),
        ]
        m.d.comb += [
            product.mode.eq(self.mode),
            product.offset.eq(self.offset),
            product.valid_i.eq(valid[-1]),
            product.w.eq(w2),
            product.x.eq(x2),
        ]
        segments, flags = self._accumulate(m, product, first[-1])
        self._drain(m, last[-2], last[-1], segments, flags)
        return m

    def _accumulate(self, m: Module, product: Product, first: Value) -> tuple[list[Signal], Signal]:
        """Add to the segments; return each with its saved carry on top, and the flags."""
        segments = [
            Signal(SEGMENT + 1, name=f"segment{i}", reset_less=True) for i in range(SEGMENTS)
        ]
        flags = Signal(5, reset_less=True)
        # Where a carry goes on into the next segment: not over the border of two sums.
        inner, middle = Signal(), Signal()
        m.d.comb += [
            inner.eq(self.mode != Mode.INT4),
            middle.eq((self.mode == Mode.FP16) | (self.mode == Mode.BF16)),
        ]
        with m.If(product.valid_o):
            for i, (segment, chained) in enumerate(
                zip(segments, (0, inner, middle, inner), strict=True)
            ):
                carry = segments[i - 1][-1] & chained & ~first
                total = Mux(first, 0, segment[:SEGMENT]) + product.addend[i]
                m.d.sync += segment.eq(total + (product.carry_in[i] | carry))
            marks = Cat(product.nan, product.inf_pos, product.inf_neg, product.below, product.above)
            m.d.sync += flags.eq(Mux(first, 0, flags) | marks)
        return segments, flags

    def _drain(
        self, m: Module, last: Value, pending: Value, segments: list[Signal], flags: Signal
    ) -> None:
        """Send the two beats, then whatever comes from the right."""
        layout = drain_layout()
        beats = []
        for half in (segments[:2], segments[2:]):
            beat = Signal(layout, name=f"beat{len(beats)}")
            m.d.comb += [beat.segment[i].eq(half[i][:SEGMENT]) for i in range(2)]
            m.d.comb += [beat.carry[i].eq(half[i][SEGMENT]) for i in range(2)]
            m.d.comb += [
                Cat(beat.nan, beat.inf_pos, beat.inf_neg, beat.below, beat.above).eq(flags),
                beat.valid.eq(1),
            ]
            beats.append(beat.as_value())
        # Only `valid` needs the reset, but a register of its own is slower to simulate.
        drain = Signal(layout.size)
        high = Signal(layout.size, reset_less=True)
        m.d.comb += self.drain_o.eq(drain)
        with m.If(last):
            m.d.sync += high.eq(beats[1])
        m.d.sync += drain.eq(Mux(last, beats[0], Mux(pending, high, self.drain_i)))
