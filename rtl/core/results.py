"""Where the ways of an epilogue lane end: results on their way to the writer."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from ..array.ports import SEGMENT
from ..isa import Flag

__all__ = ["ResultQueue", "tag_layout"]


def tag_layout() -> data.StructLayout:
    """What moves beside a number: whether it is the last one of its visit, and its flags so far."""
    return data.StructLayout({"end": 1, "below": 1, "above": 1, "overflow": 1})


class ResultQueue(wiring.Component):
    """Takes the results of the one way that a command takes, and keeps them for the writer.

    Parameters
    ----------
    depth : int
        Cycles from taking a beat to its last result: so many results may be on their way.

    Members
    -------
    to_int32, to_fp32 : ``In(1)``
        Results are sums, values, or else narrower than those. Still while results are on their way.
    sum_valid, sum_tag, sum : ``In(1)``, ``In(tag_layout())``, ``In(signed(48))``
        An exact sum of integers, of at most 33 bits. It is saturated to INT32.
    value_valid, value_tag, value : ``In(1)``, ``In(tag_layout())``, ``In(32)``
        FP32.
    narrow_valid, narrow_tag, narrow : ``In(1)``, ``In(tag_layout())``, ``In(16)``
    narrow_nan : ``In(1)``
    room : ``Out(1)``
        Beats may be taken from the next cycle on.
    valid, last, result, flags : ``Out(1)``, ``Out(1)``, ``Out(32)``, ``Out(4)``
        The oldest result, whether it is the last of its visit, and its `Flag` bits.
    ready : ``In(1)``
        It is taken.
    """

    def __init__(self, *, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        self._depth = depth
        super().__init__(
            {
                "to_int32": In(1),
                "to_fp32": In(1),
                "sum_valid": In(1),
                "sum_tag": In(tag_layout()),
                "sum": In(signed(2 * SEGMENT)),
                "value_valid": In(1),
                "value_tag": In(tag_layout()),
                "value": In(unsigned(32)),
                "narrow_valid": In(1),
                "narrow_tag": In(tag_layout()),
                "narrow": In(unsigned(16)),
                "narrow_nan": In(1),
                "room": Out(1),
                "valid": Out(1),
                "last": Out(1),
                "result": Out(32),
                "flags": Out(len(Flag)),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid, nan = Signal(), Signal()
        tag = Signal(tag_layout())
        result = Signal(32)
        with m.If(self.to_int32):
            fits = self.sum[31] == self.sum[32]
            saturated = Cat((~self.sum[-1]).replicate(31), self.sum[-1])
            m.d.comb += [
                valid.eq(self.sum_valid),
                tag.eq(self.sum_tag),
                tag.overflow.eq(~fits),
                result.eq(Mux(fits, self.sum[:32], saturated)),
            ]
        with m.Elif(self.to_fp32):
            m.d.comb += [
                valid.eq(self.value_valid),
                tag.eq(self.value_tag),
                nan.eq(self.value[23:31].all() & self.value[:23].any()),
                result.eq(self.value),
            ]
        with m.Else():
            m.d.comb += [
                valid.eq(self.narrow_valid),
                tag.eq(self.narrow_tag),
                nan.eq(self.narrow_nan),
                result.eq(self.narrow),
            ]
        entry = Cat(result, tag.end, tag.below, tag.above, tag.overflow, nan)
        came = Signal()
        word = Signal(len(entry), reset_less=True)
        size = 1 << (self._depth + 8).bit_length()
        m.submodules.queue = queue = SyncFIFOBuffered(width=len(entry), depth=size)
        m.d.sync += [came.eq(valid), word.eq(entry)]
        m.d.comb += [
            self.room.eq(queue.level < size - self._depth - 4),
            queue.w_en.eq(came),
            queue.w_data.eq(word),
            queue.r_en.eq(self.ready),
            self.valid.eq(queue.r_rdy),
            Cat(self.result, self.last, self.flags).eq(queue.r_data),
        ]
        return m
