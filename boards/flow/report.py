"""What a build took of the device, and where its clock is lost, in words."""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...rtl.config import CardConfig
from ...rtl.isa import LANES
from ..board import Board
from ..families import Family
from . import timing
from .netlist import Design
from .place import Placed
from .synthesis import Resources, owner

__all__ = [
    "Use",
    "block_rows",
    "critical_path",
    "device_use",
    "estimated_ns",
    "estimates",
    "in_words",
    "label",
    "peak",
    "slowest_blocks",
    "summary",
]


def label(path: str) -> str:
    """Return what an instance is called in a report: ``compute.lane0`` for the path
    ``shell.card.compute.lane0.instance``."""
    path = re.sub(r"\.instance(?=\.|$)", "", path)
    if path in ("", "shell", "shell.card"):
        return {"": "board", "shell": "shell", "shell.card": "card"}[path]
    return path.removeprefix("shell.").removeprefix("card.")


def _groups(design: Design) -> dict[str, list[str]]:
    """Return the instances of every block, by what it is called in a report."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for path, block in design.instances().items():
        groups[block].append(path)
    return {label(paths[0]) if len(paths) == 1 else block: paths for block, paths in groups.items()}


def block_rows(
    resources: Mapping[str, Resources], design: Design
) -> list[tuple[str, int, Resources]]:
    """Return name, number of instances and resources of all of these for every block, the
    largest first. ``resources`` is by the instances' paths."""
    rows = [
        (name, len(paths), sum((resources[path] for path in paths), Resources()))
        for name, paths in _groups(design).items()
    ]
    return sorted(rows, key=lambda row: (-row[2].comb, row[0]))


class _Names:
    """Names of a linked netlist for people."""

    def __init__(
        self, netlist: Mapping[str, Any], design: Design, kinds: Mapping[str, str]
    ) -> None:
        self.kinds = kinds
        module = netlist["modules"][design.top]
        self.cells = module["cells"]
        self.paths = design.instances()
        self.nets: dict[int, str] = {}
        for name, net in module["netnames"].items():
            for place, bit in enumerate(net["bits"]):
                if "$" in name and bit in self.nets:
                    continue
                self.nets[bit] = f"{name}[{place}]" if len(net["bits"]) > 1 else name

    def known(self, cell: str) -> str:
        """The netlist's name of a cell that nextpnr made a part of."""
        while cell not in self.cells and "$" in cell:
            cell = cell.rpartition("$")[0]
        return cell

    def kind(self, cell: str) -> str:
        found = self.cells.get(self.known(cell))
        return self.kinds.get(found["type"], found["type"]) if found else "cell"

    def block(self, cell: str) -> str:
        return label(owner(cell, self.paths))

    def register(self, cell: str, port: str) -> str:
        """Block and signal of where a path begins or ends."""
        found = self.cells.get(self.known(cell))
        path = owner(cell, self.paths)
        kind = self.kind(cell)
        if found is None or kind != "register":
            return f"{kind} in {label(path)}"
        name = self.nets.get(next(iter(found["connections"]["Q"]), -1), "")
        name = name.removeprefix(f"{path}.") if path else name
        return f"{label(path)}: {name}"


def critical_path(
    report: Mapping[str, Any],
    netlist: Mapping[str, Any],
    design: Design,
    kinds: Mapping[str, str],
) -> dict[str, Any]:
    """Describe the slowest path from register to register, of one clock or from one to another.

    Parameters
    ----------
    kinds : Mapping[str, str]
        Of the family's cells (`deepseek.boards.families.Family`).

    Returns
    -------
    dict
        ``start`` and ``end`` (block and signal), ``ns``, ``logic_ns``, ``routing_ns``, and
        ``hops``: for each block that it passes, in order, ``block``, ``through`` (numbers of cells
        by kind), ``logic_ns`` and ``routing_ns`` (of the wires that end there). Empty if there is
        none.
    """
    names = _Names(netlist, design, kinds)
    paths = [
        path["path"]
        for path in report["critical_paths"]
        if "async" not in path["from"] + path["to"]
    ]
    if not paths:
        return {}
    path = max(paths, key=lambda steps: sum(step["delay"] for step in steps))
    hops: list[dict[str, Any]] = []
    passed = set()
    for step in path:
        cell = step["to"]["cell"]
        block = names.block(cell)
        if not hops or hops[-1]["block"] != block:
            hops.append({"block": block, "through": {}, "logic_ns": 0.0, "routing_ns": 0.0})
        routing = step["type"] == "routing"
        hops[-1]["routing_ns" if routing else "logic_ns"] += step["delay"]
        known = names.known(cell)
        if step["type"] == "logic" and known not in passed:
            passed.add(known)
            through = hops[-1]["through"]
            through[names.kind(cell)] = through.get(names.kind(cell), 0) + 1
    logic = sum(hop["logic_ns"] for hop in hops)
    routing_ns = sum(hop["routing_ns"] for hop in hops)
    for hop in hops:
        hop.update(logic_ns=round(hop["logic_ns"], 2), routing_ns=round(hop["routing_ns"], 2))
    first, last = path[0]["from"], path[-1]["to"]
    return {
        "start": names.register(first["cell"], first["port"]),
        "end": names.register(last["cell"], last["port"]),
        "ns": round(logic + routing_ns, 2),
        "logic_ns": round(logic, 2),
        "routing_ns": round(routing_ns, 2),
        "hops": hops,
    }


def in_words(path: Mapping[str, Any]) -> str:
    """Return a critical path as one sentence."""
    if not path:
        return "no path from register to register"
    hops = []
    for hop in path["hops"]:
        cells = ", ".join(
            f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in hop["through"].items()
        )
        if cells:
            hops.append(f"{cells} of {hop['block']}")
    return (
        f"{path['ns']} ns ({path['logic_ns']} logic, {path['routing_ns']} routing): from "
        f"{path['start']} through {', then '.join(hops) or 'wires'} to {path['end']}"
    )


def slowest_blocks(
    report: Mapping[str, Any], design: Design, longest: float
) -> list[tuple[str, float, str]]:
    """Return, for every block at whose registers paths end, the longest of these paths in ns
    and the block whose cell comes last before the register; the slowest first.

    Parameters
    ----------
    longest : float
        The critical path in ns: what is longer than that comes from a pin, not from a register.
    """
    paths = design.instances()
    worst: dict[str, tuple[float, str]] = {}
    for net in report.get("detailed_net_timings", ()):
        source = label(owner(net["driver"], paths))
        for end in net["endpoints"]:
            ns = end["delay"][1]
            if "async" in net["event"] + end["event"] or ns > longest + 0.05:
                continue
            block = label(owner(end["cell"], paths))
            worst[block] = max(worst.get(block, (0.0, "")), (ns, source))
    rows = [(block, round(ns, 2), source) for block, (ns, source) in worst.items()]
    return sorted(rows, key=lambda row: -row[1])


def _module(cell: str) -> str:
    """Return the module that a cell of a linked netlist is from, as far as its name tells."""
    parts = cell.replace("$flatten", "").replace("\\", "").split(".")[:-1]
    known = next((n for n, part in enumerate(parts) if "$" in part), len(parts))
    return label(".".join(parts[:known]))


def estimates(
    netlist: Mapping[str, Any], design: Design, family: Family
) -> tuple[list[timing.Path], list[str]]:
    """Return the longest paths between modules as they are guessed before place and route, the
    slowest first, and a line for each of them.

    Empty for a family whose cells' delays are not known.
    """
    cells = netlist["modules"][design.top]["cells"]
    paths = timing.estimate(cells, family.arcs, _module)
    names = _Names(netlist, design, family.kinds)
    lines = []
    for path in paths:
        first, last = path.cells[0], path.cells[-1]
        through: list[str] = []
        for cell in path.cells[1:-1]:
            module = _module(cell)
            if not through or through[-1] != module:
                through.append(module)
        way = " > ".join([names.register(first, ""), *through, names.register(last, "")])
        lines.append(f"{path.ns:.1f} ns, {len(path.cells) - 2} cells: {way}.{path.end}")
    return paths, lines


def estimated_ns(netlist: Mapping[str, Any], design: Design, family: Family) -> dict[str, float]:
    """Return, for every block of `block_rows`, the longest path that ends in it as it is guessed
    before place and route, in ns. What has none is not there."""
    paths = design.instances()
    names = {path: name for name, members in _groups(design).items() for path in members}
    cells = netlist["modules"][design.top]["cells"]

    def group(cell: str) -> str:
        return names[owner(cell, paths)]

    return timing.longest(timing.estimate(cells, family.arcs, group), group)


@dataclasses.dataclass(frozen=True)
class Use:
    """How much of one kind of cell a design takes."""

    name: str
    used: int
    available: int

    @property
    def percent(self) -> float:
        return round(100 * self.used / self.available, 1)


def device_use(board: Board, total: Resources) -> list[Use]:
    """Return the use of a board's device."""
    device = board.capacity
    return [
        Use("COMB", total.comb, device.comb),
        Use("FF", total.ff, device.ff),
        Use("DSP", total.dsp, device.dsp),
        Use("EBR", total.ebr, device.ebr),
    ]


def peak(config: CardConfig, clock_hz: int, use: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return what a card multiplies at most, by the names of its modes.

    Parameters
    ----------
    use : Mapping
        Of the device, as in `summary`.

    Returns
    -------
    dict
        ``gmacs``, 1e9 multiply-accumulates a second; of these ``per_kcomb``, for every 1000 COMB,
        and ``per_dsp``.
    """
    found = {}
    for mode, lanes in LANES.items():
        gmacs = config.rows * config.cols * lanes * clock_hz / 1e9
        found[mode.name.lower()] = {
            "gmacs": round(gmacs, 4),
            "per_kcomb": round(1e3 * gmacs / use["COMB"]["used"], 4),
            "per_dsp": round(gmacs / use["DSP"]["used"], 4),
        }
    return found


def summary(
    board: Board,
    rows: Sequence[tuple[str, int, Resources]],
    placed: Sequence[Placed],
    netlist: Mapping[str, Any],
    design: Design,
) -> dict[str, Any]:
    """Return what there is to say of a placed design, ready for JSON.

    Parameters
    ----------
    rows : list
        From `block_rows`.
    placed : list
        The seeds, the fastest first; the report is about that one.

    Returns
    -------
    dict
        ``fmax_mhz``, ``seed``, ``seeds`` (MHz by seed), ``use`` (of the device), ``blocks``,
        ``critical_path`` (see there), ``critical_path_in_words``, and ``slowest``: the longest
        path to each block.
    """
    routed = placed[0].report
    path = critical_path(routed, netlist, design, board.family.kinds)
    total = sum((resources for _, _, resources in rows), Resources())
    return {
        "fmax_mhz": round(placed[0].fmax_mhz, 2),
        "seed": placed[0].seed,
        "seeds": {str(x.seed): round(x.fmax_mhz, 2) for x in placed},
        "use": {
            use.name: {"used": use.used, "of": use.available, "percent": use.percent}
            for use in device_use(board, total)
        },
        "blocks": [
            {"block": name, "instances": count, **dataclasses.asdict(resources)}
            for name, count, resources in rows
        ],
        "critical_path": path,
        "critical_path_in_words": in_words(path),
        "slowest": [
            {"block": name, "ns": ns, "from": source}
            for name, ns, source in slowest_blocks(routed, design, path.get("ns", 0.0))
        ],
    }
