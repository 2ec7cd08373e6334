"""Networks with real weights and real inputs."""

from . import digits
from .base import Workload, WorkloadResult
from .files import DataError

__all__ = ["WORKLOADS", "DataError", "Workload", "WorkloadResult", "workload"]

WORKLOADS: dict[str, Workload] = {
    entry.name: entry
    for entry in (
        Workload(
            name="digits",
            summary="reads scanned digits (8 x 8 pixels) with a small convolutional network, INT8",
            inputs=digits.TEST_IMAGES,
            run=digits.run,
        ),
    )
}


def workload(name: str) -> Workload:
    """Return the workload called ``name``; raise `ValueError` that lists the known ones."""
    try:
        return WORKLOADS[name]
    except KeyError:
        known = ", ".join(WORKLOADS)
        raise ValueError(f"no workload {name!r}; choose one of: {known}") from None
