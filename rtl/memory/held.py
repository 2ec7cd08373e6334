"""Card memory that takes its time: the card's clock stands still meanwhile."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from .bus import STORAGE_LATENCY, Storage

__all__ = ["HeldStorage", "access_layout"]

_DEPTH = 16
"""Requests that wait: look-up tables keep 16 words as well as fewer."""

_FULL_BITS = 0b1100
"""At so many of them the card stops; one more comes in the cycle after, which was given already."""


def access_layout(config: CardConfig) -> data.StructLayout:
    """Layout of an access to memory: ``address`` and what is written are of one beat of the bus."""
    nbytes = config.bus_bytes
    return data.StructLayout(
        {
            "address": unsigned(config.memory_addr_width - (nbytes - 1).bit_length()),
            "write": unsigned(1),
            "data": unsigned(8 * nbytes),
            "mask": unsigned(nbytes),
        }
    )


class HeldStorage(wiring.Component):
    """Serves `Storage`, which knows no waiting, from a memory whose answers take any time.

    Time of the card is not time of the board: the card lives a cycle only where ``advance`` is
    high, and what ``card`` says and hears counts in these cycles alone. A cycle in which data are
    due is not given before they are there. So the card sees a memory that answers in
    `STORAGE_LATENCY` cycles, whatever it takes; up to so many of its reads are on their way at a
    time, and its writes are not waited for.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    card : ``In(Storage(config))``
    host : ``In(Storage(config))``
        An access is held until ``host_ready``; ``read_data`` comes in the cycle after it. Accesses
        of both ports are done in the order in which they begin.
    host_ready : ``Out(1)``
        From a register.
    request : ``Out(stream)``
        Accesses of one beat, done in order (`access_layout`).
    read : ``In(stream, always_ready)``
        What was read, in order.
    advance : ``Out(1)``
        From a register: the card lives this cycle. Also during a reset.
    gate : ``Out(1)``
        The same from a register of its own, for `ClockGate`.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "card": In(Storage(config)),
                "host": In(Storage(config)),
                "host_ready": Out(1),
                "request": Out(stream.Signature(access_layout(config))),
                "read": In(stream.Signature(unsigned(8 * config.bus_bytes), always_ready=True)),
                "advance": Out(1),
                "gate": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        advance, card, host = self.advance, self.card, self.host
        request, read = self.request, self.read

        # The card has its turn in the cycles that it lives, the host in the others.
        wanting, reading = Signal(), Signal()  # the host's access: not in the queue, and under way
        room = Signal(init=1)
        host_push = Signal()
        push, pop = Signal(), Signal()
        card_reads = Signal()
        m.d.comb += [
            host_push.eq(wanting & room & ~advance),
            push.eq(Mux(advance, card.enable, host_push)),
            pop.eq(request.valid & request.ready),
            card_reads.eq(advance & card.enable & ~card.write),
        ]
        level = Signal(range(_DEPTH))
        put, get = Signal(range(_DEPTH)), Signal(range(_DEPTH))
        m.submodules.queue = queue = Memory(shape=request.payload.shape(), depth=_DEPTH, init=[])
        writer, reader = queue.write_port(), queue.read_port(domain="comb")
        asked = writer.data
        m.d.comb += [
            writer.en.eq(push),
            writer.addr.eq(put),
            asked.address.eq(Mux(advance, card.address, host.address)),
            asked.write.eq(Mux(advance, card.write, host.write)),
            asked.data.eq(Mux(advance, card.write_data, host.write_data)),
            asked.mask.eq(Mux(advance, card.write_mask, host.write_mask)),
            reader.addr.eq(get),
            request.payload.eq(reader.data),
            room.eq((level & _FULL_BITS) != _FULL_BITS),
        ]
        m.d.sync += [
            put.eq(put + push),
            get.eq(get + pop),
            level.eq(level + push - pop),
            request.valid.eq(Mux(pop, level != 1, level != 0) | push),
        ]

        # Whose the next answer is.
        of_host, arrive = Signal(), Signal()
        under_way = Signal(range(STORAGE_LATENCY + 2))  # reads of the card without an answer
        ahead = Signal.like(under_way)  # those of them before the host's
        m.d.comb += [of_host.eq(reading & (ahead == 0)), arrive.eq(read.valid & ~of_host)]
        m.d.sync += under_way.eq(under_way + card_reads - arrive)
        with m.If(host_push):
            m.d.sync += ahead.eq(under_way - arrive)
        with m.Elif(arrive & reading):
            m.d.sync += ahead.eq(ahead - 1)

        # Answers that the card has not taken yet: three at most.
        m.submodules.answers = answers = Memory(shape=len(read.payload), depth=4, init=[])
        writer, reader = answers.write_port(), answers.read_port(domain="comb")
        arrived, taken = Signal(2), Signal(2)
        there = Signal(range(STORAGE_LATENCY + 2))
        due = Signal(STORAGE_LATENCY)  # reads of the last cycles, the card's; the first is the last
        take = Signal()
        m.d.comb += [
            writer.en.eq(arrive),
            writer.addr.eq(arrived),
            writer.data.eq(read.payload),
            reader.addr.eq(taken),
            card.read_data.eq(reader.data),
            take.eq(advance & due[-1]),
        ]
        m.d.sync += [
            arrived.eq(arrived + arrive),
            taken.eq(taken + take),
            there.eq(there + arrive - take),
        ]
        with m.If(advance):
            m.d.sync += due.eq(Cat(card_reads, due))

        due_next, there_next, go = Signal(), Signal(), Signal()
        # Kept the other way around, or synthesis makes one register of the two.
        stands, gate = Signal(), Signal(init=1)
        m.d.comb += [
            due_next.eq(Mux(advance, due[-2], due[-1])),
            there_next.eq(there[1:].any() | (there[0] & ~take) | arrive),
            go.eq(room & ~wanting & (~due_next | there_next)),
            advance.eq(~stands),
            self.gate.eq(gate),
        ]
        m.d.sync += [stands.eq(~go), gate.eq(go)]

        # A write is over for the host when it is in the queue.
        answer = Signal(len(read.payload), reset_less=True)
        seen = Signal()  # an access that is not served yet; the link says so late in a cycle
        begin = seen & ~self.host_ready & ~wanting & ~reading
        m.d.comb += host.read_data.eq(answer)
        m.d.sync += seen.eq(host.enable & ~self.host_ready)
        m.d.sync += self.host_ready.eq((host_push & host.write) | (read.valid & of_host))
        with m.If(begin):
            m.d.sync += wanting.eq(1)
        with m.If(host_push):
            m.d.sync += [wanting.eq(0), reading.eq(~host.write)]
        with m.If(read.valid & of_host):
            m.d.sync += [reading.eq(0), answer.eq(read.payload)]
        return m
