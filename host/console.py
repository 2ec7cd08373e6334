"""What the commands share: errors in one line, progress on stderr, tables."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .bench import MismatchError
from .errors import CardError
from .transport import SetupError

__all__ = ["errors", "figure", "progress_display", "table"]

USER_ERROR = 2
"""Exit code where the user can do something about it: a name, a shape, a missing tool."""

FAILURE = 1
"""Exit code where the card failed or computed something else."""


@contextmanager
def errors() -> Iterator[None]:
    """Turn the errors that a command can meet into one line on stderr and an exit code."""
    try:
        yield
    except (MismatchError, CardError) as error:
        _fail(error, FAILURE)
    except (ValueError, MemoryError, OSError, SetupError) as error:
        _fail(error, USER_ERROR)


def _fail(error: BaseException, code: int) -> None:
    message = " ".join(str(error).split()) or type(error).__name__
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code) from error


@contextmanager
def progress_display(shown: bool = True) -> Iterator[Callable[[str, float], None]]:
    """Show bars on stderr, one for each phase that is reported; gone when it is over.

    Nothing is shown where stderr is no terminal, but each phase is named once.
    """
    console = Console(file=sys.stderr)
    if not shown:
        yield _silent
        return
    if not console.is_terminal:
        named: set[str] = set()

        def name(phase: str, fraction: float) -> None:
            if phase not in named:
                named.add(phase)
                console.print(f"{phase} ...", highlight=False)

        yield name
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, fraction: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
            bars.update(tasks[phase], completed=fraction)

        yield report


def _silent(phase: str, fraction: float) -> None:
    pass


def figure(value: Any) -> str:
    """Format a value for a table: thousands apart, few digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Print names and values on stdout."""
    grid = Table(show_header=False)
    grid.add_column("what")
    grid.add_column("value", justify="right")
    for name, value in rows.items():
        grid.add_row(name, figure(value))
    console = Console(file=sys.stdout)
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    console.print(grid)
