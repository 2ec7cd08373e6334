"""Sections of docs/performance.md beside the sweep: networks, attention, what a command costs.

Each takes the rows of its CSV files by preset, and is empty without any.
"""

from collections.abc import Iterator, Mapping, Sequence

from .conv_network import wanted
from .job import command_line
from .networks import NETWORKS
from .page_tables import (
    CAUSES,
    CAUSES_TEXT,
    Measurements,
    code,
    marked,
    peers,
    percent,
    shares,
    table,
)

__all__ = ["FILES", "attention", "commands", "latency", "networks"]

ATTENTION = ("attention", "attention-hbm")
FILES = {
    **dict.fromkeys(NETWORKS, "layer"),
    **dict.fromkeys(ATTENTION, "job"),
    "latency": "dtype",
}
"""What the names of CSV files begin with, to the column of their rows' names."""

Found = Mapping[str, Mapping[str, Measurements]]
"""Rows of CSV files: by a key of `FILES` and by preset."""

NETWORKS_TEXT = """
## Networks

All convolutions of a network and its classifier, batch 1, images of 224 x 224. Each layer is a job
of its own, from card memory to card memory: its first loads and its last stores are in the figure,
and nothing stays on the card between layers. Pooling, functions of their own, and residual
additions are not in the figure. A shape that occurs several times was measured once and counts as
often as it occurs. Utilisation is all useful multiplications per cycle and multiplier over the sum
of all cycles.
"""

LAYERS_TEXT = """
The layers follow; multiplications and cycles are those of one occurrence. The plan is the fastest
that was found. *windows*: filters pass as streams by the windows of the image, and are loaded once
(*kept*) or for each part of the image. *swapped*: pixels pass as streams by the filters, part by
part of the pixels or of the filters. *depthwise*: pixels pick from tiles of their own channels.
"""

ATTENTION_TEXT = """
## Attention

O = softmax(Q K^T / sqrt(d)) V of S = 256 rows of d = 64 numbers, from card memory to card memory.
Softmax, the transpose of V, loads and stores take their part of the cycles; only the
multiplications of both products are useful. Projections are not in the figure. The target is that
of ideal memory.
"""

LATENCY_TEXT = """
## What a command costs

In cycles, where all operands lie in the scratchpad and there are neither loads nor stores. Each
MATMUL multiplies for {mac_cycles} cycles.

- First MAC: from the cycle in which a command comes to the head of the empty compute queue to that
  in which row engine 0 issues its first weight.
- Overhead: a job with one MATMUL, from its first command fetch to its completion record, less its
  multiplications. A job without a command takes the fetch and the record.
- Idle between: what each further MATMUL of a job adds beyond its multiplications.
"""

LATENCY_ROWS = (
    ("command at the queue's head to first MAC", "first_mac", "first_mac_target"),
    ("overhead of a job with one MATMUL", "overhead", "overhead_target"),
    ("job without a command", "empty_job", ""),
    ("idle between 2 MATMULs", "idle_between_2", "idle_between_target"),
    ("idle between 8 MATMULs, each", "idle_between_8", "idle_between_target"),
)
"""What it is, and the columns of its value and its target."""


def networks(found: Found) -> Iterator[str]:
    """Yield lines of the section on whole networks."""
    names = [name for name in NETWORKS if any(found.get(name, {}).values())]
    if not names:
        return
    yield NETWORKS_TEXT
    yield from table(_totals({name: found[name] for name in names}))
    yield f"\nPercent of all engine-cycles, by the card's counters. {CAUSES_TEXT}\n"
    yield from table(_network_causes({name: found[name] for name in names}))
    yield LAYERS_TEXT
    for name in names:
        for preset, rows in found[name].items():
            if rows:
                first = _first(rows)
                where = f"{first['dtype']}, memory {first['memory']}, build {first['build']}"
                yield f"\n### {name} on `{preset}`\n\n{where}.\n"
                yield from table(_layers(rows))


def _totals(found: Found) -> Iterator[Sequence[str]]:
    presets = _presets(found)
    heads = [words for name in presets for words in (f"cycles, {code(name)}", code(name))]
    yield ("network", "format", "memory", "layers", "multiplications", *heads, "peers")
    for name, measured in found.items():
        first = _first(next(rows for rows in measured.values() if rows))
        layers = NETWORKS[name]
        yield (
            name,
            first["dtype"],
            first["memory"],
            f"{sum(layer.times for layer in layers)}",
            f"{sum(layer.macs for layer in layers):,}",
            *(cell for preset in presets for cell in _total(name, measured.get(preset, {}))),
            peers(name),
        )


def _total(name: str, rows: Measurements) -> tuple[str, str]:
    """Return a network's cycles and utilisation."""
    layers = NETWORKS[name]
    if {layer.name: str(layer.times) for layer in layers} != {
        layer: row["times"] for layer, row in rows.items()
    }:
        return "", f"not measured ({len(rows)} of {len(layers)} shapes)" if rows else "not measured"
    cycles, first = _cycles(rows), _first(rows)
    used = sum(layer.macs for layer in layers) / (cycles * int(first["mac_units"]))
    target = wanted(name, first["preset"], memory=first["memory"], dtype=first["dtype"])
    if target is None:
        return f"{cycles:,}", percent(used)
    return f"{cycles:,}", marked(percent(used), percent(target), used >= target)


def _cycles(rows: Measurements) -> int:
    return sum(int(row["times"]) * int(row["cycles"]) for row in rows.values())


def _network_causes(found: Found) -> Iterator[Sequence[str]]:
    yield ("network", "preset", "cycles", *CAUSES.values())
    for name, measured in found.items():
        for preset, rows in measured.items():
            if rows:
                times = ((int(row["times"]), row) for row in rows.values())
                yield (name, code(preset), *shares(_cycles(rows), times))


def _layers(rows: Measurements) -> Iterator[Sequence[str]]:
    yield ("layer", "times", "multiplications", "cycles", "utilisation", "plan")
    for name, row in rows.items():
        yield (
            name.partition(":")[2],
            row["times"],
            f"{int(row['macs']):,}",
            f"{int(row['cycles']):,}",
            percent(float(row["utilization"])),
            f"{row['kind']}: {row['tiles']}",
        )


def attention(found: Found) -> Iterator[str]:
    """Yield lines of the section on attention."""
    measured = {name: found[name] for name in ATTENTION if any(found.get(name, {}).values())}
    if not measured:
        return
    yield ATTENTION_TEXT
    yield from table(_attention(measured))
    yield f"\nPercent of all engine-cycles. {CAUSES_TEXT}\n"
    yield from table(_attention_causes(measured))


def _attention(found: Found) -> Iterator[Sequence[str]]:
    presets = _presets(found)
    yield ("job", "memory", "multiplications", *map(code, presets), "peers")
    for measured in found.values():
        for job in dict.fromkeys(job for rows in measured.values() for job in rows):
            lines = [measured.get(preset, {}).get(job) for preset in presets]
            first = next(line for line in lines if line is not None)
            figures = peers("attention") if first["memory"] == "ideal" else ""
            macs = f"{int(first['macs']):,}"
            yield (job, first["memory"], macs, *map(_used, lines), figures)


def _used(line: Mapping[str, str] | None) -> str:
    if line is None:
        return "not measured"
    target = percent(float(line["target"])) if line["target"] else None
    return marked(percent(float(line["utilization"])), target, line["met"] == "True")


def _attention_causes(found: Found) -> Iterator[Sequence[str]]:
    yield ("job", "memory", "preset", "cycles", *CAUSES.values())
    for measured in found.values():
        for preset, rows in measured.items():
            for job, row in rows.items():
                spent = shares(int(row["cycles"]), [(1, row)])
                yield (job, row["memory"], code(preset), *spent)


def latency(found: Found) -> Iterator[str]:
    """Yield lines of the section on what a command costs."""
    measured = {preset: rows for preset, rows in found.get("latency", {}).items() if rows}
    if not measured:
        return
    lines = [line for rows in measured.values() for line in rows.values()]
    yield LATENCY_TEXT.format(mac_cycles=lines[0]["mac_cycles"])
    yield from table(_latency(lines))
    yield f"\nFixed cost of others: {peers('latency')}."


def _latency(lines: Sequence[Mapping[str, str]]) -> Iterator[Sequence[str]]:
    yield ("", *(f"{code(line['preset'])}, {line['dtype']}, {line['memory']}" for line in lines))
    for what, value, target in LATENCY_ROWS:
        yield (what, *(_cost(line[value], line.get(target, "")) for line in lines))


def _cost(value: str, target: str) -> str:
    if not value:
        return "not readable"
    return marked(f"{float(value):g}", target or None, not target or float(value) <= float(target))


def commands(found: Found, preset: str) -> Iterator[str]:
    """Yield the command lines of a preset's rows."""
    for name in NETWORKS:
        rows = found.get(name, {}).get(preset)
        if rows:
            first = _first(rows)
            words = ["--network", name, "--dtype", first["dtype"]]
            options = {option: first[option] for option in ("preset", "backend", "memory")}
            yield f"{command_line('conv', words, **options)}  # {_cycles(rows)} cycles"
    for name in ATTENTION:
        for row in found.get(name, {}).get(preset, {}).values():
            yield f"{row['command']}  # {row['cycles']} cycles"
    yield from dict.fromkeys(
        row["command"] for row in found.get("latency", {}).get(preset, {}).values()
    )


def _presets(found: Found) -> list[str]:
    """Return the presets that any file is of."""
    return list(dict.fromkeys(preset for measured in found.values() for preset in measured))


def _first(rows: Measurements) -> Mapping[str, str]:
    return next(iter(rows.values()))
