"""What all tables of docs/performance.md share: measurements, marks and Markdown."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from .peers import PEERS

__all__ = [
    "CAUSES",
    "CAUSES_TEXT",
    "Measurements",
    "code",
    "marked",
    "peers",
    "percent",
    "read",
    "shares",
    "table",
]

CAUSES = {
    "mac_active": "multiplied",
    "stall_stream": "stream",
    "stall_fill": "fill",
    "stall_drain": "drain",
    "idle_imbalance": "imbalance",
    "idle_memory": "memory",
    "idle_other": "other",
}

CAUSES_TEXT = (
    "*stream*, *fill* and *drain*: an engine with work waited for weights, for operands, for its "
    "results to leave. *imbalance*: only other engines had work. *memory*: none had, and loads or "
    "stores ran. *other*: the start and the end of the job."
)

Measurements = Mapping[str, Mapping[str, str]]
"""Rows of a CSV file, by the row's name."""


def read(path: Path, key: str, preset: str) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV file.

    Parameters
    ----------
    key : str
        Column of the rows' names.
    preset : str
        On which all of them must have been measured.

    Raises
    ------
    ValueError
        If a row was modelled, its results were not compared, or it is of another preset; or the
        file lacks a column.
    """
    rows = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        for name in (key, "preset", "cycles_modelled", "bit_exact"):
            if name not in (reader.fieldnames or ()):
                raise ValueError(f"{path} has no column {name!r}; measure it again")
        for row in reader:
            if row["cycles_modelled"] != "False" or row["bit_exact"] != "True":
                raise ValueError(f"{path}: {row[key]} was not measured on the RTL; measure it so")
            if row["preset"] != preset:
                raise ValueError(
                    f"{path}: {row[key]} was measured on preset {row['preset']}; "
                    f"measure it on {preset}"
                )
            rows[row[key]] = row
    return rows


def table(lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Markdown of a table whose first line is its heading."""
    for number, line in enumerate(lines):
        yield f"| {' | '.join(line)} |"
        if not number:
            yield "|" + "---|" * len(line)


def marked(value: str, target: str | None, met: bool, unit: str = "") -> str:
    """Return a value beside its target, if there is one; marked if it misses it."""
    if target is None:
        return f"{value}{unit}"
    if met:
        return f"{value}{unit} (target {target})"
    return f"**{value}**{unit} (**missed**: target {target})"


def percent(value: float) -> str:
    """Return a part of 1 as the page shows it."""
    return f"{value:.2%}".replace("%", " %")


def shares(cycles: int, rows: Iterable[tuple[int, Mapping[str, str]]]) -> tuple[str, ...]:
    """Return cycles, and the percentage that each of `CAUSES` has in rows that ran so often."""
    counts = [0] * len(CAUSES)
    for times, row in rows:
        counts = [
            sum_ + times * int(row[cause]) for sum_, cause in zip(counts, CAUSES, strict=True)
        ]
    total = max(sum(counts), 1)
    return f"{cycles:,}", *(f"{100 * count / total:.2f}" for count in counts)


def peers(name: str) -> str:
    """Return the figures of other designs that answer a row."""
    return "; ".join(map(str, PEERS.get(name, ())))


def code(text: str) -> str:
    """Markdown of a word of a program."""
    return f"`{text}`"
