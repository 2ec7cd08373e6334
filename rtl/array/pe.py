"""The processing element: operand memory, multipliers, exact accumulator, drain."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import Mode
from ..tech.adder import SegmentAdder
from ..tech.ram import RegisteredRam
from ..tech.still import Still
from .ports import SEGMENT, drain_layout, factor_layout, operand_layout, pick_layout
from .prepare import OPERAND
from .product import SEGMENTS, Product

__all__ = ["PE"]


class PE(wiring.Component):
    """Multiplies the weights that pass by resident operands, and sums exactly.

    A weight reads the operand word at its ring address: one FP16 or BF16 number, two INT8 or four
    INT4 numbers, each with a sum of its own (96, 48 or 24 bits). In all modes the accumulator is
    four segments of 24 bits, each with the carry out of its last addition saved, so that the loop
    is one short addition. What a product is, and what it adds, is told by `Product`.

    A visit's sums are on ``drain_o`` in the two cycles that come 8 and 9 cycles after that of its
    last weight on ``factor_i``; in between them, and behind, passes what comes in on ``drain_i``,
    a cycle later. Nothing may come in that leaves in the same cycle.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
        Still from the cycle before a command's first weight to its last sums.
    pick_i, pick_o : for each weight the ring address of its operand, one PE to the right each cycle
    factor_i, factor_o : the weights, `PrepareWeight.LATENCY` cycles later, one PE to the right
    fill_i, fill_o : operands, one PE down each cycle
    drain_i, drain_o : sums, one PE to the left each cycle
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "mode": In(Mode),
                "pick_i": In(pick_layout(config)),
                "pick_o": Out(pick_layout(config)),
                "factor_i": In(factor_layout()),
                "factor_o": Out(factor_layout()),
                "fill_i": In(operand_layout(config)),
                "fill_o": Out(operand_layout(config)),
                "drain_i": In(drain_layout()),
                "drain_o": Out(drain_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config

        m.submodules.mode = mode = Still(len(self.mode.as_value()))
        self._mode = Signal(Mode)
        m.d.comb += [mode.value.eq(self.mode.as_value()), self._mode.eq(mode.near)]
        m.submodules.operands = operands = RegisteredRam(OPERAND, config.operand_depth)
        fill = Signal(operand_layout(config))
        pick = Signal(pick_layout(config))
        factor = Signal(factor_layout())
        m.d.sync += [fill.eq(self.fill_i), pick.eq(self.pick_i), factor.eq(self.factor_i)]
        m.d.comb += [
            self.fill_o.eq(fill),
            self.pick_o.eq(pick),
            self.factor_o.eq(factor),
            operands.write.eq(fill.valid),
            operands.write_address.eq(fill.address),
            operands.write_data.eq(fill.value),
            operands.read.eq(pick.valid),
            operands.read_address.eq(pick.address),
        ]

        m.submodules.product = product = Product()
        first = Signal(Product.LATENCY, reset_less=True)
        last = Signal(Product.LATENCY + 1)
        m.d.sync += [
            first.eq(Cat(factor.first, first)),
            last.eq(Cat(factor.valid & factor.last, last)),
        ]
        m.d.comb += [
            product.mode.eq(self._mode),
            product.valid_i.eq(factor.valid),
            product.w.eq(factor.weight),
            product.x.eq(operands.data),
        ]
        segments, flags = self._accumulate(m, product, first)
        self._drain(m, last[-1], segments, flags)
        return m

    def _accumulate(
        self, m: Module, product: Product, first: Signal
    ) -> tuple[list[Signal], Signal]:
        """Add to the segments; return each with its saved carry on top, and the flags.

        ``first``: a product is the first of its sum, in each of the cycles in ``product``.
        """
        segments = [
            Signal(SEGMENT + 1, name=f"segment{i}", reset_less=True) for i in range(SEGMENTS)
        ]
        flags = Signal(5, reset_less=True)
        # Where a carry does not go on into the next segment: at the first product, and over the
        # border of two sums.
        apart = Signal(2, reset_less=True)
        floats = (self._mode == Mode.FP16) | (self._mode == Mode.BF16)
        m.d.sync += apart.eq(Cat(self._mode == Mode.INT4, ~floats) | first[-2].replicate(2))
        adders = [SegmentAdder(SEGMENT) for _ in segments]
        for i, adder in enumerate(adders):
            m.submodules[f"adder{i}"] = adder
            m.d.comb += [
                adder.total.eq(segments[i][:SEGMENT]),
                adder.addend.eq(product.addend[i]),
                adder.first.eq(first[-1]),
                adder.carry_in.eq(product.carry_in[i]),
            ]
            if i:
                below = segments[i - 1][-1]
                m.d.comb += [adder.carry_below.eq(below), adder.apart.eq(apart[i % 2 == 0])]
        with m.If(product.valid_o):
            for adder, segment in zip(adders, segments, strict=True):
                m.d.sync += segment.eq(adder.sum)
            marks = Cat(product.nan, product.inf_pos, product.inf_neg, product.below, product.above)
            m.d.sync += flags.eq(Mux(first[-1], 0, flags) | marks)
        return segments, flags

    def _drain(self, m: Module, last: Value, segments: list[Signal], flags: Signal) -> None:
        """Send the two beats, and pass on what comes from the right."""
        layout = drain_layout()
        beats = []
        for low in (0, 2):
            beat = Signal(layout, name=f"beat{low // 2}")
            for i in range(2):
                m.d.comb += [
                    beat.segment[i].eq(segments[low + i][:SEGMENT]),
                    beat.carry[i].eq(segments[low + i][SEGMENT]),
                ]
            m.d.comb += [
                Cat(beat.nan, beat.inf_pos, beat.inf_neg, beat.below, beat.above).eq(flags),
                beat.valid.eq(1),
            ]
            beats.append(beat.as_value())
        # Only `valid` needs the reset, but a register of its own is slower to simulate. What is
        # not sent is 0, so that the second beat needs no choice.
        drain, high = Signal(layout.size), Signal(layout.size)
        m.d.comb += self.drain_o.eq(drain)
        m.d.sync += [
            high.eq(Mux(last, beats[1], 0)),
            drain.eq(Mux(last, beats[0], high | self.drain_i.as_value())),
        ]
