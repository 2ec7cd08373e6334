"""Transports: the functional simulator, the Verilated card, and boards."""

from pathlib import Path

from ...rtl.config import CardConfig
from .base import Progress, SetupError, ToolCheck, Transport
from .line import LinkError, LinkStatistics

__all__ = [
    "BACKENDS",
    "SIMULATED",
    "LinkError",
    "LinkStatistics",
    "Progress",
    "SetupError",
    "ToolCheck",
    "Transport",
    "board_preset",
    "check_tools",
    "check_without_bitstream",
    "open_transport",
]

SIMULATED = ("rtl", "functional")
BACKENDS = (*SIMULATED, "board")


def open_transport(
    backend: str,
    config: CardConfig | None = None,
    *,
    waves: Path | None = None,
    progress: Progress | None = None,
    bitstream: Path | None = None,
    board: str | None = None,
    port: str | None = None,
    load: bool = True,
    netlist: bool = False,
) -> Transport:
    """Open the card ``backend``.

    Parameters
    ----------
    config : CardConfig
        Of a simulated card. What a board's card is, its bitstream's manifest says.
    waves : Path
        Write the waves of every signal there; only the rtl backend has waves.
    progress : callable
        Hears of the build of the Verilated card, and of the loading of a board.
    bitstream, board, port, load, netlist
        Of the backend ``"board"``: `serial.open_board`.

    Raises
    ------
    ValueError
        If the backend is unknown, has no waves, or takes no such argument; says which ones there
        are.
    """
    if backend == "board":
        if waves is not None:
            raise ValueError("the board backend has no waves; use --backend rtl")
        if bitstream is None:
            raise ValueError(
                "the board backend needs a bitstream: --bitstream FILE; build one with: "
                "deepseek-host build --board BOARD"
            )
        from .serial import open_board

        return open_board(
            bitstream, board=board, port=port, load_it=load, netlist=netlist, progress=progress
        )
    if bitstream is not None:
        raise ValueError(f"bitstreams are for a board, not for {backend!r}")
    check_without_bitstream(board=board, port=port, load=load, netlist=netlist)
    if config is None:
        raise ValueError("a simulated card needs a configuration")
    # Simulators are imported only when they are opened: the driver does not depend on them.
    if backend == "rtl":
        from .rtl import RtlTransport

        return RtlTransport(config, waves=waves, progress=progress)
    if backend == "functional":
        if waves is not None:
            raise ValueError("the functional backend has no waves; use --backend rtl")
        from .functional import FunctionalTransport

        return FunctionalTransport(config)
    raise ValueError(f"no backend {backend!r}; choose one of: {', '.join(BACKENDS)}")


def check_without_bitstream(
    *, board: str | None, port: str | None, load: bool = True, netlist: bool = False
) -> None:
    """Refuse what goes with a bitstream only, where there is none.

    Raises
    ------
    ValueError
        If one of the arguments (`open_transport`) is given; names its option.
    """
    from ...boards import board as find_board

    if board is not None:
        find_board(board)
    given = {
        "--board": board is not None,
        "--port": port is not None,
        "--no-load": not load,
        "--netlist": netlist,
    }
    build = "--board ulx3s --netlist" if netlist else f"--board {board or 'virtual'}"
    for option, is_given in given.items():
        if is_given:
            raise ValueError(
                f"{option} needs a bitstream: add --bitstream FILE; build one with: "
                f"deepseek-host build {build}"
            )


def board_preset(bitstream: Path) -> str:
    """Return the name of the preset that a bitstream's card was made of.

    Raises
    ------
    ValueError
        If there is no such bitstream, or it is damaged, or has no manifest.
    """
    from ...boards.manifest import Manifest

    return Manifest.of(bitstream).preset


def check_tools(progress: Progress | None = None) -> list[ToolCheck]:
    """Look for the tools that the rtl backend and boards need, and build and run a small module."""
    from .rtl import check_tools as check_rtl
    from .serial import check_tools as check_board

    *tools, built = check_rtl(progress)
    return [*tools, *check_board(), built]
