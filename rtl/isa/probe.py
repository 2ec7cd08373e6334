"""What a capture on the chip sees of the card in each cycle."""

from amaranth.hdl import unsigned
from amaranth.lib import data

__all__ = ["Probe", "UnitProbe"]


class UnitProbe(data.Struct):
    """One unit, seen from its queue."""

    start: unsigned(1)
    """An iteration is offered."""
    ready: unsigned(1)
    """... and is taken, if it is offered."""
    done: unsigned(1)
    """An iteration has ended."""
    error: unsigned(1)


class Probe(data.Struct):
    """64 bits of the card in a cycle."""

    irq: unsigned(1)
    host_write: unsigned(1)
    """The host writes a register,"""
    host_address: unsigned(6)
    """... the one at four times this address."""
    halt: unsigned(1)
    """No new bursts: an error or a reset is under way."""
    core_reset: unsigned(1)
    memory_idle: unsigned(1)
    """No burst is outstanding."""
    working: unsigned(1)
    """A row engine has work."""
    mac_active: unsigned(6)
    """Row engines that issue a weight,"""
    stall_stream: unsigned(6)
    """... that wait for their stream,"""
    stall_fill: unsigned(6)
    """... for operands,"""
    stall_drain: unsigned(6)
    """... for the drain."""
    load0: UnitProbe
    load1: UnitProbe
    compute: UnitProbe
    vector: UnitProbe
    store: UnitProbe
    read_beat: unsigned(1)
    write_beat: unsigned(1)
    """A beat moves over the storage port."""
    row_hit: unsigned(2)
    activate: unsigned(2)
    refresh: unsigned(2)
