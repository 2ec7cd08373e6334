"""Requantization in the vector unit: from sums of bytes to INT8."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import VectorBody
from ..tech.select import select
from .requantize_lane import SUM_BITS, RequantizeLane

__all__ = ["Requantizer"]


class Requantizer(wiring.Component):
    """Requantizes granules, in order, ``config.vector_lanes`` numbers a cycle.

    A granule comes ``latency`` cycles after its ``valid_i``. Results are never held up.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(VectorBody)``
        Stands still from two cycles before the first granule until the last result.
    valid_i : ``In(1)``
        A granule starts, at least ``cycles`` after the one before.
    others : ``In(data.ArrayLayout(signed(8), GRANULE))``
        Bytes of its second input.
    sums : ``In(data.ArrayLayout(signed(SUM_BITS), GRANULE))``
        Of its window, or bytes of its first input. They come a cycle after ``valid_i``.
    zero : ``In(signed(SUM_BITS))``
        What a sum of zero points would be. It comes with ``sums``.
    valid_o : ``Out(1)``
    granule : ``Out(8 * GRANULE)``

    Attributes
    ----------
    cycles : int
        From one granule to the next.
    latency : int
    """

    def __init__(self, config: CardConfig) -> None:
        self._lanes = config.vector_lanes
        self.cycles = GRANULE // config.vector_lanes
        # Two cycles in the registers; the last of its numbers starts after the others.
        self.latency = 2 + self.cycles - 1 + RequantizeLane.LATENCY
        super().__init__(
            {
                "command": In(VectorBody),
                "valid_i": In(1),
                "others": In(data.ArrayLayout(signed(8), GRANULE)),
                "sums": In(data.ArrayLayout(signed(SUM_BITS), GRANULE)),
                "zero": In(signed(SUM_BITS)),
                "valid_o": Out(1),
                "granule": Out(8 * GRANULE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last = self.cycles - 1  # the cycles are a power of two: counters wrap
        collected = Signal(range(self.cycles))

        # Both kinds of numbers are kept, and given out, one cycle apart.
        present, phase = Signal(2), Signal(range(self.cycles))
        sums_phase = Signal(range(self.cycles))
        kept_others = Signal(8 * GRANULE, reset_less=True)
        kept_sums = Signal(SUM_BITS * GRANULE, reset_less=True)
        zeros = [Signal(signed(SUM_BITS), name=f"zero{i}", reset_less=True) for i in range(2)]
        starts = Signal()
        m.d.sync += [
            starts.eq(self.valid_i),
            present.eq(Cat(self.valid_i | (present[0] & (phase != last)), present)),
            sums_phase.eq(phase),
            zeros[1].eq(zeros[0]),
        ]
        with m.If(self.valid_i):
            m.d.sync += kept_others.eq(self.others)
        with m.If(starts):
            m.d.sync += [kept_sums.eq(self.sums), zeros[0].eq(self.zero)]
        with m.If(present[0]):
            m.d.sync += phase.eq(phase + 1)

        other, total = (
            select(
                m,
                platform,
                index,
                [values.word_select(i, bits * self._lanes) for i in range(self.cycles)],
                name=name,
            )
            for index, values, bits, name in (
                (phase, kept_others, 8, "some_others"),
                (sums_phase, kept_sums, SUM_BITS, "some_sums"),
            )
        )
        other_later = Signal(8 * self._lanes, reset_less=True)
        with m.If(present[0]):
            m.d.sync += other_later.eq(other)
        lanes = []
        for i in range(self._lanes):
            m.submodules[f"lane{i}"] = lane = RequantizeLane()
            m.d.comb += [
                lane.command.eq(self.command),
                lane.zero.eq(zeros[1]),
                lane.valid_i.eq(present[1]),
                lane.pair.sum.eq(total.word_select(i, SUM_BITS)),
                lane.pair.other.eq(other_later.word_select(i, 8)),
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
