"""Place and route, and packing: from the netlist to the bitstream."""

import dataclasses
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TextIO

from ...files import cache_dir
from ..board import Board, BoardError
from ..families import Family
from .synthesis import WORKERS
from .tools import LONG_QUIET_S, Processes, Progress, Silent, ToolFailure, tool_version

__all__ = ["Placed", "pack", "place_and_route", "reached_mhz"]

MOST_STEPS = 1000
"""Steps of the static placer, which knows no limit itself. Whole cards take 570 to 590."""


QUIET_S = 1200.0
"""How long a placer may print nothing that another one can stand in for. Of a whole card the
static one does for less than two minutes, but it may look for legal places for ever."""


class Unsettled(ToolFailure):
    """A placer does not come to an end."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """A placed and routed design.

    Parameters
    ----------
    seed : int
    fmax_mhz : float
        Clock that it reaches.
    folder : Path
        Has of nextpnr ``report.json``, ``log``, ``routed.json.gz`` (the netlist with its places),
        and what else the family's packer takes.
    """

    seed: int
    fmax_mhz: float
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """What nextpnr says of timing and use of the device."""
        return json.loads((self.folder / "report.json").read_text())


class _Listener:
    """Guesses from nextpnr's lines how far it is, with any of its placers and routers; raises
    `Unsettled` where that is nowhere. Writes them to ``log``, line by line."""

    SPREAD, PLACED = 0.25, 0.5

    def __init__(self, phase: str, progress: Progress | None) -> None:
        self.phase, self.progress = phase, progress
        self.log: TextIO | None = None
        self.most = self.fraction = 0.0  # the most that was to be routed

    def __call__(self, line: str) -> None:
        if self.log is not None:
            self.log.write(line)
        fraction = self.fraction
        if (match := re.search(r"iter=(\d+) steplen", line)) and int(match[1]) > MOST_STEPS:
            raise Unsettled(f"the placer found no end in {MOST_STEPS} steps")
        if match := re.search(r"overlap: COMB=([\d.]+)%", line):
            fraction = max(fraction, self.SPREAD * (1 - float(match[1]) / 100))
        elif re.search(r"at iteration #\d+(, type|: temp)", line):
            fraction += (self.PLACED - fraction) / 20
        elif match := re.search(
            r"Routing (\d+) arcs|overused=(\d+)|\d+ \| +\d+ +\d+ \| +\d+ +\d+ \| +(\d+)\|", line
        ):
            left = float(next(filter(None, match.groups())))
            self.most = max(self.most, left)
            # It is halved again and again.
            done = 1 - math.log1p(left) / math.log1p(self.most) if self.most else 1.0
            fraction = max(fraction, self.PLACED + (1 - self.PLACED) * done)
        if fraction != self.fraction and self.progress is not None:
            self.progress(self.phase, fraction)
        self.fraction = fraction


def _anchored(board: Board, netlist: Path) -> bytes:
    """Return the text of a netlist with the places that cells of it are given."""
    design = json.loads(gzip.decompress(netlist.read_bytes()))
    for module in design["modules"].values():
        for name, place in board.family.places(board.device, module["cells"]).items():
            module["cells"][name]["attributes"]["BEL"] = place
    return json.dumps(design).encode()


def _route(
    family: Family,
    netlist: bytes,
    constraints: str,
    arguments: list[str],
    seed: int,
    processes: Processes,
    progress: Progress | None,
) -> Placed:
    version = tool_version(family.route_tool)
    digest = hashlib.sha256(f"{version} {family.placers} {arguments} {constraints}".encode())
    digest.update(netlist)
    done = cache_dir() / "routes" / digest.hexdigest()[:24]
    phase = f"place and route, seed {seed}"
    if done.exists():
        os.utime(done)
    else:
        done.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=done.parent, prefix="partial-") as name:
            folder = Path(name)
            (folder / "in.json").write_bytes(netlist)
            (folder / f"in.{family.constraints}").write_text(constraints)
            if progress is not None:
                progress(phase, 0.0)
            listener = _Listener(phase, progress)
            for placer in family.placers:
                options = [*arguments, "--placer", placer]
                last = placer == family.placers[-1]
                quiet_s = LONG_QUIET_S if last else QUIET_S
                try:
                    with (folder / "log").open("w", buffering=1) as listener.log:
                        processes.run(
                            family.route_tool, options, folder, heard=listener, quiet_s=quiet_s
                        )
                    break
                except ToolFailure as error:
                    if last or not isinstance(error, Unsettled | Silent):
                        raise ToolFailure(f"seed {seed}: {error}", error.log) from None
            (folder / "in.json").unlink()
            routed = folder / "routed.json"
            with routed.open("rb") as source, gzip.open(f"{routed}.gz", "wb", 1) as target:
                shutil.copyfileobj(source, target)
            routed.unlink()
            try:
                folder.rename(done)
            except OSError:  # another build has just done the same
                if not done.exists():
                    raise
    if progress is not None:
        progress(phase, 1.0)
    return Placed(seed, reached_mhz(json.loads((done / "report.json").read_text())), done)


def reached_mhz(report: Mapping[str, Any]) -> float:
    """Return the clock that all paths between registers allow, 0.0 if there are none.

    nextpnr knows each clock's own paths. Those from one clock to another it only lists: here all
    clocks come of one and have its edges (`deepseek.rtl.tech.clock_gate`), so they have a cycle as
    well, and half a one to the other edge.

    Parameters
    ----------
    report : Mapping
        nextpnr's.
    """
    clocks = [entry["achieved"] for entry in report["fmax"].values()]
    for path in report["critical_paths"]:
        ends = [path[end].partition(" ") for end in ("from", "to")]
        (edge, _, clock), (other_edge, _, other) = ends
        if not clock or not other or clock == other:
            continue  # from or to a pin, or counted already
        ns = sum(step["delay"] for step in path["path"])
        clocks.append(1e3 / (ns if edge == other_edge else 2 * ns))
    return min(clocks, default=0.0)


def place_and_route(
    board: Board,
    package: str,
    netlist: Path,
    constraints: str,
    clock_hz: int,
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> list[Placed]:
    """Place and route a netlist once for each seed; the fastest comes first.

    Parameters
    ----------
    package : str
        As nextpnr calls it.
    netlist : Path
        Made by `deepseek.boards.flow.synthesis.link`.
    constraints : str
        Pins, and clocks if the family's file has any.

    Raises
    ------
    BoardError
        If it fails for all of the seeds; the message has nextpnr's reason.
    """
    found, failures = [], []
    anchored = _anchored(board, netlist)
    with ThreadPoolExecutor(WORKERS) as pool, Processes() as processes:
        waiting = [
            pool.submit(
                _route,
                board.family,
                anchored,
                constraints,
                board.family.route(board, package, clock_hz, seed),
                seed,
                processes,
                progress,
            )
            for seed in seeds
        ]
        for future in as_completed(waiting):
            try:
                found.append(future.result())
            except ToolFailure as error:
                failures.append(error)
    if not found:
        raise BoardError(
            f"{failures[0]}; try other seeds (--seeds {len(seeds) + 3}), or a smaller card"
        )
    return sorted(found, key=lambda placed: (-placed.fmax_mhz, placed.seed))


def pack(board: Board, placed: Placed, *, build_hash: int, about: str) -> bytes:
    """Return the bitstream of a placed design.

    Parameters
    ----------
    build_hash : int
        Its lower 32 bits become the device's USERCODE, if it has one for them.
    about : str
        One line for the bitstream's header.
    """
    with tempfile.TemporaryDirectory(prefix="pack-") as name, Processes() as processes:
        folder = Path(name)
        family = board.family

        def run(arguments: Sequence[str]) -> str:
            return processes.run(family.pack_tool, arguments, folder)

        return family.pack(board, run, placed.folder, folder, build_hash=build_hash, about=about)
