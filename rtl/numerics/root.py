"""FP32 square roots, a bit a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import CANONICAL_NAN, FP32

__all__ = ["Fp32Root"]

_STEPS = 25
"""Bits of the root: 24, and one that rounds them."""


class Fp32Root(wiring.Component):
    """Takes the square root of an FP32 number: to nearest even, canonical NaN.

    A number that is subnormal counts as zero of its sign. One number at a time: its result comes
    ``LATENCY`` cycles after ``start``, and stays until the next one.

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
        # The significand, twice as large if the exponent (less 127) is odd; two bits a step.
        digits = Signal(26, reset_less=True)
        rest = Signal(_STEPS + 1, reset_less=True)
        root = Signal(_STEPS, reset_less=True)
        step = Signal(range(_STEPS + 1))
        wide, less = Signal(_STEPS + 3), Signal(_STEPS + 3)
        m.d.comb += [
            wide.eq(Cat(digits[-2:], rest)),
            less.eq(wide - Cat(Const(1, 2), root)),
        ]
        given = data.View(FP32, self.number)
        significand = Cat(given.fraction, Const(1, 1))
        with m.If(self.start):
            m.d.sync += [
                number.eq(self.number),
                digits.eq(
                    Mux(
                        given.exponent[0],
                        Cat(Const(0, 1), significand, Const(0, 1)),
                        Cat(Const(0, 2), significand),
                    )
                ),
                rest.eq(0),
                root.eq(0),
                step.eq(_STEPS),
            ]
        with m.Elif(step != 0):
            m.d.sync += [
                digits.eq(digits << 2),
                rest.eq(Mux(less[-1], wide, less)),
                root.eq(Cat(~less[-1], root)),
                step.eq(step - 1),
            ]

        # No root lies in the middle between two numbers, and none rounds up to a power of two.
        ended = Signal()
        m.d.sync += [ended.eq(step == 1), self.done.eq(ended)]
        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        zero = ~number.exponent.any()
        nan = number.exponent.all() & number.fraction.any()
        with m.If(ended):
            with m.If(zero):
                m.d.sync += result.eq(Cat(Const(0, 31), number.sign))
            with m.Elif(nan | number.sign):
                m.d.sync += result.eq(CANONICAL_NAN)
            with m.Elif(number.exponent.all()):
                m.d.sync += result.eq(number)
            with m.Else():
                fraction = (root[1:] + root[0])[:23]
                exponent = (number.exponent + 127)[1:]
                m.d.sync += result.eq(Cat(fraction, exponent))
        return m
