"""``deepseek-host bench conv``: convolutions, and all those of a network."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .bench import (
    DTYPES,
    LAYER_COLUMNS,
    LAYERS,
    NETWORKS,
    NOT_COUNTED,
    OUT_DTYPES,
    PLANNERS,
    ConvJob,
    ConvResult,
    CsvFile,
    MeasuredLayer,
    Total,
    TransposedJob,
    chosen_shape,
    conv,
    layers_of,
    measure,
    open_card,
    shape_options,
    transposed_shape,
)
from .cli_options import BackendOption, JsonOption, MemoryOption, PresetOption, SeedOption
from .cli_tables import leave, mark, result_table
from .console import errors, grid, interruptible, progress_display

__all__ = ["bench_conv"]


def bench_conv(
    h: Annotated[int | None, typer.Option(help="Rows of the image (default: 56).")] = None,
    w: Annotated[int | None, typer.Option(help="Columns (default: 56).")] = None,
    c: Annotated[int | None, typer.Option(help="Channels (default: 64).")] = None,
    filters: Annotated[int | None, typer.Option(help="Output channels (default: 64).")] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Size, as 3, or 3x5: rows x columns (default: 3).")
    ] = None,
    stride: Annotated[str | None, typer.Option(help="As --kernel (default: 1).")] = None,
    dilation: Annotated[str, typer.Option(help="As --kernel.")] = "1",
    pad: Annotated[
        str | None, typer.Option(help="On both sides, as --kernel (default: 0).")
    ] = None,
    groups: Annotated[int, typer.Option(help="Groups of channels and filters.")] = 1,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Each pixel adds its kernel to the output.")
    ] = False,
    layer: Annotated[
        str | None, typer.Option(help="A known layer, as resnet50:conv1; list shows all.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help=f"All layers of a network: {', '.join(NETWORKS)}.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="With --network: layers whose names contain this, again for more."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="With --network: write the layers to this file, too; its folder must be there."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help=f"Format of weights and image: {', '.join(DTYPES)}.")
    ] = "int8",
    out_dtype: Annotated[
        str | None,
        typer.Option(help=f"Format of the output: {', '.join(OUT_DTYPES)} (default: as --dtype)."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help=f"How the array is used: {', '.join(PLANNERS)} (default: the fastest)."),
    ] = None,
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    seed: SeedOption = 0,
    memory: MemoryOption = "hbm",
    as_json: JsonOption = False,
) -> None:
    """Count the cycles of a convolution, from its doorbell to its completion.

    With --network: of every layer of a network, each distinct shape once, and of all together.
    Ctrl-C keeps the layers so far.
    """
    if layer == "list":
        for known in LAYERS.values():
            typer.echo(f"{known.name}  {' '.join(shape_options(known.shape))}")
        return
    with errors():
        options: dict[str, int | str | None] = {"h": h, "w": w, "c": c, "filters": filters}
        options |= {"kernel": kernel, "stride": stride, "pad": pad}
        if network is not None:
            given = {name: value is not None for name, value in options.items()}
            given |= {"layer": layer is not None, "out-dtype": out_dtype is not None}
            given |= {"dilation": dilation != "1", "groups": groups != 1, "transposed": transposed}
            for name, is_given in given.items():
                if is_given:
                    raise ValueError(f"--network sets the shapes; leave --{name} out")
            file = CsvFile(csv, LAYER_COLUMNS)
            layers = layers_of(network, only or ())
            done: list[MeasuredLayer] = []
            try:
                with (
                    interruptible() as interrupted,
                    progress_display() as progress,
                    open_card(backend, preset, memory, progress) as card,
                    file,
                ):
                    macs, ran = sum(known.shape.macs for known in layers), 0
                    progress("layers", 0.0)
                    for one in measure(card, layers, dtype=dtype, kind=kind, seed=seed):
                        done.append(one)
                        ran += one.layer.shape.macs
                        progress("layers", ran / macs)
                        file.write(one)
                        if as_json:
                            typer.echo(json.dumps({"name": "conv-layer", **one.fields()}))
            finally:
                if done:
                    _print_network(Total(network, tuple(done)), as_json)
            leave(interrupted, len(done), len(layers), "layers")
            return
        if only or csv is not None:
            name = "only" if only else "csv"
            raise ValueError(
                f"--{name} goes with --network; next: add --network resnet50, or leave --{name} out"
            )
        chosen: dict[str, Any] = {"dtype": dtype, "out_dtype": out_dtype, "kind": kind}
        job: ConvJob
        if transposed:
            spread = transposed_shape(layer, options, dilation=dilation, groups=groups)
            job = TransposedJob(shape=spread, seed=seed, **chosen)
        else:
            shape = chosen_shape(layer, options, dilation=dilation, groups=groups)
            job = ConvJob(shape=shape, seed=seed, **chosen)
        with progress_display() as progress, open_card(backend, preset, memory, progress) as card:
            result = conv(card, job)
        _print_conv(result, as_json)


def _print_conv(result: ConvResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.as_json()))
        return
    rows = {"streams": f"{result.plan.kind}, {result.encoding}", "tiles": result.tiles}
    result_table(f"conv: {result.job}", result, rows)


def _print_network(total: Total, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(total.as_json()))
        return
    first = total.done[0].result
    rows: list[tuple[Any, ...]] = [
        (
            one.layer.name.partition(":")[2],
            one.shape,
            one.result.plan.kind,
            f"{one.layer.times}",
            one.layer.shape.macs,
            one.result.counters.cycles,
            f"{one.result.utilization:.2%}",
        )
        for one in total.done
    ]
    times = sum(one.layer.times for one in total.done)
    whole = "all" if total.complete else f"{len(total.done)} of {len(NETWORKS[total.network])}"
    used = f"{total.utilization:.2%}"
    rows.append((whole, "", "", f"{times}", total.macs, total.cycles, used))
    modelled = mark(first)
    heads = ("layer", "shape", "array", "times", "multiplications")
    grid(
        f"conv: {total.network}, {first.job.dtype}; {first.backend}, preset {first.config.name}, "
        f"memory {first.memory}; bit-identical with golden model",
        (*heads, f"cycles{modelled}", f"utilisation{modelled}"),
        rows,
        left=3,
    )
    if total.target is not None:
        met = "met" if total.utilization >= total.target else "missed"
        typer.echo(f"target: {total.target:.0%}: {met}")
    typer.echo(NOT_COUNTED)
