"""Conversion of integers that FP32 holds exactly."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .pipeline import normalise, stage_enables

__all__ = ["IntegerToFp32"]

_SIGNIFICAND = 24


class IntegerToFp32(wiring.Component):
    """Converts integers of a magnitude below 2^24 to FP32: exactly. Zero becomes +0.

    One number a cycle, ``LATENCY`` cycles after its integer.

    Parameters
    ----------
    width : int
        Bits of the integer with its sign, at most 25. It is not the most negative of 25 bits.

    Members
    -------
    ce : ``In(1)``
        Low: the whole unit stands still.
    valid_i : ``In(1)``
    integer : ``In(signed(width))``
    valid_o : ``Out(1)``
    result : ``Out(32)``
    """

    LATENCY = 3

    def __init__(self, width: int) -> None:
        if not 2 <= width <= _SIGNIFICAND + 1:
            raise ValueError(f"width must be from 2 to {_SIGNIFICAND + 1}, not {width!r}")
        self._width = width
        super().__init__(
            {
                "ce": In(1),
                "valid_i": In(1),
                "integer": In(signed(width)),
                "valid_o": Out(1),
                "result": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = stage_enables(m, self.ce, self.valid_i, self.valid_o, self.LATENCY)
        # A narrow integer is as wide as it can be: its bits end at the top of a narrow significand.
        bits = min(self._width, _SIGNIFICAND)

        magnitude1, sign1 = Signal(bits, reset_less=True), Signal(reset_less=True)
        sign = self.integer[-1]
        with m.If(enable[0]):
            m.d.sync += [magnitude1.eq((self.integer ^ sign.replicate(len(self.integer))) + sign)]
            m.d.sync += sign1.eq(sign)

        coarse2, sign2 = Signal(bits, reset_less=True), Signal(reset_less=True)
        exponent2 = Signal(8, reset_less=True)
        distances = [distance for distance in (16, 8, 4) if distance < bits]
        if distances:
            coarse, _, shift = normalise(m, magnitude1, distances, "coarse")
        else:
            coarse, shift = magnitude1, Const(0)
        with m.If(enable[1]):
            m.d.sync += [coarse2.eq(coarse), sign2.eq(sign1), exponent2.eq(126 + bits - shift)]

        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        fine, _, shift = normalise(m, coarse2, [d for d in (2, 1) if d < bits], "fine")
        fraction = Cat(Const(0, _SIGNIFICAND - bits), fine[:-1])
        with m.If(enable[2]):
            m.d.sync += result.eq(Mux(fine[-1], Cat(fraction, (exponent2 - shift)[:8], sign2), 0))
        return m
