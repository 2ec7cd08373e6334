"""Writes docs/performance.md from the measurements in docs/performance.

    python -m deepseek.host.bench.page [--check]

The measurements are what ``deepseek-host bench sweep --csv`` wrote, a file for each preset. Only
cycles that the RTL counted, of results that equal the golden model's, get onto the page.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .peers import ELSEWHERE, PEERS
from .sweep import ROWS, shown_value

__all__ = ["document", "main", "read"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
PRESETS = ("ecp5", "sim")

INTRODUCTION = """\
# Performance

Written by `python -m deepseek.host.bench.page` from the files in [performance/](performance/); do
not edit. Each row was measured on the Verilated RTL by the command that stands in those files and
below, and its results were compared bit for bit with the golden model first.

- Cycles are the card's own count, from the doorbell to the completion record: command fetch, loads,
  arithmetic and stores included. The peers' figures that we measured begin with their operands in
  place and have no memory behind them; what each one counts stands under [Peers](#peers).
- Utilisation is useful multiplications per cycle and multiplier.
- *ideal* memory has a fixed latency and one port for reads and writes; *hbm* is a pseudo-channel
  (two on `sim`) with checked DRAM timing and refresh.
- Matrix-vector products (*gemv*) give the part of the memory's effective bandwidth: the bytes a
  cycle that loads alone reach on the same card.
- Speed-ups are over the dense product of the same shape. Random zeros are independent; *skewed*
  rows have densities spread log-normally by 0.6.
- A figure that misses its target is marked.
"""

CAUSES = {
    "mac_active": "multiplied",
    "stall_stream": "stream",
    "stall_fill": "fill",
    "stall_drain": "drain",
    "idle_imbalance": "imbalance",
    "idle_memory": "memory",
    "idle_other": "other",
}

Measurements = Mapping[str, Mapping[str, str]]
"""Rows of a CSV file, by the row's name."""


def read(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV file.

    Raises
    ------
    ValueError
        If a row was modelled, or its results were not compared.
    """
    rows = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["cycles_modelled"] != "False" or row["bit_exact"] != "True":
                raise ValueError(f"{path}: {row['row']} was not measured on the RTL; measure it so")
            rows[row["row"]] = row
    return rows


def document(measured: Mapping[str, Measurements]) -> str:
    """Return the page.

    Parameters
    ----------
    measured : mapping
        The rows of each preset's CSV file, by the preset.
    """
    parts = [INTRODUCTION, "## Figures\n", *_table(_figures(measured))]
    for preset, rows in measured.items():
        build = next(iter(rows.values()))["build"] if rows else ""
        parts += [
            f"\n## Where the cycles went: `{preset}`\n",
            f"Percent of all engine-cycles, by the card's counters (build {build}). *stream*, "
            "*fill* and *drain*: an engine with work waited for weights, for operands, for its "
            "results to leave. *imbalance*: only other engines had work. *memory*: none had, and "
            "loads or stores ran. *other*: the start and the end of the job.\n",
            *_table(_causes(rows)),
        ]
    parts += ["\n## Peers\n", *_table(_sources())]
    parts += ["\nFigures that no row above answers:\n", *_table(_elsewhere())]
    for preset, rows in measured.items():
        parts += [f"\n## Commands: `{preset}`\n", "```sh", *_commands(rows), "```"]
    return "\n".join(parts) + "\n"


def _table(lines: Iterator[Sequence[str]]) -> Iterator[str]:
    """Markdown of a table whose first line is its heading."""
    for number, line in enumerate(lines):
        yield f"| {' | '.join(line)} |"
        if not number:
            yield "|" + "---|" * len(line)


def _figures(measured: Mapping[str, Measurements]) -> Iterator[Sequence[str]]:
    yield ("row", "M x K x N", "formats", "zeros in A", "memory", *map(_code, measured), "peers")
    for row in ROWS:
        found = [rows.get(row.name) for rows in measured.values()]
        if not any(found):
            continue
        job = row.job
        formats = f"{job.dtype} to {job.out_name}"
        if row.base is not None:
            formats += f", against {row.base.dtype}"
        yield (
            row.name,
            f"{job.m} x {job.k} x {job.n}",
            formats,
            job.zeros,
            row.memory,
            *(_value(row.kind, line) for line in found),
            "; ".join(map(str, PEERS.get(row.name, ()))),
        )


def _value(kind: str, line: Mapping[str, str] | None) -> str:
    if line is None:
        return "not measured"
    value = shown_value(kind, float(line["value"]))
    unit = {"utilization": "", "bandwidth": " of the bandwidth"}.get(kind, "")
    if not line["target"]:
        return value + unit
    target = shown_value(kind, float(line["target"]))
    if line["met"] == "True":
        return f"{value}{unit} (target {target})"
    return f"**{value}**{unit} (**missed**: target {target})"


def _causes(rows: Measurements) -> Iterator[Sequence[str]]:
    yield ("row", "cycles", *CAUSES.values())
    for row in ROWS:
        line = rows.get(row.name)
        if line is not None:
            counts = [int(line[cause]) for cause in CAUSES]
            total = max(sum(counts), 1)
            shares = (f"{100 * count / total:.2f}" for count in counts)
            yield (row.name, f"{int(line['cycles']):,}", *shares)


def _sources() -> Iterator[Sequence[str]]:
    yield ("design", "where its figures come from")
    figures = [figure for group in PEERS.values() for figure in group]
    sources = dict.fromkeys((figure.design, figure.source) for figure in figures)
    yield from sources


def _elsewhere() -> Iterator[Sequence[str]]:
    yield ("design", "figure", "what", "source")
    for figure in ELSEWHERE:
        yield (figure.design, figure.value, figure.what, figure.source)


def _commands(rows: Measurements) -> Iterator[str]:
    for row in ROWS:
        line = rows.get(row.name)
        if line is not None:
            yield f"{line['command']}  # {row.name}: {line['cycles']} cycles"
            if row.base is not None:
                yield f"{line['base_command']}  # against {line['base_cycles']} cycles"


def _code(text: str) -> str:
    return f"`{text}`"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` tell whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m deepseek.host.bench.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if outdated")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder docs")
    options = parser.parse_args(arguments)
    files = {name: options.docs / "performance" / f"{name}.csv" for name in PRESETS}
    target = options.docs / "performance.md"
    try:
        measured = {name: read(path) for name, path in files.items() if path.is_file()}
        if not measured:
            raise ValueError(
                f"nothing in {options.docs / 'performance'}; "
                "run: deepseek-host bench sweep --preset ecp5 --csv docs/performance/ecp5.csv"
            )
        text = document(measured)
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        if not target.is_file() or target.read_text() != text:
            print(
                f"{target} is out of date: run python -m deepseek.host.bench.page", file=sys.stderr
            )
            return 1
        return 0
    target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
