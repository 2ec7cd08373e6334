"""What an epilogue lane keeps of each row while K is worked through in slices."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig

__all__ = ["PartialMemory"]


class PartialMemory(wiring.Component):
    """Keeps a word for each beat or result of each row, from one slice of K to the next.

    Visits are announced in order. Each then looks up its words, in order: the word comes a cycle
    later, and what takes its place ``near`` or ``far`` cycles after the look-up, unless the visit
    is of the last slice. A row's word is looked up again at the earliest as many cycles later as
    it is replaced. All of these count cycles with ``ce`` high only.

    Parameters
    ----------
    config : CardConfig
    visits : int
        Visits that are announced and have not looked up their last word.
    width : int
        Bits of a word.
    near, far : int
        At least 2.

    Members
    -------
    ce : ``In(1)``
        Low: all but announcements stands still.
    is_far : ``In(1)``
        Which of the two distances holds. Stands still from a look-up for as many cycles as ``far``.
    announce, slot, slice_first, slice_last : ``In``
        A visit (`array.ports.visit_layout`).
    long_rows : ``In(1)``
        With ``announce``: the row has ``4 * cols`` words, not ``2 * cols``.
    look_up, end : ``In(1)``
        A word is looked up; it is the last of its visit.
    first, last : ``Out(1)``
        Of the word looked up a cycle ago: it is of the first, the last slice.
    word : ``Out(width)``
        That word; void in the first slice.
    replace : ``In(width)``
    """

    def __init__(self, config: CardConfig, *, visits: int, width: int, near: int, far: int) -> None:
        if near < 2 or far < near:
            raise ValueError(f"near and far must be at least 2 and ascend, not {near!r}, {far!r}")
        self._config = config
        self._visits = visits
        self._near, self._far = near, far
        super().__init__(
            {
                "ce": In(1),
                "is_far": In(1),
                "long_rows": In(1),
                "announce": In(1),
                "slot": In(8),
                "slice_first": In(1),
                "slice_last": In(1),
                "look_up": In(1),
                "end": In(1),
                "first": Out(1),
                "last": Out(1),
                "word": Out(width),
                "replace": In(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        bits = (config.partial_beats - 1).bit_length()

        # Where each announced visit's words begin.
        m.submodules.visits = visits = Memory(shape=unsigned(bits + 2), depth=self._visits, init=[])
        write, read = visits.write_port(), visits.read_port(domain="comb")
        announced, used = Signal(range(self._visits)), Signal(range(self._visits))
        last_visit = self._visits - 1
        base = Signal(bits)
        row = 2 * config.cols * self.slot
        step = self.ce & self.look_up
        m.d.comb += [
            base.eq(Mux(self.long_rows, row << 1, row)),
            write.en.eq(self.announce),
            write.addr.eq(announced),
            write.data.eq(Cat(base, self.slice_first, self.slice_last)),
            read.addr.eq(used),
        ]
        with m.If(self.announce):
            m.d.sync += announced.eq(Mux(announced == last_visit, 0, announced + 1))
        with m.If(step & self.end):
            m.d.sync += used.eq(Mux(used == last_visit, 0, used + 1))
        index = Signal(range(4 * config.cols))
        with m.If(step):
            m.d.sync += index.eq(Mux(self.end, 0, index + 1))
        address = Signal(bits)
        m.d.comb += address.eq(read.data[:bits] + index)

        first, last = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += [self.first.eq(first), self.last.eq(last)]
        with m.If(step):
            m.d.sync += Cat(first, last).eq(read.data[bits:])

        # The places that are to be written follow their words through the lane.
        places = [(address, self.look_up & ~read.data[-1])]
        for cycle in range(1, self._far + 1):
            place = Signal(bits, name=f"place{cycle}", reset_less=True)
            kept = Signal(name=f"kept{cycle}")
            with m.If(self.ce):
                m.d.sync += kept.eq(places[-1][1])
                with m.If(places[-1][1]):
                    m.d.sync += place.eq(places[-1][0])
            places.append((place, kept))
        near, far = places[self._near], places[self._far]

        m.submodules.words = words = Memory(
            shape=unsigned(len(self.word)), depth=config.partial_beats, init=[]
        )
        replace = words.write_port()
        look_up = words.read_port(transparent_for=[replace])
        m.d.comb += [
            replace.en.eq(self.ce & Mux(self.is_far, far[1], near[1])),
            replace.addr.eq(Mux(self.is_far, far[0], near[0])),
            replace.data.eq(self.replace),
            look_up.en.eq(step),
            look_up.addr.eq(address),
            self.word.eq(look_up.data),
        ]
        return m
