"""The first look at a row: its largest number, and for NORMALIZE its sums."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from ...config import CardConfig
from ...hierarchy import Repeated
from ...isa import RowsBody
from ...numerics.decode import DecodeFp32
from ...numerics.delay import delayed
from ...numerics.pipeline import FP32
from ..ports import ReadPort
from .lanes import join, levels
from .reader import RowReader
from .shape import shape_layout

__all__ = ["FLOOR", "STEP_BITS", "Statistics", "moments_layout"]

FLOOR = 127 - 111
"""Smallest biased exponent of a row's largest magnitude that NORMALIZE goes by."""

STEP_BITS = 17
"""Of the magnitude of a number in NORMALIZE's steps: up to 2^16."""

_KEPT = 2
"""Rows of NORMALIZE that wait for their second look, at most."""

_TAG = data.StructLayout({"take": unsigned(16), "again": unsigned(1), "exponent": unsigned(8)})


def moments_layout() -> data.StructLayout:
    """Layout of what NORMALIZE takes from a row: the sums of ``q`` and ``q * q``, and the biased
    exponent (at least `FLOOR`) of the largest magnitude, 255 where that is not finite."""
    return data.StructLayout({"first": signed(33), "second": unsigned(48), "exponent": unsigned(8)})


class Statistics(wiring.Component):
    """Looks through rows, a beat a cycle: for the largest number (SOFTMAX) or magnitude (NORMALIZE,
    QUANTIZE), and again for the moments (NORMALIZE).

    Whatever it finds must be taken at once.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(RowsBody)``
    shape : ``In(shape_layout(config))``
    row : ``In(stream)``
        ``source`` and ``take``, as in `row_layout`.
    read : ``Out(ReadPort(config))``
    found : ``Out(1)``
        Pulses with ``largest``.
    largest : ``Out(32)``
        FP32. NaN if any of the numbers is; of SOFTMAX only if all are.
    summed : ``Out(1)``
        Pulses with ``moments``.
    moments : ``Out(moments_layout())``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        row = data.StructLayout(
            {"source": unsigned(config.granule_addr_width), "take": unsigned(16)}
        )
        super().__init__(
            {
                "command": In(RowsBody),
                "shape": In(shape_layout(config)),
                "row": In(stream.Signature(row)),
                "read": Out(ReadPort(config)),
                "found": Out(1),
                "largest": Out(32),
                "summed": Out(1),
                "moments": Out(moments_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.config.row_lanes
        shape = self.shape
        m.submodules.reader = reader = RowReader(self.config, _TAG.size)
        connect(m, reader.read, flipped(self.read))
        m.d.comb += reader.shape.eq(shape)
        self._elaborate_passes(m, reader)

        beat = reader.beat
        m.d.comb += beat.ready.eq(1)
        numbers, valid = [], None
        for lane in range(lanes):
            decode = DecodeFp32()
            m.submodules[f"decode{lane}"] = Repeated(decode, "decode_fp32")
            m.d.comb += [
                decode.ce.eq(1),
                decode.format.eq(self.command.in_format),
                decode.zero.eq(self.command.in_zero),
                decode.valid_i.eq(beat.valid),
                decode.number.eq(beat.payload.lanes[lane]),
            ]
            numbers.append(data.View(FP32, decode.result))
            valid = decode.valid_o if lane == 0 else valid

        # Which lanes take part, and where a pass begins and ends.
        given = data.View(_TAG, beat.payload.tag)
        rest, left = Signal(16, reset_less=True), Signal(16)
        size = Mux(shape.half_beats, lanes // 2, lanes)
        m.d.comb += left.eq(Mux(beat.payload.first, given.take, rest))
        with m.If(beat.valid):
            m.d.sync += rest.eq(Mux(left > size, left - size, 0))
        mark_layout = data.StructLayout(
            {"part": lanes, "first": 1, "last": 1, "again": 1, "exponent": 8}
        )
        entering = Signal(mark_layout)
        m.d.comb += [
            entering.part.eq(Cat((left > lane) & (lane < size) for lane in range(lanes))),
            entering.first.eq(beat.payload.first),
            entering.last.eq(beat.payload.last),
            entering.again.eq(given.again),
            entering.exponent.eq(given.exponent),
        ]
        mark = data.View(mark_layout, delayed(m, 1, entering, DecodeFp32.LATENCY, "mark"))
        self._elaborate_largest(m, numbers, valid & ~mark.again, mark)
        self._elaborate_moments(m, numbers, valid & mark.again, mark)
        return m

    def _elaborate_passes(self, m: Module, reader: RowReader) -> None:
        """Read each row once, or twice: the second time when its largest number is known. While it
        is not, the next row is read."""
        request, row = reader.row, self.row
        m.submodules.kept = kept = SyncFIFOBuffered(
            width=len(row.payload.as_value()), depth=_KEPT + 1
        )
        m.submodules.exponents = exponents = SyncFIFOBuffered(width=8, depth=_KEPT + 1)
        level = Signal(range(_KEPT + 1))
        asked = data.View(_TAG, request.payload.tag)
        old = data.View(row.payload.shape(), kept.r_data)
        first, again = Signal(), Signal()
        found = self.largest[23:31]
        m.d.comb += [
            exponents.w_en.eq(self.found & self.shape.normalize),
            exponents.w_data.eq(Mux(found < FLOOR, FLOOR, found)),
            first.eq(row.valid & (level != _KEPT)),
            again.eq(~first & kept.r_rdy & exponents.r_rdy),
            request.valid.eq(first | again),
            row.ready.eq(first & request.ready),
            kept.w_en.eq(row.ready & self.shape.normalize),
            kept.w_data.eq(row.payload),
            kept.r_en.eq(again & request.ready),
            exponents.r_en.eq(kept.r_en),
            asked.again.eq(again),
            asked.exponent.eq(exponents.r_data),
        ]
        m.d.sync += level.eq(level + kept.w_en - kept.r_en)
        for chosen, payload in ((first, row.payload), (again, old)):
            with m.If(chosen):
                m.d.comb += [
                    request.payload.source.eq(payload.source),
                    asked.take.eq(payload.take),
                ]

    def _elaborate_largest(self, m: Module, numbers: list, valid, mark) -> None:
        """Each lane keeps its largest number; those of all lanes are compared after the last."""
        keys, best = [], []
        valid1, first1, last1 = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        ended = Signal(1 + levels(len(numbers)))
        m.d.sync += [valid1.eq(valid), first1.eq(mark.first), last1.eq(mark.last)]
        m.d.sync += ended.eq(Cat(valid1 & last1, ended))
        for lane, number in enumerate(numbers):
            key = Signal(32, name=f"key{lane}", reset_less=True)
            top = Signal(32, name=f"best{lane}", reset_less=True)
            size = number.as_value()[:31]
            # Integers in the order of the numbers or magnitudes. SOFTMAX leaves NaNs out.
            nan = number.exponent.all() & number.fraction.any()
            with m.If(valid):
                with m.If(~mark.part[lane] | (self.shape.softmax & nan)):
                    m.d.sync += key.eq(0)
                with m.Elif(self.shape.softmax):
                    m.d.sync += key.eq(
                        Mux(number.sign, Cat(~size, Const(0, 1)), Cat(size, Const(1, 1)))
                    )
                with m.Else():
                    m.d.sync += key.eq(size)
            with m.If(valid1):
                m.d.sync += top.eq(Mux(first1, key, _larger(top, key)))
            keys.append(key)
            best.append(top)
        largest = join(m, 1, best, _larger, "larger")
        m.d.comb += [
            self.found.eq(ended[-1]),
            self.largest.eq(
                Mux(self.shape.softmax & ~largest[-1], ~largest, Cat(largest[:31], Const(0, 1)))
            ),
        ]

    def _elaborate_moments(self, m: Module, numbers: list, valid, mark) -> None:
        """Each number in steps of 2^-15 of the largest's power of two, and the sums of these."""
        # The lanes: four steps, then the sums over the lanes, then over the row.
        around = 4 + levels(len(numbers))
        moving = Signal(around)
        m.d.sync += moving.eq(Cat(valid, moving))
        end_layout = data.StructLayout({"first": 1, "last": 1, "exponent": 8})
        end = data.View(
            end_layout,
            delayed(m, 1, Cat(mark.first, mark.last, mark.exponent), around, "end"),
        )
        steps, squares = [], []
        for lane, number in enumerate(numbers):
            name = f"step{lane}"
            significand1 = Signal(24, name=f"{name}_significand", reset_less=True)
            shift1 = Signal(range(19), name=f"{name}_shift", reset_less=True)
            sign1, sign2, sign3 = (
                Signal(name=f"{name}_sign{i}", reset_less=True) for i in range(3)
            )
            normal = number.exponent.any()
            below = Signal(8, name=f"{name}_below")
            kept2 = Signal(STEP_BITS, name=f"{name}_kept", reset_less=True)
            step3 = Signal(STEP_BITS, name=f"{name}_rounded", reset_less=True)
            step4 = Signal(signed(STEP_BITS + 1), name=name, reset_less=True)
            square4 = Signal(2 * STEP_BITS - 1, name=f"{name}_square", reset_less=True)
            m.d.comb += below.eq(
                mark.exponent - Cat(number.exponent[0] | ~normal, number.exponent[1:])
            )
            m.d.sync += [
                significand1.eq(Mux(mark.part[lane], Cat(number.fraction, normal), 0)),
                shift1.eq(Mux(below > 18, 18, below)),
                sign1.eq(number.sign),
                # Twice the step, cut; then the half of it, rounded.
                kept2.eq(significand1[24 - STEP_BITS :] >> shift1),
                sign2.eq(sign1),
                step3.eq(kept2[1:] + kept2[0]),
                sign3.eq(sign2),
                step4.eq(Mux(sign3, -step3, step3)),
                square4.eq(step3 * step3),
            ]
            steps.append(step4)
            squares.append(square4)
        first = join(m, 1, steps, lambda a, b: a + b, "first")
        second = join(m, 1, squares, lambda a, b: a + b, "second")
        total = Signal(moments_layout(), reset_less=True)
        with m.If(moving[-1]):
            m.d.sync += [
                total.first.eq(Mux(end.first, 0, total.first) + first),
                total.second.eq(Mux(end.first, 0, total.second) + second),
                total.exponent.eq(end.exponent),
            ]
        m.d.sync += self.summed.eq(moving[-1] & end.last)
        m.d.comb += self.moments.eq(total)


def _larger(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)
