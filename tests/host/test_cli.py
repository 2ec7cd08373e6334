"""The command line: exit codes, one-line errors, JSON fields, tables."""

import dataclasses
import errno
import json
import shlex
from unittest.mock import Mock

import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from deepseek.host import cli, cli_run
from deepseek.host.cli import app
from deepseek.host.console import progress_display
from deepseek.host.output import check_file
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
WHOLE = "must be a whole number, not"


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
        ("run", "no workload given; next: deepseek-host run --list names them"),
        ("run digits --limit 0", "--limit must be at least 1, not 0"),
        ("run digits --preset huge", "no preset 'huge'"),
        ("run digits --backend functional --wave x.vcd", "no waves; use --backend rtl"),
        ("run digits --backend ''", "no backend ''; choose one of: rtl, functional, board"),
        ("run digits --limit abc", f"--limit {WHOLE} 'abc'; next: deepseek-host run --help"),
        ("run digits --limit 1.5", f"--limit {WHOLE} '1.5'; next: deepseek-host run --help"),
        ("run digits --limit", "option '--limit' requires an argument; next: deepseek-host run --"),
        ("run digits again", "extra argument(s) (again); next: deepseek-host run --help"),
        ("run --bogus", "no such option: --bogus; next: deepseek-host run --help"),
        ("rum", "no such command 'rum'. Did you mean 'run'? next: deepseek-host --help"),
        ("bench gem", "Did you mean 'gemm'? next: deepseek-host bench --help"),
        ("bench gemm --m ''", f"--m {WHOLE} ''; next: deepseek-host bench gemm --help"),
        ("bench link --errors x", "--errors must be a number, not 'x'; next: deepseek-host bench"),
        ("info --preset huge", "no preset 'huge'"),
        ("info --preset ''", "no preset ''; choose one of: tiny, wide, ecp5, sim"),
        ("info --bitstream ''", "--bitstream must name a file, and . is a folder; next: "),
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


def test_the_script_ends_as_the_tests_do(monkeypatch, capsys):
    """The entry point is the same as what `host` invokes, with the exit codes of Typer."""

    def end(code):
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert (left.value.code or 0) == code
        return capsys.readouterr()

    monkeypatch.setattr("sys.argv", ["x", "run", "--bogus"])
    assert end(2).err == "error: no such option: --bogus; next: deepseek-host run --help\n"
    monkeypatch.setattr("sys.argv", ["x", "bench"])
    shown = end(2)
    assert "Usage: deepseek-host bench" in shown.out and "error" not in shown.err
    monkeypatch.setattr("sys.argv", ["x", "--version"])
    assert end(0).out.startswith("deepseek-host 0.")
    assert app(["run", "--list"], standalone_mode=False) is None
    assert "digits" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["x", "doctor"])
    for error, code in ((KeyboardInterrupt, 130), (BrokenPipeError(errno.EPIPE, ""), 1)):
        monkeypatch.setattr(cli, "check_tools", Mock(side_effect=error))
        assert "error" not in end(code).err


@pytest.mark.parametrize("command", ["bench latency", "bench gemm", "info"])
def test_paragraphs_of_help_are_wrapped_once(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    inner = get_command(app)
    for word in command.split():
        inner = inner.commands[word]
    paragraphs = inner.help.split("\n\n")
    assert not any("\n" in paragraph for paragraph in paragraphs)
    shown = host(f"{command} --help").stdout
    assert all(paragraph in shown for paragraph in paragraphs)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/x.vcd", "there is no folder /nowhere for --wave; make it first"),
        ("/tmp", "--wave must name a file, and /tmp is a folder; next: deepseek-host run --help"),
        ("/proc/x.vcd", "--wave cannot write /proc/x.vcd: "),
        ("x.txt", "--wave must name a file that ends in .vcd, not 'x.txt'"),
    ],
)
def test_where_waves_go_is_looked_at_before_the_build(path, message, monkeypatch):
    monkeypatch.setattr(cli_run.Card, "open", Mock(side_effect=AssertionError))
    result = host(f"run digits --wave {path}")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_files_that_are_looked_at_stay_as_they_are(tmp_path):
    path = tmp_path / "x.vcd"
    check_file("--wave", path, ".vcd")
    assert not path.exists()
    path.write_text("waves")
    check_file("--wave", path, ".vcd")
    assert path.read_text() == "waves"


def test_what_cannot_be_written_is_one_line(monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", "/proc/x")
    result = host("bench gemm --preset tiny")
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: cannot use /proc/x: ") and "DEEPSEEK_CACHE" in line


def test_doctor_goes_on_without_a_cache(monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", "/proc/x")
    found = host("doctor")
    assert found.exit_code == 1
    lines = found.stdout.splitlines()
    assert "FAIL  cache: /proc/x: No such file or directory; set DEEPSEEK_CACHE" in lines
    assert any("pyserial" in line for line in lines)
    assert any("C++ compiler" in line for line in lines)


def test_phases_are_explained(capsys):
    with progress_display() as progress:
        progress("verilate", 0.0)
        progress("rows", 0.0)
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["translate the Verilog to C++ ...", "rows ..."]


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
