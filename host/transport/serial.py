"""A synthesised card behind a serial port: a board, or the virtual one behind a pseudo-terminal."""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...boards import board as find_board
from ...boards.manifest import Manifest
from ...rtl.isa import ABI_VERSION, Csr
from ...rtl.isa.link import LINK_VERSION, ShellCsr
from .base import CARD_ID, Progress, SetupError, ToolCheck
from .line import LinkError, LinkStatistics
from .link import Link
from .loader import BoardLoading, board_loading, check_loader, load
from .ports import SerialPort, find_port, usb_serial
from .virtual import open_virtual

__all__ = ["VIRTUAL", "SerialTransport", "check_tools", "open_board"]

VIRTUAL = "virtual"
"""The board that is simulated."""

GIVE_UP_S = 4.0
"""Seconds without an answer after which a board is gone."""

PORT_S = 5.0
"""Seconds in which a port comes back after the loader had the USB device."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.0005, 0.05
"""Between two looks at a job: twice as long each time."""

SLACK_S = 2.0
"""Seconds without a cycle after which the card's clock stands still."""

VIRTUAL_BAUD = 3000
"""What the line of a simulated board carries at least, in real time."""

NETLIST_SLOWER = 20
"""So many times more patience is for a board whose netlist is simulated."""

_FIXED = (*range(Csr.ID, Csr.OPERAND_DEPTH + 4, 4), int(Csr.PARTS))
"""Registers that never change."""

_STATUS = range(ShellCsr.CYCLES, ShellCsr.SHELL_STATE + 4, 4)


class SerialTransport:
    """A card that runs by itself at the other end of a serial port (`base.Transport`).

    Parameters
    ----------
    device : str
        The serial port.
    manifest : Manifest
        Of the bitstream that runs there.
    simulated, netlist : bool
        The board is a simulation, and takes its time; that of a netlist takes more.
    owned : context manager
        Closed with the transport.

    Raises
    ------
    SetupError
        If the port cannot be opened, or another card answers.
    LinkError
        If no card answers.
    """

    backend = "board"
    cycles_modelled = False

    def __init__(
        self,
        device: str,
        manifest: Manifest,
        *,
        simulated: bool = False,
        netlist: bool = False,
        owned: contextlib.ExitStack | None = None,
    ) -> None:
        self.config = manifest.card
        self.build_hash = manifest.build
        self.clock_hz: int | None = manifest.clock_hz
        self._manifest = manifest
        self._simulated = simulated
        self._board = VIRTUAL if simulated else manifest.board
        if netlist:
            self._board = f"{VIRTUAL}, netlist of {manifest.board},"
        with contextlib.ExitStack() as opened:
            if owned is not None:
                opened.push(owned)
            self._port = SerialPort(
                device, manifest.baud, write_s=600.0 if netlist else 60.0 if simulated else 5.0
            )
            opened.callback(self._port.close)
            if simulated:
                slower = NETLIST_SLOWER if netlist else 1
                self._link = Link(
                    self._port,
                    baud=VIRTUAL_BAUD // slower,
                    patience=5.0 * slower,
                    give_up=60.0 * slower,
                )
            else:
                self._link = Link(self._port, baud=manifest.baud, give_up=GIVE_UP_S)
            self._link.hello()
            self._fixed = dict(zip(_FIXED, self._link.read_registers(_FIXED), strict=True))
            self._check()
            self._last = 0
            self._begin = self._status()[0]
            self._opened = opened.pop_all()

    def _check(self) -> None:
        """Compare the card that answers with the manifest."""
        manifest, fixed = self._manifest, self._fixed
        if fixed[Csr.ID] != CARD_ID:
            raise SetupError(
                f"something answers on {self._port.device}, but no card: its identification reads "
                f"{fixed[Csr.ID]:#010x}, not {CARD_ID:#010x}; next: check the port"
            )
        again = "load this bitstream (without --no-load), or name the one that the board runs"
        build = fixed[Csr.BUILD_LOW] | fixed[Csr.BUILD_HIGH] << 32
        clock = self._link.read_registers([ShellCsr.CLOCK_HZ])[0]
        for name, found, wanted in (
            ("instruction set version", f"{fixed[Csr.ABI]}", f"{manifest.abi}"),
            ("build hash", f"{build:016x}", f"{manifest.build:016x}"),
            ("clock", f"{clock:,} Hz", f"{manifest.clock_hz:,} Hz"),
        ):
            if found != wanted:
                raise SetupError(
                    f"the board runs another bitstream: its {name} is {found}, the manifest says "
                    f"{wanted}; next: {again}"
                )

    def _status(self) -> tuple[int, bool]:
        """Cycles since power-up, and whether the interrupt line is high; one round trip."""
        low, high, _, state = self._link.read_registers(_STATUS)
        cycles = low | high << 32
        if cycles < self._last:
            raise LinkError(
                "the board has restarted: its cycles count anew; next: check its power, and run "
                "the command again"
            )
        self._last = cycles
        return cycles, bool(state & 1)

    @property
    def cycles(self) -> int:
        return self._status()[0] - self._begin

    @property
    def statistics(self) -> LinkStatistics:
        """What went over the line so far."""
        return self._link.statistics

    def csr_read(self, address: int) -> int:
        if address in self._fixed:
            return self._fixed[address]
        return self._link.read_registers([address])[0]

    def csr_read_many(self, addresses: Sequence[int]) -> list[int]:
        return self._link.read_registers(addresses)

    def csr_write(self, address: int, value: int) -> None:
        self._link.write_register(address, value)

    def read_memory(self, address: int, nbytes: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._link.read_memory(address, nbytes), np.uint8)

    def write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self._link.write_memory(address, np.ascontiguousarray(data).data)

    def run(self, max_cycles: int) -> int:
        """Wait until the interrupt line is high, at most ``max_cycles``; return the cycles.

        The card runs by itself; 0 if its clock stands still, or if the line was high already.
        """
        begin, ended = self._status()
        now, moved, pause = begin, time.monotonic(), FIRST_PAUSE_S
        slack = SLACK_S * (30 if self._simulated else 1)
        while not ended and now - begin < max_cycles:
            if time.monotonic() - moved > slack:
                break
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            before = now
            now, ended = self._status()
            if now != before:
                moved = time.monotonic()
        return now - begin

    def details(self) -> dict[str, str]:
        manifest = self._manifest
        return {
            "board": self._board,
            "port": self._port.device,
            "baud": str(manifest.baud),
            "card_memory": manifest.memory,
            "tools": ", ".join(f"{name} {what}" for name, what in manifest.tools.items()),
        }

    def close(self) -> None:
        # What was written and not read back has to arrive, too; a cut line was reported before.
        try:
            with contextlib.suppress(LinkError):
                self._link.flush()
        finally:
            self._opened.close()


def open_board(
    bitstream: str | Path,
    *,
    board: str | None = None,
    port: str | None = None,
    load_it: bool = True,
    netlist: bool = False,
    progress: Progress | None = None,
) -> SerialTransport:
    """Load a bitstream into a board, and open the card in it.

    Parameters
    ----------
    bitstream : path
        With its manifest beside it.
    board : str
        The manifest's board, or ``"virtual"``: simulate it.
    port : str
        The board's serial port; not needed if there is only one that fits.
    load_it : bool
        False: the board runs the bitstream already.
    netlist : bool
        Of the virtual board: simulate the placed and routed netlist beside the bitstream.
    progress : callable
        Hears of the loading, and of the build of the simulation.

    Raises
    ------
    ValueError
        If there is no such board, the bitstream is not whole, or its manifest is of no use.
    SetupError
        If a tool, the board, its port, or the right card is not there.
    """
    if board is not None:
        find_board(board)
    path = Path(bitstream)
    manifest = Manifest.of(path)
    _check_versions(path, manifest)
    if (board or manifest.board) == VIRTUAL:
        if port is not None:
            raise ValueError(f"the virtual board has a port of its own, not {port!r}")
        device, powered = open_virtual(path, manifest, netlist=netlist, progress=progress)
        return SerialTransport(device, manifest, simulated=True, netlist=netlist, owned=powered)
    if netlist:
        raise ValueError(
            "a netlist runs on the virtual board only: add --board virtual, or leave --netlist out"
        )
    if board is not None and board != manifest.board:
        raise SetupError(
            f"{path.name} is for the board {manifest.board} ({manifest.device}), not {board}; "
            f"next: build one with: deepseek-host build --board {board}"
        )
    reached = board_loading(manifest.board)
    if load_it:
        if port is not None:
            # Nobody else's line is cut by the loader, which takes the whole USB device.
            SerialPort(port, manifest.baud).close()
        if progress is not None:
            progress("load", 0.0)
        load(reached, path, usb_serial=usb_serial(port) if port is not None else None)
        if progress is not None:
            progress("load", 1.0)
    device = _port_of(reached, port, manifest, loaded=load_it)
    return SerialTransport(device, manifest)


def _check_versions(path: Path, manifest: Manifest) -> None:
    for name, found, wanted in (
        ("the instruction set", manifest.abi, ABI_VERSION),
        ("the link's protocol", manifest.link_version, LINK_VERSION),
    ):
        if found != wanted:
            raise SetupError(
                f"{path.name} has version {found} of {name}, this host drives version {wanted}; "
                f"next: build it again, with: deepseek-host build --board {manifest.board}"
            )


def _port_of(reached: BoardLoading, port: str | None, manifest: Manifest, *, loaded: bool) -> str:
    """Return the board's port; after loading it may take a moment to come back and be ours."""
    deadline = time.monotonic() + (PORT_S if loaded else 0.0)
    while True:
        try:
            device = port or find_port(reached)
            SerialPort(device, manifest.baud).close()
            return device
        except SetupError as error:
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            if not loaded or not sys.platform.startswith("linux"):
                raise
            raise SetupError(
                f"{error}; if the port went when the bitstream was loaded: "
                "sudo modprobe -r ftdi_sio && sudo modprobe ftdi_sio, then again with --no-load"
            ) from error


def check_tools() -> list[ToolCheck]:
    """Look for what boards need."""
    try:
        import serial

        found = ToolCheck(name="pyserial", ok=True, required=False, detail=str(serial.__version__))
    except ImportError:
        detail = "not found; to run on a board: pip install 'deepseek-card[boards]'"
        found = ToolCheck(name="pyserial", ok=False, required=False, detail=detail)
    return [check_loader(), found]
