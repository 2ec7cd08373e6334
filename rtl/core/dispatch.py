"""Checks commands as they stream in, hands them to the queues and runs the control commands."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
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
from .closer import Closer
from .queue_write import QueueWrite, command_beats
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
        The command at hand is refused; high until reset.
    fault_ring : ``Out(1)``
        With ``fault``: there is no command, its address is what is wrong.
    fault_status : ``Out(Status)``
        With ``fault``: why.
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
                "write": Out(QueueWrite(config, len(Queue))),
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

        beat, last = Signal(range(beats)), Signal()  # the latter: it is the last one
        opcode, number = field("opcode"), field("queue")
        control = (Opcode.SEMAPHORE, Opcode.BARRIER, Opcode.END)
        codes = {code: Signal(name=f"is_{code.name.lower()}") for code in BODIES}
        named = [Signal(name=f"queue_{queue.name.lower()}") for queue in Queue]
        right = Signal()
        m.d.comb += [
            *(is_code.eq(opcode == code.value) for code, is_code in codes.items()),
            *(
                is_queue.eq(number == queue.value)
                for is_queue, queue in zip(named, Queue, strict=True)
            ),
            right.eq(field("version") == ABI_VERSION),
        ]
        fits = [  # queues that the command may be for
            named[queue.value] & Cat(codes[code] for code in QUEUES if queue in QUEUES[code]).any()
            for queue in Queue
        ]
        # What is known of the command at hand. First what its first beat says.
        kind = Signal(len(BODIES))  # a bit for each of `BODIES`
        queued, strange, dated = Signal(), Signal(), Signal()
        put = Signal(len(Queue))  # the queue that is to get the beats
        # Set by what has been seen so far; the last two if it is an END.
        reserved, empty, unaligned, outside = Signal(), Signal(), Signal(), Signal()
        # Found a cycle before they are asked for: strange or dated, unaligned or outside.
        doubtful, misplaced = Signal(), Signal()
        m.d.sync += doubtful.eq(strange | dated)
        body = Signal(64, reset_less=True)  # its first bytes: all that control commands have
        place = EndBody.as_shape()["completion"]

        forbidden = self._elaborate_reserved(m, kind, beat)

        m.submodules.closer = closer = Closer(self.config)
        connect(m, closer.request, flipped(self.request))
        connect(m, closer.record, flipped(self.record))
        m.d.comb += [
            closer.completion.eq(self.result),
            closer.completion.tag.eq(body_field(EndBody, "tag")),
            closer.completion.valid.eq(1),
            closer.address.eq(body_field(EndBody, "completion")),
            closer.hold.eq(self.hold),
            closer.written.eq(self.written),
        ]

        checked = Signal(Status)
        known = (number == 0) & Cat(codes[code] for code in control).any()
        refused = Cat(doubtful, reserved, empty, misplaced).any()
        with m.If(strange):
            m.d.comb += checked.eq(Status.BAD_OPCODE)
        with m.Elif(dated):
            m.d.comb += checked.eq(Status.BAD_VERSION)
        with m.Elif(reserved):
            m.d.comb += checked.eq(Status.BAD_FORMAT)
        with m.Elif(empty):
            m.d.comb += checked.eq(Status.BAD_LENGTH)
        with m.Elif(unaligned):
            m.d.comb += checked.eq(Status.BAD_ALIGNMENT)
        with m.Elif(outside):
            m.d.comb += checked.eq(Status.BAD_ADDRESS)

        is_end, is_add = (kind[list(BODIES).index(code)] for code in (Opcode.END, Opcode.SEMAPHORE))
        flow = Signal()  # beats are taken: the queue has room, or there is none
        executing = Signal()  # it is in the state EXECUTE
        does = self.took & ~self.skip
        m.d.comb += [
            self.took.eq(
                executing
                & ~self.pause
                & (self.skip | (~refused & (queued | Mux(is_add, ~self.adding, self.idle))))
            ),
            self.paused.eq(executing & self.pause),
            self.add.eq(does & is_add),
            self.clear.eq(does & ~queued & ~is_add),
            closer.start.eq(self.took & is_end & ~misplaced),
            self.beats.ready.eq(flow),
            self.write.chosen.eq(put),
            self.write.valid.eq(put & (flow & self.beats.valid).replicate(len(put))),
            self.write.commit.eq(put & (does & queued).replicate(len(put))),
            self.write.beat.eq(beat),
            self.write.data.eq(payload),
            self.write.index.eq(self.index),
            self.add_index.eq(body_field(SemaphoreBody, "index")),
            self.add_value.eq(body_field(SemaphoreBody, "value")),
        ]
        with m.FSM(name="state"):
            with m.State("HEAD"):
                m.d.sync += [
                    kind.eq(Cat(codes.values())),
                    queued.eq(Cat(fits).any()),
                    strange.eq(~(known | Cat(fits).any())),
                    dated.eq(~right),
                    put.eq(Cat(fits) & (right & ~self.skip).replicate(len(put))),
                    *(signal.eq(0) for signal in (reserved, empty, unaligned, outside, misplaced)),
                ]
                with m.If(self.run & self.beats.valid):
                    # Not all of the number is looked at: it is made good in the next cycle.
                    m.d.sync += flow.eq(select(number[:3], [*self.write.room, *[Const(1, 1)] * 3]))
                    m.next = "STREAM"
                with m.Elif(self.run & self.bad_address):
                    m.next = "RING"
            with m.State("STREAM"):
                with m.If(~flow):
                    m.d.sync += flow.eq(~(put & ~self.write.room).any())
                with m.Elif(self.beats.valid & last):
                    m.d.sync += [flow.eq(0), executing.eq(1)]
                    m.next = "EXECUTE"
            with m.State("EXECUTE"):
                with m.If(self.took):
                    m.d.sync += executing.eq(0)
                    m.next = "HEAD"
                    with m.If(is_end):
                        m.d.sync += self.closing.eq(1)
                        m.next = "CLOSE"
                with m.Elif(refused & ~self.skip & ~self.pause):
                    m.d.sync += executing.eq(0)
                    m.next = "REFUSE"
            with m.State("CLOSE"):
                with m.If(closer.idle):
                    m.d.sync += self.closing.eq(0)
                    m.next = "HEAD"
            # Faults come from registers: to find the cause of an error among all takes long.
            with m.State("REFUSE"):
                m.d.sync += [self.fault.eq(self.stuck), self.fault_status.eq(checked)]
            with m.State("RING"):
                m.d.sync += [
                    self.fault.eq(self.stuck),
                    self.fault_ring.eq(1),
                    self.fault_status.eq(Status.BAD_ADDRESS),
                ]
        # Beats are only taken in the state STREAM.
        with m.If(flow & self.beats.valid):
            m.d.sync += [
                beat.eq(Mux(last, 0, beat + 1)),
                last.eq(beat == beats - 2),
                reserved.eq(reserved | forbidden),
            ]
            with m.If(in_beat(header["inner"].offset)):
                none = (field("inner") == 0) | (field("outer") == 0)
                m.d.sync += empty.eq(queued & none)
            with m.If(in_beat(_BODY_BIT)):
                record = payload[place.offset : place.offset + place.width]
                low, high = record[:4], record[self.config.memory_addr_width :]
                m.d.sync += [
                    body.eq(payload[:64]),
                    unaligned.eq(is_end & low.any()),
                    outside.eq(is_end & high.any()),
                    misplaced.eq(is_end & (low.any() | high.any())),
                ]
        m.d.comb += self.ended.eq(self.closing & closer.idle)
        return m

    def _elaborate_reserved(self, m: Module, kind: Signal, beat: Signal) -> Signal:
        """Return a signal that tells whether the beat has a reserved bit set."""
        beat_bits = 8 * self.config.bus_bytes
        forbidden = Signal()
        masks = [reserved_mask(code) for code in BODIES]
        with m.Switch(beat):
            for n in range(command_beats(self.config)):
                # Bits that are reserved in the same kinds of commands are looked at together.
                together: dict[tuple[int, ...], list[Value]] = {}
                for bit in range(beat_bits):
                    kinds = tuple(
                        k for k, mask in enumerate(masks) if mask >> n * beat_bits + bit & 1
                    )
                    together.setdefault(kinds, []).append(self.beats.payload[bit])
                parts = [
                    Cat(kind[k] for k in kinds).any() & Cat(bits).any()
                    for kinds, bits in together.items()
                    if kinds
                ]
                with m.Case(n):
                    m.d.comb += forbidden.eq(Cat(parts).any())
        return forbidden
