"""``host bench``: exit codes, one-line errors, JSON fields, tables, interruptions."""

import csv
import importlib.util
import json
import random
import shlex
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepseek.host import bench, cli_bench
from deepseek.host.bench.sweep import COLUMNS
from deepseek.host.cli import app
from deepseek.host.compiler.gemm import GemmPlan

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
    "engine_cycles",
    "bit_exact",
    "command",
}
SCALE = "--block-scale must be a positive multiple of 16, or K of 256 or more"
SMALL = "--m 20 --n 17 --k 33 --backend functional --preset tiny"


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


def json_lines(result):
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_gemm_json():
    (fields,) = json_lines(host(f"bench gemm {SMALL} --json"))
    assert fields.keys() >= FIELDS
    assert fields["shape"] == {"m": 20, "n": 17, "k": 33}
    assert fields["macs"] == 20 * 17 * 33
    assert fields["mac_units"] == 4 * 4 * 2
    expected = fields["macs"] / fields["cycles"] / fields["mac_units"]
    assert fields["utilization"] == pytest.approx(expected, abs=1e-5)
    assert fields["bit_exact"] is True
    assert fields["cycles_modelled"] is True
    assert "bandwidth" not in fields


@pytest.mark.parametrize(
    "options",
    [
        "--dtype fp16 --out-dtype fp32 --seed 5",
        "--dtype int8 --resident-dtype int4 --out-dtype int8 --stream a",
        "--dtype bf16 --out-dtype e5m2 --encoding dense --density 0.25",
        "--dtype e4m3 --block-scale 16 --out-dtype bf16 --stream b",
        "--dtype int4 --out-dtype int32 --encoding delta --density 0.5 --skew 0.6",
    ],
)
def test_gemm_command_repeats_it(options):
    *_, fields = json_lines(host(f"bench gemm {SMALL} {options} --json"))
    program, *words = shlex.split(fields["command"])
    assert program == "deepseek-host"
    *_, again = json_lines(host(shlex.join([*words, "--json"])))
    assert again | {"wall_seconds": 0} == fields | {"wall_seconds": 0}


@pytest.mark.parametrize("dtype", bench.DTYPES)
@pytest.mark.parametrize("out_dtype", bench.OUT_DTYPES)
def test_gemm_in_every_format(dtype, out_dtype):
    result = host(f"bench gemm {SMALL} --dtype {dtype} --out-dtype {out_dtype} --json")
    if out_dtype == "int32" and dtype not in ("int4", "int8"):
        assert result.exit_code == 2
        assert "has no int32 result; choose fp32" in result.stderr
    else:
        (fields,) = json_lines(result)
        assert (fields["dtype"], fields["out_dtype"]) == (dtype, out_dtype)


@pytest.mark.parametrize("zeros", ["--density 0.1", "--encoding 1:8", "--density 0.1 --skew 0.6"])
def test_gemm_with_zeros_runs_dense_too(zeros):
    shape = "--m 64 --n 64 --k 256 --memory ideal"
    dense, sparse = json_lines(host(f"bench gemm {shape} {zeros} --backend functional --json"))
    assert not dense["sparse"]
    assert "speedup_over_dense" not in dense
    assert sparse["sparse"]
    assert sparse["speedup_over_dense"] == pytest.approx(dense["cycles"] / sparse["cycles"], 1e-3)
    assert sparse["macs"] < dense["macs"] / 5


def test_gemm_with_zeros_may_be_sent_dense():
    (fields,) = json_lines(host(f"bench gemm {SMALL} --density 0.1 --encoding dense --json"))
    assert not fields["sparse"]
    assert fields["encoding"] == "dense"
    assert fields["macs"] == 20 * 17 * 33


def test_a_matrix_vector_product_tells_its_share_of_the_bandwidth():
    line = "bench gemm --m 1 --n 64 --k 256 --backend functional --preset tiny"
    (fields,) = json_lines(host(f"{line} --json"))
    share = fields["bytes_per_cycle"] / fields["bandwidth"]
    assert fields["bandwidth_fraction"] == pytest.approx(share, abs=1e-3)
    assert 0 < fields["bandwidth_fraction"] <= 1.05
    assert "memory bandwidth (modelled)" in host(line).stdout


def test_gemm_table():
    result = host(f"bench gemm {SMALL} --density 0.5")
    assert result.exit_code == 0
    assert "gemm: 20 x 33 by 33 x 17, int8 to int8, density 0.5; functional" in result.stdout
    assert "MAC utilisation (modelled)" in result.stdout
    assert "times faster than dense" in result.stdout


def test_a_wrong_result_is_an_error_and_prints_no_figure(monkeypatch):
    unpack = GemmPlan.unpack_c

    def wrong(self, raw):
        c = unpack(self, raw)
        c[3, 4] ^= 1
        return c

    monkeypatch.setattr(GemmPlan, "unpack_c", wrong)
    result = host(f"bench gemm {SMALL} --json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "1 of 340 results, first in C[3, 4]:" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gemm --preset huge", "no preset 'huge'; choose one of: tiny, wide, ecp5, sim"),
        ("gemm --backend fpga", "no backend 'fpga'; choose one of: rtl, functional"),
        ("gemm --memory ddr", "no memory 'ddr'; choose one of: hbm, ideal"),
        ("gemm --dtype bf17", "no format 'bf17'; choose one of: int4, int8, e4m3, e5m2, fp16,"),
        ("gemm --resident-dtype int32", "no format 'int32'; choose one of: int4, int8, e4m3"),
        ("gemm --out-dtype bf17", "no format 'bf17'; choose one of: int4, int8"),
        ("gemm --dtype fp16 --resident-dtype bf16", "fp16 and bf16 cannot be multiplied"),
        ("gemm --dtype fp16 --out-dtype int32", "fp16 by fp16 has no int32 result; choose fp32"),
        ("gemm --out-dtype int32 --block-scale 16", "--block-scale has no int32 result"),
        ("gemm --block-scale 24", f"{SCALE}, not 24"),
        ("gemm --block-scale 0", f"{SCALE}, not 0; next: deepseek-host bench gemm --help"),
        ("gemm --block-scale -16", f"{SCALE}, not -16"),
        ("gemm --out-dtype ''", "no format ''; choose one of: int4, int8"),
        ("gemm --quantize row --out-dtype ''", "no format ''; choose one of: int4, int8"),
        ("gemm --m 0", "--m must be at least 1, not 0; next: deepseek-host bench gemm --help"),
        ("gemm --k 32769", "--k must be from 1 to 32768, not 32769"),
        ("gemm --density 1.5", "--density must be from 0 to 1, not 1.5"),
        ("gemm --skew 0.6", "--skew needs --density; next: add --density 0.1, or leave --sk"),
        ("gemm --skew nan --density 0.5", "--skew must be a number of at least 0, not nan"),
        ("gemm --skew inf --density 0.5", "--skew must be a number of at least 0, not inf"),
        ("gemm --skew -1", "--skew must be a number of at least 0, not -1"),
        ("gemm --encoding 3:4", "--encoding must be one of auto, dense, delta, 2:4, 1:4, 1:8"),
        ("gemm --encoding 2:4 --density 0.1", "--encoding 2:4 sets the density"),
        ("gemm --stream c", "--stream must be one of auto, a, b, not 'c'"),
        ("gemm --stream b --density 0.1", "--stream b sends A dense; leave its zeros out"),
        ("gemm --stream b --out-dtype int4", "--stream b has no int4 results; choose int8"),
        ("gemm --seed -1", "--seed must be at least 0, not -1"),
        ("gemm --m 99999 --n 99999", "out of card memory: A, B and C of a 99999 x 256 by"),
        ("simspeed --k 99999", "--k must be from 1 to 32768, not 99999"),
        ("sparse --density 2", "--density must be from 0 to 1, not 2.0"),
        ("sparse --dtype int9", "no format 'int9'"),
        ("sweep --only bert", "no row 'bert'; choose one of: fp16-64"),
        ("sweep --only ''", "no row ''; choose one of: fp16-64"),
        ("sweep --preset huge", "no preset 'huge'"),
        ("sweep --csv /nowhere/x.csv", "there is no folder /nowhere for --csv; make it first"),
        ("attention --csv /tmp", "--csv must name a file, and /tmp is a folder"),
        ("latency --csv /proc/x.csv", "--csv cannot write /proc/x.csv: "),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(line, message):
    result = host(f"bench {line}")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_a_warning_is_one_line(monkeypatch):
    whole = cli_bench.gemm

    def warned(card, job):
        warnings.warn("a result\nwas lost", stacklevel=1)
        return whole(card, job)

    monkeypatch.setattr(cli_bench, "gemm", warned)
    result = host(f"bench gemm {SMALL}")
    assert result.exit_code == 0
    assert "warning: a result was lost" in result.stderr.splitlines()


def test_simspeed():
    (fields,) = json_lines(host("bench simspeed --preset tiny --m 16 --n 16 --k 64 --json"))
    assert fields.keys() >= FIELDS | {"cycles_per_second", "macs_per_second", "compiler"}
    assert fields["backend"] == "rtl"
    assert not fields["cycles_modelled"]
    # They go on until the completion record is in memory.
    counted = sum(fields["engine_cycles"].values())
    assert 4 * fields["cycles"] <= counted <= 4 * (fields["cycles"] + 64)
    rate = fields["macs"] * fields["runs"] / fields["wall_seconds"]
    assert fields["macs_per_second"] == pytest.approx(rate, rel=1e-3)


SPARSE = "bench sparse --m 24 --n 24 --k 64 --preset tiny --backend functional"


def test_sparse():
    lines = json_lines(host(f"{SPARSE} --dtype int8 --dtype bf16 --density 1 --density 0.1 --json"))
    assert len(lines) == 2 * (2 + 3 + 2)
    assert {line["dtype"] for line in lines} == {"int8", "bf16"}
    for line in lines:
        assert line["speedup_over_dense"] == pytest.approx(
            line["dense_cycles"] / line["cycles"], abs=1e-3
        )
    assert max(line["speedup_bound"] for line in lines) > 7
    result = host(f"{SPARSE} --dtype int4 --density 0.3")
    assert result.exit_code == 0
    assert "1:8 non-zero" in result.stdout
    assert "density 0.1, rows skewed by 0.6" in result.stdout


SWEEP = "bench sweep --preset tiny --backend functional --only fp16-64 --only 31x32x31"


def test_sweep(tmp_path):
    target = tmp_path / "tiny.csv"
    lines = json_lines(host(f"{SWEEP} --csv {target} --json"))
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["fp16-64", "fp16-31x32x31"]
    assert [str(line["cycles"]) for line in lines] == [row["cycles"] for row in rows]
    assert tuple(rows[0]) == COLUMNS == tuple(lines[0])
    assert rows[0]["peers"] == "RedMulE 87.4 %"
    for row in rows:
        _, *words = shlex.split(row["command"])
        (again,) = json_lines(host(shlex.join([*words, "--json"])))
        assert str(again["cycles"]) == row["cycles"]
    result = host(SWEEP)
    assert result.exit_code == 0
    assert "RedMulE" in result.stdout
    assert "utilization: % of the MACs" in result.stdout


def test_sweep_of_a_ratio_names_both_commands():
    sweep = "bench sweep --preset ecp5 --backend functional --only int4:int8 --json"
    (line,) = json_lines(host(sweep))
    assert line["value"] == pytest.approx(line["base_cycles"] / line["cycles"], abs=1e-3)
    assert line["target"] == 1.95
    assert "--dtype int4" in line["command"]
    assert "--dtype int8" in line["base_command"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ValueError("no"), 2)])
@pytest.mark.parametrize("as_json", ["", "--json"])
def test_what_ends_a_sweep_keeps_the_rows_so_far(monkeypatch, tmp_path, error, code, as_json):
    run = cli_bench.Sweep.run

    def cut_short(self, row):
        if row.name != "fp16-64":
            raise error
        return run(self, row)

    monkeypatch.setattr(cli_bench.Sweep, "run", cut_short)
    target = tmp_path / "tiny.csv"
    result = host(f"{SWEEP} {as_json} --csv {target}")
    assert result.exit_code == code
    message = "interrupted: 1 of 2 rows" if code == 130 else "error: no"
    assert message in result.stderr.splitlines()
    assert "fp16-64" in result.stdout
    assert len(target.read_text().splitlines()) == 2


def test_what_ends_a_comparison_keeps_the_rows_so_far(monkeypatch):
    compared = []
    whole = cli_bench.speedup

    def cut_short(card, job, **options):
        if compared:
            raise KeyboardInterrupt
        compared.append(job)
        return whole(card, job, **options)

    monkeypatch.setattr(cli_bench, "speedup", cut_short)
    result = host(f"{SPARSE} --dtype int8")
    assert result.exit_code == 130
    assert "interrupted: 1 of 11 rows" in result.stderr
    assert "density 1.0" in result.stdout


def test_the_nightly_products_are_ones_that_the_card_takes():
    path = Path(__file__).resolve().parents[2] / "tools" / "nightly.py"
    spec = importlib.util.spec_from_file_location("nightly", path)
    nightly = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nightly)
    for seed in range(5):
        for preset in nightly.PRESETS:
            words = nightly.gemm(random.Random(seed), preset, seed)
            words[words.index("--backend") + 1] = "functional"
            assert json_lines(host(shlex.join(words)))
