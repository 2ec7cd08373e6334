"""What the load unit and the store unit share: bursts of a transfer."""

from amaranth.hdl import Cat, Const, Module, Value
from amaranth.lib import data
from amaranth.lib.wiring import connect, flipped

from ..config import GRANULE, CardConfig
from ..memory.bus import request_layout
from .ports import UnitPort
from .transfer import TransferWalk

__all__ = ["lanes_of", "request_of", "walk_of"]


def lanes_of(config: CardConfig) -> int:
    """Return the granules of a beat, at least 1."""
    return max(1, config.bus_bytes // GRANULE)


def request_of(config: CardConfig, burst: data.View, *, write: int) -> data.View:
    """Return the bus request that moves ``burst``."""
    lanes = lanes_of(config)
    lane_bits = (lanes - 1).bit_length()
    first = burst.memory[lane_bits : len(burst.end)]
    beats = (burst.end[lane_bits:] - first)[: len(first)]
    layout = request_layout(config)
    return layout(
        Cat(
            Const(0, lane_bits + (GRANULE - 1).bit_length()),
            burst.memory[lane_bits:],
            Const(1, 1) if config.bus_bytes < GRANULE else Const(0, 0),
            beats,
            Const(write, 1),
        )
    )


def walk_of(m: Module, config: CardConfig, unit: UnitPort, idle: Value) -> TransferWalk:
    """Add the walk that runs the iterations of ``unit``."""
    m.submodules.walk = walk = TransferWalk(config)
    connect(m, flipped(unit.start), walk.start)
    m.d.comb += [
        walk.idle.eq(idle),
        unit.error.eq(walk.error),
        unit.status.eq(walk.status),
    ]
    return walk
