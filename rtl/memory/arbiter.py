"""Chooses among the requesters, and gathers their write data."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..tech.gate import Gate
from ..tech.select import select
from .bus import Bus, burst_beats, request_layout, write_layout

__all__ = ["REQUESTERS", "WRITERS", "Arbiter", "burst_layout"]

REQUESTERS = ("fetch", "load0", "load1", "store")
"""Names of the four requesters; a requester's number is its place here."""

WRITERS = ("fetch", "store")
"""Requesters that may write; the others only read."""

_RING = 128
"""Beats of write data of a writer."""

_BATCH = 16
"""Bursts that HBM is given in one direction, if so many wait, before it is turned round."""

_LULL = 16
"""Cycles without a burst in the present direction after which HBM is turned round as well."""

_RUN = 8
"""Bursts that HBM is given of one requester, if so many wait, so that rows stay open."""


def burst_layout(config: CardConfig) -> data.StructLayout:
    """Layout of an accepted burst: the request and the number of its requester."""
    return data.StructLayout({"request": request_layout(config), "requester": unsigned(2)})


def _next_of(m: Module, waiting: Value, last: Signal, name: str) -> Signal:
    """Return the first number after ``last``, going round, whose bit of ``waiting`` is set.

    If there is none, ``last``.
    """
    chosen = Signal(2, name=name)
    with m.Switch(last):
        for value in range(4):
            with m.Case(value):
                choice = value
                for step in (3, 2, 1):
                    number = (value + step) % 4
                    choice = Mux(waiting[number], number, choice)
                m.d.comb += chosen.eq(choice)
    return chosen


class Arbiter(wiring.Component):
    """Grants bursts round robin; with ``batch`` up to 16 in one direction, and of these up to 8 of
    one requester, while they last.

    Whose turn it is, is chosen in the cycle before, and stays until a burst of his is granted. A
    write burst takes part only when all of its data are here, so a granted burst always finishes,
    whatever its requester does. Each of `WRITERS` has its own ring of write data.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    fetch, load0, load1, store : ``In(Bus(config))``
        Requests and write data are taken here; ``read`` and ``written`` are driven from the
        members of that name. Those that are not in `WRITERS` must not write.
    burst : ``Out(stream)``
        The burst granted (`burst_layout`).
    batch : ``In(1)``
        Turning between reads and writes costs time: do it seldom.
    flush : ``In(1)``
        Forget the write data of bursts that are not granted. Only while all granted are finished.
    pop : ``In(1)``, pop_requester : ``In(2)``
        Take a beat of this requester's write data.
    write_beat : ``Out``
        The beat taken two cycles before: block RAM is slow, and those who want it far away.
    read_valid, read_data, read_requester : ``In``
        A beat of read data, and whose it is.
    written : ``In(4)``
        Bit a requester: one of its write bursts is complete.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                **{name: In(Bus(config)) for name in REQUESTERS},
                "burst": Out(stream.Signature(burst_layout(config))),
                "batch": In(1),
                "flush": In(1),
                "pop": In(1),
                "pop_requester": In(2),
                "write_beat": Out(write_layout(config)),
                "read_valid": In(1),
                "read_data": In(8 * config.bus_bytes),
                "read_requester": In(2),
                "written": In(4),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        ports = [getattr(self, name) for name in REQUESTERS]
        place_bits = (_RING - 1).bit_length()

        # Write data are gathered a beat a cycle, from one writer after the other.
        writers = [(REQUESTERS.index(name), getattr(self, name)) for name in WRITERS]
        m.submodules.ring = memory = Memory(
            shape=write_layout(self.config), depth=len(writers) * _RING, init=[]
        )
        ring_write = memory.write_port()
        ring_read = memory.read_port()
        gather = Signal()
        enough = Signal(4)  # of the data of the write burst that is first
        grants = Signal(4)
        may_put, put_now = Signal(len(writers)), Signal(len(writers))
        second_pops = self.pop_requester == writers[1][0]
        ready_to_put, nearly_full = [], []
        for place, (number, port) in enumerate(writers):
            name = REQUESTERS[number]
            put = Signal(place_bits, name=f"{name}_put")
            get = Signal(place_bits, name=f"{name}_get")
            # Beats in the ring: all of them, and those of bursts that are not granted.
            level = Signal(range(_RING + 1), name=f"{name}_level")
            gathered = Signal(range(_RING + 1), name=f"{name}_gathered")
            request = port.request.payload
            here = put_now[place]
            popped = self.pop & (second_pops == place)
            # What a burst takes is subtracted a cycle after it was granted.
            taken = Signal(name=f"{name}_taken")
            less = Signal(gathered.shape(), name=f"{name}_less", reset_less=True)
            m.d.sync += [
                taken.eq(grants[number] & request.write),
                less.eq(Cat(~request.last_beat, Const(-1, len(less)))),  # -(last_beat + 1)
            ]
            ready_to_put.append(port.write.valid & ~level[-1])
            nearly_full.append(level[-1] | level[:-1].all())  # there is no place for two
            m.d.comb += [
                here.eq(port.write.valid & may_put[place]),
                port.write.ready.eq(may_put[place]),
            ]
            # So that what the last two cycles granted may still be counted.
            plenty = gathered[(burst_beats(self.config) - 1).bit_length() :] >= 3
            exact = port.request.valid & (gathered > request.last_beat)
            m.submodules[f"{name}_has"] = has = Gate(  # a grant is late
                lambda plenty, exact, grant, flush: (plenty or (exact and not grant)) and not flush
            )
            m.d.comb += has.bits.eq(Cat(plenty, exact & ~taken, grants[number], self.flush))
            m.d.sync += enough[number].eq(has.out)
            with m.If(self.flush):
                m.d.sync += [put.eq(0), get.eq(0), level.eq(0), gathered.eq(0)]
            with m.Else():
                m.d.sync += [
                    put.eq(put + here),
                    get.eq(get + popped),
                    gathered.eq(gathered + Mux(taken, less, 0) + here),
                ]
                with m.If(here ^ popped):
                    m.d.sync += level.eq(level + Mux(popped, -1, 1))
            with m.If(gather == place):
                m.d.comb += [
                    ring_write.data.eq(port.write.payload),
                    ring_write.addr.eq(Cat(put, gather)),
                ]
            with m.If(second_pops == place):
                m.d.comb += ring_read.addr.eq(Cat(get, second_pops))
        m.d.comb += [
            ring_write.en.eq(put_now.any()),
            ring_read.en.eq(self.pop),
        ]
        beat = Signal.like(self.write_beat, reset_less=True)
        m.d.sync += beat.eq(ring_read.data)
        m.d.comb += self.write_beat.eq(beat)
        second_next = Mux(gather, ~ready_to_put[0], ready_to_put[1])
        m.d.sync += [
            gather.eq(second_next),
            may_put.eq(Cat(~second_next, second_next) & ~Cat(nearly_full)),
        ]

        # Those that wait for the present direction, until its batch is full or it has had none for
        # a while; then the others.
        reads, writes = Signal(init=1), Signal()  # the present direction; without `batch` both
        batch_left = Signal(range(_BATCH + 1))
        along, against = Signal(4), Signal(4)
        # Cycles in which none waited for the present direction.
        lull = Signal(range(_LULL + 1), reset_less=True)
        turning, turned_now = Signal(), Signal()
        full, full_with_one = Signal(), Signal()  # the batch, with the burst that is offered
        opposed = Signal()
        offers, granted = Signal(), Signal()
        # Whose turn it is, is also kept a bit a requester: these bits and `ready` decide a grant.
        turn, mine = Signal(2), Signal(4, init=1)
        for number, port in enumerate(ports):
            valid, write = port.request.valid, port.request.payload.write
            if REQUESTERS[number] in WRITERS:
                now = Mux(write, enough[number] & writes, reads)
                later = Mux(write, enough[number] & ~writes, ~reads)
            else:
                now, later = reads, ~reads
            m.submodules[f"grant_{number}"] = grant = Gate(
                lambda valid, mine, ready, now: valid and mine and ready and now
            )
            m.d.comb += [
                along[number].eq(valid & now),
                against[number].eq(valid & later),
                grant.bits.eq(Cat(valid, mine[number], self.burst.ready, now)),
                grants[number].eq(grant.out),
            ]
        m.d.comb += [
            full_with_one.eq(~batch_left[1:].any()),
            full.eq(full_with_one & (offers | ~batch_left[0])),
            opposed.eq(self.batch & against.any()),
            turning.eq(opposed & (full | lull[-1])),
        ]
        with m.If(along.any()):
            m.d.sync += lull.eq(0)
        with m.Elif(~lull[-1]):
            m.d.sync += lull.eq(lull + 1)

        # The burst that the one whose turn it is shows now may go; so the choice is among others.
        run_left = Signal(range(_RUN))
        m.d.comb += [
            offers.eq((along & mine).any()),
            self.burst.valid.eq(offers),
            granted.eq(offers & self.burst.ready),
        ]
        other = _next_of(m, along & ~mine, turn, "other")
        turned = _next_of(m, against, turn, "turned")
        following = Mux(turning, turned, other)
        # What is offered is late, so all else is decided for the case that something is.
        turns_then = opposed & (full_with_one | lull[-1])
        may_choose = ~self.batch | turns_then | (run_left == 0)
        with m.If(granted):
            with m.If(batch_left != 0):
                m.d.sync += batch_left.eq(batch_left - 1)
        with m.If(self.burst.ready | ~offers):
            m.d.sync += run_left.eq(Mux(may_choose | ~offers, _RUN - 1, run_left - 1))
            m.d.comb += turned_now.eq(turning)
            with m.If(turning):
                m.d.sync += batch_left.eq(_BATCH)
        m.submodules.chooses = chooses = Gate(
            lambda offers, ready, may, _: not offers or (ready and may)
        )
        m.d.comb += chooses.bits.eq(Cat(offers, self.burst.ready, may_choose))
        with m.If(chooses.out):
            m.d.sync += [
                turn.eq(following),
                mine.eq(Const(1, 1) << following),
            ]
        # Late conditions are data here, not an enable.
        m.d.sync += [
            reads.eq((reads ^ turned_now) | ~self.batch),
            writes.eq(((writes ^ turned_now) & ~(reads & writes)) | ~self.batch),
        ]

        requests = [port.request.payload.as_value() for port in ports]
        request = select(m, platform, turn, requests, name="request")
        m.d.comb += [
            self.burst.payload.request.eq(request),
            self.burst.payload.requester.eq(turn),
        ]
        for number, port in enumerate(ports):
            m.d.comb += [
                port.request.ready.eq(grants[number]),
                port.read.valid.eq(self.read_valid & (self.read_requester == number)),
                port.read.payload.eq(self.read_data),
                port.written.eq(self.written[number]),
            ]
        return m
