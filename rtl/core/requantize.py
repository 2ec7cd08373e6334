"""Requantization in the vector unit: from exact sums and differences to INT8."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Format, VectorBody, VectorOp
from ..numerics.convert import NarrowFp32
from ..numerics.fp32 import Fp32Add, Fp32Multiply
from ..numerics.integer import IntegerToFp32

__all__ = ["DIFFERENCE_BITS", "SUM_BITS", "RequantizeLane", "Requantizer", "pair_layout"]

DIFFERENCE_BITS = 9
"""Of a number less its zero point."""

SUM_BITS = 25
"""Of the sum of a window of such differences."""


def pair_layout() -> data.StructLayout:
    """Layout of what one result is made from.

    ``sum``: of the window, or the first input's difference. ``other``: the second input's.
    """
    return data.StructLayout({"sum": signed(SUM_BITS), "other": signed(DIFFERENCE_BITS)})


class RequantizeLane(wiring.Component):
    """Makes one result after the other, as `VectorBody` says: one a cycle, never refused.

    A result comes ``LATENCY`` cycles after its pair.

    Members
    -------
    command : ``In(VectorBody)``
        Stands still from two cycles before the first pair until the last result.
    valid_i : ``In(1)``
    pair : ``In(pair_layout())``
    valid_o : ``Out(1)``
    result : ``Out(8)``
    """

    LATENCY = (
        2 + IntegerToFp32.LATENCY + Fp32Multiply.LATENCY + Fp32Add.LATENCY + NarrowFp32.LATENCY
    )

    command: In(VectorBody)
    valid_i: In(1)
    pair: In(pair_layout())
    valid_o: Out(1)
    result: Out(8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command = self.command
        m.submodules.to_fp32 = to_fp32 = IntegerToFp32(SUM_BITS)
        m.submodules.other_to_fp32 = other_to_fp32 = IntegerToFp32(DIFFERENCE_BITS)
        m.submodules.multiply = multiply = Fp32Multiply()
        m.submodules.other_multiply = other_multiply = Fp32Multiply()
        m.submodules.add = add = Fp32Add()
        m.submodules.narrow = narrow = NarrowFp32()
        for unit in (to_fp32, other_to_fp32, multiply, other_multiply, add, narrow):
            m.d.comb += unit.ce.eq(1)

        adds, multiplies = Signal(), Signal()
        m.d.sync += [
            adds.eq(command.op == VectorOp.ADD.value),
            multiplies.eq(command.op == VectorOp.MULTIPLY.value),
        ]

        valid1, valid2 = Signal(), Signal()
        pair1 = Signal(pair_layout(), reset_less=True)
        integer2 = Signal(signed(SUM_BITS), reset_less=True)
        other2 = Signal(signed(DIFFERENCE_BITS), reset_less=True)
        m.d.sync += [valid1.eq(self.valid_i), valid2.eq(valid1)]
        with m.If(self.valid_i):
            m.d.sync += pair1.eq(self.pair)
        difference = pair1.sum[:DIFFERENCE_BITS].as_signed()
        with m.If(valid1):
            m.d.sync += [
                integer2.eq(Mux(multiplies, difference * pair1.other, pair1.sum)),
                other2.eq(pair1.other),
            ]

        # Without a second product 0 is added: it changes no value, and of its sign integers know
        # nothing.
        m.d.comb += [
            to_fp32.valid_i.eq(valid2),
            to_fp32.integer.eq(integer2),
            other_to_fp32.valid_i.eq(valid2 & adds),
            other_to_fp32.integer.eq(other2),
            multiply.valid_i.eq(to_fp32.valid_o),
            multiply.a.eq(to_fp32.result),
            multiply.b.eq(command.a_scale),
            other_multiply.valid_i.eq(other_to_fp32.valid_o),
            other_multiply.a.eq(other_to_fp32.result),
            other_multiply.b.eq(command.b_scale),
            add.valid_i.eq(multiply.valid_o),
            add.a.eq(multiply.result),
            add.b.eq(Mux(adds, other_multiply.result, 0)),
            narrow.valid_i.eq(add.valid_o),
            narrow.number.eq(add.result),
            narrow.format.eq(Format.INT8),
            narrow.zero_point.eq(command.zero_point),
            narrow.clamp_low.eq(command.clamp_low),
            narrow.clamp_high.eq(command.clamp_high),
            self.valid_o.eq(narrow.valid_o),
            self.result.eq(narrow.result),
        ]
        return m


class Requantizer(wiring.Component):
    """Requantizes granules, in order, ``config.vector_lanes`` numbers a cycle.

    A granule comes ``latency`` cycles after its pairs, or later if others are before it: each takes
    ``cycles`` of the lanes' time. Results are never held up.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(VectorBody)``
        Stands still from two cycles before the first granule until the last result.
    valid_i : ``In(1)``
        At most ``WAITING`` granules come that are not ``taken`` yet.
    pairs : ``In(data.ArrayLayout(pair_layout(), GRANULE))``
    taken : ``Out(1)``
        Pulses when a granule leaves the place where it waited.
    valid_o : ``Out(1)``
    granule : ``Out(8 * GRANULE)``

    Attributes
    ----------
    cycles : int
        From one granule to the next.
    latency : int
        From a granule that finds none before it to its result.
    """

    WAITING = 8

    def __init__(self, config: CardConfig) -> None:
        self._lanes = config.vector_lanes
        self.cycles = GRANULE // config.vector_lanes
        # Two cycles in the buffer; the last of its numbers starts after the others.
        self.latency = 2 + self.cycles - 1 + RequantizeLane.LATENCY
        super().__init__(
            {
                "command": In(VectorBody),
                "valid_i": In(1),
                "pairs": In(data.ArrayLayout(pair_layout(), GRANULE)),
                "taken": Out(1),
                "valid_o": Out(1),
                "granule": Out(8 * GRANULE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pairs_layout = data.ArrayLayout(pair_layout(), GRANULE)
        m.submodules.waiting = waiting = SyncFIFOBuffered(
            width=pairs_layout.size, depth=self.WAITING
        )
        last = self.cycles - 1  # the cycles are a power of two: counters wrap
        phase, collected = Signal(range(self.cycles)), Signal(range(self.cycles))
        m.d.comb += [
            waiting.w_en.eq(self.valid_i),
            waiting.w_data.eq(self.pairs),
            waiting.r_en.eq(waiting.r_rdy & (phase == last)),
            self.taken.eq(waiting.r_en),
        ]
        with m.If(waiting.r_rdy):
            m.d.sync += phase.eq(phase + 1)

        size = pair_layout().size * self._lanes
        chosen = Signal(size)
        m.d.comb += chosen.eq(waiting.r_data.word_select(phase, size))
        lanes = []
        for i in range(self._lanes):
            m.submodules[f"lane{i}"] = lane = RequantizeLane()
            m.d.comb += [
                lane.command.eq(self.command),
                lane.valid_i.eq(waiting.r_rdy),
                lane.pair.eq(chosen.word_select(i, pair_layout().size)),
            ]
            lanes.append(lane)

        # The first numbers of a granule wait for the last.
        early = Signal(8 * (GRANULE - self._lanes), reset_less=True)
        granule = Cat(early, *(lane.result for lane in lanes))
        valid = lanes[0].valid_o
        m.d.comb += [self.granule.eq(granule), self.valid_o.eq(valid & (collected == last))]
        with m.If(valid):
            m.d.sync += [
                early.eq(granule[8 * self._lanes :]),
                collected.eq(collected + 1),
            ]
        return m
