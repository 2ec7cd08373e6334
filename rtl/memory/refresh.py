"""When a channel's banks are refreshed."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .address import BANKS
from .timing import Timing

__all__ = ["Refresh"]


class Refresh(wiring.Component):
    """Stops a controller as soon as a refresh is due, closes all banks and refreshes them.

    It begins with the clocks that ``scrub`` needs, without a refresh.

    Parameters
    ----------
    timing : Timing

    Members
    -------
    quiet : ``In(1)``
        All banks may be precharged, a clock ago; what follows from ``run`` has ended.
    run : ``Out(1)``
        New commands may be decided on. What was before may still be given two clocks later.
    precharge_all, refresh : ``Out(1)``
        These commands are given.
    scrub : ``Out(1)``
        Between the two and after, for at least as many clocks as there are banks: what is known of
        them is void.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        super().__init__(
            {
                "quiet": In(1),
                "run": Out(1),
                "precharge_all": Out(1),
                "refresh": Out(1),
                "scrub": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        t = self.timing
        due = Signal()
        until_due = Signal(range(t.refi), init=t.refi - 1)
        pause = Signal(range(max(t.rp, t.rfc, BANKS)), init=BANKS - 1)
        with m.If(until_due == 0):
            m.d.sync += [until_due.eq(t.refi - 1), due.eq(1)]
        with m.Else():
            m.d.sync += until_due.eq(until_due - 1)
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.FSM(init="Refresh"):
            with m.State("Run"):
                with m.If(due):
                    m.d.sync += self.run.eq(0)
                    m.next = "Stop"
            with m.State("Stop"):  # what was ready before still takes place
                m.next = "Wait"
            with m.State("Wait"):
                m.next = "Close"
            with m.State("Close"):
                with m.If(self.quiet):
                    m.d.comb += self.precharge_all.eq(1)
                    m.d.sync += pause.eq(t.rp - 1)
                    m.next = "Closed"
            with m.State("Closed"):
                m.d.comb += self.scrub.eq(1)
                with m.If(pause == 0):
                    m.d.comb += self.refresh.eq(1)
                    # No row command comes within four clocks of `run`.
                    m.d.sync += [due.eq(0), pause.eq(max(t.rfc - 5, BANKS - 1))]
                    m.next = "Refresh"
            with m.State("Refresh"):
                m.d.comb += self.scrub.eq(1)
                with m.If(pause == 0):
                    m.d.sync += self.run.eq(1)
                    m.next = "Run"
        return m
