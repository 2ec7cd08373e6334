"""ROWS commands: the bytes are those of the layouts in `rtl.isa`, and mistakes are named."""

import numpy as np
import pytest
from amaranth.lib import data

from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand, Rows, Signal, Wait
from deepseek.rtl import isa
from deepseek.rtl.isa import Format, RowsOp

ONE = 0x3F800000
X, OUT, OTHER = Operand(32, inner=64), Operand(1 << 12, pong=256), Operand(80)
SHAPE = {"length": 7, "y": 3, "z": 2, "in_y_stride": 32, "in_z_stride": -96}
SHAPE |= {"out_y_stride": 16, "out_z_stride": 48, "in_zero": -5}
CLAMPS = {"clamp_low": -128, "clamp_high": 127}


def rows(**changes):
    return Rows(**{**SHAPE, "in_format": Format.INT8, "out_format": Format.INT8, **changes})


def as_bytes(op, body, operand_0=None, **header):
    """Bits of a command by Amaranth itself."""
    layout = data.Layout.cast(isa.RowsBody)
    formats = {"in_format": Format.INT8, "out_format": Format.INT8}
    body = {**SHAPE, **CLAMPS, **formats, "op": op, **body}
    operands = [operand_0 or {}, {"base": 32, "inner": 64}, {"base": 1 << 12, "pong": 256}]
    fields = {"opcode": isa.Opcode.ROWS, "version": isa.ABI_VERSION, "queue": isa.Queue.VECTOR}
    fields |= {"inner": 1, "outer": 1, "operand": operands, "body": layout.const(body).as_bits()}
    return data.Layout.cast(isa.Command).const(fields | header).as_bits().to_bytes(128, "little")


def test_affine_bytes():
    want = as_bytes(RowsOp.AFFINE, {"a_scale": 0x3F000000, "b_scale": ONE})
    assert commands.affine(X, OUT, rows(), a_scale=0.5) == want
    header = {"inner": 5, "outer": 6, "wait": [{"index": 3, "enable": 1}]}
    header["signal"] = [{"index": 4, "outer": 1, "enable": 1}]
    clamps = {"zero_point": 9, "clamp_low": 9, "clamp_high": 300}
    body = {"a_scale": ONE, "flags": 1, "out_format": Format.E4M3, **clamps}
    got = commands.affine(
        X,
        OUT,
        rows(out_format=Format.E4M3, **clamps),
        table=OTHER,
        inner=5,
        outer=6,
        wait=[Wait(3)],
        signal=[Signal(4, outer=True)],
    )
    assert got == as_bytes(RowsOp.AFFINE, body, {"base": 80}, **header)


def test_softmax_bytes():
    body = {"a_scale": 0x3EB8AA3B, "b_scale": 0x42FE0000, "out_format": Format.INT4}
    body |= {"clamp_low": -8, "clamp_high": 7}
    got = commands.softmax(X, OUT, rows(out_format=Format.INT4), scale=0.25, b_scale=127)
    assert got == as_bytes(RowsOp.SOFTMAX, body)
    body = {"a_scale": 0x3FB8AA3B, "b_scale": ONE, "c_scale": 0x3D800000, "flags": 2}
    body |= {"valid": 3, "valid_step": 1, "scale_y_stride": 16, "scale_z_stride": -4}
    got = commands.softmax(
        X,
        OUT,
        rows(),
        c_scale=1 / 16,
        scales=Operand(12),
        scale_y_stride=16,
        scale_z_stride=-4,
        valid=3,
        valid_step=1,
    )
    assert got == as_bytes(RowsOp.SOFTMAX, body, {"base": 12})


def test_normalize_bytes():
    body = {"b_scale": ONE, "c_scale": 0x3E124925, "epsilon": 0x3727C5AC}
    assert commands.normalize(X, OUT, rows(), epsilon=1e-5) == as_bytes(RowsOp.NORMALIZE, body)
    body |= {"b_scale": 0, "flags": 5}
    got = commands.normalize(X, OUT, rows(), epsilon=1e-5, table=OTHER, rms=True)
    assert got == as_bytes(RowsOp.NORMALIZE, body, {"base": 80})


def test_quantize_bytes():
    body = {"b_scale": 0x3C010204, "c_scale": 0xC0000000, "scale_y_stride": 4}
    got = commands.quantize(X, OUT, rows(), scales=OTHER, scale_y_stride=4, c_scale=-2)
    assert got == as_bytes(RowsOp.QUANTIZE, body, {"base": 80})
    for fmt, largest in ((Format.E4M3, 448), (Format.E5M2, 57344), (Format.FP16, 65504)):
        got = commands.quantize(X, OUT, rows(out_format=fmt), scales=OTHER, scale_y_stride=4)
        bits = int(np.float32(1 / largest).view(np.uint32))
        assert commands.decode(got)["b_scale"] == bits
        assert commands.decode(got)["opcode"] is isa.Opcode.ROWS


def test_table_bytes():
    table = commands.columns(np.array([1, -2, 1 << 30]), np.array([0.5, 1, -1]))
    words = [1, 0x3F000000, 0xFFFFFFFE, ONE, 1 << 30, 0xBF800000, 0, 0]
    assert table.view(np.uint32).tolist() == words
    table = commands.columns(np.array([1.0, 0.1]), np.array([2, 4]))
    assert table.view(np.uint32).tolist() == [ONE, 0x40000000, 0x3DCCCCCD, 0x40800000]


SCALED = {"scales": OTHER, "scale_y_stride": 4}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: rows(length=0), "length must be from 1 to 65535, not 0"),
        (lambda: rows(z=1 << 16), "z must be"),
        (lambda: rows(in_format=Format.E4M3), "in_format must be one of INT8, .* not .*E4M3"),
        (lambda: rows(out_format=Format.INT32), "out_format must be one of .*INT32"),
        (lambda: rows(in_z_stride=8), "in_z_stride must be a multiple of 16, not 8"),
        (lambda: commands.affine(Operand(8), OUT, rows()), "x.base .* 16, not 8"),
        (lambda: commands.affine(X, Operand(inner=8), rows()), "out.inner"),
        (lambda: commands.affine(X, OUT, rows(), table=Operand(4)), "table.base"),
        (lambda: commands.affine(X, OUT, rows(), table=OTHER, b_scale=2), "b_scale must be left"),
        (lambda: commands.affine(X, OUT, rows(), a_scale=0), "a_scale must be a normal .* 0"),
        (lambda: commands.affine(X, OUT, rows(), a_scale=1e39), "a_scale must be a normal"),
        (lambda: commands.affine(X, OUT, rows(in_zero=128)), "in_zero"),
        (lambda: commands.affine(X, OUT, rows(), inner=0), "inner must be"),
        (lambda: commands.softmax(X, OUT, rows(), scale=-1), "scale must be a positive normal"),
        (lambda: commands.softmax(X, OUT, rows(), c_scale=1), "c_scale must be left out"),
        (lambda: commands.softmax(X, OUT, rows(), valid=-1), "valid must be from 0"),
        (lambda: commands.softmax(X, OUT, rows(), valid_step=1), "valid_step must be 0"),
        (
            lambda: commands.softmax(X, OUT, rows(), scales=Operand(2), scale_y_stride=4),
            "scales.base must be a multiple of 4, not 2",
        ),
        (
            lambda: commands.softmax(X, OUT, rows(), scales=OTHER, scale_y_stride=2),
            "scale_y_stride must be a multiple of 4, not 2",
        ),
        (lambda: commands.normalize(X, OUT, rows(), epsilon=0), "epsilon must be a positive"),
        (lambda: commands.normalize(X, OUT, rows(), epsilon=-1e-5), "epsilon must be a positive"),
        (lambda: commands.quantize(X, OUT, rows(), **SCALED, largest=0), "largest must be pos"),
        (lambda: commands.quantize(X, OUT, rows(), **SCALED, c_scale=1e-40), "c_scale must be a"),
        (lambda: commands.columns([1, 2], [1.0]), r"must be \[length\], not \(2,\) and \(1,\)"),
        (lambda: commands.columns([1 << 31], [1.0]), "bias must be INT32"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
