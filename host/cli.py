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
from .cli_build import build_command
from .cli_link import bench_link
from .cli_options import (
    BitstreamOption,
    BoardOption,
    CardBackendOption,
    CardPresetOption,
    JsonOption,
    LoadOption,
    MemoryOption,
    NetlistOption,
    PortOption,
    chosen_card,
)
from .cli_parser import Commands
from .console import errors, progress_display, table
from .transport import check_tools

__all__ = ["app", "main"]

app = typer.Typer(
    name="deepseek-host",
    cls=Commands,
    help="Run networks and benchmarks on the accelerator card, simulated or real.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench_app, name="bench")
bench_app.command("link")(bench_link)
app.command("build")(build_command)


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
    backend: CardBackendOption = None,
    preset: CardPresetOption = None,
    memory: MemoryOption = "hbm",
    bitstream: BitstreamOption = None,
    board: BoardOption = None,
    port: PortOption = None,
    load: LoadOption = True,
    netlist: NetlistOption = False,
    limit: Annotated[
        int | None,
        typer.Option(help="Stop after so many inputs; more than there are means all (default)."),
    ] = None,
    wave: Annotated[
        Path | None,
        typer.Option(help="Write waves to this file (.vcd, in a folder that is there; rtl only)."),
    ] = None,
    capture: Annotated[
        Path | None,
        typer.Option(
            help="Write what the chip captures to this file (.vcd, in a folder that is there; with "
            "--bitstream only)."
        ),
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(
            help="Of the capture: signals and values, such as compute.start=1,irq=0.",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(help="Changes to keep from behind the trigger.", show_default="half"),
    ] = None,
    step: Annotated[
        bool,
        typer.Option(
            "--step", help="Ask before each command: Enter for one, a number for more, c for all."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a network with real weights and real inputs, and check every number.

    On the Verilated card (--backend rtl), the functional simulator (--backend functional), or with
    --bitstream on an FPGA board, which it loads first.
    """
    with errors():
        if listed:
            cli_run.list_workloads(as_json=as_json)
            return
        if workload is None:
            raise ValueError("no workload given; next: deepseek-host run --list names them")
        cli_run.run(
            workload,
            chosen_card(
                backend=backend,
                default="rtl",
                preset=preset,
                memory=memory,
                bitstream=bitstream,
                board=board,
                port=port,
                load=load,
                netlist=netlist,
            ),
            limit=limit,
            wave=wave,
            capture=capture,
            trigger=trigger,
            after=after,
            step=step,
            as_json=as_json,
        )


@app.command()
def info(
    backend: CardBackendOption = None,
    preset: CardPresetOption = None,
    memory: MemoryOption = "hbm",
    bitstream: BitstreamOption = None,
    board: BoardOption = None,
    port: PortOption = None,
    load: LoadOption = True,
    netlist: NetlistOption = False,
    as_json: JsonOption = False,
) -> None:
    """Open a card and print what it says of itself."""
    with errors():
        chosen = chosen_card(
            backend=backend,
            default="functional",
            preset=preset,
            memory=memory,
            bitstream=bitstream,
            board=board,
            port=port,
            load=load,
            netlist=netlist,
        )
        with progress_display() as progress, Card.open(**chosen, progress=progress) as card:
            fields = dataclasses.asdict(card.info())
            if card.transport.clock_hz is not None:
                fields |= card.transport.details()
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
