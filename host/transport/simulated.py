"""What the two simulated cards have in common as transports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # each transport loads its own simulator only
    from ...sim.functional.card import FunctionalCard
    from ...sim.verilated.library import VerilatedCard

__all__ = ["SimulatedTransport"]


class SimulatedTransport:
    """Hands everything on to a card in this process (`base.Transport`)."""

    clock_hz: int | None = None
    statistics = None

    def __init__(self, card: "FunctionalCard | VerilatedCard") -> None:
        self._card = card

    @property
    def build_hash(self) -> int | None:
        return self._card.build_hash

    @property
    def cycles(self) -> int:
        return self._card.cycles

    def csr_read(self, address: int) -> int:
        return self._card.csr_read(address)

    def csr_read_many(self, addresses: Sequence[int]) -> list[int]:
        return [self._card.csr_read(address) for address in addresses]

    def csr_write(self, address: int, value: int) -> None:
        self._card.csr_write(address, value)

    def read_memory(self, address: int, nbytes: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._card.read_memory(address, nbytes), np.uint8)

    def write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self._card.write_memory(address, data)

    def run(self, max_cycles: int) -> int:
        return self._card.run(max_cycles)

    def close(self) -> None:
        self._card.close()
