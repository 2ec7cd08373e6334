"""The five queues and the semaphores between them."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import CardConfig
from ..isa import SEMAPHORES, Queue, TransferBody
from .ports import UnitPort
from .queue import SERIALS, CommandQueue, QueueState
from .queue_write import QueueWrite, connect_queue
from .select import select
from .semaphore import SemaphoreFile

__all__ = ["UNITS", "QueueBank"]

UNITS = tuple(queue.name.lower() for queue in Queue)
"""Names of the unit ports, by `Queue`."""

_TRANSFER = {"operands": 2, "body_bits": TransferBody.as_shape()["reserved"].offset}
_USED = {"load0": _TRANSFER, "load1": _TRANSFER, "store": _TRANSFER}
"""What units use of a command, if not all of it."""


class QueueBank(wiring.Component):
    """All command queues, with the semaphores that order them.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    load0, load1, compute, vector, store : ``Out(UnitPort)``
    write : ``In(QueueWrite)``
        By `Queue`.
    add, add_index, add_value : ``In``
        Adds 0 to 255 to a semaphore.
    clear : ``In(1)``
        Clears the semaphores. Only while no queue is busy.
    adding, moving : ``Out(1)``
        What ``add`` asked for is not done; credits are being added. ``add`` waits for the former.
    state : ``Out(ArrayLayout(QueueState))``
        By `Queue`.
    named : ``In``, command : ``Out(32)``
        A queue, and in the next cycle the index within the job of the command that its ``serial``
        tells of.
    ask, ask_queue, lacks, lacks_index : ``In(1)``, ``In``, ``Out(1)``, ``Out``
        As in `SemaphoreFile`.
    moved : ``Out(1)``
        Some queue started or ended an iteration, or took or gave a credit, in the cycle before.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {name: Out(UnitPort()) for name in UNITS}
            | {
                "write": In(QueueWrite(config, len(Queue))),
                "add": In(1),
                "add_index": In(range(SEMAPHORES)),
                "add_value": In(8),
                "clear": In(1),
                "adding": Out(1),
                "moving": Out(1),
                "named": In(range(len(Queue))),
                "command": Out(32),
                "ask": In(1),
                "ask_queue": In(range(len(Queue))),
                "lacks": Out(1),
                "lacks_index": Out(range(SEMAPHORES)),
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
            self.adding.eq(semaphores.adding),
            self.moving.eq(semaphores.moving),
            semaphores.ask.eq(self.ask),
            semaphores.ask_queue.eq(self.ask_queue),
            self.lacks.eq(semaphores.lacks),
            self.lacks_index.eq(semaphores.lacks_index),
        ]
        moved = []
        for index, name in enumerate(UNITS):
            queue = CommandQueue(self.config, overlap=index == Queue.COMPUTE, **_USED.get(name, {}))
            m.submodules[name] = queue
            unit = getattr(self, name)
            port = getattr(semaphores, f"queue_{index}")
            connect(m, queue.unit, flipped(unit))
            connect(m, queue.semaphore, port)
            m.d.comb += [
                self.state[index].eq(queue.state),
            ]
            connect_queue(m, self.write, index, queue.write, name=name)
            moved += [unit.done, unit.start.valid & unit.start.ready, port.grant]
        recent = Signal(len(moved))
        m.d.sync += recent.eq(Cat(moved))
        m.d.comb += self.moved.eq(recent.any() | self.moving)
        self._elaborate_indices(m)
        return m

    def _elaborate_indices(self, m: Module) -> None:
        """Keep the index of each command that is alive, by queue and serial number."""
        m.submodules.indices = indices = memory.Memory(
            shape=unsigned(32),
            depth=SERIALS << len(self.named),
            init=[],
            attrs={"ram_style": "distributed"},
        )
        write, read = indices.write_port(), indices.read_port(domain="comb")
        serials = [Signal(range(SERIALS), name=f"{name}_serial") for name in UNITS]
        oldest = select(self.named, [state.serial for state in self.state])
        # From a register: the queues lie far from what names them, and both from the memory.
        m.d.sync += read.addr.eq(Cat(oldest, self.named))
        written, wrote = Signal.like(self.named), Signal()  # the queue that got a beat, if so
        chosen = self.write.chosen
        m.d.sync += [
            wrote.eq(self.write.valid.any()),
            written.eq(
                Cat(
                    Cat(bit for n, bit in enumerate(chosen) if n >> k & 1).any()
                    for k in range(len(written))
                )
            ),
        ]
        m.d.comb += [
            write.addr.eq(Cat(select(written, serials), written)),
            write.data.eq(self.write.index),
            # In the cycle behind each beat, and so before the commit.
            write.en.eq(wrote),
            self.command.eq(read.data),
        ]
        for n, serial in enumerate(serials):
            with m.If(self.write.commit[n]):
                m.d.sync += serial.eq(serial + 1)
