"""``deepseek-host build``: a bitstream for a board."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..boards import BOARDS, board
from ..boards.board import MEMORIES
from ..rtl.config import PRESETS
from .cli_options import JsonOption
from .console import errors, grid, interruptible, progress_display, table
from .output import check_folder

if TYPE_CHECKING:
    from ..boards.flow.build import Built

__all__ = ["build_command"]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def build_command(
    name: Annotated[
        str | None, typer.Option("--board", help=f"The board: {', '.join(BOARDS)}.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help=f"Size of the card: {', '.join(PRESETS)}. FPGAs have room for tiny, the "
            "virtual board for all; other commands take ecp5 where none is given."
        ),
    ] = "tiny",
    seeds: Annotated[
        int, typer.Option(help="Place and route so many times, and keep the fastest.")
    ] = 1,
    freq: Annotated[
        float | None,
        typer.Option(
            help="Highest clock of the card in MHz (default: the board's).", show_default=False
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="What holds the card's memory: block (block RAM) or sdram, if the board has it "
            "(default: block).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for bitstream, manifest and report.")] = Path(
        "build/boards"
    ),
    netlist: Annotated[
        bool, typer.Option("--netlist", help="Write the placed and routed netlist, too.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only synthesise, and compare with the recorded table."),
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Only synthesise, and record that table anew.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the boards.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the bitstream of a card for a board: synthesis, place and route, and a report."""
    with errors():
        if listed:
            _list(as_json)
            return
        if name is None:
            raise ValueError("no board given; next: deepseek-host build --list names them")
        target = board(name)
        held_in = target.memories[0] if memory is None else memory
        target.sdram_of(held_in)
        if (check or record) and held_in != target.memories[0]:
            raise ValueError(
                f"the recorded table is of cards with memory in {MEMORIES[target.memories[0]]}; "
                "leave --memory out"
            )
        if not (check or record):
            check_folder("--output", output)
        # Only here: the other commands start without the tools of the hardware.
        from ..boards.check import check_resources, record_resources
        from ..boards.flow.build import build

        with interruptible() as interrupted, progress_display() as progress:
            if record:
                typer.echo(f"recorded {record_resources(target, preset, progress)}", err=True)
            elif check:
                typer.echo(check_resources(target, preset, progress))
            else:
                built = build(
                    target,
                    preset,
                    output,
                    seeds=seeds,
                    freq_mhz=freq,
                    memory=held_in,
                    netlist=netlist,
                    progress=progress,
                )
        if interrupted:
            typer.echo(
                "interrupted: nothing was written, and what is done is kept; "
                "the same command goes on from there",
                err=True,
            )
            raise typer.Exit(INTERRUPTED)
        if check or record:
            return
        if as_json:
            typer.echo(json.dumps(built.report))
        else:
            _show(built)


def _list(as_json: bool) -> None:
    for found in BOARDS.values():
        if as_json:
            fields = {"board": found.name, "summary": found.summary, "device": found.device}
            more = {"clock_mhz": found.clock_hz / 1e6, "memories": found.memories}
            typer.echo(json.dumps({**fields, **more}))
        else:
            typer.echo(f"{found.name:12}{found.summary}")


def _show(built: "Built") -> None:
    report: dict[str, Any] = built.report
    about = {
        "board": report["board"],
        "device": f"{report['device']} grade {report['speed']}" if report["speed"] else "virtual",
        "build": report["build_hash"],
        "card memory": report["memory"],
        "clock, MHz": report["clock_mhz"],
    }
    if "seconds" in report:
        about |= {
            "reached, MHz": report["fmax_mhz"],
            "seeds, MHz": ", ".join(f"{key}: {mhz}" for key, mhz in report["seeds"].items()),
            "seconds": report["seconds"],
        }
    table(f"{report['preset']} on {report['board']}: {built.bitstream}", about)
    if "seconds" not in report:
        return
    grid(
        "use of the device",
        ("", "used", "of", "%"),
        [(kind, use["used"], use["of"], use["percent"]) for kind, use in report["use"].items()],
    )
    if "peak" in report:
        grid(
            "multiply-accumulates a second at this clock, at most",
            ("mode", "10^9", "per 1000 COMB", "per DSP"),
            [
                (mode, rate["gmacs"], rate["per_kcomb"], rate["per_dsp"])
                for mode, rate in report["peak"].items()
            ],
        )
    grid(
        "by block (of all its instances, without the blocks inside)",
        ("block", "instances", "COMB", "FF", "DSP", "EBR"),
        [
            tuple(row[key] for key in ("block", "instances", "comb", "ff", "dsp", "ebr"))
            for row in report["blocks"]
        ],
    )
    typer.echo(f"slowest path: {report['critical_path_in_words']}")
    grid(
        "longest path by the block where it ends",
        ("block", "last cell before the register in", "ns", "MHz"),
        [(row["block"], row["from"], row["ns"], 1e3 / row["ns"]) for row in report["slowest"]],
        left=2,
    )
