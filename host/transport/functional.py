"""The functional simulator as a card."""

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...sim.functional.card import FunctionalCard

__all__ = ["FunctionalTransport"]


class FunctionalTransport:
    """A `FunctionalCard`: same commands, same bytes, no clock (`base.Transport`)."""

    backend = "functional"
    cycles_modelled = True

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        self._card = FunctionalCard(config)

    @property
    def build_hash(self) -> int | None:
        return self._card.build_hash

    @property
    def cycles(self) -> int:
        return self._card.cycles

    def csr_read(self, address: int) -> int:
        return self._card.csr_read(address)

    def csr_write(self, address: int, value: int) -> None:
        self._card.csr_write(address, value)

    def read_memory(self, address: int, nbytes: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._card.read_memory(address, nbytes), np.uint8)

    def write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self._card.write_memory(address, data)

    def run(self, max_cycles: int) -> int:
        return self._card.run(max_cycles)

    def details(self) -> dict[str, str]:
        return {"compiler": "none (NumPy " + np.__version__ + ")"}

    def close(self) -> None:
        self._card.close()
