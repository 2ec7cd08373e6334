"""yosys, block by block, and the blocks made one netlist."""

import collections
import dataclasses
import functools
import gzip
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ..families import ECP5, Family, Resources
from .netlist import BLOCK, Block, Design
from .tools import Processes, Progress, ToolFailure, cache_dir, tool_version, write_whole

__all__ = [
    "WORKERS",
    "Netlist",
    "Resources",
    "link",
    "netlist_resources",
    "owner",
    "synthesise",
]

WORKERS = 2
"""Tools that run at a time. Each takes up to 2 GB."""

CELL = re.compile(r"^  cell (\S+) \S+\n((?:    parameter [^\n]*\n)*)", re.M)
WIDTH = re.compile(r"parameter \\WIDTH (\S+)")


@dataclasses.dataclass(frozen=True)
class Netlist:
    """A block after synthesis.

    Parameters
    ----------
    text : str
        RTLIL of the block's module only, as `Block.text` calls things.
    own : Resources
        Without the blocks inside.
    """

    text: str
    own: Resources


def _resources(text: str, family: Family) -> Resources:
    """Count the cells of a module whose look-up tables are not cells yet."""
    cells: collections.Counter[str] = collections.Counter()
    for kind, parameters in CELL.findall(text):
        if kind == "$lut":
            width = WIDTH.search(parameters)
            assert width is not None
            # Five inputs are two tables of four and a multiplexer beside them, and so on.
            cells["LUT4"] += 1 << max(0, _number(width.group(1)) - 4)
        else:
            cells[kind.lstrip("\\")] += 1
    return family.count(cells)


def _number(text: str) -> int:
    _, quote, bits = text.partition("'")
    return int(bits, 2) if quote else int(text)


def _key(block: Block, family: Family) -> str:
    script = family.synthesis + "".join(family.files.values())
    content = f"{tool_version('yosys')}\n{script}\n{block.text}"
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _module(text: str, name: str) -> str:
    start = text.index(f"\nmodule \\{name}\n") + 1
    return text[start : text.index("\nend\n", start) + 5]


def _write(folder: Path, script: str, text: str, family: Family) -> None:
    (folder / "in.il").write_text(text)
    (folder / "flow.ys").write_text(script)
    for name, content in family.files.items():
        (folder / name).write_text(content)


def _synthesise(block: Block, path: Path, processes: Processes, family: Family) -> str:
    if path.exists():
        os.utime(path)
        return gzip.decompress(path.read_bytes()).decode()
    with tempfile.TemporaryDirectory(prefix="synthesis-") as name:
        folder = Path(name)
        _write(folder, family.synthesis, block.text, family)
        try:
            processes.run("yosys", ["-q", "-l", "log", "flow.ys"], folder, log="log")
        except ToolFailure as error:
            raise ToolFailure(f"block {block.name}: {error}", error.log) from None
        text = _module((folder / "out.il").read_text(), BLOCK)
    write_whole(path, gzip.compress(text.encode(), 1))
    return text


def synthesise(
    design: Design, progress: Progress | None = None, *, family: Family = ECP5
) -> dict[str, Netlist]:
    """Synthesise the blocks of a design, those whose text is known from the cache.

    Raises
    ------
    ToolFailure
        If yosys refuses a block; names it.
    """
    folder = cache_dir() / "synthesis"
    # Blocks of equal text are synthesised once.
    paths = {name: folder / f"{_key(block, family)}.il.gz" for name, block in design.blocks.items()}
    first = {path: design.blocks[name] for name, path in reversed(list(paths.items()))}
    weights = {path: 1 if path.exists() else len(block.text) for path, block in first.items()}
    texts: dict[Path, str] = {}
    done = 0
    # The longest first: two at a time end together then.
    queue = sorted(first, key=lambda path: -weights[path])
    with ThreadPoolExecutor(WORKERS) as pool, Processes() as processes:
        waiting = {
            pool.submit(_synthesise, first[path], path, processes, family): path for path in queue
        }
        for future in as_completed(waiting):
            path = waiting[future]
            texts[path] = future.result()
            done += weights[path]
            if progress is not None:
                progress("synthesise", done / sum(weights.values()))
    return {
        name: Netlist(texts[path], _resources(texts[path], family)) for name, path in paths.items()
    }


def _renamed(names: Mapping[str, str], match: re.Match[str]) -> str:
    return match[1] + names.get(match[2], match[2])


def _linked(design: Design, netlists: Mapping[str, Netlist]) -> str:
    """Return the text of all blocks under their own names."""
    texts = []
    for name, block in design.blocks.items():
        names = {f"\\{BLOCK}": f"\\{name}"}
        names |= {f"\\{local}": f"\\{other}" for local, other in block.outer.items()}
        netlist = netlists[name].text
        found = re.compile(r"^(module |  cell )(\\\S+)", re.M)
        texts.append(found.sub(functools.partial(_renamed, names), netlist))
    return "".join(texts)


def link(
    design: Design,
    netlists: Mapping[str, Netlist],
    progress: Progress | None = None,
    *,
    family: Family = ECP5,
) -> tuple[Path, dict[str, Any]]:
    """Make one netlist of the blocks; return the file (gzip of JSON) and what is in it.

    Raises
    ------
    ToolFailure
        If something has no driver or several, or a cell is unknown.
    """
    text = _linked(design, netlists)
    script = family.link.replace("TOP", design.top)
    key = hashlib.sha256(f"{tool_version('yosys')}\n{script}\n{text}".encode()).hexdigest()[:24]
    path = cache_dir() / "netlists" / f"{key}.json.gz"
    if progress is not None:
        progress("link", 0.0)
    if path.exists():
        os.utime(path)
        netlist = json.loads(gzip.decompress(path.read_bytes()))
    else:
        with tempfile.TemporaryDirectory(prefix="link-") as name, Processes() as processes:
            folder = Path(name)
            _write(folder, script, text, family)
            processes.run("yosys", ["-q", "-l", "log", "flow.ys"], folder, log="log")
            netlist = json.loads((folder / "out.json").read_text())
        # The models of the device's cells are not wanted.
        netlist["modules"] = {design.top: netlist["modules"][design.top]}
        _check(netlist["modules"][design.top], design)
        write_whole(path, gzip.compress(json.dumps(netlist).encode(), 1))
    if progress is not None:
        progress("link", 1.0)
    return path, netlist


def _check(module: Mapping[str, Any], design: Design) -> None:
    """Refuse a netlist with cells that are none of the device's, or nets with two drivers."""
    left = {
        cell["type"]
        for cell in module["cells"].values()
        if cell["type"].startswith("$") or cell["type"] in design.blocks
    }
    if left:
        raise ToolFailure(f"the netlist still has cells {', '.join(sorted(left))}")
    driven = collections.Counter(
        bit
        for cell in module["cells"].values()
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "output"
        for bit in bits
        if not isinstance(bit, str)
    )
    driven.update(
        bit
        for port in module["ports"].values()
        if port["direction"] == "input"
        for bit in port["bits"]
    )
    several = {bit for bit, drivers in driven.items() if drivers > 1}
    used = {
        bit
        for cell in module["cells"].values()
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "input"
        for bit in bits
        if not isinstance(bit, str)
    }
    io = {bit for port in module["ports"].values() for bit in port["bits"]}
    for bits, fault in ((several, "has several drivers"), (used - set(driven) - io, "has none")):
        if bits:
            names = sorted(
                name for name, net in module["netnames"].items() if bits & set(net["bits"])
            )
            raise ToolFailure(
                f"the netlist is wrong: net {names[0]} and {len(bits) - 1} more: each {fault}"
            )


def netlist_resources(
    netlist: Mapping[str, Any], design: Design, *, family: Family = ECP5
) -> dict[str, Resources]:
    """Return what the instances of blocks take in a linked netlist, by their path (the top's is
    empty), without the blocks inside."""
    paths = design.instances()
    cells: dict[str, collections.Counter[str]] = {path: collections.Counter() for path in paths}
    for name, cell in netlist["modules"][design.top]["cells"].items():
        cells[owner(name, paths)][cell["type"]] += 1
    return {path: family.count(counter) for path, counter in cells.items()}


def owner(name: str, paths: Mapping[str, Any]) -> str:
    """Return the path of the instance that a cell or net of a linked netlist belongs to."""
    name = name.removeprefix("$flatten").lstrip("\\")
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:length]).replace("\\", "")
        if path in paths:
            return path
    return ""
