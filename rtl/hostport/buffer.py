"""Frames that wait for being carried out."""

from amaranth.hdl import Array, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..isa.link import MAX_DATA, WINDOW_BYTES, RequestHeader
from ..tech.ram import RegisteredRam

__all__ = ["HEADER_BYTES", "FrameBuffer", "frame_layout"]

HEADER_BYTES = RequestHeader.as_shape().size // 8
_HEADER_BITS = HEADER_BYTES.bit_length() - 1
_MAX_FRAME = HEADER_BYTES + MAX_DATA
_BANK_BITS = 10
_BANK_BYTES = 1 << _BANK_BITS
"""As many words of 8 bits or more as the ECP5's block RAM has with its output register."""


def frame_layout() -> data.StructLayout:
    """Layout of a byte of a frame that waits; ``last`` marks the frame's last one."""
    return data.StructLayout({"byte": unsigned(8), "last": unsigned(1)})


class FrameBuffer(wiring.Component):
    """Keeps whole frames, first in, first out, in a ring of `WINDOW_BYTES` - 1.

    What is not good, shorter than a request's header, longer than a request can be, or finds the
    ring full, is dropped. A byte's place is free when it was taken.

    Members
    -------
    content : ``In(stream, always_ready)``
        At most one byte in two cycles.
    end, good : ``In(1)``
        As of `Deframer`, and at least two cycles before the next byte.
    bytes : ``Out(stream)``
        Bytes of the frames, one in five cycles.
    left : ``Out``
        Bytes of the frame that are not taken yet, a cycle late. Zero for at least three cycles
        behind each frame.
    dropped : ``Out(32)``
        Frames dropped so far, modulo 2^32.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "content": In(stream.Signature(unsigned(8), always_ready=True)),
                "end": In(1),
                "good": In(1),
                "bytes": Out(stream.Signature(frame_layout())),
                "left": Out(range(_MAX_FRAME + 1)),
                "dropped": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # No frame is shorter than a header, so the lengths cannot overflow before the ring does.
        lengths_depth = 2 * WINDOW_BYTES // HEADER_BYTES
        m.submodules.lengths = lengths = RegisteredRam(len(self.left), lengths_depth)
        banks = [RegisteredRam(8, _BANK_BYTES) for _ in range(WINDOW_BYTES // _BANK_BYTES)]
        begin, place, read = (Signal(range(WINDOW_BYTES)) for _ in range(3))
        first, next_first = (Signal(range(lengths_depth)) for _ in range(2))

        # In: ``begin`` is behind the newest whole frame, ``place`` behind what came since.
        count, lost = Signal.like(self.left), Signal()
        following, full, store = Signal.like(place), Signal(), Signal()
        m.d.comb += [
            following.eq(place + 1),
            store.eq(self.content.valid & ~lost & ~full & (count != _MAX_FRAME)),
            lengths.write_address.eq(next_first),
            lengths.write_data.eq(count),
        ]
        # The byte at ``place`` is free, also if the ring is full: what is not kept goes there, too.
        for n, bank in enumerate(banks):
            m.submodules[f"bank_{n}"] = bank
            m.d.comb += [
                bank.write.eq(self.content.valid & (place[_BANK_BITS:] == n)),
                bank.write_address.eq(place),
                bank.write_data.eq(self.content.payload),
            ]
        m.d.sync += full.eq(following == read)
        with m.If(store):
            m.d.sync += [place.eq(following), count.eq(count + 1)]
        with m.Elif(self.content.valid):
            m.d.sync += lost.eq(1)
        # A cycle after the end: the check of the whole sequence comes late in its cycle.
        keep, drop, keeps = Signal(), Signal(), Signal()
        m.d.comb += keeps.eq(self.good & ~lost & count[_HEADER_BITS:].any())
        m.d.sync += [keep.eq(self.end & keeps), drop.eq(self.end & ~keeps)]
        m.d.comb += lengths.write.eq(keep)
        with m.If(keep):
            m.d.sync += [begin.eq(place), next_first.eq(next_first + 1)]
        with m.If(drop):
            m.d.sync += [place.eq(begin), self.dropped.eq(self.dropped + 1)]
        with m.If(keep | drop):
            m.d.sync += [count.eq(0), lost.eq(0)]

        # Out: what is read comes after `RegisteredRam.LATENCY` cycles.
        m.d.comb += [lengths.read.eq(1), lengths.read_address.eq(first)]
        for bank in banks:
            m.d.comb += [bank.read.eq(1), bank.read_address.eq(read)]
        last = Signal()
        byte = Signal(8, reset_less=True)
        m.d.sync += [
            last.eq(self.left == 1),
            byte.eq(Array(bank.data for bank in banks)[read[_BANK_BITS:]]),
        ]
        m.d.comb += [self.bytes.payload.byte.eq(byte), self.bytes.payload.last.eq(last)]
        with m.FSM():
            with m.State("EMPTY"), m.If(first != next_first):
                m.next = "READ_LENGTH"
            with m.State("READ_LENGTH"):
                m.next = "KEEP_LENGTH"
            with m.State("KEEP_LENGTH"):
                m.d.sync += [self.left.eq(lengths.data), first.eq(first + 1)]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.bytes.valid.eq(1)
                with m.If(self.bytes.ready):
                    m.next = "TAKEN"
            with m.State("TAKEN"):
                m.d.sync += [read.eq(read + 1), self.left.eq(self.left - 1)]
                m.next = "READ"
                with m.If(last):
                    m.next = "EMPTY"
            with m.State("READ"):
                m.next = "FOUND"
            with m.State("FOUND"):
                m.next = "KEEP"
            with m.State("KEEP"):
                m.next = "OFFER"
        return m
