"""``deepseek-host bench link``: the serial link to a board, on a real or simulated line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .bench.link import LinkResult, board_link, link
from .card import Card
from .cli_options import (
    BitstreamOption,
    BoardOption,
    JsonOption,
    LoadOption,
    PortOption,
    SeedOption,
    check_bitstream,
)
from .console import errors as one_line_errors
from .console import grid, progress_display
from .transport import check_without_bitstream

__all__ = ["bench_link"]

LINE_BYTES, BOARD_BYTES = 1e6, 2e5
LINE_BAUD, LINE_LATENCY = 3e6, 0.001


def _whole(number: float, name: str) -> int:
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"--{name} must be a whole number, not {number!r}")
    return int(number)


def bench_link(
    nbytes: Annotated[
        float | None,
        typer.Option(
            "--bytes",
            help="Bytes in each direction (default: 1e6, on a board 2e5).",
            show_default=False,
        ),
    ] = None,
    errors: Annotated[
        float,
        typer.Option(help="Probability that a byte is spoilt: from 0, less than 1."),
    ] = 0.0,
    baud: Annotated[float, typer.Option(help="Bits a second; ten are a byte.")] = LINE_BAUD,
    latency: Annotated[
        float, typer.Option(help="Seconds that bytes take besides, in each direction.")
    ] = LINE_LATENCY,
    bitstream: BitstreamOption = None,
    board: BoardOption = None,
    port: PortOption = None,
    load: LoadOption = True,
    runs: Annotated[int, typer.Option(help="So many, each with the next seed.")] = 1,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure the link's protocol; every byte is compared.

    Without --bitstream the board is its golden model, behind a simulated line that spoils bytes,
    and time is that of the line.
    """
    with one_line_errors():
        if runs < 1:
            raise ValueError(f"--runs must be at least 1, not {runs!r}")
        if seed < 0:
            raise ValueError(f"--seed must be at least 0, not {seed!r}")
        seeds = range(seed, seed + runs)
        if bitstream is not None:
            if (errors, baud, latency) != (0.0, LINE_BAUD, LINE_LATENCY):
                raise ValueError(
                    "--errors, --baud and --latency are for a simulated line; next: leave them, or "
                    "--bitstream, out"
                )
            check_bitstream(bitstream)
            count = _whole(BOARD_BYTES if nbytes is None else nbytes, "bytes")
            if count < 1:
                raise ValueError(f"--bytes must be at least 1, not {count!r}")
            results = _on_board(bitstream, board, port, load, count, seeds)
        else:
            check_without_bitstream(board=board, port=port, load=load)
            count = _whole(LINE_BYTES if nbytes is None else nbytes, "bytes")
            speed = _whole(baud, "baud")
            results = (
                link(count, baud=speed, latency=latency, errors=errors, seed=number)
                for number in seeds
            )
        if as_json:
            for result in results:
                typer.echo(json.dumps(result.as_json()))
            return
        _print(list(results))


def _on_board(
    bitstream: Path, board: str | None, port: str | None, load: bool, count: int, seeds: range
) -> Iterator[LinkResult]:
    with (
        progress_display() as progress,
        Card.open(
            "board", bitstream=bitstream, board=board, port=port, load=load, progress=progress
        ) as card,
    ):
        for number in seeds:
            yield board_link(card, count, seed=number)


def _print(results: list[LinkResult]) -> None:
    first = results[0]
    line = ""
    if first.errors is not None and first.latency is not None:
        line = f", {first.errors:g} errors a byte, latency {1000 * first.latency:g} ms"
    heads = (
        *("seed", "spoilt", "repeated", "time-outs", "wrong"),
        *("written/s", "of limit", "read/s", "of limit"),
    )
    grid(
        f"link to {first.where}: {first.nbytes:,} bytes each way, {first.baud:,} baud{line}; "
        f"the line's limit is {first.limit:,.0f} bytes a second",
        heads,
        [
            (
                result.seed,
                "-" if result.spoilt is None else result.spoilt,
                result.statistics.repeated,
                result.statistics.timeouts,
                0,
                round(result.write_rate),
                f"{result.write_rate / result.limit:.1%}",
                round(result.read_rate),
                f"{result.read_rate / result.limit:.1%}",
            )
            for result in results
        ],
    )
