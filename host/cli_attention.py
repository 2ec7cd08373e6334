"""``deepseek-host bench attention``: softmax(Q K^T) V from memory to memory."""

import json
from typing import Annotated

import typer

from .bench import (
    ATTENTION_COLUMNS,
    ATTENTION_DTYPES,
    AttentionJob,
    AttentionResult,
    CsvFile,
    attention,
    open_card,
)
from .cli_options import (
    BackendOption,
    CsvOption,
    JsonOption,
    MemoryOption,
    PresetOption,
    SeedOption,
)
from .cli_tables import result_table
from .console import errors, progress_display

__all__ = ["bench_attention"]


def bench_attention(
    seq: Annotated[int, typer.Option(help="Rows of Q, K and V.")] = 256,
    dim: Annotated[int, typer.Option(help="Numbers in a row.")] = 64,
    heads: Annotated[
        list[int] | None, typer.Option(help="Heads of a job, again for more jobs (default: 1 8).")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help=f"Format of Q, K, V and O: {', '.join(ATTENTION_DTYPES)}.")
    ] = "int8",
    causal: Annotated[
        bool, typer.Option("--causal", help="Row i sees only rows up to i of K and V.")
    ] = False,
    preset: PresetOption = "ecp5",
    backend: BackendOption = "rtl",
    seed: SeedOption = 0,
    memory: MemoryOption = "hbm",
    csv: CsvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the cycles of attention, O = softmax(Q K^T / sqrt(dim)) V, from memory to memory.

    Softmax, the transpose of V, loads and stores are part of it; only the multiplications of both
    products count as useful, and with --causal only those of rows that see each other.
    """
    with errors():
        jobs = [
            AttentionJob(heads=count, seq=seq, dim=dim, dtype=dtype, causal=causal, seed=seed)
            for count in heads or (1, 8)
        ]
        file = CsvFile(csv, ATTENTION_COLUMNS)
        with (
            progress_display() as progress,
            open_card(backend, preset, memory, progress) as card,
            file,
        ):
            for job in jobs:
                result = attention(card, job)
                file.write(result)
                _print_attention(result, as_json)


def _print_attention(result: AttentionResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.as_json()))
        return
    rows = {
        "blocks": result.plan.layout.describe(),
        "largest error, and its bound": f"{result.error:.3g}, {result.bound:.3g}",
    }
    more = {}
    if result.target is not None:
        met = "met" if result.utilization >= result.target else "missed"
        more["target"] = f"{result.target:.0%}: {met}"
    result_table(f"attention: {result.job}", result, rows, more=more)
