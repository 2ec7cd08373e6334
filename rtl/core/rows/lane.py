"""What becomes of one number of a row."""

from amaranth.hdl import Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...config import CardConfig
from ...isa import Format, RowsBody
from ...numerics.convert import NarrowFp32
from ...numerics.decode import DecodeFp32
from ...numerics.delay import delayed
from ...numerics.exp2 import Exp2
from ...numerics.fp32 import Fp32Add, Fp32Multiply
from .shape import shape_layout

__all__ = ["RowLane"]


class RowLane(wiring.Component):
    """Makes one result after the other, one a cycle:
    ``power((number + shift) * factor) * gain + offset`` in the output format, where ``power`` is
    EXP2 for SOFTMAX and otherwise nothing.

    The attributes say how many cycles with ``ce`` high after a number, or after ``power_o``, what
    else its result is made of must be there.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    ce : ``In(1)``
        Low: the whole lane stands still.
    command : ``In(RowsBody)``
    shape : ``In(shape_layout(config))``
    valid_i : ``In(1)``
    number : ``In(32)``
    bias : ``In(32)``
        Added to an integer.
    shift : ``In(32)``
        ``SHIFT`` cycles after the number.
    factor : ``In(32)``
        ``FACTOR`` cycles after the number.
    take : ``In(1)``
        ``POWER`` cycles after the number of SOFTMAX: whether its power is not 0.
    powered : ``Out(1)``
        Pulses with ``power``: ``POWER`` cycles after the number of SOFTMAX, otherwise ``PLAIN``.
    power : ``Out(32)``
    gain : ``In(32)``
        With ``power``.
    offset : ``In(32)``
        ``OFFSET`` cycles after ``power``.
    valid_o : ``Out(1)``
        ``RESULT`` cycles after ``power``.
    result : ``Out(32)``
        In the low bits.
    """

    SHIFT = DecodeFp32.LATENCY
    FACTOR = SHIFT + Fp32Add.LATENCY
    PLAIN = FACTOR + Fp32Multiply.LATENCY
    POWER = PLAIN + Exp2.LATENCY
    OFFSET = Fp32Multiply.LATENCY
    RESULT = OFFSET + Fp32Add.LATENCY + NarrowFp32.LATENCY

    def __init__(self, config: CardConfig) -> None:
        words = ("number", "bias", "shift", "factor", "gain", "offset")
        super().__init__(
            {
                "ce": In(1),
                "command": In(RowsBody),
                "shape": In(shape_layout(config)),
                "valid_i": In(1),
                "take": In(1),
                "powered": Out(1),
                "power": Out(32),
                "valid_o": Out(1),
                "result": Out(32),
            }
            | {name: In(32) for name in words}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, shape = self.command, self.shape
        m.submodules.decode = decode = DecodeFp32()
        m.submodules.add_shift = add_shift = Fp32Add()
        m.submodules.multiply = multiply = Fp32Multiply()
        m.submodules.exp2 = exp2 = Exp2()
        m.submodules.multiply_gain = multiply_gain = Fp32Multiply()
        m.submodules.add_offset = add_offset = Fp32Add()
        m.submodules.narrow = narrow = NarrowFp32()
        for unit in (decode, add_shift, multiply, exp2, multiply_gain, add_offset, narrow):
            m.d.comb += unit.ce.eq(self.ce)
        m.d.comb += [
            decode.format.eq(command.in_format),
            decode.zero.eq(command.in_zero),
            decode.valid_i.eq(self.valid_i),
            decode.number.eq(self.number),
            decode.bias.eq(self.bias),
            add_shift.valid_i.eq(decode.valid_o),
            add_shift.a.eq(decode.result),
            add_shift.b.eq(self.shift),
            multiply.valid_i.eq(add_shift.valid_o),
            multiply.a.eq(add_shift.result),
            multiply.b.eq(self.factor),
            exp2.valid_i.eq(multiply.valid_o & shape.softmax),
            exp2.number.eq(multiply.result),
            self.powered.eq(Mux(shape.softmax, exp2.valid_o, multiply.valid_o)),
            self.power.eq(
                Mux(shape.softmax, Mux(self.take, exp2.result, Const(0, 32)), multiply.result)
            ),
            multiply_gain.valid_i.eq(self.powered),
            multiply_gain.a.eq(self.power),
            multiply_gain.b.eq(self.gain),
            add_offset.valid_i.eq(multiply_gain.valid_o),
            add_offset.a.eq(multiply_gain.result),
            add_offset.b.eq(self.offset),
            narrow.valid_i.eq(add_offset.valid_o),
            narrow.number.eq(add_offset.result),
            narrow.format.eq(command.out_format),
            narrow.zero_point.eq(command.zero_point),
            narrow.clamp_low.eq(command.clamp_low),
            narrow.clamp_high.eq(command.clamp_high),
            self.valid_o.eq(narrow.valid_o),
        ]
        whole = delayed(m, self.ce, add_offset.result, NarrowFp32.LATENCY, "whole")
        fp32 = command.out_format == Format.FP32.value
        m.d.comb += self.result.eq(Mux(fp32, whole, narrow.result))
        return m
