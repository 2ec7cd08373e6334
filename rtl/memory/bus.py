"""The card memory bus and the storage port behind it.

A *requester* (command fetch, the two loads, the store) holds a `Bus`. Requests are bursts;
responses come in the order of the requests. Every burst lies inside one aligned 256-byte block.
The `Storage` port leaves the card's top: whatever keeps the bytes (host memory in simulation,
block RAM or SDRAM on a board) answers it.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig

__all__ = [
    "BURST_BYTES",
    "STORAGE_LATENCY",
    "Bus",
    "Storage",
    "burst_beats",
    "request_layout",
    "write_layout",
]

BURST_BYTES = 256
"""Bursts never cross a multiple of this; also the channel interleave."""

STORAGE_LATENCY = 3
"""Cycles from a read of storage to its data: block RAM far away has registers on both sides."""


def burst_beats(config: CardConfig) -> int:
    """Return the most beats of a burst."""
    return BURST_BYTES // config.bus_bytes


def request_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a burst request: byte address (a multiple of the bus width), beats - 1, write."""
    return data.StructLayout(
        {
            "address": unsigned(config.memory_addr_width),
            "last_beat": range(burst_beats(config)),
            "write": unsigned(1),
        }
    )


def write_layout(config: CardConfig) -> data.StructLayout:
    """Layout of one beat of write data with its byte mask."""
    return data.StructLayout(
        {"data": unsigned(8 * config.bus_bytes), "mask": unsigned(config.bus_bytes)}
    )


class Bus(wiring.Signature):
    """Bus of one requester, seen from the requester.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    request : ``Out(stream)``
        One burst. The data of write bursts follow on ``write``, in the same order.
    write : ``Out(stream)``
        Beats of write data; may come before, with or after their request.
    read : ``In(stream, always_ready)``
        Beats of read data, in order. The requester has room before it requests.
    written : ``In(1)``
        Pulses once for each write burst, when all of its bytes are in memory.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "request": Out(stream.Signature(request_layout(config))),
                "write": Out(stream.Signature(write_layout(config))),
                "read": In(stream.Signature(unsigned(8 * config.bus_bytes), always_ready=True)),
                "written": In(1),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bus) and self.config == other.config


class Storage(wiring.Signature):
    """Port to the bytes, seen from the card: at most one access a cycle.

    Members
    -------
    enable, write : ``Out(1)``
    address : ``Out(unsigned)``
        In beats of the bus width.
    write_data, write_mask : ``Out``
    read_data : ``In``
        Valid `STORAGE_LATENCY` cycles after a read was enabled.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        beat_bits = (config.bus_bytes - 1).bit_length()
        super().__init__(
            {
                "enable": Out(1),
                "write": Out(1),
                "address": Out(config.memory_addr_width - beat_bits),
                "write_data": Out(8 * config.bus_bytes),
                "write_mask": Out(config.bus_bytes),
                "read_data": In(8 * config.bus_bytes),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.config == other.config
