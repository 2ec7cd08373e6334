"""Carries out what the host asks for over a link, one request after the other."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa.link import (
    CSR_BYTES,
    LINK_VERSION,
    MAX_DATA,
    LinkOp,
    Reply,
    ReplyHeader,
    RequestHeader,
)
from ..memory.bus import Storage
from .buffer import HEADER_BYTES, frame_layout
from .csr import HOST_READ_LATENCY
from .framing import item_layout

__all__ = ["RegisterPort", "Requests"]

_REPLY_BYTES = ReplyHeader.as_shape().size // 8
_HELLO_BITS = 2
_HELLO_BYTES = 1 << _HELLO_BITS
_CSR_BITS = (CSR_BYTES - 1).bit_length()


# Powers of two are compared with without a chain of carries.
_DATA_BITS = MAX_DATA.bit_length() - 1
_OP_BITS = LinkOp.WRITE_MEMORY.value.bit_length() - 1
_CSR_OP_BITS = LinkOp.WRITE_CSR.value.bit_length() - 1
assert MAX_DATA == 1 << _DATA_BITS
assert LinkOp.WRITE_MEMORY.value == 1 << _OP_BITS
assert LinkOp.WRITE_CSR.value == 1 << _CSR_OP_BITS


def _above(value: Value, bits: int) -> Value:
    """Return whether ``value`` is above two to the power of ``bits``."""
    return value[bits:].any() & (value[bits + 1 :].any() | value[:bits].any())


class RegisterPort(wiring.Signature):
    """Access to the registers of card and shell, seen from the link.

    Members
    -------
    address : ``Out(12)``
        Byte address, a multiple of 4. 0 but in the one cycle of an access.
    write, write_data : ``Out(1)``, ``Out(32)``
    read_data : ``In(32)``
        The register that ``address`` named `HOST_READ_LATENCY` cycles before.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "address": Out(_CSR_BITS),
                "write": Out(1),
                "write_data": Out(32),
                "read_data": In(32),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegisterPort)


class Requests(wiring.Component):
    """Takes requests, does what they ask for, and replies, as `deepseek.rtl.isa.link` says.

    A write is answered when all of its data are written. Data of a read are read while the reply
    is taken, a byte of memory or a register at a time.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    frames : ``In(stream)``
        Contents of frames, each at least as long as a request's header.
    left : ``In``
        Bytes of the frame that are not taken yet, a cycle late; holds for two cycles behind the
        frame.
    items : ``Out(stream)``
        Replies, for a `Framer`.
    csr : ``Out(RegisterPort)``
    csr_held : ``In(1)``
        The registers do not live this cycle: ``csr`` stands still, and the cycle is not counted.
    memory : ``Out(Storage(config))``
    memory_ready : ``In(1)``
        ``memory`` is served in this cycle. An access, which comes from registers, waits for it,
        unchanged, and what it reads is there in the cycle after. Between two is a cycle at least.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "frames": In(stream.Signature(frame_layout())),
                "left": In(range(HEADER_BYTES + MAX_DATA + 1)),
                "items": Out(stream.Signature(item_layout())),
                "csr": Out(RegisterPort()),
                "csr_held": In(1),
                "memory": Out(Storage(config)),
                "memory_ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, frames, items = self.config, self.frames, self.items
        memory_bits = config.memory_addr_width
        lane_bits = (config.bus_bytes - 1).bit_length()

        header = Signal(RequestHeader, reset_less=True)
        address, length = header.address, header.length
        count = Signal(range(HEADER_BYTES))
        ended = Signal(reset_less=True)  # nothing is left of the frame

        # A clock late: where the next byte is, and while the request is checked, the end of all.
        index, next_index = Signal(range(MAX_DATA + 1)), Signal(range(MAX_DATA + 1))
        adding_length = Signal()
        place = Signal(max(memory_bits, _CSR_BITS) + 1, reset_less=True)
        addend = Mux(adding_length, length[: len(index)], index)
        m.d.sync += [place.eq(address[: len(place) - 1] + addend), adding_length.eq(0)]
        m.d.comb += next_index.eq(index + 1)

        # What the request is.
        hello, csr, write = (Signal(reset_less=True) for _ in range(3))
        exact, unaligned, wrong_length = (Signal(reset_less=True) for _ in range(3))
        bad_request, bad_address = (Signal(reset_less=True) for _ in range(2))
        expected = Signal(8)
        distance, ahead = Signal(8, reset_less=True), Signal(8, reset_less=True)
        fits, again, behind = (Signal(reset_less=True) for _ in range(3))
        waiting = Signal()

        # A reply: four bytes of header, then data if ``reads``. Those of HELLO are kept as if they
        # were a register. What chooses is decoded a cycle before: choices are small then.
        code = Signal(Reply, reset_less=True)
        silent, reads, resend = (Signal(reset_less=True) for _ in range(3))
        in_data, finished = Signal(reset_less=True), Signal(reset_less=True)
        # What is read comes from far away: it is in a register first, and then its byte is chosen.
        beat = Signal(max(8 * config.bus_bytes, 32), reset_less=True)
        lanes = Array(beat.word_select(n, 8) for n in range(config.bus_bytes))
        lane = Signal(range(len(lanes)), reset_less=True)
        head, byte = Signal(8, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [
            beat.eq(self.memory.read_data),
            beat[:32].eq(Mux(csr, self.csr.read_data, self.memory.read_data[:32])),
            lane.eq(place[:lane_bits]),
            finished.eq(~reads | Mux(hello, index[_HELLO_BITS], index == length)),
            head.eq(Mux(resend, expected, header.sequence)),
        ]
        with m.Switch(count):
            with m.Case(1):
                m.d.sync += head.eq(code)
            with m.Case(2, 3):
                with m.If(hello):
                    m.d.sync += head.eq(Mux(count[0], 0, _HELLO_BYTES))
                with m.If(~reads):
                    m.d.sync += head.eq(0)
        m.d.comb += items.payload.byte.eq(byte)

        word = Signal(32, reset_less=True)  # to be written, or what was read, the next byte lowest
        access = Signal()  # of the registers, in the next cycle
        reading = Signal(HOST_READ_LATENCY)  # the first bit with the address, then one a cycle
        writing = Signal()  # beside access
        with m.If(access):
            m.d.sync += [
                reading.eq(1),
                self.csr.address.eq(Cat(Const(0, 2), place[2:_CSR_BITS])),
                self.csr.write.eq(writing),
            ]
        with m.Elif(~self.csr_held):
            m.d.sync += [
                reading.eq(Cat(Const(0, 1), reading)),
                self.csr.address.eq(0),
                self.csr.write.eq(0),
            ]
        # A cycle after the state that says so: of many states it would be late.
        put, kept, drop = Signal(), Signal(), Signal()
        m.d.sync += [put.eq(0), kept.eq(0), drop.eq(0)]
        with m.If(put):
            m.d.sync += word.eq(Cat(word[8:], frames.payload.byte))
        with m.Elif(kept):
            m.d.sync += word.eq(Mux(hello, LINK_VERSION, Mux(csr, beat[:32], lanes[lane])))
        with m.Elif(drop):
            m.d.sync += word.eq(word[8:])

        # The memory is far away, too.
        ask, served = Signal(), Signal()
        m.d.sync += [
            self.memory.enable.eq(ask & ~served),
            self.memory.write.eq(write),
            self.memory.write_data.eq(frames.payload.byte.replicate(config.bus_bytes)),
            self.memory.write_mask.eq(1 << place[:lane_bits]),
        ]
        m.d.comb += [
            served.eq(self.memory.enable & self.memory_ready),
            self.csr.write_data.eq(word),
            self.memory.address.eq(place[lane_bits:memory_bits]),
        ]

        # A byte that is done with is taken in the cycle after, from a register: ``fresh`` is one
        # that is not.
        fresh, take = Signal(), Signal()
        m.d.comb += fresh.eq(frames.valid & ~frames.ready)
        m.d.sync += frames.ready.eq(fresh & take)
        with m.If(frames.ready):
            m.d.sync += index.eq(next_index)

        # The request's header is taken in at its high end, and a reply begins with the same
        # fields: its header goes around once.
        shift, around = Signal(), Signal()
        with m.If(shift):
            incoming = Mux(around, header.sequence, frames.payload.byte)
            m.d.sync += [
                header.eq(Cat(header.as_value()[8:], incoming)),
                count.eq(count + 1),
            ]

        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += take.eq(1)
                m.d.sync += [index.eq(0), in_data.eq(0)]
                with m.If(fresh):
                    m.d.comb += shift.eq(1)
                    m.d.sync += ended.eq(frames.payload.last)
                    with m.If(count == HEADER_BYTES - 1):
                        m.next = "TAKEN"
            with m.State("TAKEN"):
                m.d.sync += [index.eq(0), adding_length.eq(1)]
                with m.If(~frames.ready):  # then ``left`` is known two cycles later
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += [
                    hello.eq(header.op == LinkOp.HELLO),
                    csr.eq(~_above(header.op.as_value(), _CSR_OP_BITS)),
                    write.eq((header.op == LinkOp.WRITE_CSR) | (header.op == LinkOp.WRITE_MEMORY)),
                    distance.eq(header.sequence - expected),
                    exact.eq(self.left == length),
                    unaligned.eq(Cat(address[:2], length[:2]).any()),
                    wrong_length.eq((length == 0) | _above(length, _DATA_BITS)),
                ]
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [
                    bad_request.eq(
                        _above(header.op.as_value(), _OP_BITS)
                        | wrong_length
                        | (csr & unaligned)
                        | (write & ~exact)
                    ),
                    bad_address.eq(
                        Mux(
                            csr,
                            address[_CSR_BITS:].any() | _above(place, _CSR_BITS),
                            address[memory_bits:].any() | _above(place, memory_bits),
                        )
                    ),
                    fits.eq((distance == 0) | hello),
                    again.eq(_above(distance, 7)),
                    # The host has gone back, and what is missing was lost once more.
                    behind.eq(distance <= ahead),
                ]
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += [code.eq(Reply.OK), resend.eq(0), reads.eq(0), silent.eq(0)]
                m.next = "SKIP"
                with m.If(~fits & ~again):
                    m.d.sync += [
                        code.eq(Reply.RESEND),
                        resend.eq(1),
                        silent.eq(waiting & ~behind),
                        waiting.eq(1),
                        ahead.eq(distance),
                    ]
                with m.Else():
                    m.d.sync += waiting.eq(0)
                    with m.If(fits):
                        m.d.sync += expected.eq(header.sequence + 1)
                    with m.If(hello):
                        m.d.sync += reads.eq(1)
                    with m.Elif(bad_request):
                        m.d.sync += code.eq(Reply.BAD_REQUEST)
                    with m.Elif(bad_address):
                        m.d.sync += code.eq(Reply.BAD_ADDRESS)
                    with m.Elif(~write):
                        m.d.sync += reads.eq(1)
                    with m.Elif(fits):
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [ask.eq(fresh & ~csr), take.eq(csr | served)]
                m.d.sync += put.eq(fresh)  # whether or not the memory is ready
                with m.If(fresh & take):
                    m.d.sync += ended.eq(frames.payload.last)
                    with m.If(csr & index[:2].all()):
                        m.next = "WRITE_CSR"
                    with m.Elif(frames.payload.last):
                        m.next = "LOAD"
            with m.State("WRITE_CSR"):
                m.d.comb += [access.eq(1), writing.eq(1)]
                m.next = "WRITTEN"
            with m.State("WRITTEN"):  # the word stands still until its register takes it
                with m.If(~self.csr_held):
                    m.next = "WRITE"
                    with m.If(ended):
                        m.next = "LOAD"
            with m.State("SKIP"):
                m.d.comb += take.eq(~ended)
                m.d.sync += index.eq(0)
                with m.If(fresh & take):
                    m.d.sync += ended.eq(frames.payload.last)
                with m.If(ended):
                    m.next = "LOAD"
                    with m.If(silent):
                        m.next = "HEADER"

            with m.State("LOAD"):
                m.d.comb += [shift.eq(~in_data), around.eq(1)]
                m.d.sync += byte.eq(Mux(in_data, word[:8], head))
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += items.valid.eq(1)
                with m.If(items.ready):
                    m.next = "LOAD"
                    with m.If(in_data):
                        m.d.sync += index.eq(next_index)
                        m.next = "NEXT"
                    with m.Elif(count == _REPLY_BYTES):
                        m.next = "AROUND"
            with m.State("AROUND"):
                m.d.comb += [shift.eq(1), around.eq(1)]
                with m.If(count == HEADER_BYTES - 1):
                    m.d.sync += in_data.eq(1)
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += drop.eq(1)
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += ask.eq(~csr & ~finished)
                with m.If(finished):
                    m.next = "END"
                with m.Elif(csr):
                    m.next = "LOAD"
                    with m.If(index[:2] == 0):
                        m.next = "READ_CSR"
                        with m.If(hello):
                            m.next = "KEEP"
                with m.Elif(served):
                    m.next = "KEEP"
            with m.State("READ_CSR"):
                m.d.comb += access.eq(1)
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(reading[-1] & ~self.csr_held):
                    m.next = "KEEP"
            with m.State("KEEP"):
                m.d.sync += kept.eq(1)
                m.next = "KEPT"
            with m.State("KEPT"):
                m.next = "LOAD"
            with m.State("END"):
                m.d.comb += [items.valid.eq(1), items.payload.end.eq(1)]
                with m.If(items.ready):
                    m.next = "HEADER"
        return m
