"""What leaving zeros out gains: dense against compressed, by density and pattern."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ..card import Card
from .gemm import GemmResult, gemm
from .job import PATTERNS, GemmJob
from .staged import StagedResult, run_staged
from .staged_jobs import CompressJob

__all__ = ["DENSITIES", "SKEW", "Speedup", "sparse_jobs", "speedup"]

DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Densities of random zeros."""

SKEW = 0.6
"""Of the rows' densities: the standard deviation of their logarithm."""

SKEWED_DENSITIES = (0.3, 0.1)


@dataclasses.dataclass(frozen=True)
class Speedup:
    """The same product, dense and compressed; also compressed on the card, if that was asked."""

    dense: GemmResult
    compressed: GemmResult
    on_card: StagedResult | None = None

    @property
    def factor(self) -> float:
        """How many times as fast the compressed one is."""
        return self.dense.counters.cycles / self.compressed.counters.cycles

    @property
    def bound(self) -> float:
        """What it would be if time went to multiplications that count only."""
        return self.dense.macs / max(self.compressed.macs, 1)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        fields = self.compressed.as_json() | {
            "name": "sparse",
            "zeros": self.compressed.job.zeros,
            "dense_cycles": self.dense.counters.cycles,
            "speedup_over_dense": round(self.factor, 4),
            "speedup_bound": round(self.bound, 4),
        }
        if self.on_card is not None:
            fields["on_card_cycles"] = self.on_card.counters.cycles
        return fields


def sparse_jobs(
    m: int,
    n: int,
    k: int,
    *,
    dtypes: Sequence[str],
    densities: Sequence[float] = DENSITIES,
    seed: int = 0,
) -> Iterator[GemmJob]:
    """Yield the jobs of ``bench sparse``: random zeros, patterns and skewed rows, by format."""
    for dtype in dtypes:
        plain = GemmJob(m=m, n=n, k=k, dtype=dtype, seed=seed)
        for density in densities:
            yield dataclasses.replace(plain, density=density)
        for pattern in PATTERNS:
            yield dataclasses.replace(plain, encoding=pattern)
        for density in SKEWED_DENSITIES:
            yield dataclasses.replace(plain, density=density, skew=SKEW)


def speedup(card: Card, job: GemmJob, *, on_card: bool = False) -> Speedup:
    """Run a job with zeros dense and compressed, also on the card; all equal the golden model."""
    dense, compressed = gemm(card, job)
    return Speedup(dense, compressed, run_staged(card, CompressJob(job)) if on_card else None)
