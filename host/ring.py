"""The command ring: the part of card memory that the card fetches its commands from."""

from collections.abc import Sequence

import numpy as np

from ..rtl.isa import COMMAND_BYTES, Csr
from .allocator import Buffer
from .transport import Transport

__all__ = ["RING_COMMANDS", "Ring", "ring_bytes"]

RING_COMMANDS = 1024
"""Commands in the ring at most, a power of two."""

RING_PART = 16
"""Of a small card memory, the ring takes at most this part."""

_COUNT = 1 << 32
"""Commands are counted modulo this."""


def ring_bytes(memory_bytes: int) -> int:
    """Return the bytes of the ring of a card with so much memory."""
    room = memory_bytes // RING_PART // COMMAND_BYTES
    return min(RING_COMMANDS, 1 << max(room.bit_length() - 1, 0)) * COMMAND_BYTES


class Ring:
    """A card's ring. `reset` comes first, and again after each reset of the card.

    Parameters
    ----------
    transport : Transport
    buffer : Buffer
        Where it lies.

    Members
    -------
    tail : int
        Commands written so far, modulo 2^32.
    """

    def __init__(self, transport: Transport, buffer: Buffer) -> None:
        self.tail = 0
        self._transport = transport
        self._buffer = buffer
        self._commands = buffer.nbytes // COMMAND_BYTES

    def reset(self) -> None:
        """Tell the card where its ring is."""
        self._transport.csr_write(int(Csr.RING_BASE), self._buffer.address)
        self._transport.csr_write(int(Csr.RING_SIZE), self._commands)
        self.tail = self.head()

    def head(self) -> int:
        """Return how many commands the card has taken, modulo 2^32."""
        return self._transport.csr_read(int(Csr.RING_HEAD))

    def room(self) -> int:
        """Return how many commands can be written now."""
        return self._commands - (self.tail - self.head()) % _COUNT

    def write(self, commands: Sequence[bytes]) -> None:
        """Write commands, for which there has to be room, and ring the doorbell."""
        data = np.frombuffer(b"".join(commands), np.uint8)
        at = self.tail % self._commands * COMMAND_BYTES
        first = min(data.size, self._buffer.nbytes - at)
        self._transport.write_memory(self._buffer.address + at, data[:first])
        if data.size > first:
            self._transport.write_memory(self._buffer.address, data[first:])
        self.tail = (self.tail + len(commands)) % _COUNT
        self._transport.csr_write(int(Csr.RING_TAIL), self.tail)
