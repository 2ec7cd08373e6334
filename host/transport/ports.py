"""Serial ports: find the board's, open it for this program alone, read and write bytes."""

import errno
from typing import TYPE_CHECKING

from .base import SetupError
from .line import LinkError

if TYPE_CHECKING:
    from serial.tools.list_ports_common import ListPortInfo

    from .loader import BoardLoading

__all__ = ["SerialPort", "find_port", "usb_serial"]

READ_S = 0.02
"""Seconds that a read waits for the first byte."""

_CAUSES = {
    errno.ENOENT: ("there is no such port", "plug the board in, or name another one with --port"),
    errno.EACCES: (
        "permission denied",
        "join the group that owns it (sudo usermod -aG dialout $USER), and log in again",
    ),
    errno.EAGAIN: ("another program has it open", "close that one: a terminal, perhaps"),
    errno.EBUSY: ("another program has it open", "close that one: a terminal, perhaps"),
}


def _pyserial() -> None:
    try:
        import serial  # noqa: F401
    except ImportError:
        raise SetupError(
            "boards need pyserial, which is not installed; next: "
            "pip install 'deepseek-card[boards]'"
        ) from None


def _listed() -> list["ListPortInfo"]:
    _pyserial()
    from serial.tools.list_ports import comports

    return sorted(comports(), key=lambda port: port.device)


def usb_serial(device: str) -> str | None:
    """Return the serial number of the USB device behind a port, if it has one."""
    for port in _listed():
        if port.device == device and port.vid is not None:
            return port.serial_number or None
    return None


def find_port(board: "BoardLoading") -> str:
    """Return the one serial port that can be this board's.

    Raises
    ------
    SetupError
        If there is none or more than one; names what there is.
    """
    listed = [port for port in _listed() if port.vid is not None]
    fitting = [
        port
        for port in listed
        if (not board.usb or (port.vid, port.pid) in board.usb)
        and (board.interface is None or _interface(port) in (None, board.interface))
    ]
    if len(fitting) == 1:
        return str(fitting[0].device)
    names = ", ".join(port.device for port in fitting or listed) or "none at all"
    if fitting:
        raise SetupError(
            f"{len(fitting)} serial ports can be the {board.name}'s: {names}; next: choose one "
            "with --port"
        )
    what = " or ".join(f"{vid:04x}:{pid:04x}" for vid, pid in board.usb)
    raise SetupError(
        f"no serial port of a {board.name}{f' (USB {what})' if what else ''} is there; serial "
        f"ports on USB: {names}; next: plug the board in, or name its port with --port"
    )


def _interface(port: "ListPortInfo") -> int | None:
    """Number of the USB interface, from a location such as ``1-2:1.1``."""
    _, _, last = (port.location or "").rpartition(".")
    return int(last) if ":" in (port.location or "") and last.isdigit() else None


class SerialPort:
    """An open serial port (`line.Port`), 8N1 without flow control, for this program alone.

    Parameters
    ----------
    device : str
        ``/dev/ttyUSB0``, ``COM3``, ...
    baud : int
        Bits a second.
    write_s : float
        Seconds that a write may take.

    Raises
    ------
    SetupError
        If it cannot be opened: says why and what to do.
    """

    def __init__(self, device: str, baud: int, *, write_s: float = 5.0) -> None:
        _pyserial()
        import serial

        self.device = device
        try:
            self._serial = serial.Serial(
                device, baud, timeout=READ_S, write_timeout=write_s, exclusive=True
            )
        except OSError as error:
            why, cure = _CAUSES.get(error.errno or 0, (str(error), "check the port"))
            raise SetupError(f"cannot open {device}: {why}; next: {cure}") from error
        except ValueError as error:
            raise SetupError(
                f"cannot open {device} at {baud:,} baud: {error}; next: use a serial adapter that "
                "can, or build the bitstream for a slower line"
            ) from error
        try:
            # USB adapters otherwise keep what they receive for 16 ms.
            self._serial.set_low_latency_mode(True)
        except (AttributeError, OSError, ValueError):
            pass  # not every port has this, and it only saves time

    def read(self) -> bytes:
        """Return what has come; wait up to 20 ms for it."""
        try:
            return bytes(self._serial.read(max(1, self._serial.in_waiting)))
        except (OSError, TypeError) as error:  # a port that is closed while it is read
            raise self._gone(error) from error

    def write(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._serial.write(data)
        except (OSError, TypeError) as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Give the port back. Closing twice is harmless."""
        self._serial.close()

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(
            f"the line to the board was cut ({self.device}: {error}): it was unplugged or has lost "
            "power; next: plug it in and run the command again, which loads and resets the card"
        )
