"""The card's counters: the only source of performance figures."""

import dataclasses
from collections.abc import Callable, Sequence

from ..rtl.config import CardConfig
from ..rtl.isa import Csr

__all__ = ["Counters"]

_CAUSES = {
    "mac_active": "multiplied",
    "stall_stream": "waited for weights to be read from the scratchpad",
    "stall_fill": "waited for operands to be filled in",
    "stall_drain": "waited for results to be drained and written",
    "idle_imbalance": "had no rows left while other engines had",
    "idle_memory": "waited for loads or stores",
    "idle_other": "waited for commands, or for the last results",
}
"""Every engine-cycle has one of these causes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counters:
    """One job's counters (`isa.Csr`, from CYCLES on).

    Parameters
    ----------
    cycles : int
        Of the job.
    mac_active, stall_stream, stall_fill, stall_drain, idle_imbalance, idle_memory, idle_other : int
        Engine-cycles, one cause each (`explain`): their sum is ``cycles * rows``, or ``cycles`` if
        the card counts one engine (`isa.Csr.COUNT_ENGINE`).
    bytes_read, bytes_written : int
        Over the card memory bus.
    hbm_row_hits, hbm_activates, hbm_refreshes : int
    """

    cycles: int = 0
    mac_active: int = 0
    stall_stream: int = 0
    stall_fill: int = 0
    stall_drain: int = 0
    idle_imbalance: int = 0
    idle_memory: int = 0
    idle_other: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    hbm_row_hits: int = 0
    hbm_activates: int = 0
    hbm_refreshes: int = 0

    @classmethod
    def read(cls, csr_read_many: Callable[[Sequence[int]], list[int]]) -> "Counters":
        """Read all counters of a card that runs no job."""
        addresses = range(Csr.CYCLES, Csr.COUNT_ENGINE, 4)
        words = dict(zip(addresses, csr_read_many(addresses), strict=True))
        values = {}
        for field in dataclasses.fields(cls):
            address = int(Csr[field.name.upper()])
            values[field.name] = words[address] | words[address + 4] << 32
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

    @property
    def engine_cycles(self) -> int:
        """Cycles of all engines that were counted."""
        return self.mac_active + sum(self.stalls().values())

    def stalls(self) -> dict[str, int]:
        """Return the engine-cycles without a weight, by cause."""
        return {name: getattr(self, name) for name in _CAUSES if name != "mac_active"}

    def explain(self) -> dict[str, float]:
        """Return where the engines' cycles went: the share of each cause, in words; 1 in all.

        Nothing if no engine-cycle was counted.
        """
        total = self.engine_cycles
        return {words: getattr(self, name) / total for name, words in _CAUSES.items() if total}
