"""The card's counters: the only source of performance figures."""

import dataclasses
from collections.abc import Callable

from ..rtl.config import CardConfig
from ..rtl.isa import Csr

__all__ = ["Counters"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counters:
    """One job's counters (`isa.Csr`, from CYCLES on).

    Parameters
    ----------
    cycles : int
        Of the job.
    mac_active, stall_stream, stall_fill, stall_drain, idle : int
        Engine-cycles: their sum is about ``cycles * rows``.
    bytes_read, bytes_written : int
        Over the card memory bus.
    hbm_row_hits, hbm_activates, hbm_refreshes : int
    """

    cycles: int = 0
    mac_active: int = 0
    stall_stream: int = 0
    stall_fill: int = 0
    stall_drain: int = 0
    idle: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    hbm_row_hits: int = 0
    hbm_activates: int = 0
    hbm_refreshes: int = 0

    @classmethod
    def read(cls, csr_read: Callable[[int], int]) -> "Counters":
        """Read all counters of a card that runs no job."""
        values = {}
        for field in dataclasses.fields(cls):
            address = int(Csr[field.name.upper()])
            values[field.name] = csr_read(address) | csr_read(address + 4) << 32
        return cls(**values)

    def __add__(self, other: "Counters") -> "Counters":
        """Return the sum over two jobs."""
        fields = dataclasses.fields(self)
        return Counters(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields})

    def utilization(self, macs: int, config: CardConfig, lanes: int) -> float:
        """Return useful multiplications per cycle and multiplier, 0 to 1 for dense work.

        Parameters
        ----------
        macs : int
            Multiplications of the dense product.
        lanes : int
            Multiplications a PE does at once: 2 for INT8, 1 for FP16.
        """
        if not self.cycles:
            return 0.0
        return macs / (self.cycles * config.rows * config.cols * lanes)

    def stalls(self) -> dict[str, int]:
        """Return the engine-cycles without a weight, by cause."""
        return {
            "stream": self.stall_stream,
            "fill": self.stall_fill,
            "drain": self.stall_drain,
            "idle": self.idle,
        }
