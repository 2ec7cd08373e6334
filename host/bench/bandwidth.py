"""What card memory moves when nothing but loads runs: the roof of matrix-vector products."""

import dataclasses

from ...rtl.isa import Queue
from ..card import Card
from ..compiler import commands
from ..compiler.commands import Operand

__all__ = ["Bandwidth", "measure"]

LOAD_BYTES = 1 << 13
"""Bytes of each load: four of them fit every scratchpad."""

LOADS = 64
"""Loads in all."""


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """A measurement: bytes read in a job of loads of contiguous bytes, and its cycles."""

    nbytes: int
    cycles: int

    @property
    def bytes_per_cycle(self) -> float:
        """The effective bandwidth: after refreshes and the opening of rows."""
        return self.nbytes / self.cycles


def measure(card: Card) -> Bandwidth:
    """Load half a megabyte to the scratchpad through one load queue, and through both.

    Returns the faster one.
    """
    source = card.allocate(LOADS * LOAD_BYTES, "the source of the loads")
    try:
        found = [_measure(card, source.address, queues) for queues in (1, 2)]
    finally:
        card.free(source)
    return max(found, key=lambda bandwidth: bandwidth.bytes_per_cycle)


def _measure(card: Card, address: int, queues: int) -> Bandwidth:
    loads = LOADS // queues
    jobs = [
        commands.load(
            Operand(address + number * loads * LOAD_BYTES, inner=LOAD_BYTES),
            Operand(2 * number * LOAD_BYTES, pong=LOAD_BYTES),
            x_bytes=LOAD_BYTES,
            queue=queue,
            inner=loads,
        )
        for number, queue in enumerate((Queue.LOAD0, Queue.LOAD1)[:queues])
    ]
    return Bandwidth(LOADS * LOAD_BYTES, card.submit(jobs).wait().cycles)
