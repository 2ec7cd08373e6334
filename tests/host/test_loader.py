"""How a board is loaded and its serial port found: with a program that stands for the loader."""

import stat
import sys
from types import SimpleNamespace

import pytest
from fake_board import FakeBoard, Terminal, board_config, check_copy, make_bitstream, open_card
from serial.tools import list_ports

from deepseek.host.card import Card
from deepseek.host.transport import SetupError, open_transport, serial
from deepseek.host.transport.loader import LOADER_VARIABLE, board_loading, check_loader, load
from deepseek.host.transport.ports import find_port


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(serial, "PORT_S", 0.2)


@pytest.fixture
def bitstream(tmp_path):
    return make_bitstream(tmp_path)


@pytest.fixture
def board():
    return FakeBoard(board_config())


def usb(device, vid, pid, location="1-2:1.0", serial_number="D123"):
    return SimpleNamespace(
        device=device, vid=vid, pid=pid, location=location, serial_number=serial_number
    )


ON_BOARD = SimpleNamespace(device="/dev/ttyS0", vid=None, pid=None, location=None)


@pytest.mark.parametrize(
    ("board", "ports", "found"),
    [
        ("ulx3s", [ON_BOARD, usb("/dev/ttyUSB0", 0x0403, 0x6015)], "/dev/ttyUSB0"),
        (
            "ulx3s",
            [usb("/dev/ttyUSB0", 0x0403, 0x6010), usb("/dev/ttyUSB1", 0x0403, 0x6015)],
            "/dev/ttyUSB1",
        ),
        (
            "ecpix5",
            [
                usb("/dev/ttyUSB0", 0x0403, 0x6010, "1-2:1.0"),
                usb("/dev/ttyUSB1", 0x0403, 0x6010, "1-2:1.1"),
            ],
            "/dev/ttyUSB1",
        ),
        ("orangecrab", [ON_BOARD, usb("/dev/ttyUSB3", 0x1234, 0x5678)], "/dev/ttyUSB3"),
    ],
)
def test_the_port_is_found(board, ports, found, monkeypatch):
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert find_port(board_loading(board)) == found


def test_no_port_or_too_many(monkeypatch):
    ulx3s = board_loading("ulx3s")
    monkeypatch.setattr(list_ports, "comports", lambda: [ON_BOARD])
    with pytest.raises(SetupError) as raised:
        find_port(ulx3s)
    assert "no serial port of a ulx3s (USB 0403:6015) is there" in str(raised.value)
    assert "none at all; next: plug the board in" in str(raised.value)
    two = [usb("/dev/ttyUSB0", 0x0403, 0x6015), usb("/dev/ttyUSB1", 0x0403, 0x6015)]
    monkeypatch.setattr(list_ports, "comports", lambda: two)
    message = "2 serial ports can be the ulx3s's: /dev/ttyUSB0, /dev/ttyUSB1; next: choose one"
    with pytest.raises(SetupError, match=message):
        find_port(ulx3s)


@pytest.fixture
def loader(tmp_path, monkeypatch):
    """Make a program that stands for openFPGALoader: says something, ends with a code."""

    def make(says="", code=0):
        path = tmp_path / "loader.sh"
        path.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/words"\necho "{says}"\nexit {code}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(LOADER_VARIABLE, str(path))
        return tmp_path / "words"

    return make


def test_a_bitstream_is_loaded(bitstream, board, loader, monkeypatch):
    words = loader("done")
    with Terminal(board.answer) as terminal:
        monkeypatch.setattr(
            list_ports, "comports", lambda: [usb(terminal.port, 0x0403, 0x6015, serial_number="D7")]
        )
        phases = []
        progress = lambda phase, fraction: phases.append((phase, fraction))  # noqa: E731
        with Card.open("board", bitstream=bitstream, progress=progress) as card:
            check_copy(card)
        assert words.read_text() == f"--board ulx3s {bitstream}\n"
        assert phases == [("load", 0.0), ("load", 1.0)]
        # With a port, the board behind it is the one that is loaded.
        with Card.open("board", bitstream=bitstream, port=terminal.port):
            assert words.read_text() == f"--board ulx3s --ftdi-serial D7 {bitstream}\n"


def test_a_busy_port_is_not_loaded(bitstream, board, loader):
    words = loader("done")
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        with pytest.raises(SetupError, match="another program has it open"):
            Card.open("board", bitstream=bitstream, port=terminal.port)
        assert not words.exists()
        check_copy(card)


def test_a_port_that_comes_back_late(bitstream, board, loader, monkeypatch):
    """The loader takes the port away; at first there is none, then one that is not ours yet."""
    loader("done")
    monkeypatch.setattr(serial, "PORT_S", 20.0)
    with Terminal(board.answer) as terminal:
        states = [[], [usb("/nowhere/ttyUSB0", 0x0403, 0x6015)]]
        ready = [usb(terminal.port, 0x0403, 0x6015)]
        monkeypatch.setattr(list_ports, "comports", lambda: states.pop(0) if states else ready)
        with Card.open("board", bitstream=bitstream) as card:
            check_copy(card)
        assert not states


def test_a_port_that_does_not_come_back(bitstream, loader, monkeypatch):
    loader("done")
    monkeypatch.setattr(list_ports, "comports", list)
    with pytest.raises(SetupError, match="sudo modprobe ftdi_sio, then again with --no-load"):
        Card.open("board", bitstream=bitstream)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("unable to open ftdi device: -3 (device not found)", "next: plug the ulx3s in"),
        ("unable to open ftdi device: -4 (usb_open() failed)", "install openFPGALoader's udev"),
        ("DFU init failed with: No DFU compatible device found", "hold its button while you plug"),
        ("Error: cannot find board 'ulx3s'", "next: update openFPGALoader"),
        ("mismatch between target's idcode and bitstream idcode", "this is another FPGA than the"),
        ("boom", "boom; next: check the board, its cable and power"),
        ("", r"\(exit code 1\): it said nothing; next: "),
    ],
)
def test_a_loader_that_fails(bitstream, loader, says, message):
    loader(says, 1)
    with pytest.raises(SetupError, match=message) as raised:
        load(board_loading("ulx3s"), bitstream)
    assert str(raised.value).startswith("openFPGALoader could not load card.bit (exit code 1): ")


def test_no_loader(bitstream, monkeypatch):
    monkeypatch.setenv(LOADER_VARIABLE, "/nowhere/openFPGALoader")
    with pytest.raises(SetupError, match=r"is not installed; next: install it .*--no-load"):
        load(board_loading("ulx3s"), bitstream)
    check = check_loader()
    assert not check.ok and not check.required and "not found" in check.detail


def test_a_loader_that_does_not_end(bitstream, tmp_path, monkeypatch):
    path = tmp_path / "slow.sh"
    path.write_text("#!/bin/sh\nexec sleep 30\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(LOADER_VARIABLE, str(path))
    monkeypatch.setattr("deepseek.host.transport.loader.LOAD_S", 0.2)
    with pytest.raises(SetupError, match="did not end within 0 s; next: unplug the board"):
        load(board_loading("ulx3s"), bitstream)


def test_pyserial_is_missing(bitstream, monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(
        SetupError, match=r"pyserial, which is not installed; next: pip install 'de"
    ):
        open_transport("board", bitstream=bitstream, port="x", load=False)
    assert [check.ok for check in serial.check_tools() if check.name == "pyserial"] == [False]
