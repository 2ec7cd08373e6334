"""Signatures between the units of the core: scratchpad ports, and a unit's start port."""

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Status

__all__ = [
    "READ_LATENCY",
    "ReadPort",
    "UnitPort",
    "WritePort",
    "banks_of",
    "iteration_layout",
    "lane_banks",
]

READ_LATENCY = 3
"""Cycles from the one that accepts a read of the scratchpad to its data."""


def lane_banks(m: Module, config: CardConfig, address: Value, granules: int) -> list[Signal]:
    """Return for each granule from ``address`` on its bank, as the one bit that is set of all.

    Granule ``a`` lies in bank ``(a + a // banks) % banks`` of the scratchpad. Found in ``m``.
    """
    banks = config.scratchpad_banks
    bits = (banks - 1).bit_length()
    low, number = address[:bits], Signal(bits, name="bank_number")
    first = Signal(banks, name="lane_banks0")
    m.d.comb += [
        number.eq(low + address[bits : 2 * bits]),
        first.eq(Cat(number == bank for bank in range(banks))),
    ]
    lanes = [first]
    for lane in range(1, granules):
        # Lanes beyond the row's end are one bank further on.
        near, far = (
            Cat(first[(bank - hop) % banks] for bank in range(banks)) for hop in (lane, lane + 1)
        )
        lanes.append(Signal(banks, name=f"lane_banks{lane}"))
        m.d.comb += lanes[-1].eq(Mux(low >= banks - lane, far, near))
    return lanes


def banks_of(
    m: Module,
    config: CardConfig,
    address: Value,
    granules: int = 1,
    needed: Sequence[Value] | Value | None = None,
) -> Value:
    """Return a bit for each bank of the scratchpad: those of the granules from ``address`` on.

    With ``needed`` only of those whose bit is set there. Found in ``m``.
    """
    lanes: list[Value] = list(lane_banks(m, config, address, granules))
    if needed is not None:
        lanes = [Mux(needed[i], mask, 0) for i, mask in enumerate(lanes)]
    return reduce(or_, lanes)


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
    banks : `banks_of` what is read
        From a register if ``address`` comes from one: who is served when is found from it.
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
                "banks": Out(config.scratchpad_banks),
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

    The write is accepted in a cycle with ``valid`` and ``ready`` high. Reads accepted in a later
    cycle see the new bytes; what those see that are accepted in the same cycle is not specified.

    Parameters
    ----------
    config : CardConfig
    granules : int
        Granules written at once, to consecutive addresses; all or none.

    Members
    -------
    valid, address, ready : request, address in granules
    banks : `banks_of` all granules, as in `ReadPort`
    data, mask : lowest address in the lowest bits; ``mask`` has a bit for each byte to write
    """

    def __init__(self, config: CardConfig, granules: int = 1) -> None:
        self.config = config
        self.granules = granules
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(config.granule_addr_width),
                "banks": Out(config.scratchpad_banks),
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
        commands overlap until the cycle behind the one in which the last one is accepted.
    done : ``In(1)``
        Pulses once for each iteration, in order, when all its effects are visible. For the last
        iteration under way it waits, too, until the unit no longer reads the body.
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
