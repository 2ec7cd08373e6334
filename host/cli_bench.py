"""``deepseek-host bench``: cycles of the card, and time of its simulation."""

import json
from typing import Annotated, Any

import typer

from .bench import (
    DENSITIES,
    DTYPES,
    KINDS,
    LATENCY_COLUMNS,
    LATENCY_DTYPES,
    PEERS,
    CompressJob,
    CsvFile,
    GemmJob,
    GemmResult,
    Latency,
    Measured,
    Speedup,
    StagedJob,
    Sweep,
    chosen_job,
    chosen_rows,
    gemm,
    latency,
    open_card,
    run_staged,
    shown_value,
    simspeed,
    sparse_jobs,
    speedup,
)
from .cli_attention import bench_attention
from .cli_conv import bench_conv
from .cli_options import (
    BackendOption,
    CompressOption,
    CsvOption,
    DensityOption,
    DtypeOption,
    EncodingOption,
    GemmDtypeOption,
    GemmResidentOption,
    JsonOption,
    KOption,
    MemoryOption,
    MOption,
    NOption,
    OutOption,
    PresetOption,
    QuantizeOption,
    ScaleOption,
    SeedOption,
    SkewOption,
    StreamOption,
    TransposeAOption,
    TransposeBOption,
)
from .cli_parser import Commands
from .cli_staged import print_staged
from .cli_tables import leave, mark, result_table
from .console import errors, grid, interruptible, progress_display

__all__ = ["bench_app"]

DEFAULT_DENSITIES = " ".join(map(str, DENSITIES))

bench_app = typer.Typer(
    cls=Commands, help="Measure the card or its simulation.", no_args_is_help=True
)
bench_app.command("conv")(bench_conv)
bench_app.command("attention")(bench_attention)


@bench_app.command("gemm")
def bench_gemm(
    m: MOption = 256,
    n: NOption = 256,
    k: KOption = 256,
    dtype: GemmDtypeOption = None,
    resident_dtype: GemmResidentOption = None,
    out_dtype: OutOption = None,
    density: DensityOption = None,
    skew: SkewOption = 0.0,
    encoding: EncodingOption = "auto",
    block_scale: ScaleOption = None,
    stream: StreamOption = "auto",
    transpose_a: TransposeAOption = None,
    transpose_b: TransposeBOption = None,
    compress_on_card: CompressOption = False,
    quantize: QuantizeOption = None,
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

    With an MX format, --transpose-a or -b, --compress-on-card or --quantize the card's vector unit
    makes the operands ready while the array multiplies.
    """
    with errors():
        job = chosen_job(
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
            transpose_a=transpose_a,
            transpose_b=transpose_b,
            compress_on_card=compress_on_card,
            quantize=quantize,
            seed=seed,
        )
        with (
            progress_display() as progress,
            open_card(backend, preset, memory, progress, job) as card,
        ):
            staged = run_staged(card, job) if isinstance(job, StagedJob) else None
            packed = job.packed if isinstance(job, CompressJob) else job
            results = gemm(card, packed) if isinstance(packed, GemmJob) else []
        if staged is not None:
            print_staged(staged, results, as_json)
            return
        for result in results:
            fields = result.as_json()
            if len(results) > 1 and result is results[-1]:
                pair = Speedup(results[0], result)
                fields["speedup_over_dense"] = round(pair.factor, 3)
            _print_gemm(result, fields, as_json)


@bench_app.command("sparse")
def bench_sparse(
    m: MOption = 256,
    n: NOption = 256,
    k: KOption = 256,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help=f"Format: {', '.join(DTYPES)}; again for more (default: int8 fp16)."),
    ] = None,
    density: Annotated[
        list[float] | None,
        typer.Option(
            help=f"Density of A, from 0 to 1, again for more (default: {DEFAULT_DENSITIES})."
        ),
    ] = None,
    compress_on_card: CompressOption = False,
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
                    done.append(speedup(card, job, on_card=compress_on_card))
                    if as_json:
                        typer.echo(json.dumps(done[-1].as_json()))
        finally:
            if done and not as_json:
                shape = f"{m} x {k} by {k} x {n}"
                _print_sparse(f"sparse: {shape}; {backend}, preset {preset}, memory {memory}", done)
        leave(interrupted, len(done), len(jobs))


@bench_app.command("sweep")
def bench_sweep(
    only: Annotated[
        list[str] | None, typer.Option(help="Rows whose names contain this, again for more.")
    ] = None,
    csv: CsvOption = None,
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
        file = CsvFile(csv)
        done: list[Measured] = []
        try:
            with (
                interruptible() as interrupted,
                progress_display() as progress,
                Sweep(preset, backend, progress) as sweep,
            ):
                sweep.open(rows[0].memory)
                with file:
                    for number, row in enumerate(rows):
                        progress("rows", number / len(rows))
                        done.append(sweep.run(row))
                        file.write(done[-1])
                        if as_json:
                            typer.echo(json.dumps(done[-1].fields()))
        finally:
            if done and not as_json:
                _print_sweep(f"sweep; {backend}, preset {preset}", done)
        leave(interrupted, len(done), len(rows))


@bench_app.command("latency")
def bench_latency(
    preset: PresetOption = "ecp5",
    memory: MemoryOption = "ideal",
    csv: CsvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count what MATMUL commands cost beside their multiplications: starts, ends, gaps.

    Measured on the Verilated card, in INT8 and FP16. All operands lie in the scratchpad, and there
    are neither loads nor stores; each command multiplies for 1024 cycles.

    First MAC: from the cycle in which a command comes to the head of the empty compute queue to
    that in which row engine 0 issues its first weight. The registers that show both are read in
    every cycle.

    Overhead: cycles of a job with one MATMUL, from its first command fetch (two cycles after the
    doorbell) to its completion record, less those of its multiplications. The job without a command
    tells how much of it is fetch and record; engine 0's counters tell why it did not multiply.

    Idle between: what each further equal command of a job adds beyond its multiplications.

    With --memory hbm, fetch and record take longer, and not always equally long: each figure is
    that of the middle one of nine runs, and differences may be off by some tens of cycles.
    """
    with errors():
        file = CsvFile(csv, LATENCY_COLUMNS)
        measured: list[Latency] = []
        with (
            progress_display() as progress,
            open_card("rtl", preset, memory, progress) as card,
            file,
        ):
            for dtype in LATENCY_DTYPES:
                measured.append(latency(card, dtype))
                file.write(measured[-1])
                if as_json:
                    typer.echo(json.dumps(measured[-1].as_json()))
        if not as_json:
            _print_latency(measured)


@bench_app.command("simspeed")
def bench_simspeed(
    m: MOption = 256,
    n: NOption = 256,
    k: KOption = 256,
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
    job = result.job
    rows: dict[str, Any] = {}
    if result.bandwidth is not None:
        rows[f"memory bandwidth{mark(result)}"] = (
            f"{result.bandwidth_fraction:.2%} of {result.bandwidth.bytes_per_cycle:.2f} bytes a "
            "cycle"
        )
    rows |= {
        "streams": f"{result.plan.stream.upper()}, {result.encoding}",
        "tiles of the streams": result.tiles,
    }
    labels = {
        "speedup_over_dense": "times faster than dense",
        "cycles_per_second": "simulated cycles a second",
        "macs_per_second": "simulated multiplications a second",
        "compiler": "compiler",
    }
    last = {label: fields[name] for name, label in labels.items() if name in fields}
    result_table(f"{fields['name']}: {job}, {job.zeros}", result, rows, last=last)


def _print_sparse(title: str, done: list[Speedup]) -> None:
    rows = [
        (
            pair.compressed.job.dtype,
            pair.compressed.job.zeros,
            pair.compressed.encoding,
            f"{pair.dense.counters.cycles:,}",
            f"{pair.compressed.counters.cycles:,}",
            *([] if pair.on_card is None else [f"{pair.on_card.counters.cycles:,}"]),
            f"{pair.factor:.2f} x",
            f"{pair.bound:.2f} x",
        )
        for pair in done
    ]
    modelled = mark(done[0].dense)
    heads = ["format", "zeros in A", "sent as", f"dense{modelled}", f"compressed{modelled}"]
    heads += [f"on the card{modelled}"] if done[0].on_card is not None else []
    heads += ["speed-up", "of"]
    grid(f"{title}; bit-identical with golden model", heads, rows, left=3)


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
    heads = ("row", "memory", f"cycles{mark(done[0].result)}", "value", "target", "", "peers")
    grid(f"{title}; bit-identical with golden model", heads, rows, left=2)
    for kind in dict.fromkeys(measured.row.kind for measured in done):
        typer.echo(f"{kind}: {KINDS[kind]}")


def _print_latency(measured: list[Latency]) -> None:
    rows = [
        (lines[0][0], *(value for _, value, _ in lines), lines[0][2])
        for lines in zip(*(one.rows() for one in measured), strict=True)
    ]
    one = measured[0]
    title = f"latency: cycles; {one.backend}, preset {one.config.name}, memory {one.memory}"
    heads = ("", *(one.job.dtype for one in measured), "target")
    grid(f"{title}; bit-identical with golden model", heads, rows)
