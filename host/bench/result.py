"""Jobs on the card: their buffers, their time, and what all results of benchmarks tell of them."""

import abc
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ..card import Card, JobResult
from ..counters import Counters
from .golden import raw
from .job import command_line

__all__ = ["MismatchError", "Result", "Run", "compare", "run_job"]

DEADLINE = 50
"""A job that takes so many times its estimate is stopped."""


class MismatchError(RuntimeError):
    """The card's result is not the golden model's; names the first element that differs."""


class Job(Protocol):
    """What a benchmark runs."""

    @property
    def seed(self) -> int: ...

    def options(self) -> list[str]:
        """Return the command line's options for this job."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(abc.ABC):
    """A job that ran and equals the golden model bit for bit.

    Parameters
    ----------
    macs : int
        Useful multiplications.
    wall_s : float
        Seconds in which the card ran.
    """

    job: Job
    macs: int
    config: CardConfig
    backend: str
    memory: str
    cycles_modelled: bool
    counters: Counters
    wall_s: float

    name: ClassVar[str]
    """Of the benchmark, on the command line."""

    @property
    @abc.abstractmethod
    def lanes(self) -> int:
        """Multiplications that a PE does in a cycle."""

    @property
    def mac_units(self) -> int:
        """Multiplications that the card can do in a cycle."""
        return self.config.rows * self.config.cols * self.lanes

    @property
    def utilization(self) -> float:
        """Useful multiplications per cycle and multiplier, all else of the job included."""
        return self.counters.utilization(self.macs, self.config, self.lanes)

    @property
    def bytes_per_cycle(self) -> float:
        """Bytes over the card memory bus in a cycle."""
        moved = self.counters.bytes_read + self.counters.bytes_written
        return moved / max(self.counters.cycles, 1)

    def engine_cycles(self) -> dict[str, int]:
        """Return where the cycles of all engines went, by cause (`Counters`)."""
        return {"mac_active": self.counters.mac_active, **self.counters.stalls()}

    def command(self) -> str:
        """Return the command line that repeats this."""
        return command_line(
            self.name,
            self.job.options(),
            preset=self.config.name,
            backend=self.backend,
            memory=self.memory,
            seed=self.job.seed,
        )

    @abc.abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""

    def _card_fields(self) -> dict[str, Any]:
        """Return the fields that come first: of what and where."""
        return {
            "name": self.name,
            "preset": self.config.name,
            "backend": self.backend,
            "memory": self.memory,
        }

    def _cycle_fields(self, **more: Any) -> dict[str, Any]:
        """Return the fields of cycles, with ``more`` of them, and what they were used for."""
        return {
            "cycles": self.counters.cycles,
            "cycles_modelled": self.cycles_modelled,
            **more,
            "macs": self.macs,
            "mac_units": self.mac_units,
            "utilization": round(self.utilization, 5),
        }

    def _moved_fields(self) -> dict[str, Any]:
        """Return the fields of engine-cycles and bytes."""
        return {
            "engine_cycles": self.engine_cycles(),
            "bytes_read": self.counters.bytes_read,
            "bytes_written": self.counters.bytes_written,
        }

    def _memory_fields(self) -> dict[str, Any]:
        """Return the fields of the card memory's bus."""
        return {
            "bytes_per_cycle": round(self.bytes_per_cycle, 4),
            "hbm_row_hits": self.counters.hbm_row_hits,
            "hbm_activates": self.counters.hbm_activates,
            "hbm_refreshes": self.counters.hbm_refreshes,
        }


@dataclasses.dataclass(frozen=True)
class Run:
    """A job that ended.

    Parameters
    ----------
    output : uint8 array
        What the last buffer holds.
    measured : dict
        The fields of `Result` that tell of the card and its time.
    """

    output: npt.NDArray[np.uint8]
    ended: JobResult
    measured: dict[str, Any]


def run_job(
    card: Card,
    inputs: Mapping[str, npt.NDArray[np.uint8]],
    output: tuple[str, int],
    commands: Callable[..., list[bytes]],
    cycles: int,
) -> Run:
    """Run a job in buffers of its own.

    Parameters
    ----------
    inputs : mapping of str to uint8 array
        By the buffers' names, what they hold.
    output : (str, int)
        Name and bytes of the last buffer.
    commands
        Returns the commands for the addresses of all buffers.
    cycles : int
        Estimate of the job.

    Raises
    ------
    CardError, OutOfMemoryError, ValueError
    """
    name, nbytes = output
    # Results of an earlier run must not pass for this one's.
    images = {**inputs, name: np.full(nbytes, 0xA5, np.uint8)}
    buffers = []
    try:
        for name, image in images.items():
            buffers.append(card.allocate(image.size, name))
        for buffer, image in zip(buffers, images.values(), strict=True):
            card.write(buffer, image)
        job = commands(*(buffer.address for buffer in buffers))
        start = time.perf_counter()
        ended = card.submit(job).wait(max_cycles=DEADLINE * cycles)
        wall = time.perf_counter() - start
        found = card.read(buffers[-1])
    finally:
        for buffer in buffers:
            card.free(buffer)
    measured = {
        "config": card.config,
        "backend": card.transport.backend,
        "memory": card.memory,
        "cycles_modelled": card.transport.cycles_modelled,
        "counters": dataclasses.replace(ended.counters, cycles=ended.cycles),
        "wall_s": wall,
    }
    return Run(found, ended, measured)


def compare(actual: npt.NDArray, wanted: npt.NDArray, name: str = "C") -> None:
    """Raise `MismatchError` unless two results, called ``name``, have the same bits."""
    found = raw(actual)
    if found.shape != wanted.shape:
        raise MismatchError(
            f"{name} has the shape {found.shape} instead of {wanted.shape}; no figure is given"
        )
    wrong = np.argwhere(found != wanted)
    if len(wrong):
        first = tuple(wrong[0])
        raise MismatchError(
            f"the card differs from the golden model in {len(wrong)} of {wanted.size} results, "
            f"first in {name}[{', '.join(map(str, first))}]: {_bits(found[first])} instead of "
            f"{_bits(wanted[first])}; no figure is given"
        )


def _bits(value: np.generic) -> str:
    return f"{value:#x}" if value.dtype.kind == "u" else str(value)
