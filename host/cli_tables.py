"""What the tables of all benchmarks share."""

from typing import Any, Protocol

import typer

from .counters import Counters

__all__ = ["Measurement", "explained", "leave", "mark"]


class Measurement(Protocol):
    """What was measured on a card: cycles that its RTL took, or that a model says."""

    @property
    def counters(self) -> Counters:
        """The card's counters."""

    @property
    def cycles_modelled(self) -> bool:
        """Whether they come from a model."""


def explained(result: Measurement) -> dict[str, Any]:
    """Return the rows that close a table: the results' check, and where all engine-cycles went."""
    rows: dict[str, Any] = {"bit-identical with golden model": True}
    if not result.cycles_modelled:
        shares = result.counters.explain()
        rows |= {f"engines {words}": f"{share:.2%}" for words, share in shares.items()}
    return rows


def mark(result: Measurement) -> str:
    """Return what is put behind a name whose value is modelled."""
    return " (modelled)" if result.cycles_modelled else ""


def leave(interrupted: list[bool], done: int, of: int, what: str = "rows") -> None:
    """Say that a run was cut short, and exit as programs do that Ctrl-C ends."""
    if interrupted:
        typer.echo(f"interrupted: {done} of {of} {what}", err=True)
        raise typer.Exit(130)
