"""Where the columns of an epilogue lane's visits lie."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import LANES
from ..tech.gate import Gate
from .running import columns_layout

__all__ = ["ColumnWalk"]


class ColumnWalk(wiring.Component):
    """Says the place of one column of a visit after the other.

    Column j lies ``(j // n_inner) * outer_stride + (j % n_inner) * inner_stride`` behind the first.
    All visits with results of one block have the same columns; the next block starts where they
    ended. A block that had none is stepped over when the next one is announced, a column a cycle.
    Iterations have the two ``layouts`` by turns, the first one after a reset the first; each takes
    four cycles to look there.

    The first visit with results in a block walks, and leaves what it finds in a table for the
    others.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    layouts : ``In(columns_layout).array(2)``
        Each is still while visits of its iteration are open.
    block_columns : ``In(8)``
        Columns of a block. Still while visits are open.
    starts, follows : ``In(1)``
        A visit is open that is the first of its block, and this the first of its iteration, or a
        later one.
    next_new : ``In(1)``
        In the next cycle ``starts`` or ``follows`` is high.
    ready : ``Out(1)``
        The place of its next column is there; it stays until the visit ends.
    result : ``In(1)``
        It is used. Only while ``ready``, and not in a visit without results.
    leave, iteration_last : ``In(1)``
        The visit ends, with its last result if it has any. Only while ``ready``.
    turn : ``Out(1)``
        Of the visit's iteration.
    offset : ``Out(32)``, present : ``Out(1)``
        The column's place, and whether it is one of the ``n``.
    layout : ``Out(columns_layout)``
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layouts": In(columns_layout()).array(2),
                "block_columns": In(8),
                "starts": In(1),
                "follows": In(1),
                "next_new": In(1),
                "ready": Out(1),
                "result": In(1),
                "leave": In(1),
                "iteration_last": In(1),
                "turn": Out(1),
                "offset": Out(32),
                "present": Out(1),
                "layout": Out(columns_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        turn, layout = self.turn, Signal(columns_layout(), reset_less=True)
        m.d.comb += self.layout.eq(layout)

        # An iteration begins: first its layout, then its first column.
        waits, begins, loaded, begun = Signal(), Signal(), Signal(), Signal()
        m.d.comb += waits.eq(self.starts & ~begun)
        m.d.sync += [begins.eq(waits & ~loaded), loaded.eq(begins & ~loaded)]
        with m.If(begins):
            m.d.sync += layout.eq(Mux(turn, *(x.as_value() for x in reversed(self.layouts))))
        with m.If(self.leave):
            m.d.sync += [begun.eq(0), turn.eq(turn ^ self.iteration_last)]
        with m.Elif(loaded):
            m.d.sync += begun.eq(1)

        block_new = self.starts | self.follows
        walked = Signal()  # the walk is at the end of the visit's block, or the one before
        behind, skip_last = Signal(), Signal()
        skipped = Signal(8)
        m.d.comb += [
            behind.eq(self.follows & ~walked),
            skip_last.eq(skipped == self.block_columns - 1),
            self.ready.eq(~waits & ~behind),
        ]
        with m.If(behind):
            m.d.sync += skipped.eq(Mux(skip_last, 0, skipped + 1))
        next_walked, walking = Signal(), Signal(init=1)
        m.d.comb += next_walked.eq(
            (self.result & self.leave) | (behind & skip_last) | (walked & ~(self.leave & block_new))
        )
        m.d.sync += [walked.eq(next_walked), walking.eq(self.next_new | ~next_walked)]

        # The next column, that of the first column of its inner row, and how many columns of this
        # row and in all are left with it.
        offset, row = (Signal(32, name=name, reset_less=True) for name in ("offset", "row"))
        inner, columns = (Signal(16, name=name, reset_less=True) for name in ("inner", "columns"))
        inner_last, present = (
            Signal(name=name, reset_less=True) for name in ("inner_last", "walk_present")
        )
        step, next_offset = Signal(), Signal(32)
        m.d.comb += [
            next_offset.eq(
                Mux(inner_last, row, offset)
                + Mux(inner_last, layout.outer_stride, layout.inner_stride)
            ),
        ]
        # All at once, also for the first column: what decides comes late.
        m.submodules.steps = steps = Gate(
            lambda result, walking, behind, begins: (result and walking) or behind or begins
        )
        m.d.comb += [steps.bits.eq(Cat(self.result, walking, behind, begins)), step.eq(steps.out)]
        anew = Signal()
        m.d.comb += anew.eq(begins | inner_last)
        with m.If(step):
            m.d.sync += [
                offset.eq(Mux(begins, 0, next_offset)),
                columns.eq(Mux(begins, layout.n, columns - present)),
                present.eq(Mux(begins, layout.n.any(), columns[1:].any())),
                inner.eq(Mux(anew, layout.n_inner, inner - 1)),
                inner_last.eq(Mux(anew, layout.n_inner == 1, inner == 2)),
            ]
            with m.If(anew):
                m.d.sync += row.eq(Mux(begins, 0, next_offset))

        m.submodules.table = table = Memory(
            shape=unsigned(33), depth=max(LANES.values()) * self._config.cols, init=[]
        )
        write, read = table.write_port(), table.read_port(domain="comb")
        index = Signal.like(read.addr)
        found = Cat(offset, present)
        m.d.comb += [
            # Again and again until it is right: `step` would come late.
            write.en.eq(walking),
            write.addr.eq(index),
            write.data.eq(found),
            read.addr.eq(index),
            Cat(self.offset, self.present).eq(Mux(walking, found, read.data)),
        ]
        with m.If(self.leave):
            m.d.sync += index.eq(0)
        with m.Elif(self.result):
            m.d.sync += index.eq(index + 1)
        return m
