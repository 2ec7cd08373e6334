"""What the commands share: errors in one line, progress on stderr, tables."""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .bench import MismatchError
from .errors import CardError
from .transport import SetupError

__all__ = ["errors", "figure", "grid", "interruptible", "progress_display", "table"]

USER_ERROR = 2
"""Exit code where the user can do something about it: a name, a shape, a missing tool."""

WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""

FAILURE = 1
"""Exit code where the card failed or computed something else."""

PHASES = {
    "convert": "convert the design",
    "verilate": "translate the Verilog to C++",
    "compile": "compile the C++",
    "load": "load the bitstream",
    "pack": "write the bitstream",
}
"""What phases of the work are called, where their own names do not explain them."""


@contextmanager
def errors() -> Iterator[None]:
    """Turn the errors that a command can meet into one line on stderr and an exit code.

    Where a message begins with an option, `Commands` adds the next step. Warnings are one line,
    too. SIGTERM and SIGHUP end the command as Ctrl-C does: what it has started is stopped before.
    """
    try:
        with warnings.catch_warnings(), _ended_by_signals():
            warnings.showwarning = _warn
            yield
    except (MismatchError, CardError) as error:
        _fail(error, FAILURE)
    except BrokenPipeError:
        raise  # whoever reads the output has had enough
    except (ValueError, MemoryError, OSError, SetupError) as error:
        if str(error).startswith("--"):
            raise typer.BadParameter(_line(error)) from error
        _fail(error, USER_ERROR)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # no other one has signals
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _fail(error: BaseException, code: int) -> None:
    typer.echo(f"error: {_line(error)}", err=True)
    raise typer.Exit(code) from error


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"cannot use {error.filename}: {error.strerror}; next: see that it is there and can be "
            "read and written; DEEPSEEK_CACHE names another folder for what is built"
        )
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def interruptible() -> Iterator[list[bool]]:
    """Let Ctrl-C end the block and nothing else; the list is then no longer empty."""
    interrupted: list[bool] = []
    try:
        yield interrupted
    except KeyboardInterrupt:
        interrupted.append(True)


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
                console.print(f"{PHASES.get(phase, phase)} ...", highlight=False)

        yield name
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, fraction: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(PHASES.get(phase, phase), total=1.0)
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


def _stdout() -> Console:
    """Where tables go: as wide as the terminal, or as a wide one."""
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=WIDTH)


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Print names and values on stdout."""
    grid = Table(show_header=False)
    grid.add_column("what")
    grid.add_column("value", justify="right")
    for name, value in rows.items():
        grid.add_row(name, figure(value))
    console = _stdout()
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    console.print(grid)


def grid(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int = 1) -> None:
    """Print a table with headings on stdout; the first ``left`` columns are words."""
    shown = Table()
    for number, head in enumerate(heads):
        shown.add_column(head, justify="left" if number < left else "right", no_wrap=number < left)
    for row in rows:
        shown.add_row(*map(figure, row))
    console = _stdout()
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    console.print(shown)
