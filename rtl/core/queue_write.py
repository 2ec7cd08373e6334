"""How the dispatcher fills the queues, which lie far from it and from each other."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import COMMAND_BYTES, Operand

__all__ = ["CommandWrite", "QueueWrite", "command_beats", "connect_queue", "wide_bus"]


def command_beats(config: CardConfig) -> int:
    """Return the bus beats of a command."""
    return COMMAND_BYTES // config.bus_bytes


def wide_bus(config: CardConfig) -> bool:
    """Return whether a beat is more than a command's header."""
    return 8 * config.bus_bytes > Operand.as_shape().size


class QueueWrite(wiring.Signature):
    """How the dispatcher fills queues, seen from the dispatcher.

    Parameters
    ----------
    config : CardConfig
    queues : int
        Each has a bit of ``chosen``, ``valid``, ``commit`` and ``room``.

    Members
    -------
    chosen : ``Out``
        The queue that ``beat`` and ``data`` are for: with each ``valid``, and else void. From a
        register, as it enables many.
    valid, beat, data : ``Out``
        Writes bus beat ``beat`` of the command that is being dispatched, in order, to one queue.
        Only while that has room.
    commit : ``Out``
        The command is whole, and may run. Without it nothing more is written until a reset.
    index : ``Out(32)``
        From the last ``valid`` to ``commit``: the command's index within its job.
    room : ``In``
        There is room for a command. Once high it stays high until ``commit``.
    """

    def __init__(self, config: CardConfig, queues: int) -> None:
        self.config = config
        self.queues = queues
        super().__init__(
            {
                "chosen": Out(queues),
                "valid": Out(queues),
                "beat": Out(range(command_beats(config))),
                "data": Out(8 * config.bus_bytes),
                "commit": Out(queues),
                "index": Out(32),
                "room": In(queues),
            }
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, QueueWrite)
            and self.config == other.config
            and self.queues == other.queues
        )


class CommandWrite(wiring.Signature):
    """How one queue is filled, seen from what fills it.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    valid, beat, data, commit : ``Out``
        As in `QueueWrite`, but that room is counted by who writes: for ``queue_depth`` commands
        that were committed and not ``taken``.
    taken : ``In(1)``
        A command left the store in the cycle before.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "valid": Out(1),
                "beat": Out(range(command_beats(config))),
                "data": Out(8 * config.bus_bytes),
                "commit": Out(1),
                "taken": In(1),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommandWrite) and self.config == other.config


def connect_queue(m: Module, write, number: int, queue, *, name: str) -> None:
    """Connect a queue's `CommandWrite` to the `QueueWrite` of all.

    By registers of its own that lie between the two, so that it is written a cycle later; but with
    a bus of more than a header, whose commands are two beats, at once.
    """
    config = write.signature.config
    domain = m.d["comb" if wide_bus(config) else "sync"]
    domain += [queue.valid.eq(write.valid[number]), queue.commit.eq(write.commit[number])]
    with m.If(write.chosen[number]):
        domain += [queue.beat.eq(write.beat), queue.data.eq(write.data)]
    level = Signal(range(config.queue_depth + 1), name=f"{name}_level")
    m.d.comb += write.room[number].eq(level != config.queue_depth)
    m.d.sync += level.eq(level + write.commit[number] - queue.taken)
