"""The signals that a queue owes for its iterations."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..isa import SEMAPHORES

__all__ = ["SIGNALS", "SignalQueue", "signals_layout"]

SIGNALS = 4
"""Signals of a command."""

_DEPTH = 4
"""Iterations that are outstanding, or have signals to give."""


def signals_layout() -> data.StructLayout:
    """Layout of an iteration's signals: their semaphores, and which of them are to be given."""
    return data.StructLayout(
        {"index": data.ArrayLayout(range(SEMAPHORES), SIGNALS), "pending": SIGNALS}
    )


class SignalQueue(wiring.Component):
    """Gives the signals of iterations that have ended, in order, one a cycle.

    Those of an iteration begin in the cycle after its end, if all before it have been given. An
    iteration without any takes a cycle, too.

    Members
    -------
    accept : ``In(1)``, signals : ``In(signals_layout)``
        An iteration starts that has these signals. Only with ``room``.
    room : ``Out(1)``
    done : ``In(1)``
        The oldest iteration that has not ended ends.
    busy : ``Out(1)``
        Iterations that have ended have signals to give.
    add, add_index : ``Out``
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
                "add": Out(1),
                "add_index": Out(range(SEMAPHORES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = memory.Memory(shape=signals_layout(), depth=_DEPTH, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        written, used = Signal(range(_DEPTH)), Signal(range(_DEPTH))
        level = Signal(range(_DEPTH + 1))  # iterations in the store
        owed = Signal(range(_DEPTH + 1))  # of these, those that have ended
        index = Signal(signals_layout()["index"].shape, reset_less=True)
        pending = Signal(SIGNALS)  # signals of the current iteration still to be given
        left = Signal(SIGNALS)
        begin = Signal()
        m.d.comb += [
            write.addr.eq(written),
            write.data.eq(self.signals),
            write.en.eq(self.accept),
            read.addr.eq(used),
            left.eq(pending & (pending - 1)),
            begin.eq(((owed != 0) | self.done) & ~left.any()),
            self.room.eq(level != _DEPTH),
            self.busy.eq((owed != 0) | pending.any()),
            self.add.eq(pending.any()),
        ]
        m.d.sync += [
            written.eq(written + self.accept),
            used.eq(used + begin),
            level.eq(level + self.accept - begin),
            owed.eq(owed + self.done - begin),
            pending.eq(left),
        ]
        with m.If(begin):
            m.d.sync += [pending.eq(read.data.pending), index.eq(read.data.index)]
        for n in reversed(range(SIGNALS)):
            with m.If(pending[n]):
                m.d.comb += self.add_index.eq(index[n])
        return m
