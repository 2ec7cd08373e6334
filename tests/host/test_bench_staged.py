"""``host bench gemm`` of operands that the card makes ready: figures, tables, repeated commands."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from deepseek.host.bench.staged import chosen_job
from deepseek.host.bench.staged_jobs import CompressJob, LyingJob, MxJob, QuantizeJob
from deepseek.host.cli import app
from deepseek.host.compiler.staged import StagedPlan

SMALL = "bench gemm --m 20 --n 17 --k 48 --backend functional --preset tiny"

CASES = {
    "--dtype mxfp8": ("mxfp8", "mxfp8", "fp32", "A and B expanded to bf16"),
    "--dtype mxfp8e5m2 --out-dtype bf16": ("mxfp8e5m2", "mxfp8e5m2", "bf16", "A and B expanded"),
    "--dtype mxint8 --out-dtype int8": ("mxint8", "mxint8", "int8", "A and B expanded"),
    "--dtype mxfp4 --resident-dtype mxfp8": ("mxfp4", "mxfp8", "fp32", "A and B expanded"),
    "--dtype mxfp4 --resident-dtype e4m3": ("mxfp4", "e4m3", "fp32", "A expanded to bf16"),
    "--transpose-a": ("int8", "int8", "int8", "A and B transposed"),
    "--transpose-b --out-dtype int32": ("int8", "int8", "int32", "nothing: K is innermost"),
    "--transpose-a --transpose-b --dtype e5m2": ("e5m2", "e5m2", "e5m2", "A transposed"),
    "--no-transpose-b --dtype bf16 --seed 3": ("bf16", "bf16", "bf16", "B transposed"),
    "--compress-on-card --density 0.3 --skew 0.5": ("int8", "int8", "int8", "A's zeros left out"),
    "--compress-on-card --encoding 1:4 --dtype fp16": ("fp16", "fp16", "fp16", "A's zeros"),
    "--quantize row": ("bf16", "int8", "bf16", "quantized to int8 with a scale a row"),
    "--quantize tile --dtype fp16 --out-dtype int8": ("fp16", "int8", "int8", "a 1 x 128 tile"),
    "--quantize tile --resident-dtype e4m3": ("bf16", "e4m3", "bf16", "quantized to e4m3"),
}


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


def fields_of(line):
    result = host(f"{line} --json")
    assert result.exit_code == 0, result.stderr
    (fields,) = map(json.loads, result.stdout.splitlines())
    return fields


@pytest.mark.parametrize("options", CASES)
def test_equals_the_golden_model_and_can_be_repeated(options):
    fields = fields_of(f"{SMALL} {options}")
    dtype, resident, out, made = CASES[options]
    assert fields["bit_exact"] is True
    assert (fields["dtype"], fields["resident_dtype"], fields["out_dtype"]) == (
        dtype,
        resident,
        out,
    )
    assert made in fields["on_card"]
    assert fields["shape"] == {"m": 20, "n": 17, "k": 48}
    share = fields["macs"] / fields["cycles"] / fields["mac_units"]
    assert fields["utilization"] == pytest.approx(share, abs=1e-5)
    program, *words = shlex.split(fields["command"])
    assert program == "deepseek-host"
    again = fields_of(shlex.join(words))
    assert again | {"wall_seconds": 0} == fields | {"wall_seconds": 0}


def test_compression_is_printed_beside_dense_and_the_compilers():
    line = "bench gemm --m 64 --n 64 --k 128 --backend functional --preset tiny --density 0.2"
    fields = fields_of(f"{line} --compress-on-card")
    *_, packed = map(json.loads, host(f"{line} --encoding delta --json").stdout.splitlines())
    assert fields["packed_cycles"] == packed["cycles"]
    assert fields["packed_cycles"] < fields["cycles"] < fields["dense_cycles"]
    assert fields["macs"] == packed["macs"]
    table = host(f"{line} --compress-on-card").stdout
    assert "compressed by the compiler" in table
    assert "times faster than dense" in table


def test_sparse_with_compression_on_the_card():
    line = "bench sparse --m 24 --n 24 --k 64 --preset tiny --backend functional --dtype int8"
    result = host(f"{line} --density 0.3 --compress-on-card --json")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(row) for row in result.stdout.splitlines()]
    assert all(row["on_card_cycles"] > 0 for row in rows)
    assert "on the card (modelled)" in host(f"{line} --density 0.3 --compress-on-card").stdout


def test_table():
    text = host(f"{SMALL} --dtype mxfp4").stdout
    assert "gemm: 20 x 48 by 48 x 17, mxfp4 to fp32; functional, preset tiny" in text
    assert "A and B expanded to bf16" in text
    assert "MAC utilisation (modelled)" in text


def test_a_wrong_result_is_an_error_and_prints_no_figure(monkeypatch):
    unpack = StagedPlan.unpack_c

    def wrong(self, raw):
        c = unpack(self, raw)
        c[3, 4] += 1
        return c

    monkeypatch.setattr(StagedPlan, "unpack_c", wrong)
    result = host(f"{SMALL} --transpose-a --json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "1 of 340 results, first in C[3, 4]:" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--dtype mxfp6",
            "no format 'mxfp6'; choose one of: int4, int8, e4m3, e5m2, fp16, bf16, mxfp4,",
        ),
        ("--resident-dtype mxfp8", "--resident-dtype mxfp8 goes with an MX --dtype only"),
        ("--dtype mxfp8 --resident-dtype fp16", "bf16 and fp16 cannot be multiplied"),
        ("--dtype mxfp8 --encoding delta", "--encoding has no place with --dtype mxfp8"),
        ("--dtype mxfp8 --density 0.5", "--density has no place with --dtype mxfp8"),
        ("--transpose-a --stream b", "--stream has no place with --transpose-a and --transpose-b"),
        ("--transpose-a --dtype int4", "--transpose-a and --transpose-b has no path for int4"),
        ("--transpose-a --out-dtype int4", "has no path for int4; choose int8"),
        ("--compress-on-card", "--compress-on-card needs --density"),
        ("--compress-on-card --density 0.3 --block-scale 16", "--block-scale has no place with"),
        ("--compress-on-card --density 0.3 --encoding delta", "--encoding has no place with"),
        ("--quantize column", "--quantize must be one of row, tile, not 'column'"),
        ("--quantize row --dtype int8", "--quantize needs --dtype fp16 or bf16, not 'int8'"),
        ("--quantize row --resident-dtype fp16", "--quantize needs --resident-dtype int8 or e4m3"),
        ("--quantize row --out-dtype int32", "--quantize has no int32 result; choose fp32"),
        ("--quantize row --transpose-a", "--quantize exclude each other; leave one out"),
        ("--dtype mxfp4 --compress-on-card", "exclude each other; leave one out"),
        ("--transpose-a --preset tiny --k 20000", "no tile of a 256 x 20000 by 20000 x 256"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(options, message):
    result = host(f"bench gemm --backend functional {options}")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_chosen_job():
    plain = {"dtype": None, "resident_dtype": None, "out_dtype": None, "m": 4, "n": 4, "k": 4}
    kinds = {
        LyingJob: {"transpose_b": False},
        CompressJob: {"compress_on_card": True, "density": 0.5},
        MxJob: {"dtype": "mxint8"},
        QuantizeJob: {"quantize": "row"},
    }
    for kind, options in kinds.items():
        assert type(chosen_job(**plain | options)) is kind
    assert chosen_job(**plain).dtype == "int8"
