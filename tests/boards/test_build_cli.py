"""The command line of builds."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from deepseek.boards import BOARDS
from deepseek.boards.flow import build as flow
from deepseek.boards.manifest import Manifest, ManifestError
from deepseek.host.cli import app


def host(*arguments):
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


def test_list():
    found = host("--list")
    assert found.exit_code == 0
    assert [line.split()[0] for line in found.stdout.splitlines()] == list(BOARDS)
    found = host("--list", "--json")
    assert [json.loads(line)["board"] for line in found.stdout.splitlines()] == list(BOARDS)


def test_virtual(tmp_path):
    found = host("--board", "virtual", "--output", tmp_path / "out", "--json")
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert Manifest.of(report["bitstream"]).build_hash == report["build_hash"]
    found = host("--board", "virtual", "--output", tmp_path / "out")
    assert report["build_hash"] in found.stdout


def test_memory(tmp_path):
    """The bitstream's name and its manifest say what holds the card's memory."""
    found = host("--board", "virtual", "--memory", "sdram", "--output", tmp_path, "--json")
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert report["memory"] == "SDRAM"
    manifest = Manifest.of(tmp_path / "virtual-tiny-sdram.bit")
    assert manifest.memory == "SDRAM" and manifest.card.memory_bytes == 32 << 20
    found = host("--board", "virtual", "--memory", "block", "--output", tmp_path, "--json")
    block = Manifest.of(tmp_path / "virtual-tiny.bit")
    assert block.memory == "block RAM" and block.card.memory_bytes == 256 << 10
    assert len({manifest.build_hash, block.build_hash, report["build_hash"]}) == 2
    for each in (manifest, block):
        each.check_sources("card.bit")
    with pytest.raises(ManifestError, match="was built of other sources"):
        dataclasses.replace(block, memory="SDRAM").check_sources("card.bit")
    listed = [json.loads(line) for line in host("--list", "--json").stdout.splitlines()]
    memories = {each["board"]: each["memories"] for each in listed}
    assert memories["ulx3s"] == ["block", "sdram"] and memories["orangecrab"] == ["block"]


def test_report(tmp_path, cache, monkeypatch, make_shell):
    monkeypatch.setattr(
        flow.build, "__kwdefaults__", {**flow.build.__kwdefaults__, "make_shell": make_shell}
    )
    found = host("--board", "ulx3s", "--output", tmp_path / "out")
    assert found.exit_code == 0, found.stderr
    assert Manifest.of(tmp_path / "out" / "ulx3s-tiny.bit").board == "ulx3s"
    for words in ("use of the device", "lane", "slowest path: ", "reached, MHz", "COMB"):
        assert words in found.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no board given; next: deepseek-host build --list names them"),
        (("--board", "x"), "no board 'x'; choose one of:"),
        (("--board", "ulx3s", "--preset", "x"), "no preset 'x'; choose one of:"),
        (("--board", "ulx3s", "--freq", "5000"), "choose another --freq"),
        (("--board", "ulx3s", "--freq", "nan"), "--freq must be at least 6 MHz on ulx3s, not nan"),
        *(
            (
                ("--board", "virtual", "--freq", freq),
                f"--freq must be from 8 to 1000 MHz on virtual, not {freq}; next: deepseek-host bu",
            )
            for freq in ("-5", "0", "7.9", "1001", "1e+30", "inf", "nan")
        ),
        (("--board", "ulx3s", "--seeds", "0"), "--seeds must be 1 or more"),
        (("--board", "virtual", "--check"), "the board virtual has no device"),
        (
            ("--board", "orangecrab", "--memory", "sdram"),
            "the board orangecrab has no memory 'sdram'; choose one of: block",
        ),
        (
            ("--board", "ulx3s", "--memory", "x"),
            "the board ulx3s has no memory 'x'; choose one of: block, sdram",
        ),
        (
            ("--board", "ulx3s", "--memory", "sdram", "--preset", "sim"),
            "the card of preset sim has a bus of 64 bytes, and an SDRAM serves one of 8 or 16",
        ),
        (
            ("--board", "ulx3s", "--memory", "sdram", "--check"),
            "the recorded table is of cards with memory in block RAM; leave --memory out",
        ),
    ],
)
def test_errors(tmp_path, arguments, says):
    found = host(*arguments, "--output", tmp_path)
    assert found.exit_code == 2
    assert says in found.stderr
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("board", ["ulx3s", "virtual"])
def test_where_a_build_goes_is_looked_at_before_it(tmp_path, board, monkeypatch):
    monkeypatch.setattr(flow, "build", None)
    found = host("--board", board, "--output", "/proc/x/y")
    assert found.exit_code == 2
    assert found.stderr.startswith("error: --output cannot write /proc/x/y: ")
    path = tmp_path / "file"
    path.touch()
    found = host("--board", board, "--output", path)
    assert found.exit_code == 2
    assert f"--output must name a folder, and {path} is a file; next: " in found.stderr


def test_interrupted(tmp_path, cache, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "build", interrupted)
    found = host("--board", "ulx3s", "--output", tmp_path / "out")
    assert found.exit_code == 130
    assert "the same command goes on from there" in found.stderr


WAITING = """
import signal
from pathlib import Path
from deepseek.boards.flow.tools import Processes
from deepseek.host.console import errors

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
with errors(), Processes() as processes:
    processes.run("yosys", [], Path("."))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_no_tool_running(number, tmp_path):
    tool, pid = tmp_path / "yosys", tmp_path / "pid"
    tool.write_text("#!/bin/sh\necho $$ > new\nmv new pid\nexec sleep 60\n")
    tool.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=tmp_path,
        env={**os.environ, "YOSYS": str(tool)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not pid.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number and said == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
