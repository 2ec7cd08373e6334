"""What the fill path has read on its way into the columns."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..core.ports import READ_LATENCY
from ..isa import LANES, Mode
from ..tech.choose import Choose4
from ..tech.choose8 import Choose8
from .serializer import SETS

__all__ = ["ChunkLoader", "asked_layout"]


def asked_layout() -> data.StructLayout:
    """Layout of what is to be known of a chunk that is asked for: where in a granule it begins,
    whether its numbers have 16 bits, and whether it completes its set."""
    return data.StructLayout({"shift": 4, "wide": 1, "last": 1})


class ChunkLoader(wiring.Component):
    """Stores chunks in the columns: of each column the lanes in order, and column after column.

    What each memory of a column gets of a chunk is every fourth byte of it (`Serializer`).

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
    asked : ``In(asked_layout)``
        What is asked for in this cycle, if it is granted.
    data, data_valid : ``In``
        `READ_LATENCY` cycles later: what was read, as wide as two chunks.
    load : ``Out(cols)``, rows : ``Out``, for each memory, chunk : ``Out``, for each memory
        To the columns: which one loads, and its ``load_rows`` and ``chunk``.
    arrived : ``Out(1)``
        A set is complete: it can be read two cycles later.
    """

    def __init__(self, config: CardConfig) -> None:
        self._size = config.fill_bytes
        self._columns = config.cols
        super().__init__(
            {
                "mode": In(Mode),
                "asked": In(asked_layout()),
                "data": In(2 * 8 * config.fill_bytes),
                "data_valid": In(1),
                "load": Out(config.cols),
                "rows": Out(range(4 * SETS)).array(4),
                "chunk": Out(unsigned(2 * config.fill_bytes)).array(4),
                "arrived": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self._size
        steps = [Signal(asked_layout(), name=f"asked{step}") for step in range(READ_LATENCY)]
        m.d.sync += Cat(steps).eq(Cat(self.asked, *steps))
        shift, last = steps[-1].shift, steps[-1].last
        loaded_set = Signal(range(SETS))
        # Counts lanes by fours: what is not used of an index (1 of 2 lanes, 3 of 1) is passed over.
        place, lanes = Signal(range(4 * self._columns)), Signal(3)
        with m.Switch(self.mode):
            for each, count in LANES.items():
                with m.Case(each):
                    m.d.comb += lanes.eq(4 // count)
        with m.If(self.data_valid):
            m.d.sync += place.eq(Mux(last, 0, place + lanes))

        # Granules come from far: there is a register behind the choice of bytes, which is known
        # before. Bytes keep their places until they are in order, in two steps: first each goes to
        # its memory, within its word of four bytes, then what a memory gets is turned by words.
        upper = Signal(size, reset_less=True)
        bytes_, by = Signal(8 * size, reset_less=True), Signal(2, reset_less=True)
        here, here_asked, here_place = Signal(), Signal(asked_layout()), Signal.like(place)
        lower_half, upper_half = (self.data[8 * size * i :][: 8 * size] for i in range(2))
        m.d.sync += [
            upper.eq(Cat(i < steps[-2].shift for i in range(size))),
            bytes_.eq(
                Cat(
                    Mux(upper[i], upper_half.word_select(i, 8), lower_half.word_select(i, 8))
                    for i in range(size)
                )
            ),
            by.eq(shift[:2] - place[:2]),
            here.eq(self.data_valid),
            here_asked.eq(steps[-1]),
            here_place.eq(place),
        ]
        m.submodules.lanes = in_words = Choose4(8 * size)
        turned = Signal(8 * size, reset_less=True)
        stored, stored_asked, stored_place = Signal(), Signal(asked_layout()), Signal.like(place)
        words = [bytes_.word_select(i, 32) for i in range(size // 4)]
        m.d.comb += [
            in_words.index.eq(by),
            *(
                choice.eq(Cat(word.rotate_right(8 * i) for word in words))
                for i, choice in enumerate(in_words.words)
            ),
            self.arrived.eq(here & here_asked.last),
        ]
        m.d.sync += [
            turned.eq(in_words.chosen),
            stored.eq(here),
            stored_place.eq(here_place),
            stored_asked.eq(here_asked),
            loaded_set.eq(loaded_set + (stored & stored_asked.last)),
        ]
        for i, part in enumerate(self.chunk):
            # The memory's first byte of the chunk, and the word that it is in.
            first, start = Signal(2, name=f"first{i}"), Signal(5, name=f"start{i}")
            by_words = Signal(range(size // 4), name=f"by_words{i}", reset_less=True)
            m.submodules[f"turn{i}"] = turn = (Choose4 if size == 16 else Choose8)(2 * size)
            ours = Cat(turned.word_select(4 * word + i, 8) for word in range(size // 4))
            m.d.comb += [
                first.eq(i - here_place[:2]),
                start.eq(here_asked.shift + first),
                turn.index.eq(by_words),
                *(choice.eq(ours.rotate_right(8 * k)) for k, choice in enumerate(turn.words)),
                part.eq(turn.chosen),
            ]
            m.d.sync += by_words.eq(start[2:])
        m.d.comb += [
            *(
                row.eq(Cat((i - stored_place[:2])[:2] & Cat(~stored_asked.wide, 1), loaded_set))
                for i, row in enumerate(self.rows)
            ),
            self.load.eq(Cat(stored & (stored_place[2:] == c) for c in range(self._columns))),
        ]
        return m
