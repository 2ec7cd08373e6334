"""The command line: exit codes, one-line errors, JSON fields, tables."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from deepseek.host import bench, cli, cli_run
from deepseek.host.cli import app
from deepseek.host.transport import ToolCheck, rtl
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
SMALL = "--m 20 --n 17 --k 33 --backend functional --preset tiny"


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


def json_lines(result):
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_version():
    result = host("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("deepseek-host 0.")


def test_bench_gemm_json():
    (fields,) = json_lines(host(f"bench gemm {SMALL} --json"))
    assert fields.keys() >= FIELDS
    assert fields["shape"] == {"m": 20, "n": 17, "k": 33}
    assert fields["macs"] == 20 * 17 * 33
    assert fields["mac_units"] == 4 * 4 * 2
    expected = fields["macs"] / fields["cycles"] / fields["mac_units"]
    assert fields["utilization"] == pytest.approx(expected, abs=1e-5)
    assert fields["bit_exact"] is True
    assert fields["cycles_modelled"] is True


def test_bench_gemm_command_repeats_it():
    (fields,) = json_lines(
        host(f"bench gemm {SMALL} --dtype fp16 --out-dtype fp32 --seed 5 --json")
    )
    program, *words = shlex.split(fields["command"])
    assert program == "deepseek-host"
    (again,) = json_lines(host(shlex.join([*words, "--json"])))
    wall = ("wall_seconds",)
    assert {k: v for k, v in again.items() if k not in wall} == {
        k: v for k, v in fields.items() if k not in wall
    }


def test_bench_gemm_density_runs_dense_too():
    dense, sparse = json_lines(
        host("bench gemm --m 64 --n 64 --k 128 --density 0.1 --backend functional --json")
    )
    assert not dense["sparse"]
    assert "speedup_over_dense" not in dense
    assert sparse["sparse"]
    assert sparse["speedup_over_dense"] == pytest.approx(dense["cycles"] / sparse["cycles"], 1e-3)
    assert sparse["macs"] < dense["macs"] / 5


def test_bench_gemm_table():
    result = host(f"bench gemm {SMALL} --density 0.5")
    assert result.exit_code == 0
    assert "gemm: 20 x 33 by 33 x 17, int8 to int8, density 0.5, compressed" in result.stdout
    assert "MAC utilisation (modelled)" in result.stdout


def test_a_wrong_result_is_an_error_and_prints_no_figure(monkeypatch):
    unpack = bench.GemmPlan.unpack_c

    def wrong(self, raw):
        c = unpack(self, raw)
        c[3, 4] ^= 1
        return c

    monkeypatch.setattr(bench.GemmPlan, "unpack_c", wrong)
    result = host(f"bench gemm {SMALL} --json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "1 of 340 results, first in C[3, 4]:" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bench gemm --preset huge", "no preset 'huge'; choose one of: tiny, ecp5, sim"),
        ("bench gemm --backend fpga", "no backend 'fpga'; choose one of: rtl, functional"),
        ("bench gemm --memory ddr", "no memory 'ddr'; choose one of: hbm, ideal"),
        ("bench gemm --dtype bf17", "no format 'bf17'; choose one of: int8, fp16"),
        ("bench gemm --out-dtype bf17", "no format 'bf17'; choose one of: int8, fp16, int32"),
        ("bench gemm --dtype fp16 --out-dtype int32", "fp16 inputs have no int32 result"),
        ("bench gemm --m 0", "--m must be at least 1, not 0"),
        ("bench gemm --density 1.5", "--density must be from 0 to 1, not 1.5"),
        ("bench gemm --seed -1", "--seed must be at least 0, not -1"),
        ("bench gemm --k 1025", "K = 1025 is longer than the operand memory of preset ecp5"),
        ("bench gemm --m 99999 --n 99999", "out of card memory: A, B and C of a 99999 x 256 by"),
        ("bench simspeed --k 4096", "at most 1024 (operand_depth)"),
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


def test_unknown_options():
    assert host("bench gemm --fast").exit_code == 2
    assert host("bench gemm --m many").exit_code == 2


def test_info():
    (fields,) = json_lines(host("info --preset sim --json"))
    assert (fields["rows"], fields["cols"], fields["abi"]) == (16, 16, 1)
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


def test_simspeed():
    (fields,) = json_lines(host("bench simspeed --preset tiny --m 16 --n 16 --k 64 --json"))
    assert fields.keys() >= FIELDS | {"cycles_per_second", "macs_per_second", "compiler"}
    assert fields["backend"] == "rtl"
    assert not fields["cycles_modelled"]
    rate = fields["macs"] * fields["runs"] / fields["wall_seconds"]
    assert fields["macs_per_second"] == pytest.approx(rate, rel=1e-3)


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


def test_compare_names_the_first_difference():
    expected = np.zeros((3, 4), np.uint16)
    bench.compare(np.zeros((3, 4), np.float16), expected)
    actual = np.zeros((3, 4), np.float16)
    actual[1, 2], actual[2, 0] = 1, 2
    with pytest.raises(bench.MismatchError, match=r"2 of 12 results, first in C\[1, 2\]: 0x3c00 "):
        bench.compare(actual, expected)
