"""The semaphores that order the queues, and a queue's port to them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..isa import SEMAPHORES, Queue

__all__ = ["MAX_WAITS", "SemaphoreFile", "SemaphorePort"]

MAX_WAITS = 4
"""Most credits that one iteration takes from one semaphore: a command has four waits."""

_LIMIT = 255


class SemaphorePort(wiring.Signature):
    """A queue's port to the semaphores, seen from the queue.

    Members
    -------
    need : ``Out(SEMAPHORES * MAX_WAITS)``
        Credits wanted, as a thermometer: bit ``level * SEMAPHORES + s`` asks for at least
        ``level + 1`` credits of semaphore ``s``.
    request, grant : ``Out(1)``, ``In(1)``
        In a cycle with both high the whole of ``need`` is taken. ``grant`` depends on ``request``.
    missing : ``In(SEMAPHORES)``
        Semaphores that hold too little for ``need``, whether or not it is requested.
    add, add_index : ``Out``
        Adds 1 to a semaphore, every cycle that it is high.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "need": Out(SEMAPHORES * MAX_WAITS),
                "request": Out(1),
                "grant": In(1),
                "missing": In(SEMAPHORES),
                "add": Out(1),
                "add_index": Out(range(SEMAPHORES)),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SemaphorePort)


class SemaphoreFile(wiring.Component):
    """Counters of 8 bits that stay at 255; every queue may take and add in the same cycle.

    Of several queues that ask for credits of the same semaphore in one cycle only the first (in
    the order of `Queue`) is served; the next is served in the next cycle if credits are left. An
    addition shows in the cycle after it.

    Members
    -------
    queue_0 ... queue_4 : ``In(SemaphorePort)``
        By `Queue`.
    add, add_index, add_value : ``In``
        Adds 0 to 255 to a semaphore.
    clear : ``In(1)``
        Sets all semaphores to 0, whatever else happens in the cycle.
    """

    def __init__(self) -> None:
        super().__init__(
            {f"queue_{queue.value}": In(SemaphorePort()) for queue in Queue}
            | {
                "add": In(1),
                "add_index": In(range(SEMAPHORES)),
                "add_value": In(8),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = [getattr(self, f"queue_{queue.value}") for queue in Queue]

        counts = [Signal(8, name=f"count_{s}") for s in range(SEMAPHORES)]
        levels = Signal(SEMAPHORES * MAX_WAITS)  # of the counts, in the order of `need`

        claimed, taken = Const(0, SEMAPHORES), Const(0, SEMAPHORES * MAX_WAITS)
        for index, port in enumerate(ports):
            short = Signal(SEMAPHORES * MAX_WAITS, name=f"short_{index}")
            wanted = port.need[:SEMAPHORES]
            m.d.comb += [
                short.eq(port.need & ~levels),
                port.missing.eq(
                    short[:SEMAPHORES]
                    | short[SEMAPHORES : 2 * SEMAPHORES]
                    | short[2 * SEMAPHORES : 3 * SEMAPHORES]
                    | short[3 * SEMAPHORES :]
                ),
                port.grant.eq(port.request & ~short.any() & ~(wanted & claimed).any()),
            ]
            claimed = claimed | Mux(port.grant, wanted, 0)
            taken = taken | Mux(port.grant, port.need, 0)
        claims = Signal(SEMAPHORES)
        takes = Signal(SEMAPHORES * MAX_WAITS)
        adds = Cat(port.add for port in ports)
        m.d.comb += [claims.eq(claimed), takes.eq(taken)]

        # Nothing below is evaluated in most cycles, which is worth a lot in simulation.
        with m.If(self.clear):
            m.d.sync += [levels.eq(0), *(count.eq(0) for count in counts)]
        with m.Elif(claims.any() | adds.any() | self.add):
            for s, count in enumerate(counts):
                left = count - sum(takes[level * SEMAPHORES + s] for level in range(MAX_WAITS))
                added = sum(port.add & (port.add_index == s) for port in ports)
                value = Mux(self.add & (self.add_index == s), self.add_value, 0)
                total = Signal(10, name=f"total_{s}")
                clamped = Signal(8, name=f"clamped_{s}")
                m.d.comb += [
                    total.eq(left + added + value),
                    clamped.eq(Mux(total > _LIMIT, _LIMIT, total)),
                ]
                m.d.sync += count.eq(clamped)
                m.d.sync += [
                    levels[level * SEMAPHORES + s].eq(clamped > level) for level in range(MAX_WAITS)
                ]
        return m
