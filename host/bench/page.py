"""Writes docs/performance.md from the measurements in docs/performance.

    python -m deepseek.host.bench.page [--check]

The measurements are what ``deepseek-host bench sweep --csv`` wrote, a file for each preset, and
what ``bench conv --network``, ``bench attention`` and ``bench latency`` wrote (`page_sections`);
``make performance`` writes all of them. Only cycles that the RTL counted, of results that equal the
golden model's, get onto the page.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .page_sections import FILES, attention, commands, latency, networks
from .page_tables import CAUSES, CAUSES_TEXT, Measurements, code, marked, peers, read, shares, table
from .peers import ELSEWHERE, PEERS
from .sweep import ROWS, shown_value

__all__ = ["document", "main"]

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


def document(
    measured: Mapping[str, Measurements], found: Mapping[str, Mapping[str, Measurements]]
) -> str:
    """Return the page.

    Parameters
    ----------
    measured : mapping
        The rows of each preset's CSV file of the sweep, by the preset.
    found : mapping
        Those of other files: by the key of `FILES`, and by the preset.
    """
    parts = [INTRODUCTION, "## Figures\n", *table(_figures(measured))]
    parts += [*networks(found), *attention(found), *latency(found)]
    for preset, rows in measured.items():
        build = next(iter(rows.values()))["build"] if rows else ""
        parts += [
            f"\n## Where the cycles went: `{preset}`\n",
            f"Percent of all engine-cycles, by the card's counters (build {build}). "
            f"{CAUSES_TEXT}\n",
            *table(_causes(rows)),
        ]
    parts += ["\n## Peers\n", *table(_sources())]
    parts += ["\nFigures that no row above answers:\n", *table(_elsewhere())]
    for preset, rows in measured.items():
        lines = (*_commands(rows), *commands(found, preset))
        parts += [f"\n## Commands: `{preset}`\n", "```sh", *lines, "```"]
    return "\n".join(parts) + "\n"


def _figures(measured: Mapping[str, Measurements]) -> Iterator[Sequence[str]]:
    yield ("row", "M x K x N", "formats", "zeros in A", "memory", *map(code, measured), "peers")
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
            peers(row.name),
        )


def _value(kind: str, line: Mapping[str, str] | None) -> str:
    if line is None:
        return "not measured"
    value = shown_value(kind, float(line["value"]))
    unit = {"utilization": "", "bandwidth": " of the bandwidth"}.get(kind, "")
    target = shown_value(kind, float(line["target"])) if line["target"] else None
    return marked(value, target, line["met"] == "True", unit)


def _causes(rows: Measurements) -> Iterator[Sequence[str]]:
    yield ("row", "cycles", *CAUSES.values())
    for row in ROWS:
        line = rows.get(row.name)
        if line is not None:
            yield (row.name, *shares(int(line["cycles"]), [(1, line)]))


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


def _measured(folder: Path, name: str, key: str) -> dict[str, dict[str, dict[str, str]]]:
    """Return the rows of the files of that name that there are, by preset."""
    paths = {preset: folder / name.format(preset=preset) for preset in PRESETS}
    return {preset: read(path, key, preset) for preset, path in paths.items() if path.is_file()}


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` tell whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m deepseek.host.bench.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if outdated")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder docs")
    options = parser.parse_args(arguments)
    folder, target = options.docs / "performance", options.docs / "performance.md"
    try:
        measured = _measured(folder, "{preset}.csv", "row")
        found = {
            name: _measured(folder, f"{name}-{{preset}}.csv", key) for name, key in FILES.items()
        }
        if not measured:
            raise ValueError(
                f"no sweep in {folder}; "
                "run: deepseek-host bench sweep --preset ecp5 --csv docs/performance/ecp5.csv"
            )
        text = document(measured, found)
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
