"""A register between two streams through which no path leads."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .tech.gate import Gate

__all__ = ["Elastic"]


class Elastic(wiring.Component):
    """Passes an item a cycle, a cycle later. All that it drives comes from registers: what decides
    whether an item is taken does not reach back to what makes the next one.

    Parameters
    ----------
    shape : shape-like
        Of the items.

    Members
    -------
    source : ``In(stream.Signature(shape))``
    target : ``Out(stream.Signature(shape))``
    hold : ``In(1)``
        The target does not take the item, whatever its ``ready``.
    """

    def __init__(self, shape) -> None:
        super().__init__(
            {
                "source": In(stream.Signature(shape)),
                "target": Out(stream.Signature(shape)),
                "hold": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        source, target = self.source, self.target
        item, held = Value.cast(source.payload), Value.cast(target.payload)
        spare = Signal(len(item), reset_less=True)  # what came when the target did not take
        # ``free`` is not ``full``: one has many loads, the other is wanted early.
        full, free = Signal(), Signal(init=1)
        move, some = Signal(), Signal()
        # ``ready`` is late: each register is a gate away from it.
        m.submodules.moves = moves = Gate(
            lambda valid, hold, ready, _: not valid or (ready and not hold)
        )
        m.submodules.stays = stays = Gate(
            lambda valid, hold, ready, some: some or (valid and (hold or not ready))
        )
        m.submodules.fills = fills = Gate(
            lambda valid, hold, ready, some: some and valid and (hold or not ready)
        )
        for gate in (moves, stays, fills):
            m.d.comb += gate.bits.eq(Cat(target.valid, self.hold, target.ready, some))
        m.d.comb += [
            source.ready.eq(free),
            some.eq(full | source.valid),
            move.eq(moves.out),
        ]
        with m.If(move):
            m.d.sync += held.eq(Mux(full, spare, item))
        with m.If(~full):
            m.d.sync += spare.eq(item)
        m.d.sync += [target.valid.eq(stays.out), full.eq(fills.out), free.eq(~fills.out)]
        return m
