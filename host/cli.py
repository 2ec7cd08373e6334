"""The command line: ``deepseek-host``, or ``python -m deepseek.host``."""

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from . import cli_run
from .card import Card
from .cli_bench import bench_app
from .cli_options import BackendOption, JsonOption, MemoryOption, PresetOption
from .console import errors, progress_display, table
from .transport import check_tools

__all__ = ["app", "main"]

app = typer.Typer(
    name="deepseek-host",
    help="Run networks and benchmarks on the accelerator card, simulated or real.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench_app, name="bench")


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"deepseek-host {version('deepseek-card')}")
        raise typer.Exit


@app.callback()
def _global(
    shown: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    workload: Annotated[str | None, typer.Argument(help="Which network; see --list.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the workloads.")] = False,
    backend: BackendOption = "rtl",
    preset: PresetOption = "ecp5",
    memory: MemoryOption = "hbm",
    limit: Annotated[int | None, typer.Option(help="Stop after so many inputs.")] = None,
    wave: Annotated[Path | None, typer.Option(help="Write waves there (.vcd; rtl only).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a network with real weights and real inputs, and check every number."""
    with errors():
        if listed:
            cli_run.list_workloads(as_json=as_json)
            return
        if workload is None:
            raise ValueError("no workload given; host run --list names them")
        cli_run.run(
            workload,
            backend=backend,
            preset=preset,
            memory=memory,
            limit=limit,
            wave=wave,
            as_json=as_json,
        )


@app.command()
def info(
    backend: BackendOption = "functional",
    preset: PresetOption = "ecp5",
    memory: MemoryOption = "hbm",
    as_json: JsonOption = False,
) -> None:
    """Open a card and print what it says of itself."""
    with errors():
        with (
            progress_display() as progress,
            Card.open(backend, preset=preset, memory=memory, progress=progress) as card,
        ):
            fields = dataclasses.asdict(card.info())
        if as_json:
            typer.echo(json.dumps(fields))
        else:
            table("card", fields)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Show which tools were found, and build and run a small module with them."""
    with errors():
        with progress_display() as progress:
            checks = check_tools(progress)
        for check in checks:
            if as_json:
                typer.echo(json.dumps(dataclasses.asdict(check)))
            else:
                mark = "ok  " if check.ok else "FAIL" if check.required else "-   "
                typer.echo(f"{mark}  {check.name}: {check.detail}")
        if not all(check.ok for check in checks if check.required):
            raise typer.Exit(1)


def main() -> None:
    """Entry point of the script."""
    app(prog_name="deepseek-host")
