"""A command's two loops: the addresses of its iterations."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Operand
from ..tech.select import select as tech_select
from .select import select

__all__ = ["LoopWalk"]


class LoopWalk(wiring.Component):
    """Makes the addresses of one iteration after the other, one operand at a time.

    A cycle for each operand, and a second one where its ``pong`` is added. While ``hold`` is high,
    it works out the next iteration's first address, and gives none.

    Parameters
    ----------
    operands : int
        Addresses of an iteration, 2 or 3.

    Members
    -------
    run : ``In(1)``
        The walk may begin, or go on, as all operands are there; until ``over`` it stays high.
    known : ``In(1)``, ``inner``, ``outer``, ``pong_outer`` : ``In``
        The command's fields, which are there from ``known`` on: at the latest in the cycle after
        ``run``. They stay until the cycle after ``over``.
    turn : ``Out``, operand : ``In(Operand)``
        The operand that is wanted.
    take : ``Out(1)``
        On to the next operand; after an iteration's last one (``made``) it is the first one again.
    made, over : ``Out(1)``
        All addresses of an iteration are on their way; it is the command's last one.
    hold : ``In(1)``
        Give nothing in the next cycle.
    give : ``Out(1)``, ``gives``, ``address`` : ``Out``
        An address of an iteration; ``gives`` has a bit for each operand.
    begin : ``Out(1)``
        With ``give``: it is the iteration's first address.
    whole, complete : ``Out(1)``
        The iteration's last address is given; or ``hold`` was high in the cycle before. Both and
        ``give`` are registers, as much hangs on them. ``whole`` comes in the cycle after ``made``.
    first, turns : ``Out(1)``
        With ``give``: it is the command's first iteration; an outer iteration's first one.
    last_inner, last : ``Out(1)``
        With ``whole``: it is an outer iteration's last one; the command's last one.
    """

    def __init__(self, operands: int) -> None:
        if not 2 <= operands <= 3:
            raise ValueError(f"operands must be 2 or 3, not {operands!r}")
        self._operands = operands
        super().__init__(
            {
                "run": In(1),
                "known": In(1),
                "inner": In(16),
                "outer": In(16),
                "pong_outer": In(operands),
                "turn": Out(range(operands)),
                "operand": In(Operand),
                "take": Out(1),
                "made": Out(1),
                "over": Out(1),
                "hold": In(1),
                "give": Out(1),
                "gives": Out(operands),
                "address": Out(32),
                "begin": Out(1),
                "whole": Out(1),
                "complete": Out(1),
                "first": Out(1),
                "turns": Out(1),
                "last_inner": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fresh = Signal(init=1)  # it is the command's first iteration
        move = Signal()  # it is the first one of an outer iteration, but not of all
        parity, outer_parity = self._elaborate_loops(m, fresh, move)

        # First what is to be added to an operand's address, then the sum.
        second = Signal()  # the ping-pong offset is to be added
        compared = Signal()  # ``last`` tells of this command
        step, last = Signal(), Signal()
        # What has been chosen cannot be given yet; or not: that has many loads.
        full, free = Signal(), Signal(init=1)
        # Much hangs on ``made``: that an iteration's last step is due is found a cycle ahead.
        due, due_next, takes = Signal(), Signal(), Signal()
        pings = [Mux(pong, outer_parity, parity) for pong in self.pong_outer]
        m.d.comb += [
            last.eq(self.turn == self._operands - 1),
            step.eq(self.run & ~full & (~last | compared)),
            takes.eq(step & ~last & (second | ~select(self.turn, pings))),
            self.made.eq(due & ~full),
            self.take.eq(takes | self.made),
            self.over.eq(self.made & self.last),
            due_next.eq(
                Mux(
                    last,
                    ~self.made & (step | second | ~pings[-1]),
                    takes & (self.turn == self._operands - 2) & ~pings[-1],
                )
            ),
        ]
        m.d.sync += [
            compared.eq(self.known & ~self.over),
            due.eq(self.known & due_next),
            full.eq((full | step) & self.hold),
            free.eq(~((full | step) & self.hold)),
            self.give.eq((full | step) & ~self.hold),
        ]
        with m.If(step):
            m.d.sync += second.eq(~self.take)
        with m.If(self.take):
            m.d.sync += self.turn.eq(Mux(last, 0, self.turn + 1))

        number, of = Signal.like(self.turn), Signal(self._operands)  # the operand, and a bit for it
        start, offset = Signal(32, reset_less=True), Signal(32, reset_less=True)
        pong = Signal()  # it is what ``second`` tells of
        ends = Signal()  # it is the iteration's last one
        operand = self.operand
        offsets = [operand.inner.as_unsigned(), operand.outer.as_unsigned()]
        offsets += [operand.base, operand.pong]
        kind = Cat(move | second, fresh | second)
        chosen = tech_select(m, platform, kind, offsets, name="offset_choice")
        # What it is added to is the address that is given in this cycle, nothing, or one that is
        # kept: of the iteration before, or of the outer iteration before.
        kept = self._addresses(m, number, self.give & ~pong, fresh | move)
        with m.If(free):
            m.d.sync += [
                offset.eq(chosen),
                start.eq(Mux(second, self.address, Mux(fresh, 0, kept))),
                number.eq(self.turn),
                of.eq(Cat(step & (self.turn == n) for n in range(self._operands))),
                pong.eq(second),
                ends.eq(due),
                self.begin.eq((self.turn == 0) & ~second),
                self.first.eq(fresh),
                self.turns.eq(fresh | move),
            ]
        ending = Mux(full, ends, due)
        m.d.sync += [
            self.whole.eq(ending & ~self.hold),
            self.complete.eq(ending | self.hold),
        ]
        m.d.comb += [
            self.gives.eq(of & self.give.replicate(len(of))),
            self.address.eq(start + offset),
        ]
        return m

    def _elaborate_loops(self, m: Module, fresh: Signal, move: Signal) -> tuple[Signal, Signal]:
        """Count iterations; return the parities of the inner and of the outer ones."""
        inner, outer = Signal(16, init=1), Signal(16, init=1)  # from 1
        parity, outer_parity = Signal(), Signal()
        last_inner, last_outer = Signal(), Signal()
        m.d.comb += [
            last_inner.eq(inner == self.inner),
            last_outer.eq(outer == self.outer),
            outer_parity.eq(~outer[0]),
        ]
        m.d.sync += [self.last_inner.eq(last_inner), self.last.eq(last_inner & last_outer)]
        with m.If(self.made):
            m.d.sync += [
                inner.eq(inner + 1),
                parity.eq(~parity),
                move.eq(self.last_inner),
                fresh.eq(0),
            ]
            with m.If(self.last_inner):
                m.d.sync += [inner.eq(1), outer.eq(outer + 1)]
        with m.If(self.over):
            m.d.sync += [outer.eq(1), parity.eq(0), move.eq(0), fresh.eq(1)]
        return parity, outer_parity

    def _addresses(self, m: Module, number: Signal, gives: Value, turns: Value) -> Value:
        """Keep ``address`` of operand ``number`` with ``gives``; return what ``turn`` begins with.

        There are two of each operand: of the newest iteration that was the first of an outer one
        (``turns``), and of the newest one that was not.
        """
        m.submodules.addresses = addresses = memory.Memory(
            shape=unsigned(32), depth=2 << len(number), init=[], attrs={"ram_style": "distributed"}
        )
        write, read = addresses.write_port(), addresses.read_port(domain="comb")
        turned = Signal()  # the former is wanted
        with m.If(self.made):
            m.d.sync += turned.eq(turns | self.last_inner)
        m.d.comb += [
            write.addr.eq(Cat(number, self.turns)),
            write.data.eq(self.address),
            write.en.eq(gives),
            read.addr.eq(Cat(self.turn, turned)),
        ]
        return read.data
