"""Card memory: which bytes belong to whom."""

import bisect
import dataclasses

__all__ = ["Allocator", "Buffer", "OutOfMemoryError"]

ALIGNMENT = 256
"""Buffers start at multiples of this, the longest burst."""


class OutOfMemoryError(MemoryError):
    """No free block of card memory is large enough.

    Parameters
    ----------
    message : str
        One line: what was asked for, what is free, and what to do.
    requested, free, largest : int
        Bytes.
    """

    def __init__(self, message: str, *, requested: int, free: int, largest: int) -> None:
        super().__init__(message)
        self.requested = requested
        self.free = free
        self.largest = largest


@dataclasses.dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes ``address`` to ``address + nbytes`` of card memory, and what they are for."""

    address: int
    nbytes: int
    name: str = ""


class Allocator:
    """First fit over one range of addresses.

    Parameters
    ----------
    start, end : int
        First byte, and the byte after the last.
    """

    def __init__(self, start: int, end: int) -> None:
        if not 0 <= start < end:
            raise ValueError(f"start and end must be ordered, not {start!r} and {end!r}")
        first = -(-start // ALIGNMENT) * ALIGNMENT
        self.total = end - first
        self._holes = [(first, end - first)]
        self._live: dict[int, int] = {}

    @property
    def free_bytes(self) -> int:
        """Bytes that no buffer holds."""
        return sum(size for _, size in self._holes)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest buffer that could be allocated now."""
        return max((size for _, size in self._holes), default=0)

    def allocate(self, nbytes: int, name: str = "") -> Buffer:
        """Return a buffer of at least ``nbytes`` bytes, aligned to 256.

        Raises
        ------
        OutOfMemoryError
            If no hole is large enough.
        ValueError
            If ``nbytes`` is not positive.
        """
        if nbytes < 1:
            raise ValueError(f"nbytes must be at least 1, not {nbytes!r}")
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        for index, (address, hole) in enumerate(self._holes):
            if hole < size:
                continue
            if hole == size:
                del self._holes[index]
            else:
                self._holes[index] = (address + size, hole - size)
            self._live[address] = size
            return Buffer(address, nbytes, name)
        free, largest = self.free_bytes, self.largest_bytes
        what = f" for {name}" if name else ""
        if free >= size:
            cure = "memory is in pieces: free buffers, or allocate the large ones first"
        elif size > self.total:
            cure = f"the card has {self.total} in all: split the work into smaller pieces"
        else:
            cure = "free buffers that are no longer needed, or split the work"
        raise OutOfMemoryError(
            f"out of card memory: {nbytes} bytes requested{what}, {free} free, largest block "
            f"{largest}; {cure}",
            requested=nbytes,
            free=free,
            largest=largest,
        )

    def free(self, buffer: Buffer) -> None:
        """Give a buffer back.

        Raises
        ------
        ValueError
            If it is not allocated: it was freed before, or belongs to another card.
        """
        size = self._live.pop(buffer.address, None)
        if size is None:
            raise ValueError(f"{buffer!r} is not allocated on this card")
        address = buffer.address
        index = bisect.bisect(self._holes, (address, 0))
        if index < len(self._holes) and self._holes[index][0] == address + size:
            size += self._holes.pop(index)[1]
        if index and sum(self._holes[index - 1]) == address:
            address, before = self._holes.pop(index - 1)
            size += before
            index -= 1
        self._holes.insert(index, (address, size))
