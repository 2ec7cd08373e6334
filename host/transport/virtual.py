"""The virtual board: a bitstream's card simulated behind a pseudo-terminal, from the RTL or from
the netlist that was placed and routed."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from ...boards import board as find_board
from ...boards.board import MEMORIES, SDRAM
from ...boards.manifest import NETLIST_SUFFIX, Manifest
from .base import Progress, SetupError

if TYPE_CHECKING:
    from ...boards.board import SdramTiming
    from ...sim.netlist.board import BoardPins
    from ...sim.verilated.board import VirtualBoard

__all__ = ["netlist_path", "open_virtual"]

_MODELLED = "LFE5U"
"""What the names of devices begin with whose cells have models."""


def netlist_path(bitstream: Path) -> Path:
    """Return where the netlist of a bitstream lies: ``card.bit`` has ``card.netlist.json.gz``."""
    return bitstream.with_suffix(NETLIST_SUFFIX)


def open_virtual(
    bitstream: Path, manifest: Manifest, *, netlist: bool = False, progress: Progress | None = None
) -> tuple[str, contextlib.ExitStack]:
    """Power a virtual board with the card of a bitstream.

    Parameters
    ----------
    netlist : bool
        Simulate the netlist that lies beside the bitstream, and not today's RTL.

    Returns
    -------
    str, ExitStack
        The board's port, and what switches it off.

    Raises
    ------
    ManifestError
        If the RTL is not what the bitstream was built of.
    SetupError
        If there is no netlist or it is of no use, or the simulation cannot be built.
    """
    from ...sim.netlist.writer import NetlistError
    from ...sim.verilated.toolchain import ToolError

    stack = contextlib.ExitStack()
    try:
        if netlist:
            virtual = _netlist(bitstream, manifest, progress)
        else:
            manifest.check_sources(bitstream)
            virtual = _rtl(manifest, progress)
    except (NetlistError, ToolError) as error:
        raise SetupError(str(error)) from error
    return stack.enter_context(virtual).port, stack


def _rtl(manifest: Manifest, progress: Progress | None) -> "VirtualBoard":
    from ...sim.verilated.board import VirtualBoard

    return VirtualBoard(
        manifest.card,
        build_hash=manifest.build,
        clock_hz=manifest.clock_hz,
        baud=manifest.baud,
        sdram=_sdram(manifest),
        progress=progress,
    )


def _sdram(manifest: Manifest) -> "SdramTiming | None":
    """Return the chip that holds the card's memory, if one does."""
    return find_board(manifest.board).sdram if manifest.memory == MEMORIES[SDRAM] else None


def _netlist(bitstream: Path, manifest: Manifest, progress: Progress | None) -> "VirtualBoard":
    from ...sim.netlist.board import netlist_design
    from ...sim.verilated.board import VirtualBoard

    path = netlist_path(bitstream)
    build = f"deepseek-host build --board {manifest.board} --preset {manifest.preset} --netlist"
    if find_board(manifest.board).is_virtual:
        raise SetupError(
            f"{bitstream.name} is for the virtual board, which has no netlist; next: leave "
            "--netlist out, or build a bitstream for another board with: deepseek-host build "
            "--board BOARD --netlist"
        )
    if not manifest.device.startswith(_MODELLED):
        raise SetupError(
            f"the netlist of {bitstream.name} cannot be simulated: it is of a {manifest.device}, "
            "and there are models for the cells of ECP5 only; next: leave --netlist out"
        )
    if not path.is_file():
        raise SetupError(
            f"{bitstream.name} has no netlist {path.name} beside it; next: copy it from where the "
            f"bitstream was built, or build it again, with: {build}"
        )
    return VirtualBoard(
        manifest.card,
        build_hash=manifest.build,
        clock_hz=manifest.clock_hz,
        baud=manifest.baud,
        progress=progress,
        design=netlist_design(
            path,
            _pins(manifest.board),
            clock_hz=manifest.clock_hz,
            sdram=_sdram(manifest),
            progress=progress,
        ),
    )


def _pins(name: str) -> "BoardPins":
    """Return what Amaranth calls the pins of a board's top."""
    from ...sim.netlist.board import BoardPins

    board = find_board(name)
    led = board.leds.get("running")
    chip = ("clk", "clk_en", "cs", "ras", "cas", "we", "ba", "a", "dqm", "dq")
    return BoardPins(
        clock=_port(board.oscillator, 0),
        rx=_port(*board.uart, "rx"),
        tx=_port(*board.uart, "tx"),
        running=_port(*led) if led is not None else None,
        sdram={pin: _port("sdram", 0, pin) for pin in chip},
    )


def _port(resource: str, number: int, *part: str) -> str:
    return "__".join((f"{resource}_{number}", *part, "io"))
