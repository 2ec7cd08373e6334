"""The command line: exit codes, one-line errors, JSON fields, tables."""

import dataclasses
import json
import shlex

import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from deepseek.host import cli, cli_run
from deepseek.host.cli import app
from deepseek.host.transport import ToolCheck, rtl
from deepseek.rtl.isa import ABI_VERSION
from deepseek.sim.verilated.toolchain import ToolError

FIELDS = {
    "name",
    "preset",
    "backend",
    "dtype",
    "shape",
    "cycles",
    "macs",
    "mac_units",
    "utilization",
    "bit_exact",
    "command",
}


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


def json_lines(result):
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def commands(command):
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from commands(inner)


def test_help_is_shown_whole():
    """Nothing in a help text is taken for markup, which vanishes."""
    options = [option for command in commands(get_command(app)) for option in command.params]
    texts = [text for option in options if (text := getattr(option, "help", None))]
    assert len(texts) > 100
    assert [text for text in texts if Text.from_markup(text).plain != text] == []
    assert "default: 56" in host("bench conv --help").stdout


def test_version():
    result = host("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("deepseek-host 0.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run nothing", "no workload 'nothing'; choose one of: digits"),
        ("run", "no workload given; host run --list names them"),
        ("run digits --limit 0", "--limit must be at least 1, not 0"),
        ("run digits --preset huge", "no preset 'huge'"),
        ("run digits --backend functional --wave x.vcd", "no waves; use --backend rtl"),
        ("info --preset huge", "no preset 'huge'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(line, message):
    result = host(line)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_info():
    (fields,) = json_lines(host("info --preset sim --json"))
    assert (fields["rows"], fields["cols"], fields["abi"]) == (16, 16, ABI_VERSION)
    result = host("info --preset tiny")
    assert result.exit_code == 0
    assert "operand_depth" in result.stdout


def test_doctor():
    result = host("doctor")
    assert result.exit_code == 0, result.stdout
    assert "ok    verilator: " in result.stdout
    checks = json_lines(host("doctor --json"))
    assert {"name", "ok", "required", "detail"} == set(checks[0])
    assert checks[-1]["name"] == "build and run"


def test_doctor_fails_without_what_the_card_needs(monkeypatch):
    checks = [
        ToolCheck("C++ compiler", False, True, "none; install one"),
        ToolCheck("ccache", False, False, "not found"),
    ]
    monkeypatch.setattr(cli, "check_tools", lambda progress: checks)
    result = host("doctor")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "FAIL  C++ compiler: none; install one",
        "-     ccache: not found",
    ]


def test_a_missing_compiler_is_one_line(monkeypatch):
    def missing(*arguments, **options):
        raise ToolError("no C++ compiler found: install clang or g++")

    monkeypatch.setattr(rtl, "VerilatedCard", missing)
    result = host("bench gemm --backend rtl --preset tiny")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == ["error: no C++ compiler found: install clang or g++"]


def test_run_list():
    result = host("run --list")
    assert result.exit_code == 0
    assert result.stdout.startswith("digits ")
    (entry, *_) = json_lines(host("run --list --json"))
    assert entry["name"] == "digits"


def test_run_digits_json():
    (fields,) = json_lines(host("run digits --backend functional --preset tiny --limit 9 --json"))
    assert fields.keys() >= FIELDS
    assert fields["images"] == 9
    assert fields["bit_exact"] is True
    assert fields["identical_tensors"] == fields["tensors"] > 9


def test_run_digits_table():
    result = host("run digits --backend functional --preset tiny --limit 3")
    assert result.exit_code == 0, result.stderr
    for shown in ("accuracy, card", "bit-identical", "cycles an image", "waves: "):
        assert shown in result.stdout


def test_run_that_differs_prints_no_figure(monkeypatch):
    entry = cli_run.find_workload("digits")

    def wrong(card, limit, progress):
        result = entry.run(card, limit, progress)
        return dataclasses.replace(result, identical_tensors=result.tensors - 1)

    fake = dataclasses.replace(entry, run=wrong)
    monkeypatch.setattr(cli_run, "find_workload", lambda name: fake)
    result = host("run digits --backend functional --preset tiny --limit 2")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "tensors differ from the golden model" in result.stderr
