"""A memory of parts of commands, read while it is written."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory

from ..tech.copy import copies

__all__ = ["CommandRows"]

_PIECE = 32
"""Bits of a row that one memory holds. What reads a row lies spread over the device: so a row is
cut into memories that can lie near their readers, and with ``far`` each has a register of its own
with the address that it is read at."""


class CommandRows:
    """A memory of rows that are written beat by beat and read in order.

    Parameters
    ----------
    m, platform : Module, object
        Where it is put, and what that elaborates with.
    beat : Value
        What is written into a lane of a row.
    name : str
        Of the memory in ``m``.
    bits, depth : int
        Width of a row, a multiple of the beat's and of 32; rows.
    late : bool
        ``there`` comes from a register. ``out`` then only changes by `take`.
    far : bool
        Each memory of a row has a read address register of its own. ``out`` then only changes by
        `take`, and a row that follows a reset is read from the second cycle behind it on.

    Members
    -------
    there : Signal
        The next row is whole. Void when all ``depth`` rows are: full looks like empty.
    data, out : Value, Signal
        The next row, and its number.
    following : Value
        The number of the row behind it.
    """

    def __init__(
        self,
        m: Module,
        platform: object,
        beat: Value,
        name: str,
        bits: int,
        depth: int,
        *,
        late: bool = False,
        far: bool = False,
    ) -> None:
        self.bits = bits
        self._into = Signal(range(depth), name=f"{name}_into")
        self._enable = Signal(bits // len(beat), name=f"{name}_enable")
        self.out = Signal(range(depth), name=f"{name}_out")
        self._next = Signal(range(depth), name=f"{name}_next")
        self._depth = depth
        self.following = self._behind(self.out)
        self.there = Signal(name=f"{name}_there")
        m.d.comb += self._next.eq(self.out)
        m.d.sync += self.out.eq(self._next)
        starts = range(0, bits, _PIECE)
        addresses = [self.out] * len(starts)
        if far:
            addresses = copies(m, platform, self._next, len(starts), name=f"{name}_address")
        pieces = []
        for start, address in zip(starts, addresses, strict=True):
            m.submodules[f"{name}_{start}"] = store = memory.Memory(
                shape=unsigned(_PIECE), depth=depth, init=[], attrs={"ram_style": "distributed"}
            )
            write, read = store.write_port(), store.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self._enable[start // len(beat)]),
                write.addr.eq(self._into),
                write.data.eq(beat[start % len(beat) :][:_PIECE]),
                read.addr.eq(address),
            ]
            pieces.append(read.data)
        self.data = Cat(pieces)
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
        m.d.comb += self._enable.eq(1 << lane)
        if end:
            m.d.comb += self._ends.eq(1)
            m.d.sync += self._into.eq(self._behind(self._into))

    def take(self, m: Module) -> None:
        """Go on to the next row."""
        m.d.comb += self._next.eq(self.following)
        if self._late:
            m.d.sync += self.there.eq((self.following != self._into) | self._ends)
