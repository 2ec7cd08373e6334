"""``host run --bitstream``: the same output as on a simulator, and errors that say what to do."""

import json
import shlex
import stat

import pytest
from fake_board import CLOCK_HZ, FakeBoard, Terminal, board_config, make_bitstream
from typer.testing import CliRunner

from deepseek.host.bench.link import board_link
from deepseek.host.card import Card
from deepseek.host.cli import app
from deepseek.host.transport import serial
from deepseek.host.transport.loader import LOADER_VARIABLE
from deepseek.host.workloads import workload


@pytest.fixture(autouse=True)
def no_loader(monkeypatch):
    monkeypatch.setattr(serial, "PORT_S", 0.0)
    monkeypatch.setenv(LOADER_VARIABLE, "/nowhere/openFPGALoader")


@pytest.fixture
def bitstream(tmp_path):
    return make_bitstream(tmp_path)


def host(*words):
    line = " ".join(map(str, words))
    return CliRunner().invoke(app, shlex.split(line))


def test_the_same_figures_as_on_the_simulator(bitstream):
    board = FakeBoard(board_config())
    with Terminal(board.answer) as terminal:
        words = f"--bitstream {bitstream} --port {terminal.port} --no-load"
        result = host("run digits --limit 30 --json", words)
        assert result.exit_code == 0, result.stderr
        fields = json.loads(result.stdout)
        shown = host("run digits --limit 3", words)
        assert shown.exit_code == 0, shown.stderr
    with Card.open("functional", preset=board_config()) as card:
        expected = workload("digits").run(card, 30, None)
    assert fields["backend"] == "board"
    assert fields["board"] == "ulx3s"
    assert fields["bit_exact"] is True
    assert (fields["images"], fields["cycles"]) == (30, expected.cycles)
    assert fields["identical_tensors"] == fields["tensors"] == expected.tensors
    assert fields["bytes_read"] == expected.counters.bytes_read
    assert fields["clock_seconds"] == expected.cycles / CLOCK_HZ
    assert fields["link"]["data_written"] > 10_000
    assert fields["link"]["bytes_sent"] > fields["link"]["data_written"]
    assert shlex.split(fields["command"]) == shlex.split(
        f"deepseek-host run digits {words} --memory hbm --limit 30"
    )
    for row in (
        f"on board ulx3s at {terminal.port}, preset tiny",
        "card's clock",
        "25.000 MHz",
        "seconds at this clock",
        "block RAM",
        "bytes over the link",
        "bit-identical with golden model",
    ):
        assert row in shown.stdout


def test_info(bitstream):
    with Terminal(FakeBoard(board_config()).answer) as terminal:
        result = host("info --json --no-load --bitstream", bitstream, "--port", terminal.port)
    assert result.exit_code == 0, result.stderr
    fields = json.loads(result.stdout)
    assert (fields["backend"], fields["preset"], fields["rows"]) == ("board", "tiny", 4)
    assert fields["memory_bytes"] == 256 << 10
    assert fields["port"] == terminal.port


def test_bench_link(bitstream):
    board = FakeBoard(board_config())
    with Terminal(board.answer) as terminal:
        words = f"--no-load --bitstream {bitstream} --port {terminal.port}"
        result = host("bench link --bytes 30000 --runs 2 --json", words)
        assert result.exit_code == 0, result.stderr
        shown = host("bench link --bytes 30000", words)
        assert shown.exit_code == 0, shown.stderr
        too_many = host("bench link --bytes 1e6", words)
    runs = [json.loads(line) for line in result.stdout.splitlines()]
    assert [run["seed"] for run in runs] == [0, 1]
    for run in runs:
        assert run["board"] == f"ulx3s at {terminal.port}"
        assert (run["bytes"], run["wrong_bytes"], run["errors"]) == (30_000, 0, None)
        assert run["data_written"] == 30_000
    assert f"link to ulx3s at {terminal.port}: 30,000 bytes each way" in shown.stdout
    assert "out of card memory: 1000000 bytes requested" in one_line(too_many)


def test_bench_link_wants_a_line():
    with Card.open("functional", preset="tiny") as card:
        with pytest.raises(
            ValueError, match="must be behind a line, not on the backend functional"
        ):
            board_link(card, 100, seed=0)


def test_bench_link_tells_wrong_bytes(bitstream):
    board = FakeBoard(board_config())
    honest = board.card.read_memory
    board.card.read_memory = lambda address, n: honest(address, n)[:-1] + b"\x00"
    with Terminal(board.answer) as terminal:
        words = f"--no-load --bitstream {bitstream} --port {terminal.port}"
        message = one_line(host("bench link --bytes 30000", words), code=1)
    assert "of 30,000 bytes came back wrong, with seed 0; no figure is given" in message


def one_line(result, code=2):
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    return errors[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--bitstream {file}.no", "no bitstream {file}.no; build one with: deepseek-host build"),
        ("--bitstream {file}", "/nowhere/openFPGALoader is not installed; next: install it"),
        ("--bitstream {file} --board ecpix5", "is for the board ulx3s (LFE5U-85F), not ecpix5;"),
        ("--bitstream {file} --board arty", "no board 'arty'; choose one of: ulx3s, ecpix5, "),
        ("--bitstream {file} --board virtual", "card.bit was built of other sources of the card"),
        ("--bitstream {file} --netlist", "runs on the virtual board only: add --board virtual"),
        ("--bitstream {file} --board virtual --netlist", "has no netlist card.netlist.json.gz bes"),
        ("--netlist", "--netlist needs a bitstream: add --bitstream FILE; build one with: "),
        ("--bitstream {file} --no-load --port /dev/no", "cannot open /dev/no: there is no such"),
        ("--bitstream {file} --no-load", "no serial port of a ulx3s (USB 0403:6015) is there"),
        ("--bitstream {file} --preset ecp5", "card.bit holds a card of preset tiny, not ecp5"),
        (
            "--bitstream {file} --backend rtl",
            "--bitstream runs on a board, not on the backend 'rtl",
        ),
        ("--bitstream {folder}", "--bitstream must name a file, and {folder} is a folder; next: "),
        ("--backend board", "the board backend needs a bitstream: --bitstream FILE"),
        ("--port /dev/ttyUSB0", "--port needs a bitstream: add --bitstream FILE; build one with"),
        (
            "--no-load",
            "--no-load needs a bitstream: add --bitstream FILE; build one with: deepseek",
        ),
        ("--board virtual", "--board needs a bitstream: add --bitstream FILE; build one with: {b}"),
        ("--board virtua", "no board 'virtua'; choose one of: ulx3s, ecpix5, "),
    ],
)
@pytest.mark.parametrize("command", ["run digits", "info"])
def test_mistakes(bitstream, command, words, message, monkeypatch):
    from serial.tools import list_ports

    monkeypatch.setattr(list_ports, "comports", list)
    names = {"file": bitstream, "folder": bitstream.parent}
    message = message.format(**names, b="deepseek-host build --board virtual")
    assert message in one_line(host(command, words.format(**names)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--capture x.vcd", "the capture is on a board's chip, and the backend 'rtl' has none;"),
        ("--trigger irq=1", "--trigger and --after are for a capture: add --capture FILE.vcd"),
        ("--after 3", "--trigger and --after are for a capture: add --capture FILE.vcd"),
        ("--bitstream {file} --capture /no/x.vcd", "there is no folder /no for --capture; make"),
        ("--bitstream {file} --capture {folder}", "--capture must name a file, and {folder} is a"),
        ("--bitstream {file} --capture x.txt", "--capture must name a file that ends in .vcd, not"),
        ("--bitstream {file} --capture x.vcd --trigger q", "no signal 'q' to trigger; choose of: "),
        ("--backend functional --step", "has no single steps; next: use --backend rtl, or a bit"),
        ("--step", "--step asks before each command, and the input is no terminal; next: run it"),
    ],
)
def test_mistakes_of_a_run(bitstream, words, message):
    names = {"file": bitstream, "folder": bitstream.parent}
    assert message.format(**names) in one_line(host("run digits", words.format(**names)))


def test_a_board_has_no_waves(bitstream):
    result = host("run digits --no-load --wave x.vcd --bitstream", bitstream)
    assert "the board backend has no waves; use --backend rtl" in one_line(result)


def test_truncated_and_without_a_manifest(bitstream):
    content = bitstream.read_bytes()
    bitstream.write_bytes(content[:100])
    assert "is truncated: 100 of 900 bytes" in one_line(host("run digits --bitstream", bitstream))
    bitstream.write_bytes(content)
    bitstream.with_name("card.bit.json").write_text("{")
    assert "is damaged, it is no JSON" in one_line(host("run digits --bitstream", bitstream))
    bitstream.with_name("card.bit.json").unlink()
    assert "has no manifest" in one_line(host("run digits --bitstream", bitstream))


def test_a_loader_that_fails(bitstream, tmp_path, monkeypatch):
    path = tmp_path / "loader.sh"
    path.write_text("#!/bin/sh\necho JTAG init failed with: unable to open ftdi device\nexit 1\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(LOADER_VARIABLE, str(path))
    message = one_line(host("run digits --bitstream", bitstream))
    assert "could not load card.bit (exit code 1): JTAG init failed with: unable to" in message


def test_another_build_on_the_board(bitstream):
    with Terminal(FakeBoard(board_config(), build=5).answer) as terminal:
        result = host("run digits --no-load --bitstream", bitstream, "--port", terminal.port)
    message = one_line(result)
    assert "build hash is 0000000000000005, the manifest says 0123456789abcdef; next: l" in message


def test_a_silent_board(bitstream, monkeypatch):
    monkeypatch.setattr(serial, "GIVE_UP_S", 0.3)
    with Terminal(lambda data: []) as terminal:
        result = host("run digits --no-load --bitstream", bitstream, "--port", terminal.port)
    assert "the board has not answered for 0.3 s; next: check that the port" in one_line(result)


def test_the_cable_is_pulled_and_plugged_in_again(bitstream):
    board = FakeBoard(board_config())
    with Terminal(board.answer, cut_after=60_000) as terminal:
        result = host("run digits --no-load --bitstream", bitstream, "--port", terminal.port)
    assert "the line to the board was cut" in one_line(result)
    with Terminal(board.answer) as terminal:
        words = f"--limit 2 --json --no-load --bitstream {bitstream} --port {terminal.port}"
        result = host("run digits", words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["bit_exact"] is True


def test_a_workload_that_does_not_fit_says_so(tmp_path):
    config = type(board_config())(**{**vars(board_config()), "memory_bytes": 32 << 10})
    bitstream = make_bitstream(tmp_path, config)
    with Terminal(FakeBoard(config).answer) as terminal:
        result = host("run digits --no-load --bitstream", bitstream, "--port", terminal.port)
    message = one_line(result)
    assert "bytes requested for the network" in message
    assert "the card has 32768 in all" in message


def test_doctor_lists_what_boards_need():
    result = host("doctor --json")
    checks = {check["name"]: check for check in map(json.loads, result.stdout.splitlines())}
    assert checks["pyserial"]["ok"] and not checks["pyserial"]["required"]
    assert not checks["openFPGALoader"]["ok"] and not checks["openFPGALoader"]["required"]
    assert result.exit_code == 0
