"""The row engine: walks the directory, decodes its streams, and issues one weight a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import RELEASE_WORDS, CardConfig
from ..isa import Mode, Status
from ..numerics.widen import finish_widening
from .command import stream_command_layout
from .decoder import Decoder, head_layout
from .ports import stream_layout, visit_layout
from .stream_port import EngineFetch
from .walk import Walk, engine_start_layout

__all__ = ["RowEngine", "engine_start_layout"]

_CREDITS = 2
"""Non-empty visits that the epilogue lane's input holds."""


class RowEngine(wiring.Component):
    """Turns one engine's part of the stream blob into weights, one a cycle.

    Visits are made in the order that `MatmulBody` says; their streams are fetched, decoded, widened
    to the array's mode and issued. A weight is issued when its operand has reached the row, a
    visit's last weight also only when the drain is free and the epilogue lane has room. There is
    no bubble between visits, blocks or iterations that are ready in time, also of different
    commands: iterations belong to the two ``commands`` by turns, the first one after a reset to the
    first.

    Words of the ring are handed back in units of `RELEASE_WORDS`, at most one a cycle, and only
    those that have reached the row: in the engine's last visit of a slice those below the k of the
    next weight; the rest of the slice when the visit has ended. An engine without a row in a block
    hands the whole block back.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    index : ``In``
        Which of the rows this is; constant.
    start : ``In(stream)``
        Starts an iteration (`engine_start_layout`); one may wait while another runs.
    commands : ``In(stream_command_layout).array(2)``
        Each is still from its iteration's ``start`` until the iteration has ended.
    mode : ``In(Mode)``
        Still from the cycle before a ``start`` on, while weights are in the array.
    fetch : ``Out(EngineFetch)``
        To the scratchpad.
    filled : ``In(1)``
        Pulses for each operand word that has reached the row.
    stream : ``Out(stream_layout)``
    visit : ``Out(stream)``
        Descriptor of each visit (`visit_layout`), before its first weight.
    credit : ``In(1)``
        Pulses when a non-empty visit has left the lane's input; two may be in it.
    active, stall_stream, stall_fill, stall_drain : ``Out(1)``
        What the engine did in the cycle before; none of them when it had no work.
    error : ``Out(2)``, status : ``Out(Status).array(2)``
        Pulses, in an iteration of the first or the second command, when the blob is wrong.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "index": In(range(config.rows)),
                "start": In(stream.Signature(engine_start_layout(config))),
                "commands": In(stream_command_layout()).array(2),
                "mode": In(Mode),
                "fetch": Out(EngineFetch(config)),
                "filled": In(1),
                "stream": Out(stream_layout(config)),
                "visit": Out(stream.Signature(visit_layout())),
                "credit": In(1),
                "active": Out(1),
                "stall_stream": Out(1),
                "stall_fill": Out(1),
                "stall_drain": Out(1),
                "error": Out(2),
                "status": Out(Status).array(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = Walk(self._config)
        m.submodules.decoder = decoder = Decoder()
        connect(m, flipped(self.start), walk.start)
        connect(m, walk.fetch, flipped(self.fetch))
        connect(m, walk.visit, decoder.step)
        connect(m, decoder.visit, flipped(self.visit))
        self._mode = mode = Signal(Mode)  # a copy: the mode has many users
        m.d.sync += mode.eq(self.mode)
        m.d.comb += [
            decoder.output.eq(walk.output),
            decoder.granule.eq(walk.granule),
            decoder.granule_valid.eq(walk.granule_valid),
            walk.granule_ready.eq(decoder.granule_ready),
            walk.index.eq(self.index),
            walk.mode.eq(mode),
            decoder.mode.eq(mode),
            self.error.eq(walk.error | decoder.error),
        ]
        for turn in range(2):
            m.d.comb += [
                walk.commands[turn].eq(self.commands[turn]),
                decoder.commands[turn].eq(self.commands[turn]),
                self.status[turn].eq(Mux(walk.error[turn], Status.BAD_ADDRESS, decoder.status)),
            ]
        self._issue(m, decoder, walk.busy | decoder.busy)
        return m

    def _issue(self, m: Module, decoder: Decoder, busy: Value) -> None:
        """Issue the head when its operand is there, a last one also when the drain is free.

        All that this depends on is a register, made in the cycle before.
        """
        config = self._config
        given, given_valid = decoder.head.payload, decoder.head.valid
        head, head_valid = Signal(head_layout(), reset_less=True), Signal()
        # Words of the head's slice that have arrived, later ones counted on; negative where the
        # engine is done with a slice that is still being filled.
        available = Signal(signed(17))
        spacing = Signal(range(config.min_visit))
        credits = Signal(range(_CREDITS + 1), init=_CREDITS)
        operand_ready, drain_ready, issue, ends = Signal(), Signal(init=1), Signal(), Signal()
        last = Signal()
        next_credits, next_spacing = Signal.like(credits), Signal.like(spacing)
        less = ends.replicate(16) & ~head.length_less
        m.d.comb += [
            issue.eq(head_valid & operand_ready & (drain_ready | ~head.last)),
            last.eq(issue & head.last),
            ends.eq(issue & head.final & (head.last | ~head.valid)),
            decoder.head.ready.eq(~head_valid | issue),
            next_credits.eq(credits + self.credit - last),
            next_spacing.eq(Mux(last, config.min_visit - 1, spacing - spacing.any())),
        ]
        with m.If(decoder.head.ready):
            m.d.sync += [head_valid.eq(given_valid), head.eq(given)]
        m.d.sync += [
            # Words that arrive are counted a cycle late; where a slice ends the count is wrong.
            operand_ready.eq(
                Mux(decoder.head.ready, given.k < available, head.k < available) & ~ends
            ),
            drain_ready.eq(next_credits.any() & ~next_spacing.any()),
            # The words that arrive come in as a carry.
            available.eq((Cat(1, available) + Cat(self.filled, less, ends))[1:]),
            credits.eq(next_credits),
            spacing.eq(next_spacing),
        ]

        work, lane_full = head_valid & head.valid, Signal()
        m.d.comb += [
            lane_full.eq(self.visit.valid & ~self.visit.ready & ~self.visit.payload.empty),
        ]
        m.d.sync += [
            self.active.eq(issue & head.valid),
            self.stall_fill.eq(work & ~operand_ready),
            self.stall_drain.eq((work & operand_ready & ~issue) | (~head_valid & lane_full)),
            self.stall_stream.eq(~head_valid & busy & ~lane_full),
        ]
        unit = self._release(m, head, head_valid, operand_ready, ends, available)
        depth_bits = (config.operand_depth - 1).bit_length()
        in_unit = (RELEASE_WORDS - 1).bit_length()
        m.d.sync += [
            self.stream.value.eq(finish_widening(m, head.value, self._mode, name="weight")),
            self.stream.address.eq(Cat(head.k[:in_unit], unit[: depth_bits - in_unit])),
            self.stream.valid.eq(issue & head.valid),
            self.stream.first.eq(head.first),
            self.stream.last.eq(head.last),
        ]

    def _release(self, m: Module, head, head_valid, operand_ready, ends, available) -> Signal:
        """Hand units of words back; return the unit of the head's operand.

        Units are counted from reset, modulo twice the ring: there are never more than a ring of
        them between those that have arrived and those that have been handed back.
        """
        units = 2 * self._config.operand_depth // RELEASE_WORDS
        shift = (RELEASE_WORDS - 1).bit_length()
        base, unit = Signal(range(units)), Signal(range(units))  # of the head's slice, of the head
        target, released = Signal(range(units)), Signal(range(units))
        # After the end of a slice some of its words may still be on their way, and it is rounded up
        # to units: the next slice begins ``rest`` words after it, and ``whole + 1`` units later.
        ended, closing = Signal(), Signal()
        whole, rest = Signal(range(units), reset_less=True), Signal(shift, reset_less=True)
        # Units from the base on that had arrived a cycle before; less than 0 where they are of the
        # slice that ended last.
        arrived = Signal(signed(len(available)))
        reached = Signal(signed(len(available) - shift), reset_less=True)
        negative, due = Signal(), Signal()
        m.d.comb += [
            unit.eq(base + (head.k >> shift)),
            due.eq(released != target),
            negative.eq(available < 0),
            arrived.eq(available - Mux(negative, rest, 0)),
        ]
        # No weight of the next slice is issued in the cycle after the end, so that this can wait.
        m.d.sync += [
            ended.eq(ends),
            whole.eq(head.length_less >> shift),
            reached.eq(arrived >> shift),
            self.stream.release.eq(due),
            released.eq(released + due),
        ]
        with m.If(ends):
            m.d.sync += rest.eq(~head.length_less)
        with m.If(ended):
            m.d.sync += [
                closing.eq(1),
                base.eq((Cat(1, base) + Cat(1, whole))[1:]),
            ]
        with m.Elif(~negative):
            m.d.sync += closing.eq(0)
        # A weight that waits needs nothing before its own unit either.
        waits, at_head = Signal(), Signal()
        m.d.comb += [
            waits.eq(head_valid & head.valid & head.final & ~ended & (reached >= 0)),
            at_head.eq(~negative & waits),
        ]
        with m.If(~ended & (closing | at_head)):
            m.d.sync += target.eq(
                Mux(
                    at_head & operand_ready,
                    unit,
                    base + Mux(negative | at_head, reached, 0),
                )
            )
        return unit
