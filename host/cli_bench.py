"""``host bench``: what the card takes for GEMMs and convolutions, and what its simulation takes."""

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .bench import (
    DENSITIES,
    DTYPES,
    KINDS,
    LAYERS,
    OUT_DTYPES,
    PEERS,
    ConvJob,
    ConvResult,
    CsvFile,
    GemmJob,
    GemmResult,
    Measured,
    Speedup,
    Sweep,
    chosen_rows,
    chosen_shape,
    conv,
    gemm,
    open_card,
    shown_value,
    simspeed,
    sparse_jobs,
    speedup,
)
from .cli_options import (
    BackendOption,
    DensityOption,
    DtypeOption,
    EncodingOption,
    JsonOption,
    MemoryOption,
    OutOption,
    PresetOption,
    ResidentOption,
    ScaleOption,
    SeedOption,
    SizeOption,
    SkewOption,
    StreamOption,
)
from .console import errors, grid, interruptible, progress_display, table

__all__ = ["bench_app"]

DEFAULT_DENSITIES = " ".join(map(str, DENSITIES))

bench_app = typer.Typer(help="Measure the card or its simulation.", no_args_is_help=True)


@bench_app.command("gemm")
def bench_gemm(
    m: Annotated[int, SizeOption] = 256,
    n: Annotated[int, SizeOption] = 256,
    k: Annotated[int, SizeOption] = 256,
    dtype: DtypeOption = "int8",
    resident_dtype: ResidentOption = None,
    out_dtype: OutOption = None,
    density: DensityOption = None,
    skew: SkewOption = 0.0,
    encoding: EncodingOption = "auto",
    block_scale: ScaleOption = None,
    stream: StreamOption = "auto",
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    seed: SeedOption = 0,
    memory: MemoryOption = "hbm",
    as_json: JsonOption = False,
) -> None:
    """Count the cycles of a GEMM, from its doorbell to its completion, loads and stores included.

    If A has zeros that are not sent, the same product runs dense first, for the speed-up. With few
    rows or columns (at most as many as row engines) it also tells the part of the memory's
    effective bandwidth, which is what loads alone reach.
    """
    with errors():
        job = GemmJob(
            m=m,
            n=n,
            k=k,
            dtype=dtype,
            resident_dtype=resident_dtype,
            out_dtype=out_dtype,
            density=density,
            skew=skew,
            encoding=encoding,
            block_scale=block_scale,
            stream=stream,
            seed=seed,
        )
        with (
            progress_display() as progress,
            open_card(backend, preset, memory, progress, job) as card,
        ):
            results = gemm(card, job)
        for result in results:
            fields = result.as_json()
            if len(results) > 1 and result is results[-1]:
                pair = Speedup(results[0], result)
                fields["speedup_over_dense"] = round(pair.factor, 3)
            _print_gemm(result, fields, as_json)


@bench_app.command("conv")
def bench_conv(
    h: Annotated[int | None, typer.Option(help="Rows of the image [default: 56].")] = None,
    w: Annotated[int | None, typer.Option(help="Columns [default: 56].")] = None,
    c: Annotated[int | None, typer.Option(help="Channels [default: 64].")] = None,
    filters: Annotated[int | None, typer.Option(help="Output channels [default: 64].")] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Size, as 3, or 3x5: rows x columns [default: 3].")
    ] = None,
    stride: Annotated[str | None, typer.Option(help="As --kernel [default: 1].")] = None,
    dilation: Annotated[str, typer.Option(help="As --kernel.")] = "1",
    pad: Annotated[
        str | None, typer.Option(help="On both sides, as --kernel [default: 0].")
    ] = None,
    groups: Annotated[int, typer.Option(help="Groups of channels and filters.")] = 1,
    layer: Annotated[
        str | None, typer.Option(help="A known layer, as resnet50:conv1; list shows all.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help=f"Format of weights and image: {', '.join(DTYPES)}.")
    ] = "int8",
    out_dtype: Annotated[
        str | None,
        typer.Option(help=f"Format of the output: {', '.join(OUT_DTYPES)} [default: as --dtype]."),
    ] = None,
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    seed: SeedOption = 0,
    memory: MemoryOption = "hbm",
    as_json: JsonOption = False,
) -> None:
    """Count the cycles of a convolution, from its doorbell to its completion."""
    if layer == "list":
        for name, fields in LAYERS.items():
            typer.echo(f"{name}  " + " ".join(f"--{key} {value}" for key, value in fields.items()))
        return
    with errors():
        options: dict[str, int | str | None] = {"h": h, "w": w, "c": c, "filters": filters}
        options |= {"kernel": kernel, "stride": stride, "pad": pad}
        shape = chosen_shape(layer, options, dilation=dilation, groups=groups)
        job = ConvJob(shape=shape, dtype=dtype, out_dtype=out_dtype, seed=seed)
        with progress_display() as progress, open_card(backend, preset, memory, progress) as card:
            result = conv(card, job)
        _print_conv(result, as_json)


@bench_app.command("sparse")
def bench_sparse(
    m: Annotated[int, SizeOption] = 256,
    n: Annotated[int, SizeOption] = 256,
    k: Annotated[int, SizeOption] = 256,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Format, again for more [default: int8 fp16].")
    ] = None,
    density: Annotated[
        list[float] | None,
        typer.Option(help=f"Density of A, again for more [default: {DEFAULT_DENSITIES}]."),
    ] = None,
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    seed: SeedOption = 0,
    memory: MemoryOption = "ideal",
    as_json: JsonOption = False,
) -> None:
    """Compare dense and compressed products: random zeros, N of M patterns, skewed rows."""
    with errors():
        jobs = list(
            sparse_jobs(
                m,
                n,
                k,
                dtypes=dtype or ("int8", "fp16"),
                densities=density or DENSITIES,
                seed=seed,
            )
        )
        done: list[Speedup] = []
        try:
            with (
                interruptible() as interrupted,
                progress_display() as progress,
                open_card(backend, preset, memory, progress, *jobs) as card,
            ):
                for number, job in enumerate(jobs):
                    progress("products", number / len(jobs))
                    done.append(speedup(card, job))
                    if as_json:
                        typer.echo(json.dumps(done[-1].as_json()))
        finally:
            if done and not as_json:
                shape = f"{m} x {k} by {k} x {n}"
                _print_sparse(f"sparse: {shape}; {backend}, preset {preset}, memory {memory}", done)
        _leave(interrupted, len(done), len(jobs))


@bench_app.command("sweep")
def bench_sweep(
    only: Annotated[
        list[str] | None, typer.Option(help="Rows whose names contain this, again for more.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows there, too.")] = None,
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    as_json: JsonOption = False,
) -> None:
    """Measure the published set of shapes, beside targets and the figures of peers.

    Ctrl-C keeps the rows so far. `python -m deepseek.host.bench.page` writes docs/performance.md
    from the files in docs/performance.
    """
    with errors():
        rows = chosen_rows(only or ())
        done: list[Measured] = []
        try:
            with (
                interruptible() as interrupted,
                progress_display() as progress,
                Sweep(preset, backend, progress) as sweep,
                contextlib.ExitStack() as files,
            ):
                sweep.open(rows[0].memory)
                file = files.enter_context(CsvFile(csv)) if csv is not None else None
                for number, row in enumerate(rows):
                    progress("rows", number / len(rows))
                    done.append(sweep.run(row))
                    if file is not None:
                        file.write(done[-1])
                    if as_json:
                        typer.echo(json.dumps(done[-1].fields()))
        finally:
            if done and not as_json:
                _print_sweep(f"sweep; {backend}, preset {preset}", done)
        _leave(interrupted, len(done), len(rows))


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
        _print_gemm(result, fields, as_json)


def _print_gemm(result: GemmResult, fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields))
        return
    job, counters = result.job, result.counters
    mark = _mark(result)
    rows: dict[str, Any] = {
        f"cycles{mark}": counters.cycles,
        "multiplications": result.macs,
        f"MAC utilisation{mark}": f"{result.utilization:.2%} of {result.mac_units} a cycle",
    }
    if result.bandwidth is not None:
        rows[f"memory bandwidth{mark}"] = (
            f"{result.bandwidth_fraction:.2%} of {result.bandwidth.bytes_per_cycle:.2f} bytes a "
            "cycle"
        )
    rows |= {
        "streams": f"{result.plan.stream.upper()}, {result.encoding}",
        "tiles of the streams": result.tiles,
        "bytes read, written": f"{counters.bytes_read:,}, {counters.bytes_written:,}",
    }
    rows |= _explained(result)
    for name, label in (
        ("speedup_over_dense", "times faster than dense"),
        ("cycles_per_second", "simulated cycles a second"),
        ("macs_per_second", "simulated multiplications a second"),
        ("compiler", "compiler"),
    ):
        if name in fields:
            rows[label] = fields[name]
    table(
        f"{fields['name']}: {job}, {job.zeros}; {result.backend}, preset {result.config.name}, "
        f"memory {result.memory}",
        rows,
    )


def _print_conv(result: ConvResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.as_json()))
        return
    counters = result.counters
    mark = _mark(result)
    rows: dict[str, Any] = {
        f"cycles{mark}": counters.cycles,
        "multiplications": result.job.shape.macs,
        f"MAC utilisation{mark}": f"{result.utilization:.2%} of {result.mac_units} a cycle",
        "streams": result.encoding,
        "tiles": result.tiles,
        "bytes read, written": f"{counters.bytes_read:,}, {counters.bytes_written:,}",
    }
    rows |= _explained(result)
    table(
        f"conv: {result.job}; {result.backend}, preset {result.config.name}, "
        f"memory {result.memory}",
        rows,
    )


def _print_sparse(title: str, done: list[Speedup]) -> None:
    rows = [
        (
            pair.compressed.job.dtype,
            pair.compressed.job.zeros,
            pair.compressed.encoding,
            f"{pair.dense.counters.cycles:,}",
            f"{pair.compressed.counters.cycles:,}",
            f"{pair.factor:.2f} x",
            f"{pair.bound:.2f} x",
        )
        for pair in done
    ]
    mark = _mark(done[0].dense)
    heads = ("format", "zeros in A", "sent as", f"dense{mark}", f"compressed{mark}")
    grid(f"{title}; bit-identical with golden model", (*heads, "speed-up", "of"), rows, left=3)


def _print_sweep(title: str, done: list[Measured]) -> None:
    rows = [
        (
            measured.row.name,
            measured.row.memory,
            f"{measured.result.counters.cycles:,}",
            shown_value(measured.row.kind, measured.value),
            "-" if measured.target is None else shown_value(measured.row.kind, measured.target),
            {None: "-", True: "met", False: "missed"}[measured.met],
            "; ".join(map(str, PEERS.get(measured.row.name, ()))),
        )
        for measured in done
    ]
    heads = ("row", "memory", f"cycles{_mark(done[0].result)}", "value", "target", "", "peers")
    grid(f"{title}; bit-identical with golden model", heads, rows, left=2)
    for kind in dict.fromkeys(measured.row.kind for measured in done):
        typer.echo(f"{kind}: {KINDS[kind]}")


def _explained(result: GemmResult | ConvResult) -> dict[str, Any]:
    """Return the rows that close a table: the results' check, and where all engine-cycles went."""
    rows: dict[str, Any] = {"bit-identical with golden model": True}
    if not result.cycles_modelled:
        shares = result.counters.explain()
        rows |= {f"engines {words}": f"{share:.2%}" for words, share in shares.items()}
    return rows


def _mark(result: GemmResult | ConvResult) -> str:
    return " (modelled)" if result.cycles_modelled else ""


def _leave(interrupted: list[bool], done: int, of: int) -> None:
    """Say that a run was cut short, and exit as programs do that Ctrl-C ends."""
    if interrupted:
        typer.echo(f"interrupted: {done} of {of} rows", err=True)
        raise typer.Exit(130)
