"""From a board and a preset to a bitstream with its manifest and report."""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...files import cache_dir, locked, prune, write_whole
from ...rtl.config import CardConfig
from ...rtl.isa import ABI_VERSION
from ...rtl.isa.link import LINK_VERSION
from ...rtl.memory.sdram_timing import SdramTiming
from ..board import BLOCK, MEMORIES, Board, BoardError
from ..families import ClockSetting
from ..manifest import NETLIST_SUFFIX, Manifest, build_number
from . import report as reports
from .convert import Converted, convert
from .netlist import Design, split
from .place import pack, place_and_route
from .synthesis import Netlist, Resources, link, netlist_resources, synthesise
from .tools import Progress, tool_version

__all__ = ["Built", "Prepared", "build", "build_hash", "prepare"]

KEEP_DAYS = 30.0
"""How long results stay in the cache that nobody has used."""

PACKAGES = ("amaranth", "amaranth-boards")

MOST_VIRTUAL_MHZ = 1000
"""Highest clock of the virtual board, which no oscillator limits. Its register has 32 bits."""


@dataclasses.dataclass(frozen=True)
class Built:
    """What a build made.

    Parameters
    ----------
    bitstream : Path
        Its manifest and its report lie beside it.
    manifest : Manifest
    report : dict[str, object]
        See `deepseek.boards.flow.report`.
    """

    bitstream: Path
    manifest: Manifest
    report: dict[str, Any]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def tools(board: Board) -> dict[str, str]:
    """Return the versions of everything that has a say in a board's bitstream."""
    found = {"deepseek-card": _version("deepseek-card")}
    if not board.is_virtual:
        found |= {package: _version(package) for package in PACKAGES}
        found |= {name: tool_version(name) for name in ("yosys", *board.family.versions)}
    return found


def build_hash(board: Board, config: CardConfig, clock_hz: int, memory: str = BLOCK) -> int:
    """Return the build hash of a card on a board: 64 bits of a hash of the sources of RTL and
    boards, of the versions of the tools, and of the settings. The seed is not among them."""
    return build_number(
        tools=tools(board),
        board=board.name,
        baud=board.baud,
        clock_hz=clock_hz,
        memory=MEMORIES[memory],
        config=dataclasses.asdict(config),
    )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A board's design before place and route.

    Parameters
    ----------
    design : Design
    constraints : str
        Pins, and clocks if the family's file has any.
    package : str
        As nextpnr calls it.
    netlists : dict[str, Netlist]
        Its blocks after synthesis.
    """

    design: Design
    constraints: str
    package: str
    netlists: dict[str, Netlist]

    @property
    def own(self) -> dict[str, Resources]:
        """What each instance of a block takes, without the blocks inside, by its path."""
        return {path: self.netlists[block].own for path, block in self.design.instances().items()}


def prepare(
    board: Board,
    config: CardConfig,
    setting: ClockSetting,
    *,
    build_hash: int,
    sdram: SdramTiming | None = None,
    make_shell: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Convert and synthesise a board's design, block by block. ``sdram`` is what holds the card's
    memory; without it block RAM does."""
    if progress is not None:
        progress("convert", 0.0)
    platform = board.make_platform()
    family = board.family
    package = family.package(platform)
    # What a test puts in the shell's place is not among what the hash is made of.
    kept = cache_dir() / "converted" / f"{board.name}-{build_hash:016x}.json.gz"
    if make_shell is None and kept.exists():
        os.utime(kept)
        found = Converted(**json.loads(gzip.decompress(kept.read_bytes())))
    else:
        from ..shell import board_shell
        from ..top import BoardTop

        settings = {"clock_hz": setting.hz, "baud": board.baud, "build_hash": build_hash}
        if sdram is not None:
            settings["sdram"] = sdram
        shell = (make_shell or board_shell)(config, **settings)
        found = convert(BoardTop(board, shell, setting), platform, family.constraints)
        if make_shell is None:
            text = json.dumps(dataclasses.asdict(found)).encode()
            write_whole(kept, gzip.compress(text, 1))
    if progress is not None:
        progress("convert", 1.0)
    design = split(found.texts)
    netlists = synthesise(design, progress, family=family)
    return Prepared(design, found.constraints, package, netlists)


def _lock(name: str) -> Path:
    return cache_dir() / "locks" / f"{name}.lock"


def _check_memories(board: Board, config: CardConfig, memory: str) -> None:
    """Refuse at once a card whose memories alone do not fit."""
    ebr_bytes = 2048
    parts = {
        "card memory": config.memory_bytes // ebr_bytes if memory == BLOCK else 0,
        "scratchpad": config.scratchpad_bytes // ebr_bytes,
        "operands": config.rows * config.cols * -(-2 * config.operand_depth // ebr_bytes),
    }
    least = sum(parts.values())
    if least > board.capacity.ebr:
        raise BoardError(
            f"the card of preset {config.name} does not fit {board.name} ({board.device}): it "
            f"needs at least {least} of {board.capacity.ebr} EBR "
            f"({', '.join(f'{name} {number}' for name, number in parts.items())}); "
            "choose a smaller preset or a larger board"
        )


def _check_fit(board: Board, preset: str, rows: list[tuple[str, int, Resources]]) -> None:
    total = sum((row[2] for row in rows), Resources())
    over = [use for use in reports.device_use(board, total) if use.used > use.available]
    if over:
        needs = ", ".join(
            f"{use.used:,} of {use.available:,} {use.name} ({use.percent:g} %)" for use in over
        )
        key = {"COMB": "comb", "FF": "ff", "DSP": "dsp", "EBR": "ebr"}[over[0].name]
        largest = sorted(rows, key=lambda row: -getattr(row[2], key))[:5]
        blocks = ", ".join(
            f"{name}{f' x {count}' if count > 1 else ''} {getattr(found, key):,}"
            for name, count, found in largest
        )
        raise BoardError(
            f"the card of preset {preset} does not fit {board.name} ({board.device}): it needs "
            f"{needs}; its largest blocks are {blocks}; choose a smaller preset or a larger board"
        )


def _too_slow(board: Board, clock_hz: int, report: dict[str, Any], bitstream: Path) -> BoardError:
    best, seeds = report["fmax_mhz"], len(report["seeds"])
    lower = board.clock(best * 1e6).hz / 1e6
    return BoardError(
        f"the card's clock on {board.name} is to be {clock_hz / 1e6:g} MHz, but the best of "
        f"{seeds} seed{'s' if seeds > 1 else ''} reaches {best:.1f} MHz: no bitstream was written; "
        f"build it with --freq {lower:g}, or try --seeds {max(4, 2 * seeds)}; slowest path: "
        f"{report['critical_path_in_words']}; all of it is in "
        f"{bitstream.with_suffix('.report.json')}"
    )


@dataclasses.dataclass(frozen=True)
class _Implemented:
    """What came out of place and route: for the report, for the bitstream (None if the clock was
    not reached), and where the netlist lies."""

    report: dict[str, Any]
    bitstream: bytes | None = None
    netlist: Path | None = None


def _implement(
    board: Board,
    config: CardConfig,
    setting: ClockSetting,
    *,
    build_hash: int,
    sdram: SdramTiming | None,
    seeds: int,
    make_shell: Callable[..., Any] | None,
    progress: Progress | None,
) -> _Implemented:
    """Make the bitstream of a card, with the best of the seeds."""
    start = time.monotonic()
    prepared = prepare(
        board,
        config,
        setting,
        build_hash=build_hash,
        sdram=sdram,
        make_shell=make_shell,
        progress=progress,
    )
    path, linked = link(prepared.design, prepared.netlists, progress, family=board.family)
    found = netlist_resources(linked, prepared.design, family=board.family)
    rows = reports.block_rows(found, prepared.design)
    _check_fit(board, config.name, rows)
    report: dict[str, Any] = {"synthesis_seconds": round(time.monotonic() - start, 1)}
    placed = place_and_route(
        board,
        prepared.package,
        path,
        prepared.constraints,
        setting.hz,
        range(1, seeds + 1),
        progress,
    )
    report |= reports.summary(board, rows, placed, linked, prepared.design)
    if make_shell is None:
        report["peak"] = reports.peak(config, setting.hz, report["use"])
    report["seconds"] = round(time.monotonic() - start, 1)
    best = placed[0]
    if best.fmax_mhz * 1e6 < setting.hz:
        return _Implemented(report)
    if progress is not None:
        progress("pack", 0.0)
    about = f"{board.name} {config.name} {build_hash:016x} ABI {ABI_VERSION} link {LINK_VERSION}"
    bitstream = pack(board, best, build_hash=build_hash, about=about)
    if progress is not None:
        progress("pack", 1.0)
    return _Implemented(report, bitstream, best.folder / "routed.json.gz")


def build(
    board: Board,
    preset: str,
    output: Path,
    *,
    seeds: int = 1,
    freq_mhz: float | None = None,
    memory: str = BLOCK,
    netlist: bool = False,
    make_shell: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build the bitstream of a preset's card for a board.

    The bitstream is ``BOARD-PRESET.bit`` in ``output`` (or with the ending that its family has in
    place of ``.bit``), and ``BOARD-PRESET-sdram.bit`` with that memory; beside it lie its manifest
    (`Manifest.of`), and ``BOARD-PRESET.report.json`` with the report.

    Parameters
    ----------
    seeds : int
        Place and route with the seeds 1 to ``seeds``, and keep the fastest.
    freq_mhz : float, optional
        The card's clock, at least twice the board's baud; the board's default without it. The
        highest clock is taken that can be made and that is not above.
    memory : str
        What holds the card's memory: one of the board's (`Board.memories`).
    netlist : bool
        Also write ``BOARD-PRESET.netlist.json.gz``, the netlist after place and route.
    make_shell : callable
        Makes what is built instead of the `Shell`; for tests.

    Raises
    ------
    BoardError
        If an option's value is no good, a tool is missing or fails, the card does not fit, or its
        clock is not reached. What an earlier build wrote is then still there.
    """
    if seeds < 1:
        raise BoardError(f"--seeds must be 1 or more, not {seeds}")
    if freq_mhz is not None:
        _check_freq(board, freq_mhz)
    config, sdram = board.config(preset, memory), board.sdram_of(memory)
    wanted = board.clock_hz if freq_mhz is None else round(freq_mhz * 1e6)
    setting = None if board.is_virtual else board.clock(wanted)
    clock_hz = wanted if setting is None else setting.hz
    number = build_hash(board, config, clock_hz, memory)
    manifest = {
        "board": board.name,
        "device": board.device,
        "speed": board.speed,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "abi": ABI_VERSION,
        "link_version": LINK_VERSION,
        "build_hash": f"{number:016x}",
        "clock_hz": clock_hz,
        "baud": board.baud,
        "memory": MEMORIES[memory],
        "tools": tools(board),
        "seed": 0,
        "fmax_mhz": 0.0,
    }
    output.mkdir(parents=True, exist_ok=True)
    kind = "" if memory == BLOCK else f"-{memory}"
    bitstream = output / f"{board.name}-{preset}{kind}{board.suffix}"
    told = ("board", "device", "speed", "preset", "memory", "build_hash", "tools")
    report: dict[str, Any] = {name: manifest[name] for name in told}
    report |= {"clock_mhz": clock_hz / 1e6, "bitstream": str(bitstream)}
    if setting is None:
        text = json.dumps({"deepseek virtual board": 1, **manifest}, indent=2)
        made = _Implemented({}, f"{text}\n".encode())
    else:
        _check_memories(board, config, memory)
        with locked(_lock(f"{board.name}-{number:016x}"), progress):
            made = _implement(
                board,
                config,
                setting,
                build_hash=number,
                sdram=sdram,
                seeds=seeds,
                make_shell=make_shell,
                progress=progress,
            )
        for name in ("converted", "synthesis", "netlists", "routes", "locks"):
            prune(cache_dir() / name, KEEP_DAYS)
        report |= made.report
        if made.bitstream is None:
            _write_report(bitstream, {**report, "bitstream": None})
            raise _too_slow(board, clock_hz, report, bitstream)
        manifest |= {"seed": report["seed"], "fmax_mhz": report["fmax_mhz"]}
    assert made.bitstream is not None
    written = Manifest(**manifest, **Manifest.measure(made.bitstream))
    # Files of one name belong together, also where two builds write them.
    place = hashlib.sha256(os.fsencode(bitstream.resolve())).hexdigest()[:16]
    with locked(_lock(f"output-{place}"), progress):
        write_whole(bitstream, made.bitstream)
        routed = bitstream.with_suffix(NETLIST_SUFFIX)
        if netlist and made.netlist is not None:
            write_whole(routed, made.netlist.read_bytes())
        else:
            routed.unlink(missing_ok=True)
        written.write(bitstream)
        _write_report(bitstream, report)
    return Built(bitstream, written, report)


def _check_freq(board: Board, freq_mhz: float) -> None:
    least = 2 * board.baud / 1e6  # two cycles for a bit of the serial line
    most = MOST_VIRTUAL_MHZ if board.is_virtual else math.inf
    if not (least <= freq_mhz <= most and math.isfinite(freq_mhz)):
        limits = f"from {least:g} to {most:g}" if board.is_virtual else f"at least {least:g}"
        raise BoardError(f"--freq must be {limits} MHz on {board.name}, not {freq_mhz:g}")


def _write_report(bitstream: Path, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=2)
    write_whole(bitstream.with_suffix(".report.json"), f"{text}\n".encode())
