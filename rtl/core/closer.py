"""The end of a job: its completion record in card memory."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import Completion
from ..memory.bus import request_layout, write_layout
from .select import select

__all__ = ["Closer"]

_COMPLETION_BITS = Completion.as_shape().size
_TAKEN_BIT = Completion.as_shape()["command"].offset
"""The first bit of a completion that goes on changing while its record is written."""


class Closer(wiring.Component):
    """Writes a job's completion record.

    Members
    -------
    start : ``In(1)``
        Begins, and takes ``command`` and ``cycles`` of ``completion``.
    completion, address : ``In(Completion)``, ``In``
        The rest of it, and its place inside card memory: both stay until it is ``idle``.
    idle : ``Out(1)``
        Nothing is on its way.
    hold : ``In(1)``
        Ask the memory system for nothing.
    request, record : ``Out(stream)``, written : ``In(1)``
        The memory system's: a write, its data, and that it has been carried out.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "completion": In(Completion),
                "address": In(config.memory_addr_width),
                "hold": In(1),
                "idle": Out(1),
                "request": Out(stream.Signature(request_layout(config))),
                "record": Out(stream.Signature(write_layout(config))),
                "written": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_bytes = self.config.bus_bytes
        record_bytes = _COMPLETION_BITS // 8
        beats = max(1, record_bytes // bus_bytes)
        copies = max(1, bus_bytes // record_bytes)

        taken = Signal(_COMPLETION_BITS - _TAKEN_BIT, reset_less=True)
        record = Cat(self.completion.as_value()[:_TAKEN_BIT], taken)
        asking, sending, waiting = Signal(), Signal(), Signal()
        beat = Signal(range(beats))
        align = (bus_bytes - 1).bit_length()
        pieces = [record.word_select(n, _COMPLETION_BITS // beats) for n in range(beats)]
        m.d.comb += [
            self.idle.eq(~waiting),  # the last of the three to end
            self.request.valid.eq(asking & ~self.hold),
            self.request.payload.address.eq(self.address[align:] << align),
            self.request.payload.last_beat.eq(beats - 1),
            self.request.payload.write.eq(1),
            # Data that were promised are sent, so that the memory system can come to rest.
            self.record.valid.eq(sending & ~(self.hold & asking)),
            self.record.payload.data.eq(select(beat, pieces).replicate(copies)),
        ]
        if copies > 1:  # the record is a part of one beat
            lane = self.address[(record_bytes - 1).bit_length() : align]
            m.d.comb += self.record.payload.mask.eq(
                ((1 << record_bytes) - 1) << (lane * record_bytes)
            )
        else:
            m.d.comb += self.record.payload.mask.eq((1 << bus_bytes) - 1)

        # All the time, up to the cycle of the start: that comes late, and has few to tell.
        with m.If(self.idle):
            m.d.sync += [taken.eq(self.completion.as_value()[_TAKEN_BIT:]), beat.eq(0)]
        with m.If(self.start):
            m.d.sync += [asking.eq(1), sending.eq(1), waiting.eq(1)]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += asking.eq(0)
        with m.If(self.record.valid & self.record.ready):
            m.d.sync += [beat.eq(beat + 1), sending.eq(beat != beats - 1)]
        with m.If(self.written):
            m.d.sync += waiting.eq(0)
        return m
