"""Nested loops that add up an address."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Walk"]


class Walk(wiring.Component):
    """Runs through nested loops, one round a step. Loop 0 is the innermost.

    Parameters
    ----------
    width : int
        Bits of the address.
    loops : int
        2 or more.

    Members
    -------
    begin : ``In(1)``
        Begins at ``base``. Not while ``valid`` is high.
    base : ``In(width)``
    bound : ``In(ArrayLayout(16, loops))``
        Rounds of each loop. A loop of 0 has no end but ``leave``. Stands still from ``begin`` on.
    stride : ``In(ArrayLayout(width, loops))``
        What a round of each loop adds to the address. Stands still while ``valid`` is high.
    short : ``In(16)``, of walks with more than two loops
        In place of ``bound[0]`` in the last round of loop 2.
    step : ``In(1)``
        Goes on to the next round. Only while ``valid`` is high.
    leave : ``In(1)``
        This round is the last of loop 0.
    valid : ``Out(1)``
        There is a round.
    address : ``Out(width)``
    index : ``Out(6)``
        Number of this round of loop 0, from 0 on, modulo 64.
    ends : ``Out(loops)``
        For each loop, whether this is its last round. That of loop 0 depends on ``leave``.
    """

    def __init__(self, width: int, loops: int) -> None:
        if loops < 2:
            raise ValueError(f"loops must be 2 or more, not {loops!r}")
        self._loops = loops
        short = {"short": In(16)} if loops > 2 else {}
        super().__init__(
            {
                "begin": In(1),
                "base": In(width),
                "bound": In(data.ArrayLayout(unsigned(16), loops)),
                "stride": In(data.ArrayLayout(unsigned(width), loops)),
                "step": In(1),
                "leave": In(1),
                "valid": Out(1),
                "address": Out(width),
                "index": Out(6),
                "ends": Out(loops),
            }
            | short
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        loops = range(self._loops)
        width = len(self.base)
        at = [Signal(width, name=f"at{i}", reset_less=True) for i in loops]
        left = [Signal(16, name=f"left{i}", reset_less=True) for i in loops]  # with this round
        last = [Signal(name=f"last{i}", reset_less=True) for i in loops]  # left is 1
        leaves = Signal()
        m.d.comb += [
            leaves.eq(last[0] | self.leave),
            self.ends.eq(Cat(leaves, last[1:])),
            self.address.eq(at[0]),
        ]

        # The innermost loop that goes on; those inside it begin again.
        origin, by, after = Signal(width), Signal(width), Signal(width)
        again = [Signal(name=f"again{i}") for i in loops]
        m.d.comb += [after.eq(origin + by), Cat(again).eq(self.begin.replicate(len(again)))]
        for i in loops:
            with m.If(~self.ends[i]) if i == 0 else m.Elif(~self.ends[i]):
                m.d.comb += [origin.eq(at[i]), by.eq(self.stride[i])]
                with m.If(self.step):
                    m.d.comb += [again[inner].eq(1) for inner in range(i)]
                    m.d.sync += [left[i].eq(left[i] - 1), last[i].eq(left[i] == 2)]
                    m.d.sync += [at[inner].eq(after) for inner in range(i + 1)]
        with m.If(self.step):
            m.d.sync += [self.index.eq(self.index + 1), self.valid.eq(~self.ends.all())]

        bound = Signal(16)  # of loop 0 from the next round on
        m.d.comb += bound.eq(self.bound[0])
        if self._loops > 2:
            short = Signal()
            m.d.comb += short.eq(last[2])
            with m.If(again[2]):
                m.d.comb += short.eq(self.bound[2] == 1)
            with m.Elif(again[1]):
                m.d.comb += short.eq(left[2] == 2)
            with m.If(short):
                m.d.comb += bound.eq(self.short)
        for i in loops:
            limit = bound if i == 0 else self.bound[i]
            with m.If(again[i]):
                m.d.sync += [left[i].eq(limit), last[i].eq(limit == 1)]
        with m.If(again[0]):
            m.d.sync += self.index.eq(0)
        with m.If(self.begin):
            m.d.sync += self.valid.eq(1)
            m.d.sync += [at[i].eq(self.base) for i in loops]
        return m
