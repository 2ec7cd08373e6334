"""The published set of shapes: what is measured, against which target, beside which peers."""

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from ..card import Card
from ..output import check_file
from ..transport import Progress
from .gemm import GemmResult, gemm, open_card
from .job import GemmJob
from .peers import PEERS
from .sparse import SKEW

__all__ = [
    "COLUMNS",
    "KINDS",
    "ROWS",
    "CsvFile",
    "Measured",
    "Row",
    "Sweep",
    "chosen_rows",
    "shown_value",
]

KINDS = {
    "utilization": "% of the MACs",
    "bandwidth": "% of the memory's effective bandwidth",
    "speedup": "x dense",
    "ratio": "x the other format",
}
"""What a row's value is, by its kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One thing to measure.

    Parameters
    ----------
    name : str
    kind : str
        Key of `KINDS`.
    job : GemmJob
    base : GemmJob or None
        Of a ratio: what the job is compared with.
    memory : str
    targets : tuple of float
        Lowest good value on ``ecp5`` and on ``sim``.
    """

    name: str
    kind: str
    job: GemmJob
    base: GemmJob | None = None
    memory: str = "ideal"
    targets: tuple[float, float]

    def target(self, preset: str) -> float | None:
        """Return the target on a preset, if there is one."""
        return dict(zip(("ecp5", "sim"), self.targets, strict=True)).get(preset)


def _row(
    name: str,
    shape: tuple[int, int, int],
    dtype: str,
    targets: tuple[float, float],
    *,
    kind: str = "utilization",
    memory: str = "ideal",
    base: str | None = None,
    **options: Any,
) -> Row:
    m, k, n = shape
    job = GemmJob(m=m, n=n, k=k, dtype=dtype, **options)
    other = GemmJob(m=m, n=n, k=k, dtype=base) if base else None
    return Row(name=name, kind=kind, job=job, base=other, memory=memory, targets=targets)


def _cube(size: int) -> tuple[int, int, int]:
    return size, size, size


def _sparse(dtype: str) -> Iterator[Row]:
    for zeros, targets, options in (
        ("90%", (9.3, 9.0), {"density": 0.1}),
        ("2:4", (1.95, 1.9), {"encoding": "2:4"}),
        ("1:8", (7.6, 7.5), {"encoding": "1:8"}),
        ("90%-skewed", (9.0, 8.8), {"density": 0.1, "skew": SKEW}),
    ):
        name = f"{dtype}-512-{zeros}"
        yield _row(name, _cube(512), dtype, targets, kind="speedup", **options)


ROWS: tuple[Row, ...] = (
    _row("fp16-64", _cube(64), "fp16", (93, 80)),
    _row("fp16-128", _cube(128), "fp16", (98.8, 95.5)),
    _row("fp16-256", _cube(256), "fp16", (99.7, 99.2)),
    _row("fp16-384", _cube(384), "fp16", (99.9, 99.7)),
    _row("int8-256", _cube(256), "int8", (99.6, 99)),
    _row("int8-128x768x768", (128, 768, 768), "int8", (99.8, 99.7)),
    _row("fp16-256-hbm", _cube(256), "fp16", (98, 93), memory="hbm"),
    _row("int8-256-hbm", _cube(256), "int8", (98, 93), memory="hbm"),
    _row("fp16-16x256x256", (16, 256, 256), "fp16", (95, 85)),
    _row("fp16-31x32x31", (31, 32, 31), "fp16", (65, 35)),
    _row("fp16-7x13x257", (7, 13, 257), "fp16", (40, 20)),
    _row("gemv-1x256x256", (1, 256, 256), "int8", (88, 85), kind="bandwidth", memory="hbm"),
    _row("gemv-1x4096x4096", (1, 4096, 4096), "int8", (95, 95), kind="bandwidth", memory="hbm"),
    *_sparse("int8"),
    *_sparse("fp16"),
    _row("int8:fp16", _cube(256), "int8", (1.95, 1.9), kind="ratio", base="fp16"),
    _row("int4:int8", _cube(256), "int4", (1.95, 1.9), kind="ratio", base="int8"),
)
"""The published set; shapes are M x K x N."""

COLUMNS = (
    *("row", "m", "k", "n", "dtype", "out_dtype", "zeros", "encoding", "stream", "preset"),
    *("memory", "backend", "kind", "value", "target", "met", "cycles", "base_cycles"),
    *("macs", "mac_units", "utilization", "mac_active", "stall_stream", "stall_fill"),
    *("stall_drain", "idle_imbalance", "idle_memory", "idle_other", "bytes_read", "bytes_written"),
    *(
        "bytes_per_cycle",
        "bandwidth",
        "bit_exact",
        "cycles_modelled",
        "build",
        "peers",
        "command",
        "base_command",
    ),
)
"""Columns of the CSV file. ``mac_active`` to ``idle_other`` are engine-cycles; ``bandwidth`` is the
bytes a cycle that loads alone reach."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A row that ran; all results equal the golden model.

    Parameters
    ----------
    result : GemmResult
    base : GemmResult or None
        What it is compared with: the dense product, or the other format.
    build : str
        Of the card: a hash of its RTL.
    """

    row: Row
    result: GemmResult
    base: GemmResult | None
    build: str

    @property
    def value(self) -> float:
        """The row's value, in the unit of its kind."""
        if self.base is not None:
            return self.base.counters.cycles / self.result.counters.cycles
        if self.row.kind == "bandwidth":
            return 100 * (self.result.bandwidth_fraction or 0.0)
        return 100 * self.result.utilization

    @property
    def target(self) -> float | None:
        return self.row.target(self.result.config.name)

    @property
    def met(self) -> bool | None:
        """Whether the value is as good as the target; None without one."""
        return None if self.target is None else self.value >= self.target

    def fields(self) -> dict[str, Any]:
        """Return the row of the CSV file: `COLUMNS`."""
        result, job, base = self.result, self.row.job, self.base
        bandwidth = result.bandwidth
        return {
            "row": self.row.name,
            **{"m": job.m, "k": job.k, "n": job.n},
            "dtype": job.dtype,
            "out_dtype": job.out_name,
            "zeros": job.zeros,
            "encoding": result.encoding,
            "stream": result.plan.stream,
            "preset": result.config.name,
            "memory": result.memory,
            "backend": result.backend,
            "kind": self.row.kind,
            "value": round(self.value, 4),
            "target": self.target,
            "met": self.met,
            "cycles": result.counters.cycles,
            "base_cycles": None if base is None else base.counters.cycles,
            "macs": result.macs,
            "mac_units": result.mac_units,
            "utilization": round(result.utilization, 5),
            **result.engine_cycles(),
            "bytes_read": result.counters.bytes_read,
            "bytes_written": result.counters.bytes_written,
            "bytes_per_cycle": round(result.bytes_per_cycle, 4),
            "bandwidth": bandwidth and round(bandwidth.bytes_per_cycle, 4),
            "bit_exact": True,
            "cycles_modelled": result.cycles_modelled,
            "build": self.build,
            "peers": "; ".join(map(str, PEERS.get(self.row.name, ()))),
            "command": result.command(),
            "base_command": None if base is None else base.command(),
        }


def chosen_rows(only: Iterable[str]) -> list[Row]:
    """Return the rows whose names contain one of some texts; all of them without any.

    Raises
    ------
    ValueError
        If a text is in no name; lists the names.
    """
    texts = list(only)
    for text in texts:
        if not text or not any(text in row.name for row in ROWS):
            known = ", ".join(row.name for row in ROWS)
            raise ValueError(f"no row {text!r}; choose one of: {known}")
    return [row for row in ROWS if not texts or any(text in row.name for text in texts)]


def shown_value(kind: str, value: float) -> str:
    """Return a row's value, or its target, with its unit."""
    return f"{value:.2f} x" if kind in ("speedup", "ratio") else f"{value:.2f} %"


class Sweep:
    """Runs rows on a preset; opens a card for each memory once. A context manager."""

    def __init__(self, preset: str, backend: str, progress: Progress | None = None) -> None:
        self.preset = preset
        self.backend = backend
        self.progress = progress
        self._cards: dict[str, Card] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for card in self._cards.values():
            card.close()
        self._cards.clear()

    def open(self, memory: str) -> Card:
        """Return the card with a memory; the first time it is opened.

        Raises
        ------
        ValueError, SetupError
        """
        if memory not in self._cards:
            card = open_card(self.backend, self.preset, memory, self.progress)
            self._cards[memory] = card
        return self._cards[memory]

    def run(self, row: Row) -> Measured:
        """Run one row.

        Raises
        ------
        MismatchError, CardError, OutOfMemoryError, ValueError
        """
        card = self.open(row.memory)
        *dense, result = gemm(card, row.job)
        base = dense[0] if dense else None
        if row.base is not None:
            (base,) = gemm(card, row.base)
        return Measured(row=row, result=result, base=base, build=card.info().build)


class HasFields(Protocol):
    """What has a row of a CSV file."""

    def fields(self) -> dict[str, Any]:
        """Return the row."""


class CsvFile:
    """Writes rows as they come, each at once: an interrupted run keeps what it has.

    Made before the work, and opened as a context manager once there are rows to come. Without a
    path it writes nothing.

    Raises
    ------
    ValueError
        If the file cannot be written (`check_file`); names the option.
    """

    def __init__(self, path: Path | None, columns: Sequence[str] = COLUMNS) -> None:
        self._path = path
        self._columns = columns
        self._file: TextIO | None = None
        if path is not None:
            check_file("--csv", path)

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("w", newline="")
            self._writer = csv.DictWriter(self._file, self._columns, lineterminator="\n")
            self._writer.writeheader()
            self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, measured: HasFields) -> None:
        """Add a row."""
        if self._file is not None:
            self._writer.writerow(measured.fields())
            self._file.flush()
