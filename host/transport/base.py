"""What the driver needs of a card, whichever card it is."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig

if TYPE_CHECKING:
    from .line import LinkStatistics

__all__ = ["CARD_ID", "Progress", "SetupError", "ToolCheck", "Transport"]

CARD_ID = 0x4B535044
"""What `Csr.ID` reads."""

Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done, 0 to 1."""


class SetupError(RuntimeError):
    """A card cannot be opened as this computer is: one line, what is missing and what to do."""


@dataclasses.dataclass(frozen=True)
class ToolCheck:
    """A tool: whether it will do, whether the rtl backend needs it, what was found and advice."""

    name: str
    ok: bool
    required: bool
    detail: str


class Transport(Protocol):
    """The way to one card: registers, memory, and time.

    Members
    -------
    backend : str
        ``"rtl"``, ``"functional"`` or ``"board"``.
    config : CardConfig
        The card that is expected at the other end.
    cycles_modelled : bool
        True if cycles are estimates and not counted by hardware.
    clock_hz : int or None
        Cycles in a second of a card that runs by itself; None if it runs in `run` only.
    statistics : LinkStatistics or None
        What went over the line to a card that is on one.
    build_hash : int or None
        What `Csr.BUILD_LOW` and `Csr.BUILD_HIGH` have to read, if known.
    cycles : int
        Card cycles since the transport was opened.
    """

    backend: str
    config: CardConfig
    cycles_modelled: bool
    clock_hz: int | None

    @property
    def statistics(self) -> "LinkStatistics | None": ...

    @property
    def build_hash(self) -> int | None: ...

    @property
    def cycles(self) -> int: ...

    def csr_read(self, address: int) -> int:
        """Read a 32-bit register."""
        ...

    def csr_read_many(self, addresses: Sequence[int]) -> list[int]:
        """Read 32-bit registers in this order, in one round trip if the card is far away."""
        ...

    def csr_write(self, address: int, value: int) -> None:
        """Write a 32-bit register."""
        ...

    def read_memory(self, address: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Read card memory."""
        ...

    def write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        """Write card memory."""
        ...

    def run(self, max_cycles: int) -> int:
        """Let the card run until a job has ended, at most ``max_cycles``; return the cycles.

        That is while `Csr.COMPLETED` equals `Csr.ACK`. 0 if the card does not move.
        """
        ...

    def details(self) -> dict[str, str]:
        """Return what a report on simulation speed has to name, such as the C++ compiler."""
        ...

    def close(self) -> None:
        """Release the card. Closing twice is harmless."""
        ...
