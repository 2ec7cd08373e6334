"""What is worked out once a row: divisions, roots and the products around them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import CardConfig
from ...isa import RowsBody, RowsFlag
from ...numerics.divide import Fp32Reciprocal
from ...numerics.fp32 import Fp32Add, Fp32Multiply
from ...numerics.pipeline import CANONICAL_NAN, pack_rounded
from ...numerics.root import Fp32Root
from .shape import shape_layout
from .statistics import moments_layout

__all__ = ["RowScalars", "factors_layout", "job_layout"]

_WIDE = 64
_SIGN = 1 << 31


def job_layout() -> data.UnionLayout:
    """Layout of what a row's scalars are made of.

    ``largest``: of QUANTIZE. ``moments``: of NORMALIZE. ``powers``: of SOFTMAX, the sum in units of
    2^-32, and whether it is none.
    """
    return data.UnionLayout(
        {
            "largest": unsigned(32),
            "moments": moments_layout(),
            "powers": data.StructLayout({"sum": unsigned(49), "nan": unsigned(1)}),
        }
    )


def factors_layout() -> data.StructLayout:
    """Layout of what a row's numbers are worked on with, in FP32: ``shift``, that is added, and
    ``factor``."""
    return data.StructLayout({"shift": unsigned(32), "factor": unsigned(32)})


class RowScalars(wiring.Component):
    """Works out the scalars of one row after the other.

    QUANTIZE: the factor and the scale. NORMALIZE: the shift and the factor. SOFTMAX: the factor, or
    with DEFER the scale.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(RowsBody)``
    shape : ``In(shape_layout(config))``
    job : ``In(stream)``
        `job_layout`.
    found : ``Out(1)``
        Pulses with ``factors``.
    factors : ``Out(factors_layout())``
    scaled : ``Out(1)``
        Pulses with ``scale``.
    scale : ``Out(32)``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "command": In(RowsBody),
                "shape": In(shape_layout(config)),
                "job": In(stream.Signature(job_layout())),
                "found": Out(1),
                "factors": Out(factors_layout()),
                "scaled": Out(1),
                "scale": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        body, shape, job = self.command, self.shape, self.job.payload
        m.submodules.multiply = multiply = Fp32Multiply()
        m.submodules.add = add = Fp32Add()
        m.submodules.reciprocal = reciprocal = Fp32Reciprocal()
        m.submodules.root = root = Fp32Root()
        m.d.comb += [multiply.ce.eq(1), add.ce.eq(1)]
        convert = _Convert()
        m.submodules.convert = convert

        moments = Signal(moments_layout(), reset_less=True)
        nan = Signal(reset_less=True)
        value = Signal(32, reset_less=True)
        shift, factor = Signal(32, reset_less=True), Signal(32, reset_less=True)
        power = Cat(Const(0, 23), (moments.exponent - 15)[:8], Const(0, 1))
        m.d.comb += [self.factors.shift.eq(shift), self.factors.factor.eq(factor)]
        m.d.sync += self.found.eq(0)

        # A scale's product goes out by itself: the next product is further away than its result.
        to_scale = Signal()
        m.d.comb += [self.scaled.eq(multiply.valid_o & to_scale), self.scale.eq(multiply.result)]
        with m.If(multiply.valid_o):
            m.d.sync += to_scale.eq(0)

        first_size = Signal(33)
        negative = moments.first[-1]
        m.d.comb += first_size.eq((moments.first ^ negative.replicate(33)) + negative)
        m.submodules.variance = variance = _Variance()
        m.d.comb += [
            variance.length.eq(body.length),
            variance.first.eq(first_size),
            variance.second.eq(moments.second),
        ]

        def times(other) -> None:
            m.d.comb += [multiply.valid_i.eq(1), multiply.a.eq(value), multiply.b.eq(other)]

        def wait(name: str, ready, result, following: str) -> None:
            with m.State(name):
                with m.If(ready):
                    m.d.sync += value.eq(result)
                    m.next = following

        def product(name: str, other, following: str) -> None:
            with m.State(name):
                times(other)
                m.next = f"{name} ready"
            wait(f"{name} ready", multiply.valid_o, multiply.result, following)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += moments.eq(job.moments)
                with m.If(self.job.valid):
                    with m.If(shape.quantize):
                        m.d.sync += value.eq(job.largest)
                        m.next = "Largest"
                    with m.Elif(shape.softmax):
                        m.d.sync += nan.eq(job.powers.nan)
                        m.d.comb += [
                            convert.start.eq(1),
                            convert.number.eq(Cat(Const(0, _WIDE - 49), job.powers.sum)),
                            convert.top.eq(127 + 48 - 32),
                        ]
                        m.next = "Sum"
                    with m.Else():
                        m.d.sync += nan.eq(job.moments.exponent.all())
                        with m.If((body.flags & RowsFlag.RMS).any()):
                            m.d.sync += moments.first.eq(0)
                        m.next = "Moments"

            # QUANTIZE: s = m * b, at least 2^-126.
            product("Largest", body.b_scale, "Step")
            with m.State("Step"):
                with m.If(~value[23:31].any()):
                    m.d.sync += value.eq(1 << 23)
                m.next = "Divide"

            # SOFTMAX.
            wait("Sum", convert.done, Mux(nan, CANONICAL_NAN, convert.result), "Divide")

            # Divide: r, and beside it s * c.
            with m.State("Divide"):
                m.d.comb += [reciprocal.start.eq(1), reciprocal.number.eq(value)]
                with m.If(shape.quantize):
                    times(body.c_scale)
                    m.d.sync += to_scale.eq(1)
                m.next = "Divided"
            with m.State("Divided"):
                with m.If(reciprocal.done):
                    m.d.sync += [value.eq(reciprocal.result), factor.eq(reciprocal.result)]
                    with m.If(shape.softmax):
                        m.next = "Scale"
                    with m.Else():
                        m.d.sync += self.found.eq(1)
                        m.next = "Idle"
            with m.State("Scale"):
                with m.If(shape.defer):
                    times(body.c_scale)
                    m.d.sync += to_scale.eq(1)
                    m.next = "Idle"
                with m.Else():
                    times(body.b_scale)
                    m.next = "Factor"
            with m.State("Factor"):
                with m.If(multiply.valid_o):
                    m.d.sync += [factor.eq(multiply.result), self.found.eq(1)]
                    m.next = "Idle"

            # NORMALIZE: the mean while the variance is worked out, then the root.
            with m.State("Moments"):
                m.d.comb += [
                    variance.start.eq(1),
                    convert.start.eq(1),
                    convert.number.eq(Cat(Const(0, _WIDE - 33), first_size)),
                    convert.top.eq(127 + 32),
                ]
                m.next = "Mean"
            wait("Mean", convert.done, convert.result | Cat(Const(0, 31), negative), "Mean c")
            product("Mean c", body.c_scale, "Mean power")
            product("Mean power", power, "Variance")
            with m.State("Variance"):
                with m.If(variance.done):
                    m.d.sync += shift.eq(value ^ _SIGN)
                    m.d.comb += [
                        convert.start.eq(1),
                        convert.number.eq(variance.result),
                        convert.top.eq(127 + 63),
                    ]
                    m.next = "Square"
            wait("Square", convert.done, convert.result, "Square c")
            product("Square c", body.c_scale, "Square c again")
            product("Square c again", body.c_scale, "Square power")
            product("Square power", power, "Square power again")
            product("Square power again", power, "Epsilon")
            with m.State("Epsilon"):
                m.d.comb += [add.valid_i.eq(1), add.a.eq(value), add.b.eq(body.epsilon)]
                m.next = "Epsilon ready"
            wait("Epsilon ready", add.valid_o, Mux(nan, CANONICAL_NAN, add.result), "Root")
            with m.State("Root"):
                m.d.comb += [root.start.eq(1), root.number.eq(value)]
                m.next = "Root ready"
            wait("Root ready", root.done, root.result, "Divide")
        return m


class _Convert(wiring.Component):
    """Rounds an integer of 64 bits to FP32, to nearest even: a few bits a cycle.

    Members
    -------
    start : ``In(1)``
    number : ``In(64)``
    top : ``In(8)``
        Biased exponent of its highest bit. That of a result is never below 1, or too large.
    done : ``Out(1)``
        Pulses in the first cycle of ``result``, which stays until the next ``start``.
    result : ``Out(32)``
        Zero becomes +0.
    """

    start: In(1)
    number: In(_WIDE)
    top: In(8)
    done: Out(1)
    result: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rest, exponent = Signal(_WIDE, reset_less=True), Signal(8, reset_less=True)
        busy = Signal()
        m.d.sync += self.done.eq(0)
        result = Signal(32, reset_less=True)
        m.d.comb += self.result.eq(result)
        with m.If(self.start):
            m.d.sync += [rest.eq(self.number), exponent.eq(self.top), busy.eq(1)]
        with m.Elif(busy):
            with m.If(rest[-1] | ~rest.any()):
                rounded = pack_rounded(exponent, rest[-24:], rest[-25], rest[:-25].any())
                m.d.sync += [
                    result.eq(Mux(rest[-1], rounded[:31], 0)),
                    self.done.eq(1),
                    busy.eq(0),
                ]
            for distance in (16, 4, 1):
                with m.Elif(~rest[-distance:].any()):
                    m.d.sync += [rest.eq(rest << distance), exponent.eq(exponent - distance)]
        return m


class _Variance(wiring.Component):
    """Works out ``length * second - first * first``, a bit of a factor a cycle.

    Members
    -------
    start : ``In(1)``
    length : ``In(16)``
        This and the next two stand still until ``done``.
    first : ``In(33)``
    second : ``In(48)``
    done : ``Out(1)``
        High from the last cycle on until the next ``start``.
    result : ``Out(64)``
        Never negative.
    """

    start: In(1)
    length: In(16)
    first: In(33)
    second: In(48)
    done: Out(1)
    result: Out(_WIDE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(_WIDE, reset_less=True)
        moved = Signal(_WIDE, reset_less=True)  # one factor, as the other's bits go by
        bits = Signal(33, reset_less=True)
        square = Signal(reset_less=True)
        idle = Signal(init=1)
        part = Mux(bits[0], moved, 0)
        m.d.comb += [self.done.eq(idle), self.result.eq(total)]
        with m.If(self.start):
            m.d.sync += [
                total.eq(0),
                moved.eq(self.second),
                bits.eq(self.length),
                square.eq(0),
                idle.eq(0),
            ]
        with m.Elif(~idle):
            m.d.sync += [
                total.eq(Mux(square, total - part, total + part)),
                moved.eq(moved << 1),
                bits.eq(bits >> 1),
            ]
            with m.If(~bits[1:].any()):
                with m.If(square):
                    m.d.sync += idle.eq(1)
                with m.Else():
                    m.d.sync += [square.eq(1), moved.eq(self.first), bits.eq(self.first)]
        return m
