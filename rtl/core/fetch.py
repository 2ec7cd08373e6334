"""Reads the command ring, at most two commands ahead of the dispatcher."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import COMMAND_BYTES
from ..memory.bus import request_layout
from .queue_write import command_beats

__all__ = ["RingFetch"]

_AHEAD = 2
_COMMAND_BITS = (COMMAND_BYTES - 1).bit_length()


class RingFetch(wiring.Component):
    """Requests commands while there are some in the ring and keeps their beats in a FIFO.

    A reset forgets all that was fetched and not taken; fetching then begins again at ``taken``.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    base, size : ``In(32)``
        Ring address in bytes, of which the low 7 bits are 0, and its size in commands (a power of
        two).
    tail, taken : ``In(32)``
        Commands written, and taken by the dispatcher, so far.
    took : ``In(1)``
        ``taken`` is about to count one more: a slot ahead is free.
    hold : ``In(1)``
        Ask for nothing.
    request : ``Out(stream)``
        Bursts of one command each. One that was taken may be withdrawn before a reset.
    read : ``In(stream, always_ready)``
    beats : ``Out(stream)``
        The commands in order, in beats of the bus.
    bad : ``Out(1)``
        The next command lies outside card memory, and all before it have been taken.
    quiet : ``Out(1)``
        No beats are on their way.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        beat = unsigned(8 * config.bus_bytes)
        super().__init__(
            {
                "base": In(32),
                "size": In(32),
                "tail": In(32),
                "taken": In(32),
                "took": In(1),
                "hold": In(1),
                "request": Out(stream.Signature(request_layout(config))),
                "read": In(stream.Signature(beat, always_ready=True)),
                "beats": Out(stream.Signature(beat)),
                "bad": Out(1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beats = command_beats(self.config)

        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(
            width=8 * self.config.bus_bytes, depth=_AHEAD * beats
        )
        m.d.comb += [
            queue.w_data.eq(self.read.payload),
            queue.w_en.eq(self.read.valid),
            self.beats.payload.eq(queue.r_data),
            self.beats.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.beats.ready),
        ]

        asked = Signal()
        ahead = Signal(range(_AHEAD + 1))  # commands asked for and not taken
        flying = Signal(range(_AHEAD + 1))  # commands asked for and not wholly read
        arrived = Signal(range(beats))
        m.d.comb += [
            asked.eq(self.request.valid & self.request.ready),
            self.quiet.eq(flying == 0),
        ]
        landed = self.read.valid & (arrived == beats - 1)
        with m.If(self.read.valid):
            m.d.sync += arrived.eq(Mux(landed, 0, arrived + 1))
        m.d.sync += [
            ahead.eq(ahead + asked - self.took),
            flying.eq(flying + asked - landed),
        ]

        # Both in commands; what lies beyond these bits is outside card memory.
        bits = self.config.memory_addr_width - _COMMAND_BITS
        index, place = Signal(bits), Signal(bits)
        far, outside = Signal(), Signal()
        # `following` is ``taken`` and ``ahead``: not reset, as it is that in a reset, too.
        following, wrapped = Signal(32, reset_less=True), Signal(32)
        m.d.sync += following.eq(self.taken + (ahead + asked)[: len(ahead)])
        m.d.comb += [
            wrapped.eq(following & (self.size - 1)),
            self.request.payload.address.eq(place << _COMMAND_BITS),
            self.request.payload.last_beat.eq(beats - 1),
        ]
        base = self.base[_COMMAND_BITS:]
        with m.FSM(name="state"):
            with m.State("INDEX"):
                m.d.sync += [index.eq(wrapped), far.eq(wrapped[bits:].any())]
                with m.If((following != self.tail) & (ahead != _AHEAD)):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                total = base[:bits] + index
                m.d.sync += [
                    place.eq(total),
                    outside.eq(far | base[bits:].any() | total[bits]),
                ]
                m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [
                    self.request.valid.eq(~outside & ~self.hold),
                    self.bad.eq(outside & (ahead == 0)),
                ]
                with m.If(asked):
                    m.next = "INDEX"
        return m
