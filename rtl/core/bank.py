"""The five queues and the semaphores between them."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import CardConfig
from ..isa import SEMAPHORES, Queue
from .ports import UnitPort
from .queue import CommandQueue, QueueState, QueueWrite
from .semaphore import SemaphoreFile

__all__ = ["UNITS", "QueueBank"]

UNITS = tuple(queue.name.lower() for queue in Queue)
"""Names of the unit ports, by `Queue`."""


class QueueBank(wiring.Component):
    """All command queues, with the semaphores that order them.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    load0, load1, compute, vector, store : ``Out(UnitPort)``
    write : ``In(QueueWrite)``
        To the queue that ``select`` (a `Queue`) names; ``room`` is that queue's.
    select : ``In(3)``
    add, add_index, add_value : ``In``
        Adds 0 to 255 to a semaphore.
    clear : ``In(1)``
        Clears the semaphores. Only while no queue is busy.
    state : ``Out(ArrayLayout(QueueState))``
        By `Queue`.
    moved : ``Out(1)``
        Some queue started or ended an iteration, or took or gave a credit.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {name: Out(UnitPort()) for name in UNITS}
            | {
                "write": In(QueueWrite(config)),
                "select": In(range(len(Queue))),
                "add": In(1),
                "add_index": In(range(SEMAPHORES)),
                "add_value": In(8),
                "clear": In(1),
                "state": Out(data.ArrayLayout(QueueState, len(Queue))),
                "moved": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.semaphores = semaphores = SemaphoreFile()
        m.d.comb += [
            semaphores.add.eq(self.add),
            semaphores.add_index.eq(self.add_index),
            semaphores.add_value.eq(self.add_value),
            semaphores.clear.eq(self.clear),
        ]
        moved = []
        for index, name in enumerate(UNITS):
            queue = CommandQueue(self.config, overlap=index == Queue.COMPUTE)
            m.submodules[name] = queue
            unit = getattr(self, name)
            port = getattr(semaphores, f"queue_{index}")
            connect(m, queue.unit, flipped(unit))
            connect(m, queue.semaphore, port)
            chosen = self.select == index
            m.d.comb += [
                queue.write.valid.eq(self.write.valid & chosen),
                queue.write.beat.eq(self.write.beat),
                queue.write.data.eq(self.write.data),
                queue.write.commit.eq(self.write.commit & chosen),
                queue.write.index.eq(self.write.index),
                self.state[index].eq(queue.state),
            ]
            with m.If(chosen):
                m.d.comb += self.write.room.eq(queue.write.room)
            moved += [unit.done, unit.start.valid & unit.start.ready, port.grant, port.add]
        m.d.comb += self.moved.eq(Cat(moved).any())
        return m
