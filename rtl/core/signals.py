"""The signals that a queue owes for its iterations."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..isa import SEMAPHORES
from .select import select

__all__ = ["SIGNALS", "SignalQueue", "signals_layout"]

SIGNALS = 4
"""Signals of a command."""

_INDEX_BITS = (SEMAPHORES - 1).bit_length()

_DEPTH = 4
"""Iterations that are outstanding, or have signals to give."""


def signals_layout() -> data.StructLayout:
    """Layout of an iteration's signals: their semaphores, and which of them are to be given."""
    return data.StructLayout(
        {"index": data.ArrayLayout(range(SEMAPHORES), SIGNALS), "pending": SIGNALS}
    )


class SignalQueue(wiring.Component):
    """Gives the signals of iterations that have ended, in order, at most one a cycle.

    The first one is offered in the cycle of its iteration's end, but no earlier than 2 cycles after
    its ``accept``, and after the last signal of the iteration before. An iteration without any
    takes a cycle, too.

    Members
    -------
    accept : ``In(1)``, signals : ``In(signals_layout)``
        An iteration starts that has these signals. Only with ``room``.
    room : ``Out(1)``
    done : ``In(1)``
        The oldest iteration that has not ended ends; not in the cycle of its ``accept``.
    busy, stays : ``Out(1)``
        Iterations that had ended before this cycle have signals to give; what it is in the next
        cycle.
    add, add_index, added : ``Out``, ``Out``, ``In(1)``
        As in `SemaphorePort`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "accept": In(1),
                "signals": In(signals_layout()),
                "room": Out(1),
                "done": In(1),
                "busy": Out(1),
                "stays": Out(1),
                "add": Out(1),
                "add_index": Out(range(SEMAPHORES)),
                "added": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = memory.Memory(
            shape=signals_layout(), depth=_DEPTH, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = store.write_port(), store.read_port(domain="comb")
        written, used = Signal(range(_DEPTH)), Signal(range(_DEPTH))
        stored = Signal(range(_DEPTH + 1))
        level = Signal(range(_DEPTH + 1))  # iterations in the store and before it
        owed, owing = Signal(range(_DEPTH + 1)), Signal()  # of these, those that have ended; any
        # The first one, and what is left of it, are taken out of the store in advance.
        here, load = Signal(), Signal()
        # Without parts that have names: to yosys one that ends in [1] is bit 1 of something.
        index = Signal(SIGNALS * _INDEX_BITS, reset_less=True)
        pending, left = Signal(SIGNALS, reset_less=True), Signal(SIGNALS)
        some, more = Signal(reset_less=True), Signal()  # whether there is one in them
        turn = Signal(range(SIGNALS))
        due, end = Signal(), Signal()
        m.d.comb += [
            write.addr.eq(written),
            write.data.eq(self.signals),
            write.en.eq(self.room),  # until ``accept``
            read.addr.eq(used),
            left.eq(pending & (pending - 1)),
            more.eq(left.any()),
            due.eq(here & (owing | self.done)),
            end.eq(due & ~more & (self.added | ~some)),
            load.eq((stored != 0) & ~here),
            self.room.eq(level != _DEPTH),
            self.busy.eq(owing),
            self.stays.eq((owed > 1) | Mux(owing, self.done | ~end, self.done & ~end)),
            self.add.eq(due & some),
            self.add_index.eq(
                select(turn, [index.word_select(n, _INDEX_BITS) for n in range(SIGNALS)])
            ),
        ]
        for n in reversed(range(SIGNALS)):
            with m.If(pending[n]):
                m.d.comb += turn.eq(n)
        m.d.sync += [
            written.eq(written + self.accept),
            used.eq(used + load),
            stored.eq(stored + self.accept - load),
            level.eq(level + self.accept - end),
            owed.eq(owed + self.done - end),
            owing.eq(self.stays),
            here.eq((here & ~end) | load),
        ]
        with m.If(~here):
            m.d.sync += [
                index.eq(read.data.index),
                pending.eq(read.data.pending),
                some.eq(read.data.pending.any()),
            ]
        with m.Elif(self.add & self.added):
            m.d.sync += [pending.eq(left), some.eq(more)]
        return m
