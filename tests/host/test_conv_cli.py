"""``host bench conv``: JSON fields, tables, known layers, one-line errors."""

import csv
import json
import shlex

import pytest
from typer.testing import CliRunner

from deepseek.host.bench import NETWORKS, ConvJob, MismatchError, conv, conv_network
from deepseek.host.card import Card
from deepseek.host.cli import app
from deepseek.host.compiler.convolution import ConvShape
from deepseek.host.compiler.convolution_windows import WindowsPlan

SMALL = "bench conv --h 9 --w 10 --c 6 --filters 8 --backend functional --preset tiny"


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--kernel 1 --dtype fp16 --out-dtype fp32 --seed 5",
        "--kernel 3x2 --stride 2x1 --dilation 1x2 --pad 1x2 --groups 2 --dtype int4",
    ],
)
def test_the_command_repeats_it(options):
    result = host(f"{SMALL} {options} --json")
    assert result.exit_code == 0, result.stderr
    fields = json.loads(result.stdout)
    assert fields["bit_exact"] is True
    share = fields["macs"] / fields["cycles"] / fields["mac_units"]
    assert fields["utilization"] == pytest.approx(share, abs=1e-5)
    program, *words = shlex.split(fields["command"])
    assert program == "deepseek-host"
    again = json.loads(host(shlex.join([*words, "--json"])).stdout)
    assert again | {"wall_seconds": 0} == fields | {"wall_seconds": 0}


def test_tables_and_known_layers():
    result = host(SMALL)
    assert result.exit_code == 0
    assert "conv: 9 x 10 x 6, 8 filters 3 x 3, int8 to int8; functional" in result.stdout
    assert "MAC utilisation (modelled)" in result.stdout
    assert host("bench conv --layer list").stdout.count("resnet50:") == 24
    line = "bench conv --layer resnet50:conv5-expand --backend functional --preset sim --json"
    assert json.loads(host(line).stdout)["shape"]["filters"] == 2048


def test_a_wrong_result_is_an_error(monkeypatch):
    whole = WindowsPlan.unpack_y

    def wrong(self, raw):
        output = whole(self, raw).copy()
        output[3, 4, 5] ^= 1
        return output

    monkeypatch.setattr(WindowsPlan, "unpack_y", wrong)
    result = host(f"{SMALL} --json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "1 of 448 results, first in Y[3, 4, 5]:" in result.stderr
    shape = ConvShape(height=9, width=10, channels=2, filters=8, kernel=(3, 3))
    with Card.open("functional", preset="tiny") as card, pytest.raises(MismatchError):
        conv(card, ConvJob(shape=shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--kernel 3by3", "--kernel must be a whole number or two, as 3x5, not '3by3'"),
        ("--stride -1", "--stride must be a whole number or two, as 3x5, not '-1'"),
        ("--kernel 12", "--kernel must be at most the padded image's height of 9, not 12"),
        ("--kernel 0", "--kernel must be at least 1, not 0; next: deepseek-host bench conv --help"),
        ("--stride 1x0", "--stride must be at least 1, not 1x0"),
        ("--pad 4", "--pad must be from 0 to the kernel's extent of 3, not 4"),
        ("--groups 4", "--c must be a multiple of the 4 groups, not 6"),
        ("--c 0 --transposed", "--c must be at least 1, not 0"),
        ("--out-dtype ''", "no format ''; choose one of"),
        ("--layer resnet50:conv1", "--layer sets the shape; leave --h out"),
        ("--dtype int9", "no format 'int9'; choose one of"),
        ("--dtype fp16 --out-dtype int32", "fp16 has no int32 result; choose fp32"),
        ("--seed -1", "--seed must be at least 0, not -1"),
        ("--preset huge", "no preset 'huge'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(options, message):
    result = host(f"{SMALL} {options}")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_an_unknown_layer():
    result = host("bench conv --layer resnet50:conv9")
    assert result.exit_code == 2
    assert "no layer 'resnet50:conv9'; --layer list names all 55" in result.stderr


FEW = "bench conv --network resnet50 --only conv5-reduce --only classifier --backend functional"


def test_a_network_has_a_line_for_each_layer_and_one_for_all(tmp_path):
    path = tmp_path / "layers.csv"
    result = host(f"{FEW} --preset sim --csv {path} --json")
    assert result.exit_code == 0, result.stderr
    *layers, total = [json.loads(line) for line in result.stdout.splitlines()]
    assert [layer["layer"] for layer in layers] == ["resnet50:conv5-reduce", "resnet50:classifier"]
    assert [layer["times"] for layer in layers] == [2, 1]
    assert total["macs"] == 2 * 51_380_224 + 2_048_000
    assert total["cycles"] == 2 * layers[0]["cycles"] + layers[1]["cycles"]
    share = total["macs"] / total["cycles"] / total["mac_units"]
    assert total["utilization"] == pytest.approx(share, abs=1e-5)
    assert (total["layers"], total["distinct"], total["complete"]) == (3, 2, False)
    assert (total["target"], total["met"]) == (None, None)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, layer in zip(rows, layers, strict=True):
        assert row == {name: str(value) for name, value in layer.items() if name != "name"}
    # The command in a row repeats it.
    _, *words = shlex.split(rows[0]["command"])
    again = json.loads(host(shlex.join([*words, "--json"])).stdout)
    assert str(again["cycles"]) == rows[0]["cycles"]


def test_a_network_as_a_table():
    result = host(f"{FEW} --preset ecp5 --kind swapped")
    assert result.exit_code == 0, result.stderr
    assert "conv: resnet50, int8; functional, preset ecp5, memory hbm" in result.stdout
    assert "2 of 24" in result.stdout
    assert "Not in the figure: pooling, functions and sums of shortcuts" in result.stdout
    assert "target" not in result.stdout


def test_a_whole_network_has_a_target(monkeypatch):
    layers = NETWORKS["resnet50"]
    monkeypatch.setitem(NETWORKS, "resnet50", tuple(x for x in layers if "conv5-e" in x.name))
    line = "bench conv --network resnet50 --backend functional --preset sim"
    fields = json.loads(host(f"{line} --json").stdout.splitlines()[-1])
    assert (fields["target"], fields["met"]) == (0.92, fields["utilization"] >= 0.92)
    assert "target: 92%: " in host(line).stdout
    assert json.loads(host(f"{line} --memory ideal --json").stdout.splitlines()[-1])["met"] is None


def test_ctrl_c_keeps_the_layers_so_far(monkeypatch):
    whole, done = conv_network.conv, []

    def interrupted(card, job):
        if done:
            raise KeyboardInterrupt
        done.append(job)
        return whole(card, job)

    monkeypatch.setattr(conv_network, "conv", interrupted)
    result = host(f"{FEW} --preset sim --json")
    assert result.exit_code == 130
    assert "interrupted: 1 of 2 layers" in result.stderr
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == [
        "conv-layer",
        "conv-network",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--network vgg16", "no network 'vgg16'; choose one of: resnet50, mobilenetv2"),
        ("--network resnet50 --only conv9", "no layer of resnet50 has 'conv9' in its name"),
        ("--network resnet50 --h 5", "--network sets the shapes; leave --h out"),
        ("--network resnet50 --layer resnet50:conv1", "leave --layer out"),
        ("--network resnet50 --groups 2", "leave --groups out"),
        ("--network resnet50 --dilation 2", "leave --dilation out"),
        ("--network resnet50 --out-dtype fp32", "leave --out-dtype out"),
        ("--network resnet50 --kind best", "no --kind 'best'; choose one of: windows, swapped"),
        ("--network resnet50 --kernel ''", "leave --kernel out"),
        ("--network resnet50 --only ''", "no layer of resnet50 has '' in its name"),
        ("--network resnet50 --csv /nowhere/x.csv", "there is no folder /nowhere for --csv"),
        ("--only conv1", "--only goes with --network; next: add --network resnet50, or leave --"),
        ("--csv layers.csv", "--csv goes with --network; next: add --network resnet50, or leave"),
    ],
)
def test_mistakes_about_networks(options, message):
    result = host(f"bench conv --backend functional --preset tiny {options}")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr.splitlines()[-1]
