"""How an epilogue lane goes from one iteration's way of making results to the next one's."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..tech.gate import Gate
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
        The visit of the beat that is next in the next cycle is ``again``, and of a path with
        ``blocks``.
    path : ``Out(path_layout)``
        Of the beats that have been taken.
    """

    def __init__(self, *, depth: int, visits: int) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        if visits < 2 or visits & (visits - 1):
            raise ValueError(f"visits must be a power of two from 2 on, not {visits!r}")
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
        m.submodules.order = order = Memory(shape=entry, depth=self._visits, init=[])
        write, read = order.write_port(), order.read_port(domain="comb")
        # Counted on beyond the places that there are: so empty is not full. What leaves, which is
        # known late, makes room a cycle later.
        to, of = (Signal(range(2 * self._visits), name=name) for name in ("to", "of"))
        level, some, left = Signal(range(self._visits + 1)), Signal(), Signal()
        add = Signal()
        head, pushed = Signal(entry, reset_less=True), Signal(entry)
        present, brings = Signal(), Signal()  # there is one, and it has beats
        push, load_head = Signal(), Signal()
        m.submodules.loads = loads = Gate(
            lambda take, end, present, empty: (take and end) or not present or empty
        )
        next_described = described ^ (self.describe & self.iteration_last)
        m.d.comb += [
            self.ready.eq(
                (level < self._visits - 1) | ((level == self._visits - 1) & ~self.describe)
            ),
            # A visit without beats is only of interest if it ends an iteration.
            push.eq(self.describe & (~self.empty | self.iteration_last)),
            pushed.empty.eq(self.empty),
            pushed.last.eq(self.iteration_last),
            pushed.again.eq(self.again),
            loads.bits.eq(Cat(self.take, self.end, present, head.empty)),
            load_head.eq(loads.out),
            some.eq(to != of),
            add.eq(push & (present | some)),
            write.en.eq(add),
            write.addr.eq(to[:-1]),
            write.data.eq(pushed),
            read.addr.eq(of[:-1]),
        ]
        m.d.sync += [
            to.eq(to + add),
            left.eq(load_head & some),
            level.eq(level + add - left),
        ]
        with m.If(load_head & some):
            m.d.sync += of.eq(of + 1)
        oldest, comes = Signal(entry), Signal()
        m.d.comb += [
            oldest.eq(Mux(some, read.data.as_value(), pushed.as_value())),
            comes.eq(some | (push & ~present)),
        ]
        with m.If(load_head):
            m.d.sync += [present.eq(comes), brings.eq(comes & ~oldest.empty), head.eq(oldest)]
        m.d.sync += [
            described.eq(next_described),
            self.blocks.eq(Mux(next_described, self.paths[1].blocks, self.paths[0].blocks)),
        ]

        path = Signal(path_layout(), reset_less=True)
        turn, fresh = Signal(), Signal(init=1)  # of the beats that are next; none has been seen
        # `path` is that of an older iteration, and another one: as far as was known before a visit
        # left, and now.
        stale, stale_now = Signal(init=1), Signal(init=1)
        next_stale = Signal()
        changes, next_changes = Signal(), Signal()  # what `same` says of this turn and the next
        load, last = Signal(), Signal()
        quiet = Signal(range(self._depth + 1), init=self._depth)  # cycles since a beat was taken
        m.d.comb += [
            next_stale.eq(Mux(present, stale_now & ~load, stale)),
            changes.eq(~Mux(turn, self.same[1], self.same[0])),
            next_changes.eq(~Mux(turn, self.same[0], self.same[1])),
            load.eq(brings & stale_now & (quiet == self._depth)),
            last.eq(load_head & present & head.last),
            self.go.eq(brings & ~stale_now),
            self.path.eq(path),
        ]
        newest = Mux(turn, self.paths[1].blocks, self.paths[0].blocks)
        again = Mux(load_head, oldest.again, head.again)
        m.d.comb += self.pauses.eq(again & Mux(load, newest, path.blocks))
        m.d.sync += [
            quiet.eq(Mux(self.take, 0, quiet + (quiet != self._depth))),
            stale.eq(next_stale),
            stale_now.eq(next_stale | Mux(present, last & next_changes, fresh & changes)),
            fresh.eq(Mux(present, last, fresh)),
        ]
        with m.If(load):
            m.d.sync += path.eq(Mux(turn, self.paths[1].as_value(), self.paths[0].as_value()))
        with m.If(present):
            m.d.sync += turn.eq(turn ^ last)
        return m
