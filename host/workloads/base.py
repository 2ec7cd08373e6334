"""What a workload is, and what it gives back."""

import dataclasses
from collections.abc import Callable

from ..card import Card
from ..counters import Counters
from ..transport import Progress

__all__ = ["Workload", "WorkloadResult"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkloadResult:
    """Figures of a run.

    Parameters
    ----------
    name, dtype : str
    images, batch : int
        Images run, and images of a batch.
    float_accuracy, accuracy : float
        Fraction of these images that the float network, and the card, got right.
    tensors, identical_tensors : int
        Output tensors (images x layers) compared with the golden model, and found equal bit for
        bit.
    macs : int
        Multiplications of the dense network, all images.
    mac_units : int
        Multiplications that the card can do in a cycle in this format.
    counters : Counters
        Sum over all jobs, the loading of weights included.
    card_seconds, wall_seconds : float
        Seconds on the wall in which the card ran, and of everything.
    """

    name: str
    dtype: str
    images: int
    batch: int
    float_accuracy: float
    accuracy: float
    tensors: int
    identical_tensors: int
    macs: int
    mac_units: int
    counters: Counters
    card_seconds: float
    wall_seconds: float

    @property
    def bit_exact(self) -> bool:
        """Whether every tensor equals the golden model's."""
        return self.identical_tensors == self.tensors

    @property
    def cycles(self) -> int:
        """Card cycles of all jobs."""
        return self.counters.cycles

    @property
    def cycles_per_image(self) -> float:
        return self.cycles / self.images

    @property
    def utilization(self) -> float:
        """Useful multiplications over those that the card could have done."""
        return self.macs / (self.cycles * self.mac_units) if self.cycles else 0.0

    @property
    def cycles_per_second(self) -> float:
        """Simulated cycles in a second on the wall, while the card ran."""
        return self.cycles / self.card_seconds if self.card_seconds else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A network with real weights and real inputs.

    Parameters
    ----------
    name, summary : str
        For the command line and its list.
    inputs : int
        Number of inputs that it has.
    run : callable
        ``run(card, limit, progress)``: runs the first ``limit`` inputs (all of them if None), tells
        ``progress`` (phase and fraction done) after each batch, and returns a `WorkloadResult`.
    """

    name: str
    summary: str
    inputs: int
    run: Callable[[Card, int | None, Progress | None], WorkloadResult]
