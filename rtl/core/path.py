"""How an epilogue lane goes from one iteration's way of making results to the next one's."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..array.command import chosen
from .running import path_layout

__all__ = ["PathSwitch"]


class PathSwitch(wiring.Component):
    """Follows a lane's visits, and switches to the path of an iteration when its first beat comes.

    Paths belong to iterations by turns, the first one after a reset to the first. Where an
    iteration's path is not the ``same`` as that of the one before, its first beat has to wait until
    all that was taken before has left the pipeline.

    Parameters
    ----------
    depth : int
        Cycles from taking a beat to the end of the pipeline.
    visits : int
        Visits that are described and whose beats have not been taken.

    Members
    -------
    paths : ``In(path_layout).array(2)``, same : ``In(2)``
        As in `RunningCommands`; still from the cycle before an iteration's first descriptor to its
        last result.
    describe, empty, iteration_last : ``In(1)``
        A visit is described (`array.ports.visit_layout`). Only in a cycle after one with ``ready``.
    again : ``In(1)``
        It has beats, is not of the first slice, and of the same row as the last one with beats.
    ready : ``Out(1)``
        One may be described in the next cycle.
    blocks : ``Out(1)``
        Of the path of the visit that is described next.
    take, end : ``In(1)``
        A beat is taken, the last of its visit.
    go : ``Out(1)``
        The next beat may be taken.
    pauses : ``Out(1)``
        Its visit is ``again``, and of a path with ``blocks``.
    path : ``Out(path_layout)``
        Of the beats that have been taken.
    """

    def __init__(self, *, depth: int, visits: int) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        self._depth = depth
        self._visits = visits
        super().__init__(
            {
                "paths": In(path_layout()).array(2),
                "same": In(2),
                "describe": In(1),
                "empty": In(1),
                "iteration_last": In(1),
                "again": In(1),
                "ready": Out(1),
                "blocks": Out(1),
                "take": In(1),
                "end": In(1),
                "go": Out(1),
                "pauses": Out(1),
                "path": Out(path_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        described = Signal()  # turn of the descriptor that is next
        # The oldest visit is in registers: it passes by the queue when there is none before it.
        entry = data.StructLayout({"empty": 1, "last": 1, "again": 1})
        m.submodules.order = order = SyncFIFO(width=entry.size, depth=self._visits)
        head, pushed = Signal(entry, reset_less=True), Signal(entry)
        present, brings = Signal(), Signal()  # there is one, and it has beats
        push, leave, load_head = Signal(), Signal(), Signal()
        (blocks,) = chosen(m, self.paths, described, "blocks")
        m.d.comb += [
            self.ready.eq(
                (order.level < self._visits - 1)
                | ((order.level == self._visits - 1) & ~self.describe)
            ),
            self.blocks.eq(blocks),
            # A visit without beats is only of interest if it ends an iteration.
            push.eq(self.describe & (~self.empty | self.iteration_last)),
            pushed.empty.eq(self.empty),
            pushed.last.eq(self.iteration_last),
            pushed.again.eq(self.again),
            load_head.eq(~present | leave),
            order.w_en.eq(push & (present | order.r_rdy)),
            order.w_data.eq(pushed),
            order.r_en.eq(load_head),
        ]
        oldest, comes = Signal(entry), Signal()
        m.d.comb += [
            oldest.eq(Mux(order.r_rdy, order.r_data, pushed.as_value())),
            comes.eq(order.r_rdy | (push & ~present)),
        ]
        with m.If(load_head):
            m.d.sync += [present.eq(comes), brings.eq(comes & ~oldest.empty), head.eq(oldest)]
        with m.If(self.describe):
            m.d.sync += described.eq(described ^ self.iteration_last)

        path = Signal(path_layout(), reset_less=True)
        turn, fresh = Signal(), Signal(init=1)  # of the beats that are next; none has been seen
        stale = Signal(init=1)  # `path` is that of an older iteration, and another one
        changes = Signal(init=1)  # what `same` says of this turn, a cycle ago
        stale_now, load, last = Signal(), Signal(), Signal()
        quiet = Signal(range(self._depth + 1), init=self._depth)  # cycles since a beat was taken
        m.d.comb += [
            stale_now.eq(stale | (fresh & changes)),
            load.eq(brings & stale_now & (quiet == self._depth)),
            leave.eq((present & head.empty) | (self.take & self.end)),
            last.eq(leave & head.last),
            self.go.eq(brings & ~stale_now),
            self.path.eq(path),
        ]
        # A register of its own: that of ``path`` has many loads.
        newest = Mux(turn, self.paths[1].blocks, self.paths[0].blocks)
        again = Mux(load_head, oldest.again, head.again)
        m.d.sync += [
            self.pauses.eq(again & Mux(load, newest, path.blocks)),
            quiet.eq(Mux(self.take, 0, quiet + (quiet != self._depth))),
            changes.eq(~Mux(turn ^ last, self.same[1], self.same[0])),
        ]
        with m.If(load):
            m.d.sync += path.eq(Mux(turn, self.paths[1].as_value(), self.paths[0].as_value()))
        with m.If(present):
            m.d.sync += [
                stale.eq(stale_now & ~load),
                fresh.eq(last),
                turn.eq(turn ^ last),
            ]
        return m
