"""Chooses among the requesters, and gathers their write data."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from .bus import Bus, request_layout, write_layout

__all__ = ["REQUESTERS", "Arbiter", "burst_layout"]

REQUESTERS = ("fetch", "load0", "load1", "store")
"""Names of the four requesters; a requester's number is its place here."""


_RING = 128
"""Beats of write data of a requester: four rings fill the depth of ECP5's block RAM."""


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
    """Return the first number after ``last``, going round, whose bit of ``waiting`` is set."""
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

    A write burst takes part only when all of its data are here, so a granted burst always
    finishes, whatever its requester does. Each requester has its own ring of write data.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    fetch, load0, load1, store : ``In(Bus(config))``
        Requests and write data are taken here; ``read`` and ``written`` are driven from the
        members of that name.
    burst : ``Out(stream)``
        The burst granted (`burst_layout`). Not a stream that holds: a later request may take the
        place of one that waits.
    batch : ``In(1)``
        Turning between reads and writes costs time: do it seldom.
    halt : ``In(1)``
        Grant nothing.
    flush : ``In(1)``
        Forget the write data of bursts that are not granted. Only while all granted are finished.
    pop : ``In(1)``, pop_requester : ``In(2)``
        Take a beat of this requester's write data.
    write_beat : ``Out``
        The beat taken in the cycle before.
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
                "halt": In(1),
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
        ring = _RING
        place_bits = (ring - 1).bit_length()

        m.submodules.ring = memory = Memory(
            shape=write_layout(self.config), depth=4 * ring, init=[]
        )
        ring_write = memory.write_port()
        ring_read = memory.read_port()
        waiting = Signal(4)
        room = Signal(4)
        granted = Signal()

        # Those that wait for the present direction, until its batch is full or it has had none for
        # a while; then the others.
        writes = Cat(port.request.payload.write for port in ports)
        writing = Signal()
        batch_left = Signal(range(_BATCH))
        along = Signal(4)
        against = Signal(4)
        candidates = Signal(4)
        lull = Signal(range(_LULL + 1))  # cycles in which none waited for the present direction
        turning = against.any() & ((batch_left == 0) | (lull == _LULL))
        m.d.comb += [
            along.eq(waiting & ~(writes ^ writing.replicate(4))),
            against.eq(waiting & (writes ^ writing.replicate(4))),
            candidates.eq(Mux(self.batch, Mux(turning, against, along), waiting)),
        ]
        with m.If(along.any()):
            m.d.sync += lull.eq(0)
        with m.Elif(lull != _LULL):
            m.d.sync += lull.eq(lull + 1)
        chosen_last = Signal(2)
        turn = _next_of(m, candidates, chosen_last, "turn")
        run_left = Signal(range(_RUN))
        stays = self.batch & (run_left != 0) & candidates.bit_select(chosen_last, 1)
        chosen = Signal(2)
        m.d.comb += chosen.eq(Mux(stays, chosen_last, turn))
        gather_last = Signal(2)
        gather = _next_of(m, room, gather_last, "gather")

        for number, (name, port) in enumerate(zip(REQUESTERS, ports, strict=True)):
            # Beats in the ring: all of them, and those of bursts that are not granted.
            put = Signal(place_bits + 1, name=f"{name}_put")
            get = Signal(place_bits + 1, name=f"{name}_get")
            gathered = Signal(range(ring + 1), name=f"{name}_gathered")
            request = port.request.payload
            here = Signal(name=f"{name}_put_now")
            grant = Signal(name=f"{name}_grant")
            m.d.comb += [
                waiting[number].eq(
                    port.request.valid
                    & ~self.halt
                    & (~request.write | (gathered > request.last_beat))
                ),
                room[number].eq(port.write.valid & ((put - get)[: place_bits + 1] != ring)),
                grant.eq(self.burst.valid & self.burst.ready & (chosen == number)),
                port.request.ready.eq(grant),
                here.eq(room[number] & (gather == number) & ~self.flush),
                port.write.ready.eq(here),
                port.read.valid.eq(self.read_valid & (self.read_requester == number)),
                port.read.payload.eq(self.read_data),
                port.written.eq(self.written[number]),
            ]
            taken = Mux(grant & request.write, request.last_beat + 1, 0)
            with m.If(self.flush):
                m.d.sync += [put.eq(0), get.eq(0), gathered.eq(0)]
            with m.Else():
                m.d.sync += [
                    put.eq(put + here),
                    get.eq(get + (self.pop & (self.pop_requester == number))),
                    gathered.eq(gathered + here - taken),
                ]
            with m.If(chosen == number):
                m.d.comb += self.burst.payload.request.eq(request)
            with m.If(gather == number):
                m.d.comb += [
                    ring_write.data.eq(port.write.payload),
                    ring_write.addr.eq(Cat(put[:place_bits], gather)),
                ]
            with m.If(self.pop_requester == number):
                m.d.comb += ring_read.addr.eq(Cat(get[:place_bits], self.pop_requester))

        m.d.comb += [
            self.burst.valid.eq(candidates.any()),
            self.burst.payload.requester.eq(chosen),
            granted.eq(self.burst.valid & self.burst.ready),
            ring_write.en.eq(room.any() & ~self.flush),
            ring_read.en.eq(self.pop),
            self.write_beat.eq(ring_read.data),
        ]
        with m.If(granted):
            write = self.burst.payload.request.write
            m.d.sync += [chosen_last.eq(chosen), writing.eq(write)]
            m.d.sync += run_left.eq(Mux(stays, run_left - 1, _RUN - 1))
            with m.If(write != writing):
                m.d.sync += batch_left.eq(_BATCH - 1)
            with m.Elif(batch_left != 0):
                m.d.sync += batch_left.eq(batch_left - 1)
        with m.If(ring_write.en):
            m.d.sync += gather_last.eq(gather)
        return m
