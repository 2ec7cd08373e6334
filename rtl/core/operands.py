"""The operands that an epilogue lane needs once for each visit."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["OperandQueue"]


class OperandQueue(wiring.Component):
    """Keeps a word for each visit, in order.

    Parameters
    ----------
    visits : int
        Words that are stored and not yet stepped over; a power of two.

    Members
    -------
    store, word : ``In(1)``, ``In(32)``
        The word of the next visit.
    used : ``Out(32)``
        The oldest word, from the cycle after it was stored.
    step : ``In(1)``
        It is used for the last time.
    """

    def __init__(self, *, visits: int) -> None:
        if visits < 2 or visits & (visits - 1):
            raise ValueError(f"visits must be a power of two from 2 on, not {visits!r}")
        self._visits = visits
        super().__init__({"store": In(1), "word": In(32), "used": Out(32), "step": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = Memory(shape=unsigned(32), depth=self._visits, init=[])
        write, read = words.write_port(), words.read_port(domain="comb")
        to, of = (Signal(range(self._visits), name=name) for name in ("to", "of"))
        m.d.comb += [
            write.en.eq(self.store),
            write.addr.eq(to),
            write.data.eq(self.word),
            read.addr.eq(of),
            self.used.eq(read.data),
        ]
        m.d.sync += [to.eq(to + self.store), of.eq(of + self.step)]
        return m
