"""``host bench conv``: JSON fields, tables, known layers, one-line errors."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from deepseek.host.bench import ConvJob, MismatchError, conv
from deepseek.host.card import Card
from deepseek.host.cli import app
from deepseek.host.compiler.convolution import ConvPlan, ConvShape

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
    assert host("bench conv --layer list").stdout.count("resnet50:") == 23
    line = "bench conv --layer resnet50:conv5-expand --backend functional --preset sim --json"
    assert json.loads(host(line).stdout)["shape"]["filters"] == 2048


def test_a_wrong_result_is_an_error(monkeypatch):
    whole = ConvPlan.unpack_y

    def wrong(self, raw):
        output = whole(self, raw).copy()
        output[3, 4, 5] ^= 1
        return output

    monkeypatch.setattr(ConvPlan, "unpack_y", wrong)
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
        ("--kernel 3by3", "--kernel must be a number or two, as 3x5, not '3by3'"),
        ("--kernel 12", "kernel must be at most the padded image's height of 9, not 12"),
        ("--stride 0", "stride must be at least 1, not (0, 0)"),
        ("--groups 4", "channels must be a multiple of the 4 groups, not 6"),
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
    assert "no layer 'resnet50:conv9'; --layer list names all 23" in result.stderr
