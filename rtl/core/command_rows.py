"""A memory of parts of commands, read while it is written."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory

__all__ = ["CommandRows"]


class CommandRows:
    """A memory of rows that are written beat by beat and read in order.

    Parameters
    ----------
    m : Module
        Where it is put.
    beat : Value
        What is written into a lane of a row.
    name : str
        Of the memory in ``m``.
    bits, depth : int
        Width of a row, a multiple of the beat's; rows.
    late : bool
        ``there`` comes from a register. ``out`` then only changes by `take`.

    Members
    -------
    there : Signal
        The next row is whole. Meaningless where all rows are.
    data, out : Value, Signal
        The next row, and its number.
    following : Value
        The number of the row behind it.
    """

    def __init__(
        self, m: Module, beat: Value, name: str, bits: int, depth: int, *, late: bool = False
    ) -> None:
        self.bits = bits
        m.submodules[name] = store = memory.Memory(
            shape=unsigned(bits), depth=depth, init=[], attrs={"ram_style": "distributed"}
        )
        self._write = store.write_port(granularity=len(beat))
        read = store.read_port(domain="comb")
        self._into = Signal(range(depth), name=f"{name}_into")
        self.out = Signal(range(depth), name=f"{name}_out")
        self._depth = depth
        self.following = self._behind(self.out)
        self.there = Signal(name=f"{name}_there")
        self.data = read.data
        m.d.comb += [
            self._write.addr.eq(self._into),
            self._write.data.eq(beat.replicate(bits // len(beat))),
            read.addr.eq(self.out),
        ]
        self._late = late
        self._ends = Signal(name=f"{name}_ends")  # a row is whole in the next cycle
        if late:
            m.d.sync += self.there.eq((self.out != self._into) | self._ends)
        else:
            m.d.comb += self.there.eq(self.out != self._into)

    def _behind(self, row: Signal) -> Value:
        # Not by a sum, of which synthesis would make a chain.
        flips = Cat(row[:bit].all() for bit in range(len(row)))
        return Mux(row == self._depth - 1, 0, row ^ flips)

    def write(self, m: Module, lane: int, *, end: bool) -> None:
        """Write the beat to a lane of the row; with ``end`` the row is whole."""
        m.d.comb += self._write.en.eq(1 << lane)
        if end:
            m.d.comb += self._ends.eq(1)
            m.d.sync += self._into.eq(self._behind(self._into))

    def take(self, m: Module) -> None:
        """Go on to the next row."""
        m.d.sync += self.out.eq(self.following)
        if self._late:
            m.d.sync += self.there.eq((self.following != self._into) | self._ends)
