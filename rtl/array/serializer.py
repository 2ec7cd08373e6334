"""One column of the fill path: turns chunks of consecutive k into operand words."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import Format, Mode
from ..numerics.widen import begin_widening, finish_widening, halfway_layout
from ..tech.choose import Choose4

__all__ = ["SETS", "Serializer"]

SETS = 8
"""Chunks that each lane of a column holds: as deep as small RAM is anyway (16 half chunks)."""

_PART = 64
"""Bits of a memory word: wider ones simulate more slowly."""


class Serializer(wiring.Component):
    """Takes a chunk of one lane a cycle, and gives an operand word of all lanes a cycle.

    There are two pairs of memories, each half a chunk wide. Half h of a chunk of lane
    ``2 * pair + odd`` lies in memory ``h ^ odd`` of its pair, in row ``2 * set + h``: so a chunk is
    written in one cycle, and half h of both lanes of a pair is read from one row.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
        The array's mode.
    load : ``In(2)``
        Write a chunk to a lane of the pair.
    load_odd, load_set : ``In``
        Which lane of the pair, and which set.
    chunk : ``In``, halves for the memories 0 and 1
        Of ``fill_bytes``; the upper half comes first if ``load_odd``.
    pick_set, position : ``In``
        Set and nibble of the numbers to read.
    in_format : ``In(8)``
        The `Format` of these numbers.
    word : ``Out(16)``
        `LATENCY` cycles later: the numbers, widened, as `fill_layout` has them. Mode INT8 is in
        lanes 0 and 2, one number in lane 0.
    """

    LATENCY = 2

    def __init__(self, config: CardConfig) -> None:
        self._parts = 4 * config.fill_bytes // _PART
        super().__init__(
            {
                "mode": In(Mode),
                "in_format": In(8),
                "load": In(2),
                "load_odd": In(1),
                "load_set": In(range(SETS)),
                "chunk": In(unsigned(4 * config.fill_bytes)).array(2),
                "pick_set": In(range(SETS)),
                "position": In(range(2 * config.fill_bytes)),
                "word": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        second_half = self.position[-1]
        lanes = []
        for pair in range(2):
            first, other = (self._memory(m, pair, i) for i in range(2))
            lanes += [Mux(second_half, other, first), Mux(second_half, first, other)]
        numbers = []
        in_format = Signal(8, reset_less=True)
        m.d.sync += in_format.eq(self.in_format)
        for i, lane in enumerate(lanes):
            byte = Mux(self.position[1], lane[8:], lane[:8])
            nibble = Mux(self.position[0], byte[4:], byte[:4])
            # Lane 0 is used in every mode, lane 2 in two of them, the others in one.
            number = Signal({0: 16, 2: 8}.get(i, 4), name=f"number{i}", reset_less=True)
            m.d.sync += number.eq(Cat(nibble, byte[4:], lane[8:]))
            numbers.append(number)

        # Half of the widening in the next cycle, the other half in the one after it.
        begun = begin_widening(m, numbers[0], in_format, self.mode, name="lane0")
        halfway, packed = Signal(halfway_layout(), reset_less=True), Signal(16, reset_less=True)
        low, second = begun.number[:8], numbers[2]
        is_int4 = in_format == Format.INT4.value
        extended = Mux(is_int4, Cat(second[:4], second[3].replicate(4)), second)
        m.d.sync += [
            halfway.eq(begun),
            packed.eq(
                Mux(
                    self.mode == Mode.INT4,
                    Cat(number[:4] for number in numbers),
                    Cat(low, extended),
                )
            ),
        ]
        wide = finish_widening(m, halfway, self.mode, name="lane0")
        integers = (self.mode == Mode.INT4) | (self.mode == Mode.INT8)
        m.d.comb += self.word.eq(Mux(integers, packed, wide))
        return m

    def _memory(self, m: Module, pair: int, i: int) -> Signal:
        """Return the 16 bits of one memory around ``position``."""
        words = []
        for part in range(self._parts):
            memory = Memory(shape=unsigned(_PART), depth=2 * SETS, init=[])
            m.submodules[f"memory{pair}{i}_{part}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.load[pair]),
                write.addr.eq(Cat(self.load_odd ^ i, self.load_set)),
                write.data.eq(self.chunk[i].word_select(part, _PART)),
                read.addr.eq(Cat(self.position[-1], self.pick_set)),
            ]
            m.submodules[f"part{pair}{i}_{part}"] = choose = Choose4(16)
            m.d.comb += choose.index.eq(self.position[2:4])
            for j, word in enumerate(choose.words):
                m.d.comb += word.eq(read.data.word_select(j, 16))
            words.append(choose.chosen)
        around = Signal(16, name=f"around{pair}{i}")
        m.d.comb += around.eq(Mux(self.position[4], words[1], words[0]) if words[1:] else words[0])
        return around
