"""One column of the fill path: turns chunks of consecutive k into operand words."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import Mode
from ..numerics.widen import begin_widening, halfway_layout, number_layout
from ..tech.choose import Choose4
from ..tech.choose8 import Choose8

__all__ = ["SETS", "Serializer"]

SETS = 4
"""Chunks that each lane of a column holds: as deep as small RAM is (16 quarters of chunks)."""

_LANES = 4


class Serializer(wiring.Component):
    """Takes a chunk of one lane a cycle, and gives an operand word of all lanes a cycle.

    There are four memories, each a quarter of a chunk wide. Bytes b, b + 4, b + 8 ... of a chunk of
    lane l lie in memory ``(b + l) % 4``, in row ``4 * set + b % 4``: so a chunk is written in one
    cycle, and byte b of all lanes is read from one row. Of wide numbers, which have one lane, both
    bytes are in the first one's row.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
        The array's mode, from a cycle before numbers are read in it.
    load : ``In(1)``
        Write a chunk.
    load_rows : ``In``, for each memory
        The row: the set, and the lowest byte.
    chunk : ``In``, for each memory
        A quarter of ``fill_bytes``.
    pick, pick_last : ``In(1)``
        Numbers are read: after a reset the first ones of the first set. The next ones lie
        ``nibbles`` further on, or, behind the last ones of a set, at the beginning of the next.
        Each column counts for itself: columns lie far apart, and their memories have many bits.
    number, nibbles : ``In(number_layout)``, ``In(3)``
        Describe the format of these numbers.
    word : ``Out(halfway_layout)``
        `LATENCY` cycles later, from a register: the numbers, as `fill_layout` has them. Mode INT8
        is in lanes 0 and 2, one number in lane 0.
    """

    LATENCY = 2

    def __init__(self, config: CardConfig) -> None:
        self._nibbles = 2 * config.fill_bytes
        self._bits = 2 * config.fill_bytes  # of a quarter
        super().__init__(
            {
                "mode": In(Mode),
                "number": In(number_layout()),
                "load": In(1),
                "load_rows": In(range(4 * SETS)).array(4),
                "chunk": In(unsigned(self._bits)).array(4),
                "pick": In(1),
                "pick_last": In(1),
                "nibbles": In(3),
                "word": Out(halfway_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pick_set, position = Signal(range(SETS)), Signal(range(self._nibbles))
        with m.If(self.pick):
            m.d.sync += [
                position.eq(Mux(self.pick_last, 0, position + self.nibbles)),
                pick_set.eq(pick_set + self.pick_last),
            ]
        byte = position[1:3]
        lows, highs = [], []  # of each memory: the nibble, and the upper one of its byte
        for i in range(4):
            memory = Memory(shape=unsigned(self._bits), depth=4 * SETS, init=[])
            m.submodules[f"memory{i}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.load),
                write.addr.eq(self.load_rows[i]),
                write.data.eq(self.chunk[i]),
                read.addr.eq(Cat(byte, pick_set)),
            ]
            part = read.data
            if self._bits > 32:
                part = Signal(32, name=f"part{i}")
                m.d.comb += part.eq(Mux(position[5], read.data[32:], read.data[:32]))
            m.submodules[f"nibble{i}"] = nibble = Choose8(4)
            m.submodules[f"above{i}"] = above = Choose4(4)
            m.d.comb += [
                nibble.index.eq(Cat(position[0], position[3:5])),
                *(each.eq(part.word_select(j, 4)) for j, each in enumerate(nibble.words)),
                above.index.eq(position[3:5]),
                *(each.eq(part[8 * j + 4 : 8 * j + 8]) for j, each in enumerate(above.words)),
            ]
            lows.append(nibble.chosen)
            highs.append(above.chosen)

        # Of each lane. A wide number's second byte is where lane 1 would have its first one.
        low, high = (
            [Signal(4, name=f"{name}_{lane}", reset_less=True) for lane in range(count)]
            for name, count in (("low", 4), ("high", 3))
        )
        m.d.sync += [
            *(
                low[lane].eq(self._of_lane(m, f"low{lane}", lows, lane, byte))
                for lane in range(_LANES)
            ),
            *(high[lane].eq(self._of_lane(m, f"high{lane}", highs, lane, byte)) for lane in (0, 2)),
            high[1].eq(Mux(byte[1], highs[3], highs[1])),
        ]
        # Copies of its own: what is said of numbers and the mode has many users. What is chosen is
        # said in two bits. INT4 is extended, where there are 8 bits for it.
        number, mode = Signal(number_layout(), reset_less=True), Signal(Mode)
        four, eight, extend = Signal(), Signal(), Signal()
        m.d.sync += [
            number.eq(self.number),
            mode.eq(self.mode),
            four.eq(self.mode == Mode.INT4),
            eight.eq(self.mode == Mode.INT8),
            extend.eq(self.number.is_int4 & (self.mode != Mode.INT4)),
        ]
        raw = Signal(16)
        m.submodules.second, m.submodules.fourth = second, fourth = Choose4(4), Choose4(4)
        signs = [low[lane][3].replicate(4) for lane in (0, 2)]
        for choose, index, words in (
            (second, Cat(extend, four), (high[0], signs[0], low[1], low[1])),
            (fourth, Cat(four | extend, eight), (high[1], low[3], high[2], signs[1])),
        ):
            m.d.comb += choose.index.eq(index)
            m.d.comb += [each.eq(word) for each, word in zip(choose.words, words, strict=True)]
        third = Mux(four | eight, low[2], low[1])
        m.d.comb += raw.eq(Cat(low[0], second.chosen, third, fourth.chosen))

        # Half of the widening; the other half is done where the word is prepared.
        halfway = Signal(halfway_layout(), reset_less=True)
        m.d.sync += halfway.eq(begin_widening(m, raw, number, mode, name="lane0"))
        m.d.comb += self.word.eq(halfway)
        return m

    def _of_lane(self, m: Module, name: str, parts, lane: int, byte) -> Signal:
        """Return the part of one lane: memory ``(byte + lane) % 4`` has it."""
        m.submodules[name] = choose = Choose4(len(parts[0]))
        m.d.comb += [
            choose.index.eq(byte),
            *(each.eq(parts[(b + lane) % _LANES]) for b, each in enumerate(choose.words)),
        ]
        return choose.chosen
