"""Signatures between the units of the core: scratchpad ports, and a unit's start port."""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Status

__all__ = ["READ_LATENCY", "ReadPort", "UnitPort", "WritePort", "iteration_layout"]

READ_LATENCY = 3
"""Cycles from the one that accepts a read of the scratchpad to its data."""


class ReadPort(wiring.Signature):
    """Scratchpad read port, seen from the reader.

    A request is accepted in a cycle with ``valid`` and ``ready`` high; its data come exactly
    `READ_LATENCY` cycles later, for the one cycle with ``data_valid``. ``ready`` may depend on
    ``valid`` and ``address``; a waiting request may change or be withdrawn.

    Parameters
    ----------
    config : CardConfig
    granules : int
        Granules read at once, from consecutive addresses (wrapping at the end); all or none.

    Members
    -------
    valid, address, ready : request, address in granules
    needed : a bit for each granule, of ports with several
        The others' data are void, and their banks are left to other ports.
    data_valid, data : response, lowest address in the lowest bits
    """

    def __init__(self, config: CardConfig, granules: int = 1) -> None:
        self.config = config
        self.granules = granules
        needed = {"needed": Out(granules)} if granules > 1 else {}
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(config.granule_addr_width),
                "ready": In(1),
                "data_valid": In(1),
                "data": In(8 * GRANULE * granules),
            }
            | needed
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ReadPort)
            and self.config == other.config
            and self.granules == other.granules
        )


class WritePort(wiring.Signature):
    """Scratchpad write port, seen from the writer.

    The write is accepted in a cycle with ``valid`` and ``ready`` high. ``mask`` has a bit a byte.
    Reads accepted in a later cycle see the new bytes; what those see that are accepted in the same
    cycle is not specified.

    Parameters
    ----------
    config : CardConfig
    granules : int
        Granules written at once, to consecutive addresses; all or none.
    """

    def __init__(self, config: CardConfig, granules: int = 1) -> None:
        self.config = config
        self.granules = granules
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(config.granule_addr_width),
                "data": Out(8 * GRANULE * granules),
                "mask": Out(GRANULE * granules),
                "ready": In(1),
            }
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WritePort)
            and self.config == other.config
            and self.granules == other.granules
        )


def iteration_layout() -> data.StructLayout:
    """Layout of one iteration of a command: its three addresses, and the command's opcode and body.

    ``first``: it is the first one of its command. A unit that runs only one kind of command need
    not look at ``opcode``.
    """
    return data.StructLayout(
        {
            "operand": data.ArrayLayout(unsigned(32), 3),
            "opcode": unsigned(8),
            "body": unsigned(512),
            "first": unsigned(1),
        }
    )


class UnitPort(wiring.Signature):
    """How a queue runs a unit (load, compute, vector, store), seen from the queue.

    The queue keeps at most two iterations outstanding. Most queues never mix two commands: the
    first iteration of a command starts only when every iteration of the one before has ended, so a
    unit may take what is constant in a command straight from the port while it works. A queue
    whose commands overlap starts the next one's first iteration as it starts any other; its unit
    keeps what it needs of a body when it accepts an iteration.

    Members
    -------
    start : ``Out(stream)``
        Starts an iteration (`iteration_layout`). ``payload`` holds the iteration that is next, and
        its ``body`` stays the same until all of the command's iterations have ended, or where
        commands overlap until the last one has been accepted.
    done : ``In(1)``
        Pulses once for each iteration, in order, when all its effects are visible; for the last
        one under way also only when the unit needs the body no longer.
    error : ``In(1)``
        Pulses when the oldest iteration outstanding has failed, with ``status``. The core is reset
        after it.
    status : ``In(Status)``
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": Out(stream.Signature(iteration_layout())),
                "done": In(1),
                "error": In(1),
                "status": In(Status),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnitPort)
