"""``host run``: networks with real weights and real inputs, checked against the golden model."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from .bench import MismatchError
from .card import Card
from .console import progress_display, table
from .transport import LinkStatistics
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
    chosen: Mapping[str, Any],
    *,
    limit: int | None,
    wave: Path | None,
    as_json: bool,
) -> None:
    """Run a workload and print its figures.

    Parameters
    ----------
    chosen : mapping
        Arguments of `Card.open`.

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
        Card.open(**chosen, waves=wave, progress=progress) as card,
    ):
        result = entry.run(card, limit, progress)
        where = _Where.of(card)
    if not result.bit_exact:
        raise MismatchError(
            f"{result.tensors - result.identical_tensors} of {result.tensors} tensors differ from "
            f"the golden model; no figure is given"
        )
    words = ["run", name, *_options(chosen)]
    if limit is not None:
        words += ["--limit", str(limit)]
    command = shlex.join(["deepseek-host", *words])
    if as_json:
        typer.echo(json.dumps(_fields(result, where) | {"command": command}))
        return
    _print(result, where)
    if wave is not None:
        typer.echo(f"waves: {wave}; look at them with: surfer {wave}  (or gtkwave)")
    elif where.backend == "rtl":
        typer.echo(
            f"waves: deepseek-host run {name} --preset {where.preset} --limit 1 --wave {name}.vcd, "
            f"then: surfer {name}.vcd  (or gtkwave)"
        )
    else:
        typer.echo("waves: only the rtl backend has them; use --backend rtl --wave FILE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Where:
    """On what card a workload ran."""

    backend: str
    preset: str
    memory: str
    modelled: bool
    clock_hz: int | None
    statistics: LinkStatistics | None
    details: dict[str, str]

    @classmethod
    def of(cls, card: Card) -> "_Where":
        transport = card.transport
        return cls(
            backend=transport.backend,
            preset=card.config.name,
            memory=card.memory,
            modelled=transport.cycles_modelled,
            clock_hz=transport.clock_hz,
            statistics=transport.statistics,
            details=transport.details(),
        )


def _options(chosen: Mapping[str, Any]) -> list[str]:
    """Return the words of the command line that stand for the arguments of `Card.open`."""
    if chosen["bitstream"] is None:
        words = ["--backend", chosen["backend"], "--preset", chosen["preset"]]
    else:
        words = ["--bitstream", str(chosen["bitstream"])]
        for name in ("board", "port"):
            if chosen[name] is not None:
                words += [f"--{name}", chosen[name]]
        if not chosen["load"]:
            words.append("--no-load")
    return [*words, "--memory", chosen["memory"]]


def _print(result: WorkloadResult, where: _Where) -> None:
    mark = " (modelled)" if where.modelled else ""
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
    if where.clock_hz is not None:
        rows["card's clock"] = f"{where.clock_hz / 1e6:,.3f} MHz"
        rows["seconds at this clock"] = f"{result.cycles / where.clock_hz:.6f}"
    elif not where.modelled:
        rows["simulated cycles a second"] = f"{result.cycles_per_second:,.0f}"
    if where.statistics is not None:
        link = where.statistics
        rows["bytes over the link, to and fro"] = f"{link.bytes_sent:,}, {link.bytes_received:,}"
        rows["requests over the link, repeated"] = f"{link.requests:,}, {link.repeated:,}"
    rows["seconds"] = f"{result.wall_seconds:.1f}"
    backend = where.backend
    if where.clock_hz is not None:
        backend += f" {where.details['board']} at {where.details['port']}"
    table(
        f"{result.name} ({result.dtype}) on {backend}, preset {where.preset}, "
        f"memory {where.memory}",
        rows,
    )


def _fields(result: WorkloadResult, where: _Where) -> dict[str, Any]:
    counters = result.counters
    fields = {
        "name": result.name,
        "preset": where.preset,
        "backend": where.backend,
        "memory": where.memory,
        "dtype": result.dtype,
        "shape": {"images": result.images, "batch": result.batch},
        "images": result.images,
        "accuracy": result.accuracy,
        "float_accuracy": result.float_accuracy,
        "cycles": result.cycles,
        "cycles_modelled": where.modelled,
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
    }
    if where.clock_hz is not None:
        fields |= where.details | {
            "clock_hz": where.clock_hz,
            "clock_seconds": result.cycles / where.clock_hz,
        }
    if where.statistics is not None:
        fields["link"] = dataclasses.asdict(where.statistics)
    return fields
