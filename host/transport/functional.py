"""The functional simulator as a card."""

import numpy as np

from ...rtl.config import CardConfig
from ...sim.functional.card import FunctionalCard
from .simulated import SimulatedTransport

__all__ = ["FunctionalTransport"]


class FunctionalTransport(SimulatedTransport):
    """A `FunctionalCard`: same commands, same bytes, no clock (`base.Transport`)."""

    backend = "functional"
    cycles_modelled = True

    def __init__(self, config: CardConfig) -> None:
        super().__init__(FunctionalCard(config))
        self.config = config

    def details(self) -> dict[str, str]:
        return {"compiler": "none (NumPy " + np.__version__ + ")"}
