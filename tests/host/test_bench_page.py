"""The page that is made of measurements: its tables, what it refuses, what it leaves out."""

import contextlib
import csv
import dataclasses
import json
import shlex

import pytest
from typer.testing import CliRunner

from deepseek.host import cli_bench
from deepseek.host.bench import LAYER_COLUMNS, NETWORKS, GemmJob, Latency, page
from deepseek.host.bench.attention import ATTENTION_COLUMNS, AttentionJob
from deepseek.host.bench.latency import LATENCY_COLUMNS, LATENCY_DTYPES
from deepseek.host.bench.page_sections import FILES
from deepseek.host.bench.page_tables import marked
from deepseek.host.bench.sweep import COLUMNS, ROWS, CsvFile
from deepseek.host.cli import app
from deepseek.host.counters import Counters
from deepseek.rtl.config import preset

SHARED = {"bit_exact": True, "cycles_modelled": False, "build": "0123456789abcdef"}


def write(docs, name, columns, lines):
    """Write a file of measurements as a bench command would."""
    folder = docs / "performance"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for line in lines:
            writer.writerow(dict.fromkeys(columns, 8) | SHARED | line)


def sweep(docs, preset, /, **changes):
    lines = []
    for row in ROWS[:3]:
        target = row.target(preset)
        line = {"row": row.name, "preset": preset, "value": 97.5, "target": target}
        line |= {"met": target <= 97.5, "command": f"deepseek-host bench gemm --m {row.job.m}"}
        lines.append(line | changes)
    write(docs, preset, COLUMNS, lines)


def network(docs, name, preset, used, /, *, count=None, **changes):
    """Write the layers of a network, each with that utilisation."""
    lines = []
    for layer in NETWORKS[name][:count]:
        cycles = round(layer.shape.macs / 100 / used)
        line = {"layer": layer.name, "times": layer.times, "macs": layer.shape.macs}
        line |= {"cycles": cycles, "mac_units": 100, "utilization": used, "preset": preset}
        line |= {"dtype": "int8", "memory": "hbm", "backend": "rtl", "kind": "swapped"}
        line |= {"tiles": "2 of 7 pixels", "mac_active": 72 if layer.times > 1 else 0}
        lines.append(line | changes)
    write(docs, f"{name}-{preset}", LAYER_COLUMNS, lines)


def attention(docs, preset, used, memory="ideal", /, **changes):
    lines = []
    for heads, share in zip((1, 8), used, strict=True):
        target = 0.95 if memory == "ideal" else None
        line = {"job": str(AttentionJob(heads=heads)), "heads": heads, "utilization": share}
        line |= {"target": target, "met": None if target is None else share >= target}
        line |= {"preset": preset, "memory": memory, "macs": 12345, "cycles": 4321}
        lines.append(line | {"command": f"attention of {heads}"} | changes)
    hbm = "" if memory == "ideal" else f"-{memory}"
    write(docs, f"attention{hbm}-{preset}", ATTENTION_COLUMNS, lines)


def latency(docs, preset, /, **changes):
    lines = []
    for dtype, first in (("int8", 20), ("fp16", 21)):
        line = {"dtype": dtype, "preset": preset, "memory": "ideal", "mac_cycles": 1024}
        line |= {"first_mac": first, "first_mac_target": 20, "overhead": 84, "overhead_target": 85}
        line |= {"idle_between_2": 0.0, "idle_between_8": 0.25, "idle_between_target": 0}
        lines.append(line | {"empty_job": 33, "command": f"latency on {preset}"} | changes)
    write(docs, f"latency-{preset}", LATENCY_COLUMNS, lines)


def made(docs):
    """Write the page, and return it."""
    options = ["--docs", str(docs)]
    assert page.main(options) == 0
    assert page.main([*options, "--check"]) == 0
    return (docs / "performance.md").read_text()


def refused(docs, capsys):
    """Return why there is no page."""
    assert page.main(["--docs", str(docs)]) == 2
    assert not (docs / "performance.md").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_page_says_what_was_measured(tmp_path, capsys):
    assert "run: deepseek-host bench sweep" in refused(tmp_path, capsys)
    options = ["--docs", str(tmp_path), "--check"]
    sweep(tmp_path, "ecp5")
    assert page.main(options) == 1
    text = made(tmp_path)
    assert "97.50 % (target 93.00 %) | RedMulE 87.4 % |" in text
    assert "**97.50 %** (**missed**: target 98.80 %) | RedMulE 96.7 % |" in text
    assert "commit 51cd064" in text
    assert "deepseek-host bench gemm --m 64  # fp16-64: 8 cycles" in text
    assert "gemv" not in text.split("## Figures")[1].split("## Peers")[0]
    sweep(tmp_path, "sim", value=80.01)
    assert page.main(options) == 1


def test_sections_without_measurements_are_left_out(tmp_path):
    sweep(tmp_path, "ecp5")
    text = made(tmp_path)
    heads = ("## Networks", "## Attention", "## What a command costs")
    assert not any(head in text for head in heads)
    latency(tmp_path, "sim")
    text = made(tmp_path)
    assert [head in text for head in heads] == [False, False, True]
    network(tmp_path, "mobilenetv2", "ecp5", 0.9)
    text = made(tmp_path)
    assert [head in text for head in heads] == [True, False, True]
    assert "resnet50" not in text
    # A file that has only its heading.
    attention(tmp_path, "ecp5", (0.9, 0.9))
    write(tmp_path, "attention-ecp5", ATTENTION_COLUMNS, [])
    assert made(tmp_path) == text


def test_networks(tmp_path):
    sweep(tmp_path, "ecp5")
    network(tmp_path, "resnet50", "ecp5", 0.97)
    network(tmp_path, "resnet50", "sim", 0.91)
    network(tmp_path, "mobilenetv2", "ecp5", 0.9, count=7)
    text = made(tmp_path)
    cycles = sum(x.times * round(x.shape.macs / 97) for x in NETWORKS["resnet50"])
    assert (
        f"| resnet50 | int8 | hbm | 54 | 4,089,184,256 | {cycles:,} | 97.00 % (target 96.00 %) | "
    ) in text
    assert (
        " | **91.00 %** (**missed**: target 92.00 %) | Gemmini 51 % (16 x 16, end to end); " in text
    )
    shapes = len(NETWORKS["mobilenetv2"])
    assert f" |  | not measured (7 of {shapes} shapes) |  | not measured |  |" in text
    first, *_ = NETWORKS["resnet50"]
    macs, used = f"{first.shape.macs:,}", f"{round(first.shape.macs / 97):,}"
    assert f"| conv1 | 1 | {macs} | {used} | 97.00 % | swapped: 2 of 7 pixels |" in text
    # The other six causes have 8 engine-cycles in each of the 54.
    active = 72 * sum(layer.times for layer in NETWORKS["resnet50"] if layer.times > 1)
    share, other = (f"{100 * part / (active + 48 * 54):.2f}" for part in (active, 8 * 54))
    assert f"| resnet50 | `ecp5` | {cycles:,} | {share} |{f' {other} |' * 6}" in text
    options = "--network resnet50 --dtype int8 --preset ecp5 --backend rtl --memory hbm"
    assert f"deepseek-host bench conv {options}  # {cycles} cycles" in text


def test_a_network_under_other_conditions_has_no_target(tmp_path):
    sweep(tmp_path, "ecp5")
    network(tmp_path, "resnet50", "ecp5", 0.5, memory="ideal")
    assert " | 50.00 % | Gemmini" in made(tmp_path)
    # Nor one whose layers occur otherwise.
    network(tmp_path, "resnet50", "ecp5", 0.99, times=1)
    assert " |  | not measured (24 of 24 shapes) | Gemmini" in made(tmp_path)


def test_attention(tmp_path):
    sweep(tmp_path, "ecp5")
    attention(tmp_path, "ecp5", (0.94999, 0.96))
    attention(tmp_path, "ecp5", (0.9, 0.91), "hbm")
    attention(tmp_path, "sim", (0.95, 0.95))
    text = made(tmp_path)
    missed, met = "**95.00 %** (**missed**: target 95.00 %)", "95.00 % (target 95.00 %)"
    assert f"| 1 head of 256 x 64, int8 | ideal | 12,345 | {missed} | {met} | ITA 99.74 % (" in text
    assert "| 8 heads of 256 x 64, int8 | hbm | 12,345 | 91.00 % | not measured |  |" in text
    assert f"| 8 heads of 256 x 64, int8 | hbm | `ecp5` | 4,321 |{' 14.29 |' * 7}" in text
    assert "attention of 8  # 4321 cycles" in text


def test_latency(tmp_path):
    sweep(tmp_path, "ecp5")
    latency(tmp_path, "ecp5")
    latency(tmp_path, "sim", first_mac="")
    text = made(tmp_path)
    first = "20 (target 20) | **21** (**missed**: target 20) | not readable | not readable |"
    assert f"| command at the queue's head to first MAC | {first}" in text
    assert f"| overhead of a job with one MATMUL |{' 84 (target 85) |' * 4}" in text
    assert f"| job without a command |{' 33 |' * 4}" in text
    assert f"| idle between 2 MATMULs |{' 0 (target 0) |' * 4}" in text
    assert f"8 MATMULs, each |{' **0.25** (**missed**: target 0) |' * 4}" in text
    assert "MATMUL multiplies for 1024 cycles" in text
    assert "ITA 63 (" in text
    assert text.count("latency on ecp5") == 1


@pytest.mark.parametrize(
    ("write_one", "name"),
    [
        (sweep, "fp16-64"),
        (
            lambda docs, preset, /, **c: network(docs, "resnet50", preset, 0.9, **c),
            "resnet50:conv1",
        ),
        (
            lambda docs, preset, /, **c: attention(docs, preset, (0.9, 0.9), **c),
            "1 head of 256 x 64",
        ),
        (lambda docs, preset, /, **c: attention(docs, preset, (0.9, 0.9), "hbm", **c), "1 head of"),
        (latency, "int8"),
    ],
)
def test_the_page_takes_only_measurements(tmp_path, capsys, write_one, name):
    sweep(tmp_path, "sim")
    for changes in ({"cycles_modelled": True}, {"bit_exact": False}, {"bit_exact": ""}):
        write_one(tmp_path, "ecp5", **changes)
        message = refused(tmp_path, capsys)
        assert f": {name}" in message
        assert "was not measured on the RTL" in message
    write_one(tmp_path, "ecp5", preset="tiny")
    assert "was measured on preset tiny; measure it on ecp5" in refused(tmp_path, capsys)
    write_one(tmp_path, "ecp5")
    made(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_does_not_say_how_it_was_measured_is_refused(tmp_path, capsys, name):
    sweep(tmp_path, "ecp5")
    write(tmp_path, f"{name}-sim", (FILES[name], "preset", *SHARED), [])
    made(tmp_path)
    (tmp_path / "performance.md").unlink()
    path = tmp_path / "performance" / f"{name}-sim.csv"
    path.write_text(path.read_text().replace("bit_exact,", ""))
    assert f"{name}-sim.csv has no column 'bit_exact'" in refused(tmp_path, capsys)


def test_marks():
    assert marked("1", None, False) == "1"
    assert marked("1", "2", True, " x") == "1 x (target 2)"
    assert marked("1", "2", False, " x") == "**1** x (**missed**: target 2)"


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


def test_attention_writes_its_file(tmp_path):
    path = tmp_path / "attention.csv"
    options = "--seq 40 --dim 16 --backend functional --preset tiny --memory ideal"
    result = host(f"bench attention {options} --csv {path} --json")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["1 head of 40 x 16, int8", "8 heads of 40 x 16, int8"]
    for row, line in zip(rows, lines, strict=True):
        assert tuple(row) == ATTENTION_COLUMNS
        line |= {**line["shape"], **line["engine_cycles"], "target": "", "met": ""}
        assert row == {name: str(line.get(name, row["job"])) for name in ATTENTION_COLUMNS}
        assert row["cycles_modelled"] == "True"


def test_latency_writes_its_file(tmp_path, monkeypatch):
    """A file that the page takes; of figures that no card measured."""
    figures = {"mac_cycles": 1024, "job_cycles": 1100, "empty_job": 40, "first_mac": 18}
    figures |= {"lost": Counters(stall_fill=50, idle_other=26), "between": {2: 0.0, 8: 0.5}}

    path = tmp_path / "performance" / "latency-ecp5.csv"
    path.parent.mkdir()

    def measured(_, dtype):
        """Each row is written as it comes, behind the heads."""
        assert len(path.read_text().splitlines()) == 1 + LATENCY_DTYPES.index(dtype)
        job = GemmJob(m=32, n=16, k=256, dtype=dtype)
        where = {"config": preset("ecp5"), "backend": "rtl", "memory": "ideal"}
        return Latency(job=job, **where, **figures, build="0123456789abcdef")

    monkeypatch.setattr(cli_bench, "latency", measured)
    monkeypatch.setattr(cli_bench, "open_card", lambda *_: contextlib.nullcontext())
    result = host(f"bench latency --preset ecp5 --csv {path}")
    assert result.exit_code == 0, result.stderr
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dtype"] for row in rows] == ["int8", "fp16"]
    assert tuple(rows[0]) == LATENCY_COLUMNS
    found = {name: rows[0][name] for name in ("m", "overhead", "overhead_target", "stall_fill")}
    assert found == {"m": "32", "overhead": "76", "overhead_target": "85", "stall_fill": "50"}
    sweep(tmp_path, "ecp5")
    text = made(tmp_path)
    assert f"| overhead of a job with one MATMUL |{' 76 (target 85) |' * 2}" in text
    assert f"8 MATMULs, each |{' **0.5** (**missed**: target 0) |' * 2}" in text
    assert "deepseek-host bench latency --preset ecp5 --memory ideal" in text


def test_attention_has_a_target_where_peers_were_measured():
    options = "--heads 1 --backend functional --preset sim"
    result = host(f"bench attention {options} --memory ideal --json")
    line = json.loads(result.stdout)
    assert (line["target"], line["met"]) == (0.93, line["utilization"] >= 0.93)
    assert "93%: " in host(f"bench attention {options} --memory ideal").stdout
    for other in ("--memory hbm", "--memory ideal --causal", "--memory ideal --dim 32"):
        line = json.loads(host(f"bench attention {options} {other} --json").stdout)
        assert (line["target"], line["met"]) == (None, None)


def test_no_path_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @dataclasses.dataclass
    class Line:
        def fields(self):
            return {"a": 1}

    with CsvFile(None, ("a",)) as file:
        file.write(Line())
    assert not list(tmp_path.iterdir())


def test_the_page_in_the_documentation_is_current():
    assert page.main(["--check"]) == 0
