"""What the tables of all benchmarks share."""

from typing import Any, Protocol

import typer

from .bench import Result
from .console import table
from .counters import Counters

__all__ = ["Measurement", "leave", "mark", "result_table"]


class Measurement(Protocol):
    """What was measured on a card: cycles that its RTL took, or that a model says."""

    @property
    def counters(self) -> Counters:
        """The card's counters."""

    @property
    def cycles_modelled(self) -> bool:
        """Whether they come from a model."""


def _explained(result: Measurement) -> dict[str, Any]:
    """Return the rows that close a table: the results' check, and where all engine-cycles went."""
    rows: dict[str, Any] = {"bit-identical with golden model": True}
    if not result.cycles_modelled:
        shares = result.counters.explain()
        rows |= {f"engines {words}": f"{share:.2%}" for words, share in shares.items()}
    return rows


def result_table(
    title: str,
    result: Result,
    rows: dict[str, Any],
    *,
    more: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
) -> None:
    """Print the table of a result.

    Parameters
    ----------
    title : str
        What ran; where it ran is put behind.
    rows, more, last : dict
        Rows of this kind of job: behind the utilisation, behind the bytes, and behind all others.
    """
    counters, modelled = result.counters, mark(result)
    whole: dict[str, Any] = {
        f"cycles{modelled}": counters.cycles,
        "multiplications": result.macs,
        f"MAC utilisation{modelled}": f"{result.utilization:.2%} of {result.mac_units} a cycle",
        **rows,
        "bytes read, written": f"{counters.bytes_read:,}, {counters.bytes_written:,}",
        **(more or {}),
        **_explained(result),
        **(last or {}),
    }
    table(
        f"{title}; {result.backend}, preset {result.config.name}, memory {result.memory}",
        whole,
    )


def mark(result: Measurement) -> str:
    """Return what is put behind a name whose value is modelled."""
    return " (modelled)" if result.cycles_modelled else ""


def leave(interrupted: list[bool], done: int, of: int, what: str = "rows") -> None:
    """Say that a run was cut short, and exit as programs do that Ctrl-C ends."""
    if interrupted:
        typer.echo(f"interrupted: {done} of {of} {what}", err=True)
        raise typer.Exit(130)
