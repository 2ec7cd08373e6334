"""Checks commands as they stream in, hands them to the queues and runs the control commands."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import CardConfig
from ..isa import (
    ABI_VERSION,
    SEMAPHORES,
    BarrierBody,
    Command,
    Completion,
    EndBody,
    MatmulBody,
    Opcode,
    Queue,
    ReformatBody,
    RowsBody,
    SemaphoreBody,
    Status,
    TransferBody,
    VectorBody,
)
from ..memory.bus import request_layout, write_layout
from .queue import QueueWrite, command_beats
from .select import select

__all__ = ["BODIES", "QUEUES", "Dispatcher", "reserved_mask"]

BODIES: dict[Opcode, type[data.Struct]] = {
    Opcode.LOAD: TransferBody,
    Opcode.STORE: TransferBody,
    Opcode.MATMUL: MatmulBody,
    Opcode.VECTOR: VectorBody,
    Opcode.ROWS: RowsBody,
    Opcode.REFORMAT: ReformatBody,
    Opcode.SEMAPHORE: SemaphoreBody,
    Opcode.BARRIER: BarrierBody,
    Opcode.END: EndBody,
}
"""Layout of each command's body."""

QUEUES: dict[Opcode, tuple[Queue, ...]] = {
    Opcode.LOAD: (Queue.LOAD0, Queue.LOAD1),
    Opcode.STORE: (Queue.STORE,),
    Opcode.MATMUL: (Queue.COMPUTE,),
    Opcode.VECTOR: (Queue.VECTOR,),
    Opcode.ROWS: (Queue.VECTOR,),
    Opcode.REFORMAT: (Queue.VECTOR,),
}
"""Queues that each command may name. The others are run by the dispatcher and name 0."""

_COMPLETION_BITS = Completion.as_shape().size
_TAKEN_BIT = Completion.as_shape()["command"].offset
"""The first bit of a completion that goes on changing while its record is written."""
_BODY_BIT = 512


def _reserved_bits(layout: data.Layout, offset: int) -> int:
    """Return a mask of the fields of ``layout``, nested ones too, that are called reserved."""
    mask = 0
    for name, field in layout:
        shape = field.shape
        if not isinstance(shape, data.Layout) and hasattr(shape, "as_shape"):
            shape = shape.as_shape()
        if isinstance(name, str) and name.startswith("reserved"):
            mask |= ((1 << field.width) - 1) << (offset + field.offset)
        elif isinstance(shape, data.Layout):
            mask |= _reserved_bits(shape, offset + field.offset)
    return mask


def reserved_mask(opcode: Opcode) -> int:
    """Return a mask of the bits of a command that must be 0, bit 0 of byte 0 lowest.

    These are the fields called reserved, the bits of ``pong_outer`` that belong to no operand,
    and the bits of a SEMAPHORE's index beyond the last semaphore.
    """
    header = Command.as_shape()
    pong = header["pong_outer"]
    mask = _reserved_bits(header, 0) | 0xF8 << pong.offset
    body = header["body"].offset
    mask |= _reserved_bits(BODIES[opcode].as_shape(), body)
    if opcode is Opcode.SEMAPHORE:
        index = SemaphoreBody.as_shape()["index"]
        mask |= (((1 << index.width) - 1) & ~(SEMAPHORES - 1)) << (body + index.offset)
    return mask


class Dispatcher(wiring.Component):
    """Takes commands beat by beat; a reset starts it at the first beat of a command.

    A command for a queue is written to the queue while it is checked, and committed at its end.
    The checks are made in the order: opcode and queue, version, reserved bits, loop bounds, and
    for END the alignment and the range of the completion's address. Loop bounds, waits, signals
    and operands of SEMAPHORE, BARRIER and END are ignored. A failed check is reported when
    nothing before the command can run any further, so that the outcome of a job does not depend
    on how far ahead commands are fetched.

    With ``skip`` commands are dropped up to the next END, whose record is written.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    beats : ``In(stream)``
    bad_address : ``In(1)``
        There is no next command, since its address is outside card memory.
    run : ``In(1)``
        A job runs. No command is begun otherwise.
    hold : ``In(1)``
        An error is being handled: ask the bus for nothing.
    skip : ``In(1)``
    pause : ``In(1)``
        Take no command.
    paused : ``Out(1)``
        A command waits for ``pause`` to fall.
    index : ``In(32)``
        Index within the job of the command at hand.
    idle, stuck : ``In(1)``
        No queue is busy; none that is busy can go on without another command.
    result : ``In(Completion)``
        What goes into the completion record. Its ``tag`` and ``valid`` are ignored; ``command``
        and ``cycles`` are sampled when the record is made.
    write : ``Out(QueueWrite)``
    select : ``Out(3)``
    add, add_index, add_value, clear : ``Out``
        To the semaphores.
    adding : ``In(1)``
        They are not ready for another ``add``.
    took : ``Out(1)``
        A command has been taken; for END, when its record is made.
    closing : ``Out(1)``
        The record is on its way.
    ended : ``Out(1)``
        The record is in memory, or had no place there: the job is over.
    fault : ``Out(1)``
        The command at hand, or with ``fault_ring`` its address, is refused for ``fault_status``;
        high until reset.
    request, record : ``Out(stream)``
        The bus's ``request`` and ``write``.
    written : ``In(1)``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "beats": In(stream.Signature(unsigned(8 * config.bus_bytes))),
                "bad_address": In(1),
                "run": In(1),
                "hold": In(1),
                "skip": In(1),
                "pause": In(1),
                "paused": Out(1),
                "index": In(32),
                "idle": In(1),
                "stuck": In(1),
                "result": In(Completion),
                "write": Out(QueueWrite(config)),
                "select": Out(range(len(Queue))),
                "add": Out(1),
                "add_index": Out(range(SEMAPHORES)),
                "add_value": Out(8),
                "clear": Out(1),
                "adding": In(1),
                "took": Out(1),
                "closing": Out(1),
                "ended": Out(1),
                "fault": Out(1),
                "fault_ring": Out(1),
                "fault_status": Out(Status),
                "request": Out(stream.Signature(request_layout(config))),
                "record": Out(stream.Signature(write_layout(config))),
                "written": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        header = Command.as_shape()
        beat_bits = 8 * self.config.bus_bytes
        beats = command_beats(self.config)
        payload = self.beats.payload

        def field(name: str) -> Value:
            """Return a header field out of the beat that holds it."""
            offset = header[name].offset % beat_bits
            return payload[offset : offset + header[name].width]

        def body_field(layout: type[data.Struct], name: str) -> Value:
            """Return a field of a control command's body."""
            at = layout.as_shape()[name]
            return body[at.offset : at.offset + at.width]

        def in_beat(bit: int) -> Value:
            return beat == bit // beat_bits

        beat = Signal(range(beats))
        opcode, version, queue = Signal(8), Signal(8), Signal(8)
        reserved, empty = Signal(), Signal()  # set by what has been seen of the command so far
        body = Signal(64, reset_less=True)  # its first bytes: all that control commands have
        queued, known = Signal(), Signal()
        with m.Switch(opcode):
            for code, queues in QUEUES.items():
                with m.Case(code.value):
                    m.d.comb += queued.eq(Cat(queue == q.value for q in queues).any())
            with m.Case(Opcode.SEMAPHORE.value, Opcode.BARRIER.value, Opcode.END.value):
                m.d.comb += known.eq(queue == 0)

        forbidden = self._elaborate_reserved(m, opcode, beat)

        m.submodules.closer = closer = _Closer(self.config)
        connect(m, closer.request, flipped(self.request))
        connect(m, closer.record, flipped(self.record))
        completion = body_field(EndBody, "completion")
        aligned = completion[:4] == 0
        inside = ~completion[self.config.memory_addr_width :].any()
        m.d.comb += [
            closer.completion.eq(self.result),
            closer.completion.tag.eq(body_field(EndBody, "tag")),
            closer.completion.valid.eq(1),
            closer.address.eq(completion),
            closer.hold.eq(self.hold),
            closer.written.eq(self.written),
        ]

        checked = Signal(Status)
        is_end = opcode == Opcode.END.value
        with m.If(~queued & ~known):
            m.d.comb += checked.eq(Status.BAD_OPCODE)
        with m.Elif(version != ABI_VERSION):
            m.d.comb += checked.eq(Status.BAD_VERSION)
        with m.Elif(reserved):
            m.d.comb += checked.eq(Status.BAD_FORMAT)
        with m.Elif(queued & empty):
            m.d.comb += checked.eq(Status.BAD_LENGTH)
        with m.Elif(is_end & ~aligned):
            m.d.comb += checked.eq(Status.BAD_ALIGNMENT)
        with m.Elif(is_end & ~inside):
            m.d.comb += checked.eq(Status.BAD_ADDRESS)

        wanted = Signal()  # a queue is to get the beats
        m.d.comb += [
            wanted.eq(queued & (version == ABI_VERSION) & ~self.skip),
            self.select.eq(queue),
            self.write.beat.eq(beat),
            self.write.data.eq(payload),
            self.write.index.eq(self.index),
            self.add_index.eq(body_field(SemaphoreBody, "index")),
            self.add_value.eq(body_field(SemaphoreBody, "value")),
        ]
        with m.FSM(name="state"):
            with m.State("HEAD"):
                m.d.sync += [reserved.eq(0), empty.eq(0)]
                with m.If(self.run & self.beats.valid):
                    m.d.sync += [
                        opcode.eq(field("opcode")),
                        version.eq(field("version")),
                        queue.eq(field("queue")),
                    ]
                    m.next = "STREAM"
                with m.Elif(self.run & self.bad_address):
                    m.next = "RING"
            with m.State("STREAM"):
                m.d.comb += [
                    self.beats.ready.eq(~wanted | self.write.room),
                    self.write.valid.eq(self.beats.valid & wanted & self.write.room),
                ]
                with m.If(self.beats.valid & self.beats.ready):
                    m.d.sync += [
                        beat.eq(Mux(beat == beats - 1, 0, beat + 1)),
                        reserved.eq(reserved | forbidden),
                    ]
                    with m.If(in_beat(header["inner"].offset)):
                        m.d.sync += empty.eq((field("inner") == 0) | (field("outer") == 0))
                    with m.If(in_beat(_BODY_BIT)):
                        m.d.sync += body.eq(payload[:64])
                    with m.If(beat == beats - 1):
                        m.next = "EXECUTE"
            with m.State("EXECUTE"):
                with m.If(self.pause):
                    m.d.comb += self.paused.eq(1)
                with m.Elif(self.skip):
                    m.d.comb += self.took.eq(1)
                    m.next = "HEAD"
                    with m.If(is_end):
                        m.d.comb += closer.start.eq(aligned & inside)
                        m.next = "CLOSE"
                with m.Elif(checked != Status.OK):
                    m.next = "REFUSE"
                with m.Elif(queued):
                    m.d.comb += [self.write.commit.eq(1), self.took.eq(1)]
                    m.next = "HEAD"
                with m.Elif(opcode == Opcode.SEMAPHORE.value):
                    m.d.comb += [self.add.eq(~self.adding), self.took.eq(~self.adding)]
                    with m.If(~self.adding):
                        m.next = "HEAD"
                with m.Elif(self.idle):
                    m.d.comb += [self.clear.eq(1), self.took.eq(1)]
                    m.next = "HEAD"
                    with m.If(is_end):
                        m.d.comb += closer.start.eq(1)
                        m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [self.closing.eq(1), self.ended.eq(closer.idle)]
                with m.If(closer.idle):
                    m.next = "HEAD"
            with m.State("REFUSE"):
                m.d.comb += [
                    self.fault.eq(self.stuck),
                    self.fault_status.eq(checked),
                ]
            with m.State("RING"):
                m.d.comb += [
                    self.fault.eq(self.stuck),
                    self.fault_ring.eq(1),
                    self.fault_status.eq(Status.BAD_ADDRESS),
                ]
        return m

    def _elaborate_reserved(self, m: Module, opcode: Signal, beat: Signal) -> Signal:
        """Return a signal that tells whether the beat has a reserved bit set."""
        beat_bits = 8 * self.config.bus_bytes
        forbidden = Signal()
        with m.Switch(opcode):
            for code in BODIES:
                mask = reserved_mask(code)
                with m.Case(code.value), m.Switch(beat):
                    for n in range(command_beats(self.config)):
                        word = mask >> (n * beat_bits) & ((1 << beat_bits) - 1)
                        if word:
                            with m.Case(n):
                                m.d.comb += forbidden.eq((self.beats.payload & word).any())
        return forbidden


class _Closer(wiring.Component):
    """Writes a job's completion record.

    Members
    -------
    start : ``In(1)``
        Begins, and takes ``command`` and ``cycles`` of ``completion``.
    completion, address : ``In(Completion)``, ``In``
        The rest of it, and its place inside card memory: both stay until it is ``idle``.
    idle : ``Out(1)``
        Nothing is on its way.
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
            self.idle.eq(~asking & ~sending & ~waiting),
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

        with m.If(self.start):
            m.d.sync += [
                taken.eq(self.completion.as_value()[_TAKEN_BIT:]),
                asking.eq(1),
                sending.eq(1),
                waiting.eq(1),
                beat.eq(0),
            ]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += asking.eq(0)
        with m.If(self.record.valid & self.record.ready):
            m.d.sync += [beat.eq(beat + 1), sending.eq(beat != beats - 1)]
        with m.If(self.written):
            m.d.sync += waiting.eq(0)
        return m
