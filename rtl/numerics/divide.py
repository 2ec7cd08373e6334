"""FP32 reciprocals, a few bits a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .pipeline import CANONICAL_NAN, FP32

__all__ = ["Fp32Reciprocal"]

_STEPS = 13
"""Cycles of two quotient bits each: 24, and those that round them."""


class Fp32Reciprocal(wiring.Component):
    """Divides 1 by an FP32 number: to nearest even, canonical NaN.

    A number that is subnormal counts as zero of its sign, and so does a result. One number at a
    time: its result comes ``LATENCY`` cycles after ``start``, and stays until the next one.

    Members
    -------
    start : ``In(1)``
        Not before ``done`` of the number before.
    number : ``In(32)``
    done : ``Out(1)``
        Pulses in the first cycle of ``result``.
    result : ``Out(32)``
    """

    LATENCY = _STEPS + 2

    start: In(1)
    number: In(32)
    done: Out(1)
    result: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        number = Signal(FP32, reset_less=True)
        # Below the divisor, between two steps.
        rest = Signal(24, reset_less=True)
        quotient = Signal(2 * _STEPS, reset_less=True)
        step = Signal(range(_STEPS + 1))
        divisor = Cat(number.fraction, Const(1, 1))
        following, bits = rest, []
        for i in range(2):
            doubled, less = Signal(25, name=f"doubled{i}"), Signal(26, name=f"less{i}")
            after = Signal(24, name=f"rest{i}")
            m.d.comb += [
                doubled.eq(following << 1),
                less.eq(doubled - divisor),
                after.eq(Mux(less[-1], doubled, less)),
            ]
            bits.insert(0, ~less[-1])
            following = after
        with m.If(self.start):
            m.d.sync += [number.eq(self.number), rest.eq(1 << 23), step.eq(_STEPS)]
        with m.Elif(step != 0):
            m.d.sync += [
                rest.eq(following),
                quotient.eq(Cat(*bits, quotient)),
                step.eq(step - 1),
            ]

        # 2^49 / divisor: below 2^26, and above 2^25 unless the divisor is a power of two. There is
        # no quotient in the middle between two numbers.
        ended = Signal()
        m.d.sync += [ended.eq(step == 1), self.done.eq(ended)]
        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        power = ~number.fraction.any()
        exponent = Signal(9)
        m.d.comb += exponent.eq(Const(253, 8) - number.exponent + power)
        with m.If(ended):
            with m.If(number.exponent.all()):
                m.d.sync += result.eq(Mux(power, Cat(Const(0, 31), number.sign), CANONICAL_NAN))
            with m.Elif(~number.exponent.any()):
                m.d.sync += result.eq(Cat(Const(0, 23), Const(0xFF, 8), number.sign))
            with m.Elif(exponent[-1] | ~exponent.any()):
                m.d.sync += result.eq(Cat(Const(0, 31), number.sign))
            with m.Else():
                fraction = (quotient[2:] + quotient[1])[:23]
                m.d.sync += result.eq(Cat(Mux(power, 0, fraction), exponent[:8], number.sign))
        return m
