"""What an epilogue lane keeps of each row while K is worked through in slices."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..tech.gate import Gate
from ..tech.ram import RegisteredRam

__all__ = ["PartialMemory"]

_PART = 18
"""Bits of a word that a block of memory holds."""


class PartialMemory(wiring.Component):
    """Keeps a word for each beat or result of each row, from one slice of K to the next.

    Visits are announced in order. Each then looks up its words, in order: the word comes
    ``LATENCY`` cycles later, and what takes its place ``near`` or ``far`` cycles after the look-up,
    unless the visit is of the last slice. A row's word is looked up again only after the cycle in
    which it is replaced.

    Parameters
    ----------
    config : CardConfig
    visits : int
        Visits that are announced and have not looked up their last word.
    width : int
        Bits of a word.
    near, far : int
        At least ``LATENCY``.

    Members
    -------
    is_far : ``In(1)``
        Which of the two distances holds. Stands still from a look-up for as many cycles as ``far``.
    announce, slot, slice_first, slice_last : ``In``
        A visit (`array.ports.visit_layout`).
    long_rows : ``In(1)``
        With ``announce``: the row has ``4 * cols`` words, not ``2 * cols``.
    look_up, end : ``In(1)``
        A word is looked up. Also ``end``: the last one of its visit.
    first, last : ``Out(1)``
        Of the word looked up ``LATENCY`` cycles ago: it is of the first, the last slice.
    word : ``Out(width)``
        That word; void in the first slice.
    replace : ``In(width)``
    """

    LATENCY = RegisteredRam.LATENCY

    def __init__(self, config: CardConfig, *, visits: int, width: int, near: int, far: int) -> None:
        if near < self.LATENCY or far < near:
            raise ValueError(
                f"near and far must be at least {self.LATENCY} and ascend, not {near!r}, {far!r}"
            )
        if visits < 2 or visits & (visits - 1):
            raise ValueError(f"visits must be a power of two from 2 on, not {visits!r}")
        self._config = config
        self._visits = visits
        self._near, self._far = near, far
        super().__init__(
            {
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
        depth = config.partial_beats * config.engines_per_lane
        bits = (depth - 1).bit_length()

        # Where the words of announced visits begin. The oldest one is in registers: it passes by
        # the queue when there is none before it.
        entry = data.StructLayout({"base": bits, "first": 1, "last": 1})
        m.submodules.visits = visits = Memory(shape=entry, depth=self._visits, init=[])
        write, read = visits.write_port(), visits.read_port(domain="comb")
        # Counted on beyond the places that there are: so empty is not full.
        to, of = (Signal(range(2 * self._visits), name=name) for name in ("to", "of"))
        announced, oldest = Signal(entry), Signal(entry)
        present, some, load = Signal(), Signal(), Signal()
        address = Signal(bits, reset_less=True)  # of the next word
        head = Signal(2, reset_less=True)  # the marks of its visit
        row = 2 * config.cols * self.slot
        step = self.look_up
        m.d.comb += [
            announced.base.eq(Mux(self.long_rows, row << 1, row)),
            announced.first.eq(self.slice_first),
            announced.last.eq(self.slice_last),
            some.eq(to != of),
            load.eq(~present | self.end),
            oldest.eq(Mux(some, read.data.as_value(), announced.as_value())),
            # Always, as `load` is late: the queue steps over what passes by.
            write.en.eq(self.announce),
            write.addr.eq(to[:-1]),
            write.data.eq(announced),
            read.addr.eq(of[:-1]),
        ]
        m.submodules.steps = steps = Gate(  # `end` is late
            lambda present, end, some, announce: (not present or end) and (some or announce)
        )
        m.d.comb += steps.bits.eq(Cat(present, self.end, some, self.announce))
        m.d.sync += to.eq(to + self.announce)
        with m.If(steps.out):
            m.d.sync += of.eq(of + 1)
        with m.If(load):
            m.d.sync += [
                present.eq(some | self.announce),
                head.eq(Cat(oldest.first, oldest.last)),
            ]
        with m.If(step | ~present):  # `end` only chooses
            m.d.sync += address.eq(Mux(load, oldest.base, address + 1))

        marks = head
        for cycle in range(self.LATENCY):
            later = Signal(2, name=f"marks{cycle + 1}", reset_less=True)
            m.d.sync += later.eq(marks)
            marks = later
        m.d.comb += Cat(self.first, self.last).eq(marks)

        # The places that are to be written follow their words through the lane.
        places = [(address, step & ~head[1])]
        for cycle in range(1, self._far + 1):
            place = Signal(bits, name=f"place{cycle}", reset_less=True)
            kept = Signal(name=f"kept{cycle}")
            m.d.sync += [kept.eq(places[-1][1]), place.eq(places[-1][0])]
            places.append((place, kept))
        near, far = places[self._near], places[self._far]

        for low in range(0, len(self.word), _PART):
            width = min(_PART, len(self.word) - low)
            m.submodules[f"words_{low}"] = words = RegisteredRam(width, depth)
            m.d.comb += [
                words.write.eq(Mux(self.is_far, far[1], near[1])),
                words.write_address.eq(Mux(self.is_far, far[0], near[0])),
                words.write_data.eq(self.replace[low : low + width]),
                words.read.eq(step),
                words.read_address.eq(address),
                self.word[low : low + width].eq(words.data),
            ]
        return m
