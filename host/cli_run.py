"""``host run``: networks with real weights and real inputs, checked against the golden model."""

import json
import shlex
from pathlib import Path
from typing import Any

import typer

from .bench import MismatchError
from .card import Card
from .console import progress_display, table
from .workloads import WORKLOADS, WorkloadResult
from .workloads import workload as find_workload

__all__ = ["list_workloads", "run"]


def list_workloads(*, as_json: bool) -> None:
    """Print the workloads' names and summaries."""
    if as_json:
        for entry in WORKLOADS.values():
            fields = {"name": entry.name, "summary": entry.summary, "inputs": entry.inputs}
            typer.echo(json.dumps(fields))
        return
    width = max(map(len, WORKLOADS))
    for entry in WORKLOADS.values():
        typer.echo(f"{entry.name:{width}}  {entry.summary}; {entry.inputs} inputs")


def run(
    name: str,
    *,
    backend: str,
    preset: str,
    memory: str,
    limit: int | None,
    wave: Path | None,
    as_json: bool,
) -> None:
    """Run a workload and print its figures.

    Raises
    ------
    ValueError
        If a name or a number is no good.
    MismatchError
        If a tensor differs from the golden model's; nothing is printed then.
    """
    entry = find_workload(name)
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1, not {limit!r}")
    with (
        progress_display() as progress,
        Card.open(backend, preset=preset, memory=memory, waves=wave, progress=progress) as card,
    ):
        result = entry.run(card, limit, progress)
        modelled = card.transport.cycles_modelled
    if not result.bit_exact:
        raise MismatchError(
            f"{result.tensors - result.identical_tensors} of {result.tensors} tensors differ from "
            f"the golden model; no figure is given"
        )
    words = ["run", name, "--backend", backend, "--preset", preset, "--memory", memory]
    if limit is not None:
        words += ["--limit", str(limit)]
    command = shlex.join(["deepseek-host", *words])
    if as_json:
        typer.echo(json.dumps(_fields(result, backend, preset, memory, modelled, command)))
        return
    _print(result, backend, preset, memory, modelled)
    if wave is not None:
        typer.echo(f"waves: {wave}; look at them with: surfer {wave}  (or gtkwave)")
    elif backend == "rtl":
        typer.echo(
            f"waves: deepseek-host run {name} --preset {preset} --limit 1 --wave {name}.vcd, "
            f"then: surfer {name}.vcd  (or gtkwave)"
        )
    else:
        typer.echo("waves: only the rtl backend has them; use --backend rtl --wave FILE")


def _print(result: WorkloadResult, backend: str, preset: str, memory: str, modelled: bool) -> None:
    mark = " (modelled)" if modelled else ""
    counters = result.counters
    rows: dict[str, Any] = {
        "images": result.images,
        "accuracy, card": f"{result.accuracy:.2%}",
        "accuracy, float network": f"{result.float_accuracy:.2%}",
        "bit-identical with golden model": f"{result.identical_tensors:,} of {result.tensors:,} "
        "tensors",
        f"cycles{mark}": result.cycles,
        f"cycles an image{mark}": f"{result.cycles_per_image:,.0f}",
        f"MAC utilisation{mark}": f"{result.utilization:.1%} of {result.mac_units} a cycle",
        "bytes read, written": f"{counters.bytes_read:,}, {counters.bytes_written:,}",
    }
    if not modelled:
        rows["simulated cycles a second"] = f"{result.cycles_per_second:,.0f}"
    rows["seconds"] = f"{result.wall_seconds:.1f}"
    table(f"{result.name} ({result.dtype}) on {backend}, preset {preset}, memory {memory}", rows)


def _fields(
    result: WorkloadResult, backend: str, preset: str, memory: str, modelled: bool, command: str
) -> dict[str, Any]:
    counters = result.counters
    return {
        "name": result.name,
        "preset": preset,
        "backend": backend,
        "memory": memory,
        "dtype": result.dtype,
        "shape": {"images": result.images, "batch": result.batch},
        "images": result.images,
        "accuracy": result.accuracy,
        "float_accuracy": result.float_accuracy,
        "cycles": result.cycles,
        "cycles_modelled": modelled,
        "cycles_per_image": round(result.cycles_per_image, 1),
        "macs": result.macs,
        "mac_units": result.mac_units,
        "utilization": round(result.utilization, 5),
        "bit_exact": result.bit_exact,
        "tensors": result.tensors,
        "identical_tensors": result.identical_tensors,
        "mac_active": counters.mac_active,
        "stalls": counters.stalls(),
        "bytes_read": counters.bytes_read,
        "bytes_written": counters.bytes_written,
        "hbm_refreshes": counters.hbm_refreshes,
        "card_seconds": round(result.card_seconds, 3),
        "wall_seconds": round(result.wall_seconds, 3),
        "cycles_per_second": round(result.cycles_per_second),
        "command": command,
    }
