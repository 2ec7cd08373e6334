"""Granules of block-scaled numbers to granules of BF16."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...config import GRANULE
from ...isa import Format
from ...numerics.mx import MxToBf16

__all__ = ["NUMBERS", "SCALE_GRANULES", "Expander"]

NUMBERS = GRANULE // 2
"""Numbers of BF16 in a granule."""

SCALE_GRANULES = GRANULE * 32 // NUMBERS
"""Granules of results whose scales lie in one granule."""


class Expander(wiring.Component):
    """Makes one granule of BF16 a cycle: eight numbers of a granule, times their scale.

    Members
    -------
    format : ``In(Format)``
        As `MxToBf16` says.
    place : ``In(6)``
        Which granule of results it is, of those whose scales are in ``scales``.
    numbers : ``In(128)``
        The granule that holds its numbers.
    scales : ``In(128)``
    numbers_last, scales_last : ``Out(1)``
        No later place needs ``numbers``, or ``scales``.
    take : ``In(1)``
    valid_o : ``Out(1)``
        ``LATENCY`` cycles after ``take``.
    granule : ``Out(128)``
    """

    LATENCY = 1 + MxToBf16.LATENCY

    format: In(Format)
    place: In(range(SCALE_GRANULES))
    numbers: In(8 * GRANULE)
    scales: In(8 * GRANULE)
    numbers_last: Out(1)
    scales_last: Out(1)
    take: In(1)
    valid_o: Out(1)
    granule: Out(8 * GRANULE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.convert = convert = MxToBf16(NUMBERS)
        narrow = Signal()
        m.d.comb += [
            narrow.eq(self.format == Format.E2M1),
            self.numbers_last.eq(Mux(narrow, self.place[:2].all(), self.place[0])),
            self.scales_last.eq(self.place.all()),
        ]
        bytes_ = self.numbers.word_select(self.place[0], 8 * NUMBERS)
        halves = self.numbers.word_select(self.place[:2], 4 * NUMBERS)
        numbers = Signal(8 * NUMBERS, reset_less=True)
        scale = Signal(8, reset_less=True)
        valid = Signal()
        m.d.sync += valid.eq(self.take)
        with m.If(self.take):
            spread = Cat(Cat(halves[4 * i : 4 * i + 4], Const(0, 4)) for i in range(NUMBERS))
            m.d.sync += [
                numbers.eq(Mux(narrow, spread, bytes_)),
                scale.eq(self.scales.word_select(self.place[2:], 8)),
            ]
        m.d.comb += [
            convert.format.eq(self.format),
            convert.valid_i.eq(valid),
            convert.numbers.as_value().eq(numbers),
            convert.scale.eq(scale),
            self.valid_o.eq(convert.valid_o),
            self.granule.eq(convert.results.as_value()),
        ]
        return m
