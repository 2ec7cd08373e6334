"""``deepseek-host run``: networks with real numbers, checked against the golden model."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from .bench import MismatchError
from .card import Card
from .console import progress_display, table
from .errors import CardError
from .output import check_file
from .step import Stepper
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
    capture: Path | None = None,
    trigger: str | None = None,
    after: int | None = None,
    step: bool = False,
    as_json: bool,
) -> None:
    """Run a workload and print its figures.

    Parameters
    ----------
    chosen : mapping
        Arguments of `Card.open`.
    wave, capture : Path
        Files for the waves of a simulation, and of the capture on a board.
    trigger, after
        Of the capture (`capture.Capture.arm`).
    step : bool
        Ask before each command.

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
    _check_capture(chosen["backend"], capture, trigger, after)
    if wave is not None and chosen["backend"] == "rtl":
        check_file("--wave", wave, ".vcd")
    if step:
        _check_step(chosen["backend"])
    with progress_display() as progress:
        opened = Card.open(**chosen, waves=wave, progress=progress)
    # A bar would write over the steps.
    with opened as card, progress_display(shown=not step) as progress:
        if step:
            card.set_stepper(Stepper(_answer, lambda text: typer.echo(text, err=True)))
        with _captured(card, capture, trigger or "", after):
            result = entry.run(card, limit, progress)
        where = _Where.of(card)
    if step:
        typer.echo("cycles below count those in which the card waited for a step, too", err=True)
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


def _check_capture(
    backend: str, capture: Path | None, trigger: str | None, after: int | None
) -> None:
    """Find mistakes before minutes go by."""
    if capture is None:
        if trigger is not None or after is not None:
            raise ValueError("--trigger and --after are for a capture: add --capture FILE.vcd")
        return
    if backend != "board":
        raise ValueError(
            f"the capture is on a board's chip, and the backend {backend!r} has none; add "
            "--bitstream FILE, or use --backend rtl --wave FILE for all signals"
        )
    from .capture import parse_trigger

    parse_trigger(trigger or "")
    check_file("--capture", capture, ".vcd")


@contextmanager
def _captured(card: Card, path: Path | None, trigger: str, after: int | None) -> Iterator[None]:
    """Write what the chip captures meanwhile, also of a job that fails."""
    if path is None:
        yield
        return
    from .capture import Capture, write_vcd

    capture = Capture(card.transport)
    capture.arm(trigger, after=after)

    def write() -> None:
        recording = capture.read()
        write_vcd(recording, path, capture.clock_hz)
        seen = "not seen" if recording.trigger is None else f"in cycle {recording.trigger:,}"
        typer.echo(
            f"capture: {path}, {len(recording.cycles)} changes, trigger {seen}; look at them "
            f"with: surfer {path}  (or gtkwave)",
            err=True,
        )

    try:
        yield
    except CardError:
        write()
        raise
    write()


def _answer() -> str:
    """Return the next line of the input; at its end let everything go."""
    return sys.stdin.readline() or "c"


def _check_step(backend: str) -> None:
    if backend == "functional":
        raise ValueError(
            "the functional backend runs whole jobs, and has no single steps; next: use --backend "
            "rtl, or a bitstream"
        )
    if not sys.stdin.isatty():
        raise ValueError(
            "--step asks before each command, and the input is no terminal; next: run it in a "
            "terminal without redirecting its input, or leave --step out"
        )


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
        if chosen["netlist"]:
            words.append("--netlist")
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
        held_in = where.details["card_memory"]
        rows["card's memory"] = held_in
        waits = "" if held_in == "block RAM" else ", its waits for memory not counted"
        rows[f"seconds at this clock{waits}"] = f"{result.cycles / where.clock_hz:.6f}"
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
