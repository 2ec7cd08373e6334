"""The command line: ``deepseek-host``, or ``python -m deepseek.host``."""

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_run
from .bench import GemmJob, GemmResult, gemm, open_card, simspeed
from .card import Card
from .console import errors, progress_display, table
from .transport import BACKENDS, check_tools

__all__ = ["app", "main"]

app = typer.Typer(
    name="deepseek-host",
    help="Run networks and benchmarks on the accelerator card, simulated or real.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Measure the card or its simulation.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

BackendOption = Annotated[str, typer.Option(help=f"The card: {' or '.join(BACKENDS)}.")]
PresetOption = Annotated[str, typer.Option(help="Size of the card: tiny, ecp5 or sim.")]
MemoryOption = Annotated[str, typer.Option(help="Card memory: hbm, or ideal (fixed latency).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
DtypeOption = Annotated[str, typer.Option(help="Format of A and B: int8 or fp16.")]
OutOption = Annotated[
    str | None, typer.Option(help="Format of C: int8, fp16, int32 or fp32 [default: as --dtype].")
]
DensityOption = Annotated[
    float | None,
    typer.Option(help="Fraction of A that is not zero; A is then sent compressed."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the random numbers.")]
SizeOption = typer.Option(help="C[M, N] = A[M, K] x B[K, N].")


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


@bench_app.command("gemm")
def bench_gemm(
    m: Annotated[int, SizeOption] = 256,
    n: Annotated[int, SizeOption] = 256,
    k: Annotated[int, SizeOption] = 256,
    dtype: DtypeOption = "int8",
    out_dtype: OutOption = None,
    density: DensityOption = None,
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    seed: SeedOption = 0,
    memory: MemoryOption = "hbm",
    as_json: JsonOption = False,
) -> None:
    """Count the cycles of a GEMM, from its doorbell to its completion, loads and stores included.

    With --density the same product runs dense too, for the speed-up.
    """
    with errors():
        job = GemmJob(m=m, n=n, k=k, dtype=dtype, out_dtype=out_dtype, density=density, seed=seed)
        with (
            progress_display() as progress,
            open_card(backend, preset, memory, progress, job) as card,
        ):
            results = gemm(card, job)
        dense = results[0].counters.cycles
        for result in results:
            fields = result.as_json()
            if result.plan.sparse:
                fields["speedup_over_dense"] = round(dense / result.counters.cycles, 3)
            _print_bench(result, fields, as_json)


@bench_app.command("simspeed")
def bench_simspeed(
    m: Annotated[int, SizeOption] = 256,
    n: Annotated[int, SizeOption] = 256,
    k: Annotated[int, SizeOption] = 256,
    dtype: DtypeOption = "int8",
    preset: PresetOption = "ecp5",
    seed: SeedOption = 0,
    memory: MemoryOption = "hbm",
    as_json: JsonOption = False,
) -> None:
    """Measure how many cycles of the Verilated card a second of time simulates, on a GEMM."""
    with errors():
        job = GemmJob(m=m, n=n, k=k, dtype=dtype, seed=seed)
        with (
            progress_display() as progress,
            open_card("rtl", preset, memory, progress, job) as card,
        ):
            result, fields = simspeed(card, job)
        _print_bench(result, fields, as_json)


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


def _print_bench(result: GemmResult, fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields))
        return
    job, counters = result.job, result.counters
    mark = " (modelled)" if result.cycles_modelled else ""
    kind = f"density {job.density}, compressed" if result.plan.sparse else "dense"
    rows: dict[str, Any] = {
        f"cycles{mark}": counters.cycles,
        "multiplications": result.macs,
        f"MAC utilisation{mark}": f"{result.utilization:.2%} of {result.mac_units} a cycle",
        "tiles": " x ".join(map(str, result.plan.tiles))
        + f" of {result.plan.tiling.tile_m} x {result.plan.tiling.tile_n}",
        "bytes read, written": f"{counters.bytes_read:,}, {counters.bytes_written:,}",
        "bit-identical with golden model": True,
    }
    if not result.cycles_modelled:
        stalls = counters.stalls().items()
        rows["engine-cycles without a weight"] = ", ".join(f"{k} {v:,}" for k, v in stalls)
    for name, label in (
        ("speedup_over_dense", "times faster than dense"),
        ("cycles_per_second", "simulated cycles a second"),
        ("macs_per_second", "simulated multiplications a second"),
        ("compiler", "compiler"),
    ):
        if name in fields:
            rows[label] = fields[name]
    shape = f"{job.m} x {job.k} by {job.k} x {job.n}"
    table(
        f"{fields['name']}: {shape}, {job.dtype} to {job.out_name}, {kind}; {result.backend}, "
        f"preset {result.config.name}, memory {result.memory}",
        rows,
    )


def main() -> None:
    """Entry point of the script."""
    app(prog_name="deepseek-host")
