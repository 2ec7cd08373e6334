"""The line under a link: what it has to offer, what went over it, and how good it is."""

import dataclasses
from typing import Protocol

from ...rtl.isa.link import MAX_DATA

__all__ = ["LinkError", "LinkStatistics", "PayloadSize", "Port"]

MIN_PAYLOAD = 64
SMALLER, LARGER = 0.12, 0.015
"""Fraction of lost frames above which, and below which, pieces of another size lose less time."""


class LinkError(ConnectionError):
    """The board is gone, or answers nothing of use. One line: what happened and what to do."""


class Port(Protocol):
    """A line of bytes. Both methods raise `LinkError` if the line is cut."""

    def read(self) -> bytes:
        """Return the bytes that have come; wait for the first, but not long: it may be none."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...


@dataclasses.dataclass
class LinkStatistics:
    """What went over a link.

    Parameters
    ----------
    bytes_sent, bytes_received : int
        On the line: framing, headers and repetitions included.
    data_written, data_read : int
        Of registers and memory.
    requests, repeated : int
        Requests, and how often one was sent again.
    timeouts, resends : int
        Why: nothing came, or the board missed a request. Otherwise a reply was missing.
    damaged : int
        Frames from the board that were dropped.
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    data_written: int = 0
    data_read: int = 0
    requests: int = 0
    repeated: int = 0
    timeouts: int = 0
    resends: int = 0
    damaged: int = 0


class PayloadSize:
    """Bytes of the pieces of a transfer: many on a clean line, fewer where frames are lost.

    Members
    -------
    size : int
        `MIN_PAYLOAD` to `MAX_DATA`.
    """

    def __init__(self) -> None:
        self.size = MAX_DATA
        self._lost = 0.0

    @property
    def clean(self) -> bool:
        """Whether hardly any frame was lost."""
        return self._lost < LARGER

    def tell(self, *, lost: bool) -> None:
        """Hear of a frame of this size."""
        self._lost += (lost - self._lost) / 16
        if self._lost > SMALLER and self.size > MIN_PAYLOAD:
            self.size //= 2
            self._lost /= 2
        elif self._lost < LARGER and self.size < MAX_DATA:
            self.size *= 2
            self._lost *= 2
