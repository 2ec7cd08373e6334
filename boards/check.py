"""What the blocks of a card take on a board and how long their paths are, compared with a
recorded table.

The table is ``resources.csv`` beside this file. A block may differ from it by `PERCENT`, or by
`CELLS` where that is more: enough for another version of yosys, and too little for a change to
the design to go by unseen. Its longest path, as it is estimated before place and route, may be
longer by `NS_PERCENT`. Record it anew, with its reason in the commit's message, by::

    deepseek-host build --board ulx3s --preset tiny --record
"""

import csv
import dataclasses
import io
from pathlib import Path

from ..files import write_whole
from .board import Board, BoardError
from .flow.build import build_hash, prepare
from .flow.report import block_rows, estimated_ns
from .flow.synthesis import Resources, link, netlist_resources
from .flow.tools import Progress, tool_version

__all__ = [
    "CELLS",
    "NS_PERCENT",
    "PERCENT",
    "TABLE",
    "Row",
    "check_resources",
    "differences",
    "record_resources",
]

TABLE = Path(__file__).with_name("resources.csv")

PERCENT = 3.0
"""A block may differ by so much in COMB and in FF; DSP and EBR have to be equal."""

CELLS = 25
"""A block may always differ by so many cells."""

NS_PERCENT = 10.0
"""The longest path to a block's registers may be longer by so much."""

HEAD = ("board", "preset", "yosys", "block", "instances", "comb", "ff", "dsp", "ebr", "ns")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known of a block.

    Parameters
    ----------
    instances : int
    resources : Resources
        Of all of them.
    ns : float
        The longest path that ends in one, estimated; 0 if there is none.
    """

    instances: int
    resources: Resources
    ns: float = 0.0


Rows = dict[str, Row]
"""By name of the block, and for all of them as ``total``."""


def _check_device(board: Board) -> None:
    if board.is_virtual:
        raise BoardError(f"the board {board.name} has no device; choose another --board")


def measure(board: Board, preset: str, progress: Progress | None = None) -> Rows:
    """Synthesise a card for a board, and return what its blocks take."""
    _check_device(board)
    config = board.config(preset)
    setting = board.clock(board.clock_hz)
    number = build_hash(board, config, setting.hz)
    prepared = prepare(board, config, setting, build_hash=number, progress=progress)
    design, family = prepared.design, board.family
    _, linked = link(design, prepared.netlists, progress, family=family)
    ns = estimated_ns(linked, design, family)
    blocks = block_rows(netlist_resources(linked, design, family=family), design)
    found = {name: Row(count, each, ns.get(name, 0.0)) for name, count, each in blocks}
    total = sum((row.resources for row in found.values()), Resources())
    return {**found, "total": Row(1, total, max(ns.values(), default=0.0))}


def _lines() -> list[dict[str, str]]:
    if not TABLE.exists():
        return []
    return list(csv.DictReader(io.StringIO(TABLE.read_text(encoding="utf-8"))))


def _recorded(board: Board, preset: str) -> tuple[Rows, str]:
    rows, version = {}, ""
    for line in _lines():
        if (line["board"], line["preset"]) == (board.name, preset):
            version = line["yosys"]
            amounts = (int(line[key]) for key in ("comb", "ff", "dsp", "ebr"))
            each = Row(int(line["instances"]), Resources(*amounts), float(line["ns"]))
            rows[line["block"]] = each
    if not rows:
        raise BoardError(
            f"no table is recorded for {preset} on {board.name}; record it: {_how(board, preset)}"
        )
    return rows, version


def _how(board: Board, preset: str) -> str:
    return f"deepseek-host build --board {board.name} --preset {preset} --record"


def differences(found: Rows, recorded: Rows) -> list[str]:
    """Return one line for each block that is out of bounds."""
    faults = []
    for name in sorted(found.keys() | recorded.keys()):
        if name not in found:
            faults.append(f"{name} is gone")
        elif name not in recorded:
            faults.append(f"{name} is new ({found[name].resources.comb:,} COMB)")
        elif found[name].instances != recorded[name].instances:
            times = found[name].instances
            faults.append(f"{name} is there {times} times, not {recorded[name].instances}")
        else:
            new, old = found[name].resources, recorded[name].resources
            ns, recorded_ns = found[name].ns, recorded[name].ns
            if ns > recorded_ns * (1 + NS_PERCENT / 100):
                faults.append(f"{name} has a path of {ns:.1f} ns, recorded {recorded_ns:.1f}")
            for field in dataclasses.fields(Resources):
                now, then = getattr(new, field.name), getattr(old, field.name)
                bound = max(CELLS, then * PERCENT / 100) if field.name in ("comb", "ff") else 0
                if abs(now - then) > bound:
                    faults.append(f"{name} takes {now:,} {field.name.upper()}, recorded {then:,}")
    return faults


def check_resources(board: Board, preset: str, progress: Progress | None = None) -> str:
    """Synthesise a card for a board and compare it with the table; return one line of summary.

    Raises
    ------
    BoardError
        If a block is out of bounds; names all of them, and how to record the table anew.
    """
    _check_device(board)
    recorded, version = _recorded(board, preset)
    found = measure(board, preset, progress)
    if faults := differences(found, recorded):
        other = tool_version("yosys")
        remark = f" (recorded with yosys {version}, this is {other})" if version != other else ""
        raise BoardError(
            f"{preset} on {board.name} is not what {TABLE.name} says{remark}: {'; '.join(faults)}; "
            f"if that is meant, record the table anew: {_how(board, preset)}"
        )
    total, ns = found["total"].resources, found["total"].ns
    return (
        f"{preset} on {board.name}: {len(found) - 1} blocks within {PERCENT:g} % of {TABLE.name}; "
        f"{total.comb:,} COMB, {total.ff:,} FF, {total.dsp} DSP, {total.ebr} EBR; longest path "
        f"about {ns:.1f} ns before place and route"
    )


def record_resources(board: Board, preset: str, progress: Progress | None = None) -> Path:
    """Synthesise a card for a board and record the table anew; return its path."""
    found = measure(board, preset, progress)
    kept = [x for x in _lines() if (x["board"], x["preset"]) != (board.name, preset)]
    for name, each in found.items():
        key = (board.name, preset, tool_version("yosys"), name)
        row = (*key, each.instances, *each.resources.tuple, each.ns)
        kept.append(dict(zip(HEAD, map(str, row), strict=True)))
    text = io.StringIO()
    writer = csv.DictWriter(text, HEAD, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    write_whole(TABLE, text.getvalue())
    return TABLE
