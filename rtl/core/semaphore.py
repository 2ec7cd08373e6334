"""The semaphores that order the queues, and a queue's port to them."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..elastic import Elastic
from ..isa import SEMAPHORES, Queue
from .select import select

__all__ = ["WAITS", "SemaphoreFile", "SemaphorePort"]

WAITS = 4
"""Waits of a command, and so the most credits that an iteration takes from one semaphore."""

_INDEX_BITS = (SEMAPHORES - 1).bit_length()


class SemaphorePort(wiring.Signature):
    """A queue's port to the semaphores, seen from the queue.

    Members
    -------
    index, want : ``Out(4 * WAITS)``, ``Out(WAITS)``
        Semaphores of the waits, and which of them take a credit each. Neither changes from 2
        cycles before a request until the cycle behind its grant.
    request, grant : ``Out(1)``, ``In(1)``
        In a cycle with both high all credits are taken. ``grant`` depends on ``request``.
    short : ``In(1)``
        In the cycle before a credit was missing, whether or not it was requested.
    add, add_index, added : ``Out``, ``Out``, ``In(1)``
        Adds 1 to a semaphore, in every cycle with ``add`` and ``added`` high.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "index": Out(_INDEX_BITS * WAITS),
                "want": Out(WAITS),
                "request": Out(1),
                "grant": In(1),
                "short": In(1),
                "add": Out(1),
                "add_index": Out(range(SEMAPHORES)),
                "added": In(1),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SemaphorePort)


class _Count(data.Struct):
    """A semaphore.

    Bit n of ``least`` says that ``credits`` is above n, ``eight`` above 7, ``full`` above 254.
    """

    credits: unsigned(8)
    least: unsigned(WAITS)
    eight: unsigned(1)
    full: unsigned(1)


class SemaphoreFile(wiring.Component):
    """Counters of 8 bits that stay at 255, in a memory: one of them changes in a cycle.

    The waits of all queues are looked at in every cycle, and one queue (the first one in the order
    of `Queue`) is granted all of its credits at once. They are then taken, one wait a cycle, which
    shows 5 to 8 cycles after the grant; until then nothing else is granted. Additions give way to
    that, those of the queues come first; one shows 3 cycles after it was ``added``. What a queue
    adds comes by a register of its own, since queues lie far away.

    Members
    -------
    queue_0 ... queue_4 : ``In(SemaphorePort)``
        By `Queue`.
    add, add_index, add_value : ``In``
        Adds 0 to 255 to a semaphore, one a cycle while nothing else is under way; the first one
        shows 3 cycles later. Only while ``adding`` is low.
    adding : ``Out(1)``
        Some of it has not been added yet.
    moving : ``Out(1)``
        Credits are being added: what needs them does not see them yet.
    clear : ``In(1)``
        Sets all semaphores to 0 in the next 17 cycles, in which nothing is granted; what is added
        is lost.
    ask, ask_queue : ``In``
        Look at the waits of a queue. Only while nothing is granted.
    lacks, lacks_index : ``Out(1)``, ``Out``
        Two cycles later, and in the three cycles behind: its waits one after the other, whether
        it is requested and its credit missing, and its semaphore.
    """

    def __init__(self) -> None:
        super().__init__(
            {f"queue_{queue.value}": In(SemaphorePort()) for queue in Queue}
            | {
                "add": In(1),
                "add_index": In(range(SEMAPHORES)),
                "add_value": In(8),
                "adding": Out(1),
                "moving": Out(1),
                "clear": In(1),
                "ask": In(1),
                "ask_queue": In(range(len(Queue))),
                "lacks": Out(1),
                "lacks_index": Out(range(SEMAPHORES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = [getattr(self, f"queue_{queue.value}") for queue in Queue]
        m.submodules.counts = counts = memory.Memory(
            shape=_Count, depth=SEMAPHORES, init=[], attrs={"ram_style": "distributed"}
        )
        # It comes late, and has many loads: a cycle later will do.
        self._clear = Signal()
        m.d.sync += self._clear.eq(self.clear)
        clearing, sweep = Signal(init=1), Signal(range(SEMAPHORES))  # a reset clears them, too
        with m.If(clearing):
            m.d.sync += sweep.eq(sweep + 1)
            with m.If(sweep == SEMAPHORES - 1):
                m.d.sync += clearing.eq(0)
        with m.If(self._clear):
            m.d.sync += [clearing.eq(1), sweep.eq(0)]

        # The change that is made in this cycle was chosen in the one before.
        changing, taking, index = Signal(), Signal(), Signal(range(SEMAPHORES))
        raised = Signal()  # it is an addition, which waits see at once
        missing = [
            self._elaborate_waits(m, port, counts, raised, index, name=f"queue_{n}")
            for n, port in enumerate(ports)
        ]
        closed = self.clear | self._clear | (clearing & (sweep != SEMAPHORES - 1))  # a cycle later
        take = self._elaborate_grants(m, ports, missing, taking | closed)
        adds, add, add_index = self._elaborate_adds(m, ports, take | clearing)
        m.d.comb += self.moving.eq(adds | self.adding | changing)
        m.d.sync += [
            changing.eq(take | add),
            raised.eq(add),
            taking.eq(take),
            index.eq(Mux(take, self.lacks_index, add_index)),
        ]

        write, old = counts.write_port(), counts.read_port(domain="comb")
        credits, least = old.data.credits, old.data.least
        many = Signal()  # more than `least` tells
        result = Signal(8)
        m.d.comb += [
            old.addr.eq(index),
            write.addr.eq(Mux(clearing, sweep, index)),
            many.eq(old.data.eight | (credits[2] & credits[:2].any())),
            result.eq(credits + Cat(Const(1, 1), taking.replicate(7))),
            write.en.eq(clearing | (changing & (taking | ~old.data.full))),
        ]
        with m.If(~clearing):
            nine = credits[4:].any() | (credits[3] & credits[:3].any())
            seven = old.data.eight | credits[:3].all()
            m.d.comb += [
                write.data.credits.eq(result),
                write.data.least.eq(
                    Mux(taking, Cat(least[1:], many), Cat(Const(1, 1), least[:-1]))
                ),
                write.data.eight.eq(Mux(taking, nine, seven)),
                write.data.full.eq(credits[1:].all() & ~taking),
            ]
        return m

    def _elaborate_waits(
        self,
        m: Module,
        port: data.View,
        counts: memory.Memory,
        raised: Signal,
        raised_index: Signal,
        *,
        name: str,
    ) -> Signal:
        """Return which waits found no credit. A semaphore that is named twice must hold two.

        ``raised``: ``raised_index`` gets a credit in this cycle.
        """
        missing = Signal(WAITS, name=f"{name}_missing")
        index = [port.index[n * _INDEX_BITS : (n + 1) * _INDEX_BITS] for n in range(WAITS)]
        for n in range(WAITS):
            read = counts.read_port(domain="comb")
            same = Signal(n, name=f"{name}_same_{n}")  # earlier waits for the same semaphore
            m.d.comb += read.addr.eq(index[n])
            m.d.sync += same.eq(Cat(index[other] == index[n] for other in range(n)))
            twice = same & port.want[:n]
            gets = Signal(name=f"{name}_gets_{n}")
            m.d.comb += gets.eq(raised & (raised_index == index[n]))
            least = [
                Mux(gets, read.data.least[k - 1] if k else 1, read.data.least[k])
                for k in range(n + 1)
            ]
            for k in range(n):
                least = [Mux(twice[k], more, less) for less, more in pairwise(least)]
            m.d.sync += missing[n].eq(port.want[n] & ~least[0])
        m.d.comb += port.short.eq(missing.any())
        return missing

    def _elaborate_grants(
        self, m: Module, ports: list[data.View], missing: list[Signal], busy: Value
    ) -> Value:
        """Choose a queue whose credits are all there, and take them.

        ``busy``: what is missing is not known in the next cycle, or void. Returns whether a credit
        is taken; ``lacks_index`` is its semaphore.
        """
        granted = Signal()
        number = Signal(range(len(Queue)), reset_less=True)
        indices = Signal(_INDEX_BITS * WAITS, reset_less=True)
        left, lacking = Signal(WAITS), Signal(WAITS)  # of the waits that ``indices`` are of
        quiet, free, ready = Signal(), Signal(), Signal(len(Queue))
        m.d.comb += free.eq(quiet & ~granted)
        m.d.sync += [
            quiet.eq(~granted & ~left.any() & ~busy),  # what is granted is at least one credit
            granted.eq(free & ready.any()),
        ]
        # Looked at behind a grant, or a question.
        for n in reversed(range(len(ports))):
            with m.If(ready[n]):
                m.d.sync += number.eq(n)
        with m.If(self.ask):
            m.d.sync += number.eq(self.ask_queue)
        for n, port in enumerate(ports):
            m.d.comb += [
                ready[n].eq(port.request & ~port.short),
                port.grant.eq(ready[n] & free & ~ready[:n].any()),
            ]

        asked = Signal()
        m.d.sync += asked.eq(self.ask)
        lacks = [
            short & port.request.replicate(WAITS)
            for short, port in zip(missing, ports, strict=True)
        ]
        with m.If(granted | asked):
            m.d.sync += [
                indices.eq(select(number, [port.index for port in ports])),
                lacking.eq(select(number, lacks)),
            ]
        with m.Else():
            m.d.sync += [indices.eq(indices >> _INDEX_BITS), lacking.eq(lacking >> 1)]
        m.d.sync += left.eq(left >> 1)
        with m.If(granted):
            m.d.sync += left.eq(select(number, [port.want for port in ports]))
        m.d.comb += [
            self.lacks.eq(lacking[0]),
            self.lacks_index.eq(indices[:_INDEX_BITS]),
        ]
        return left[0]

    def _elaborate_adds(
        self, m: Module, ports: list[data.View], busy: Value
    ) -> tuple[Value, Value, Value]:
        """Choose what is added.

        Returns whether queues add, whether something is added in this cycle, and its semaphore.
        """
        # Of the host's addition; the latter is void if there is none.
        index, left = Signal(range(SEMAPHORES)), Signal(8, reset_less=True)
        adds, chosen = Signal(len(Queue)), Signal(range(SEMAPHORES))
        m.d.comb += chosen.eq(index)
        for n, port in reversed(list(enumerate(ports))):
            hop = ResetInserter(self._clear)(Elastic(unsigned(_INDEX_BITS)))
            m.submodules[f"add_{n}"] = hop
            m.d.comb += [
                hop.source.valid.eq(port.add),
                hop.source.payload.eq(port.add_index),
                port.added.eq(hop.source.ready),
                adds[n].eq(hop.target.valid),
                hop.target.ready.eq(~adds[:n].any()),
                hop.hold.eq(busy),
            ]
            with m.If(adds[n]):
                m.d.comb += chosen.eq(hop.target.payload)
        # Until there is one, whatever may be asked for: that it is comes late.
        with m.If(~self.adding):
            m.d.sync += [
                index.eq(self.add_index),
                left.eq(self.add_value),
                self.adding.eq(self.add & self.add_value.any()),
            ]
        with m.Elif(~adds.any() & ~busy):
            m.d.sync += [left.eq(left - 1), self.adding.eq(left != 1)]
        with m.If(self._clear):
            m.d.sync += self.adding.eq(0)
        return adds.any(), ~busy & (adds.any() | self.adding), chosen
