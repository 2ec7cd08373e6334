"""Square tiles of numbers, from rows to columns."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import GRANULE

__all__ = ["Transposer", "row_layout"]

_BITS = (GRANULE - 1).bit_length()


def row_layout() -> data.StructLayout:
    """Layout of a granule on its way in: ``last`` ends what is worked on together, which is a tile
    or a row."""
    return data.StructLayout({"data": unsigned(8 * GRANULE), "last": unsigned(1)})


def _rotate(m: Module, word: Value, amount: Value, bits: range, name: str) -> Value:
    """Return the granule of which byte ``(i + by) % GRANULE`` is byte i of ``word``, where ``by``
    is what some bits of ``amount`` stand for."""
    for bit in bits:
        moved = Signal(8 * GRANULE, name=f"{name}_{1 << bit}")
        m.d.comb += moved.eq(Mux(amount[bit], word.rotate_left(8 << bit), word))
        word = moved
    return word


class Transposer(wiring.Component):
    """Takes the rows of a tile and gives its columns, one granule each a cycle.

    A tile has as many rows and columns as a granule has numbers, or fewer. There is room for two:
    one comes in while the other goes out.

    Each byte of a granule has a memory of its own. Row r is rotated by r numbers, so that the
    numbers of a column lie in different memories, too. In its memory, byte b of a number lies at
    ``r * bytes + b``; that is ``i - c * bytes`` for the number of column c of which memory i holds
    a byte, whatever the size.

    Members
    -------
    size : ``In(2)``
        A number has ``2 ** size`` bytes: 0 to 2. Stands still while there are tiles.
    row : ``In(stream.Signature(row_layout()))``
        ``last`` ends a tile.
    ready : ``Out(1)``
        There is a tile to take columns of.
    take : ``In(1)``
        Takes ``column``, which is the ``last`` of the tile; not without ``ready``.
    column : ``In(4)``
    last : ``In(1)``
    valid_o : ``Out(1)``
        ``LATENCY`` cycles after ``take``.
    granule : ``Out(128)``
        What lies beyond the rows of the tile is void.
    """

    LATENCY = 3

    size: In(2)
    row: In(stream.Signature(row_layout()))
    ready: Out(1)
    take: In(1)
    column: In(_BITS)
    last: In(1)
    valid_o: Out(1)
    granule: Out(8 * GRANULE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full = Signal(2)
        side_in, side_out = Signal(), Signal()
        emptied = Signal()
        r = Signal(_BITS)  # the row in its tile, in bytes of a column
        write = Signal()
        m.d.comb += [
            self.row.ready.eq(~full.bit_select(side_in, 1)),
            write.eq(self.row.valid & self.row.ready),
        ]
        with m.If(write):
            m.d.sync += r.eq(r + (Const(1) << self.size))
        with m.If(write & self.row.payload.last):
            m.d.sync += [
                r.eq(0),
                side_in.eq(~side_in),
                full.bit_select(side_in, 1).eq(1),
            ]
        m.d.comb += [
            self.ready.eq(full.bit_select(side_out, 1)),
            emptied.eq(self.take & self.last),
        ]
        with m.If(emptied):
            m.d.sync += [side_out.eq(~side_out), full.bit_select(side_out, 1).eq(0)]

        column = Signal(_BITS)  # in bytes of a row
        m.d.comb += column.eq(self.column << self.size)
        within = Cat(self.size != 0, self.size == 2)  # of a byte's place, what is in its number
        turned = _rotate(m, self.row.payload.data, r, range(_BITS), "in")
        columns = []
        for i in range(GRANULE):
            bank = memory.Memory(
                shape=unsigned(8), depth=2 * GRANULE, init=[], attrs={"ram_style": "distributed"}
            )
            m.submodules[f"bank{i}"] = bank
            into, out = bank.write_port(), bank.read_port()
            place = Signal(_BITS, name=f"place{i}")
            m.d.comb += [
                place.eq(i - column),
                into.en.eq(write),
                into.addr.eq(Cat(r | (within & i), side_in)),
                into.data.eq(turned.word_select(i, 8)),
                out.en.eq(self.take),
                out.addr.eq(Cat(place, side_out)),
            ]
            columns.append(out.data)

        # They turn back in two steps.
        low, high = range(_BITS // 2), range(_BITS // 2, _BITS)
        valid = Signal(2)
        turns = [Signal(_BITS, name=f"turn{i}", reset_less=True) for i in range(2)]
        half_out = Signal(8 * GRANULE, reset_less=True)
        m.d.sync += Cat(valid, self.valid_o).eq(Cat(self.take, valid))
        with m.If(self.take):
            m.d.sync += turns[0].eq(-column)
        with m.If(valid[0]):
            m.d.sync += [
                half_out.eq(_rotate(m, Cat(columns), turns[0], low, "out")),
                turns[1].eq(turns[0]),
            ]
        with m.If(valid[1]):
            m.d.sync += self.granule.eq(_rotate(m, half_out, turns[1], high, "out"))
        return m
