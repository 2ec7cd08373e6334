"""Builders of REFORMAT commands: their bytes, their errors, and what a card makes of them."""

import ml_dtypes
import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand
from deepseek.host.compiler.sparsity import encode_streams
from deepseek.rtl.isa import Command, Encoding, Format, Opcode, Queue, ReformatBody, ReformatOp
from deepseek.sim.functional.decode import unpack

IN, SIDE, OUT = 0, 0x2000, 0x4000
SIZE = 0x2000
SHAPE = {"rows": 3, "length": 40, "in_stride": 80, "out_stride": 96}


@pytest.fixture(scope="module")
def card():
    with Card.open("functional", preset="tiny") as card:
        yield card


def ran(card, source, command, side=b""):
    """Return what lies at OUT and at SIDE after a command on ``source`` at IN."""
    buffers = [card.allocate(SIZE) for _ in range(4)]
    try:
        card.write(buffers[0], np.frombuffer(bytes(source).ljust(SIZE, b"\0"), np.uint8))
        card.write(buffers[1], np.frombuffer(bytes(side).ljust(SIZE, b"\0"), np.uint8))
        moves = [
            commands.load(Operand(buffers[0].address), Operand(IN), x_bytes=SIZE),
            commands.load(Operand(buffers[1].address), Operand(SIDE), x_bytes=SIZE),
            commands.barrier(),
            command,
            commands.barrier(),
            commands.store(Operand(buffers[2].address), Operand(OUT), x_bytes=SIZE),
            commands.store(Operand(buffers[3].address), Operand(SIDE), x_bytes=SIZE),
        ]
        card.submit(moves).wait()
        return card.read(buffers[2]), card.read(buffers[3])
    finally:
        for buffer in buffers:
            card.free(buffer)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
def test_transpose(card, dtype):
    x = np.random.default_rng(1).integers(-99, 99, (2, 21, 24)).astype(dtype)
    size = x.itemsize
    command = commands.transpose(
        Operand(IN),
        Operand(OUT),
        rows=21,
        length=20,
        format={1: Format.INT8, 2: Format.FP16, 4: Format.FP32}[size],
        in_stride=48 * size,
        in_batch_stride=21 * 48 * size,
        out_stride=32 * size,
        batch=2,
        out_batch_stride=20 * 32 * size,
    )
    lines = np.zeros((2, 21, 48), dtype)
    lines[..., :24] = x
    out, _ = ran(card, lines.tobytes(), command)
    rows = out[: 2 * 20 * 32 * size].view(dtype).reshape(2, 20, 32)
    np.testing.assert_array_equal(rows[..., :21], x[..., :20].swapaxes(1, 2))
    assert not rows[..., 21 : 21 + 16 // size - 21 % (16 // size)].any()


def test_compress_equals_the_compilers_streams(card):
    x = np.random.default_rng(2).integers(-9, 9, (5, 300)).astype(np.int8)
    x[np.random.default_rng(3).random(x.shape) < 0.8] = 0
    x[0, 3:299] = 0  # a gap that takes an entry of its own
    x[:, 299] = 1  # gaps behind the last number take one as well here, and none there
    lines = np.zeros((5, 304), np.int8)
    lines[:, :300] = x
    command = commands.compress(
        Operand(IN),
        Operand(OUT),
        Operand(SIDE + 2),
        rows=5,
        length=300,
        format=Format.INT8,
        in_stride=304,
        out_stride=640,
        count_stride=16,
    )
    out, side = ran(card, lines.tobytes(), command)
    streams, counts = encode_streams(x, Format.INT8, 300, Encoding.DELTA)
    assert side[2 : 2 + 80 : 16].tolist() == counts[0].tolist()
    got = out[: 5 * 640].reshape(5, 40, 16)
    granules = -(-counts[0] // 8)
    np.testing.assert_array_equal(
        np.concatenate([got[i, : granules[i]] for i in range(5)]), streams
    )


@pytest.mark.parametrize(
    ("format", "dtype"),
    [(Format.E4M3, ml_dtypes.float8_e4m3fn), (Format.E2M1, ml_dtypes.float4_e2m1fn)],
)
def test_expand(card, format, dtype):
    x = np.random.default_rng(4).normal(size=(3, 96)).astype(dtype)
    scales = np.random.default_rng(5).integers(120, 130, (3, 3), np.uint8)
    if format is Format.E2M1:
        codes = x.view(np.uint8)
        raw = codes[:, ::2] | codes[:, 1::2] << 4
    else:
        raw = x.view(np.uint8)
    stride = raw.shape[1]
    command = commands.expand(
        Operand(IN),
        Operand(SIDE),
        Operand(OUT),
        rows=3,
        length=96,
        format=format,
        in_stride=stride,
        scale_stride=16,
        out_stride=192,
    )
    side = np.zeros((3, 16), np.uint8)
    side[:, :3] = scales
    out, _ = ran(card, raw.tobytes(), command, side.tobytes())
    want = x.astype(np.float32) * np.repeat(np.exp2(scales.astype(np.float32) - 127), 32, 1)
    got = out[: 3 * 192].view(ml_dtypes.bfloat16).reshape(3, 96)
    np.testing.assert_array_equal(got.astype(np.float32), want)


def test_bytes():
    raw = commands.expand(
        Operand(0x40, inner=16),
        Operand(0x80),
        Operand(0x100, pong=0x200),
        rows=2,
        length=33,
        format=Format.E2M1,
        in_stride=-16,
        scale_stride=32,
        out_stride=80,
        batch=3,
        in_batch_stride=48,
        scale_batch_stride=64,
        out_batch_stride=96,
        inner=7,
        outer=5,
    )
    fields = unpack(Command, raw)
    assert fields["opcode"] == Opcode.REFORMAT.value
    assert (fields["queue"], fields["inner"], fields["outer"]) == (Queue.VECTOR, 7, 5)
    assert [operand["base"] for operand in fields["operand"]] == [0x80, 0x40, 0x100]
    assert unpack(ReformatBody, fields["body"]) == {
        "rows": 2,
        "length": 33,
        "batch": 3,
        "op": ReformatOp.EXPAND.value,
        "in_format": Format.E2M1.value,
        "in_stride": -16,
        "in_batch_stride": 48,
        "out_stride": 80,
        "out_batch_stride": 96,
        "index_stride": 32,
        "index_batch_stride": 64,
        "reserved": 0,
    }
    assert "REFORMAT" in commands.describe(raw)


def transpose(**changes):
    fields = {**SHAPE, "format": Format.INT8} | changes
    return commands.transpose(Operand(), Operand(), **fields)


def compress(counts=0, **changes):
    fields = {**SHAPE, "format": Format.INT8, "count_stride": 2} | changes
    return commands.compress(Operand(), Operand(), Operand(counts), **fields)


def expand(scales=0, **changes):
    fields = {**SHAPE, "format": Format.INT8, "scale_stride": 16} | changes
    return commands.expand(Operand(), Operand(scales), Operand(), **fields)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: transpose(rows=0), "rows must be from 1 to 65535, not 0"),
        (lambda: transpose(length=65536), "length must be"),
        (lambda: transpose(batch=0), "batch must be"),
        (lambda: transpose(format=Format.INT4), "format of TRANSPOSE must be one of INT8, .* not"),
        (lambda: compress(format=Format.FP32), "format of COMPRESS must be one of INT8, E4M3"),
        (lambda: expand(format=Format.BF16), "format of EXPAND must be one of E4M3, .*E2M1, not"),
        (lambda: transpose(in_stride=8), "in_stride must be a multiple of 16, not 8"),
        (lambda: transpose(out_batch_stride=8), "out_batch_stride must be a multiple of 16"),
        (lambda: compress(count_stride=3), "count_stride must be a multiple of 2, not 3"),
        (lambda: compress(counts=1), "counts.base must be a multiple of 2, not 1"),
        (lambda: expand(scale_batch_stride=8), "scale_batch_stride must be a multiple of 16"),
        (lambda: expand(scales=8), "scales.base must be a multiple of 16, not 8"),
        (lambda: transpose(inner=0), "inner must be"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
