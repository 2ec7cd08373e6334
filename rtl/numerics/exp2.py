"""Powers of two of numbers that are not positive, by a table with straight lines between."""

from itertools import pairwise
from math import isqrt

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import CANONICAL_NAN, FP32, stage_enables

__all__ = ["Exp2"]

_INDEX = 8
"""Bits of the table's index, and of the place between two entries."""

_LOWEST = -126
"""Exponent of the smallest result."""


def _power(index: int) -> int:
    """Return ``2^(23 + index / 256)`` rounded to nearest."""
    doubled = 1 << (24 << _INDEX) + index
    for _ in range(_INDEX):
        doubled = isqrt(doubled)
    return (doubled + 1) >> 1


class Exp2(wiring.Component):
    """EXP2 as `RowsBody` defines it, of FP32 numbers of 0 or less, or NaN.

    One result a cycle, ``LATENCY`` cycles with ``ce`` high after its number.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    valid_i : ``In(1)``
    number : ``In(32)``
        A positive number has a result without meaning.
    valid_o : ``Out(1)``
    result : ``Out(32)``
        From 0 to 1, or the canonical NaN.
    """

    LATENCY = 5

    ce: In(1)
    valid_i: In(1)
    number: In(32)
    valid_o: Out(1)
    result: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)

        # In units of 2^-16 the magnitude is significand * 2^(exponent - 134). From 2^7 on the
        # result is 0.
        fields = data.View(FP32, self.number)
        normal = fields.exponent.any()
        significand1 = Signal(24, reset_less=True)
        shift1 = Signal(range(25), reset_less=True)
        zero1, nan1 = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(enable[0]):
            m.d.sync += [
                significand1.eq(Cat(fields.fraction, normal)),
                shift1.eq(Mux(fields.exponent < 110, 24, 134 - fields.exponent)),
                zero1.eq(fields.exponent >= 134),
                nan1.eq(fields.exponent.all() & fields.fraction.any()),
            ]

        # The number rounded down: what is cut off adds 1 to the magnitude. -(x + 1) is ~x.
        units2 = Signal(3 * _INDEX, reset_less=True)
        zero2, nan2 = Signal(reset_less=True), Signal(reset_less=True)
        wide = Signal(48)
        m.d.comb += wide.eq(Cat(Const(0, 24), significand1) >> shift1)
        with m.If(enable[1]):
            m.d.sync += [units2.eq(~wide[24:] + ~wide[:24].any()), zero2.eq(zero1), nan2.eq(nan1)]

        entry_layout = data.StructLayout({"power": unsigned(23), "rise": unsigned(16)})
        powers = [_power(index) for index in range((1 << _INDEX) + 1)]
        m.submodules.table = table = memory.Memory(
            shape=entry_layout,
            depth=1 << _INDEX,
            init=[
                {"power": power - (1 << 23), "rise": after - power}
                for power, after in pairwise(powers)
            ],
        )
        read = table.read_port()
        between3 = Signal(_INDEX, reset_less=True)
        exponent3 = Signal(8, reset_less=True)
        zero3, nan3 = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += [read.addr.eq(units2[_INDEX : 2 * _INDEX]), read.en.eq(enable[2])]
        exponent = units2[2 * _INDEX :].as_signed()
        with m.If(enable[2]):
            m.d.sync += [
                between3.eq(units2[:_INDEX]),
                exponent3.eq(exponent + 127),
                zero3.eq(zero2 | (exponent < Const(_LOWEST, signed(8)))),
                nan3.eq(nan2),
            ]

        power4, rise4 = Signal(23, reset_less=True), Signal(16 + _INDEX, reset_less=True)
        exponent4 = Signal(8, reset_less=True)
        zero4, nan4 = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(enable[3]):
            m.d.sync += [
                power4.eq(read.data.power),
                rise4.eq(read.data.rise * between3),
                exponent4.eq(exponent3),
                zero4.eq(zero3),
                nan4.eq(nan3),
            ]

        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        with m.If(enable[4]):
            with m.If(nan4):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(zero4):
                m.d.sync += result.eq(0)
            with m.Else():
                fraction = (power4 + rise4[_INDEX:])[:23]
                m.d.sync += result.eq(Cat(fraction, exponent4))
        return m
