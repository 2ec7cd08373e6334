"""What an iteration of a unit works on and reports."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Bytes", "Fields", "Work", "windows"]

Bytes = npt.NDArray[np.uint8]
Fields = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """What an iteration did.

    ``read`` and ``written`` are bytes on the card memory bus, in whole beats. ``issued`` is the
    number of stream entries that each engine issued. ``busy`` is the modelled number of cycles for
    which the unit itself has work, without access to card memory. ``flags`` are bits of `Flag`.
    ``dealt`` is the engine behind that of a MATMUL's last row.
    """

    read: int = 0
    written: int = 0
    issued: tuple[int, ...] = ()
    busy: int = 0
    flags: int = 0
    dealt: int | None = None


def windows(data: Bytes, length: int) -> npt.NDArray[np.uint8]:
    """Return a writable view whose element ``a`` is the ``length`` bytes from address ``a``."""
    return np.lib.stride_tricks.sliding_window_view(data, length, writeable=True)
