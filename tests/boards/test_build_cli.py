"""The command line of builds."""

import json

import pytest
from typer.testing import CliRunner

from deepseek.boards import BOARDS
from deepseek.boards.flow import build as flow
from deepseek.boards.manifest import Manifest
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
        ((), "no board given; host build --list names them"),
        (("--board", "x"), "no board 'x'; choose one of:"),
        (("--board", "ulx3s", "--preset", "x"), "no preset 'x'; choose one of:"),
        (("--board", "ulx3s", "--freq", "5000"), "choose another --freq"),
        (("--board", "ulx3s", "--seeds", "0"), "--seeds must be 1 or more"),
        (("--board", "virtual", "--check"), "the board virtual has no device"),
    ],
)
def test_errors(tmp_path, arguments, says):
    found = host(*arguments, "--output", tmp_path)
    assert found.exit_code == 2
    assert says in found.stderr
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupted(tmp_path, cache, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "build", interrupted)
    found = host("--board", "ulx3s", "--output", tmp_path / "out")
    assert found.exit_code == 130
    assert "the same command goes on from there" in found.stderr
