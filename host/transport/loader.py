"""Put a bitstream on a board, with openFPGALoader."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from ...boards import board as find_board
from .base import SetupError, ToolCheck

__all__ = ["BoardLoading", "board_loading", "check_loader", "load"]

LOADER = "openFPGALoader"
LOADER_VARIABLE = "OPENFPGALOADER"
LOAD_S = 180.0
"""Seconds that loading may take."""

_INSTALL = "install it (Debian: apt install openfpgaloader; others: trabucayre.github.io)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoardLoading:
    """How a board is reached from a computer.

    Parameters
    ----------
    name : str
        The project's name of the board.
    loader : str
        openFPGALoader's name of it.
    usb : tuple of (int, int)
        Vendor and product of the USB device that is its serial port; none: an adapter, any will do.
    interface : int or None
        Which interface of that device is the serial port, if the others are something else.
    """

    name: str
    loader: str
    usb: tuple[tuple[int, int], ...] = ()
    interface: int | None = None


_FTDI = 0x0403
_PORTS: dict[str, tuple[tuple[tuple[int, int], ...], int | None]] = {
    "ulx3s": (((_FTDI, 0x6015),), None),
    "ecpix5": (((_FTDI, 0x6010), (_FTDI, 0x6011)), 1),
    "tangmega": (((_FTDI, 0x6010),), 1),
}
"""USB devices and interface of the serial port; a board that is not here takes an adapter."""


def board_loading(board: str) -> BoardLoading:
    """Return how the board called so is reached; raise ValueError if there is none."""
    usb, interface = _PORTS.get(board, ((), None))
    return BoardLoading(
        name=board, loader=find_board(board).programmer, usb=usb, interface=interface
    )


def _tool() -> str | None:
    return shutil.which(os.environ.get(LOADER_VARIABLE) or LOADER)


def check_loader() -> ToolCheck:
    """Look for openFPGALoader."""
    tool = _tool()
    if tool is None:
        detail = f"not found; to run on a board, {_INSTALL}"
        return ToolCheck(name=LOADER, ok=False, required=False, detail=detail)
    return ToolCheck(name=LOADER, ok=True, required=False, detail=tool)


def load(board: BoardLoading, bitstream: Path, *, usb_serial: str | None = None) -> None:
    """Load a bitstream into the board's FPGA, until its power goes.

    Parameters
    ----------
    usb_serial : str
        Serial number of the USB device, where there may be several boards.

    Raises
    ------
    SetupError
        If there is no loader or it fails: what it said, and what to do.
    """
    tool = _tool()
    if tool is None:
        wanted = os.environ.get(LOADER_VARIABLE) or LOADER
        raise SetupError(
            f"{wanted} is not installed; next: {_INSTALL}, or load the bitstream "
            "with another tool and pass --no-load"
        )
    words = [tool, "--board", board.loader]
    if usb_serial is not None and board.usb:
        words += ["--ftdi-serial", usb_serial]
    words.append(str(bitstream))
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOAD_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise SetupError(
            f"{LOADER} did not end within {LOAD_S:.0f} s; next: unplug the board, plug it in "
            "and run the command again"
        ) from None
    except OSError as error:
        raise SetupError(f"cannot run {tool}: {error}; next: {_INSTALL}") from error
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise SetupError(_explain(board, bitstream, done.returncode, said))


def _explain(board: BoardLoading, bitstream: Path, code: int, said: list[str]) -> str:
    text = " ".join(said).lower()
    if "idcode" in text and "mismatch" in text:
        cure = "this is another FPGA than the bitstream's: build one for this board"
    elif "cannot find board" in text:
        cure = "update openFPGALoader: this version does not know the board"
    elif "no dfu compatible device" in text:
        cure = f"start the {board.name}'s bootloader: hold its button while you plug it in"
    elif "device not found" in text or "no device" in text:
        cure = f"plug the {board.name} in, and check that its cable carries data"
    elif "usb_open" in text or "permission" in text or "libusb_open" in text:
        cure = "let yourself use the USB device: install openFPGALoader's udev rules"
    else:
        cure = "check the board, its cable and power; for more: "
        cure += f"{LOADER} --board {board.loader} --verbose {bitstream}"
    last = "; ".join(said[-2:]) or "it said nothing"
    return f"{LOADER} could not load {bitstream.name} (exit code {code}): {last}; next: {cure}"
