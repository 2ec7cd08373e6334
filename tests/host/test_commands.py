"""Commands: the bytes are those of the layouts in `rtl.isa`, and mistakes are named."""

import numpy as np
import pytest
from amaranth.lib import data

from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand, Signal, Wait
from deepseek.host.compiler.packing import Packer
from deepseek.rtl import isa


def constant(layout, fields):
    """Bits of a structure by Amaranth itself."""
    return data.Layout.cast(layout).const(fields).as_bits()


def as_bytes(command, body_layout, body):
    fields = {**command, "body": constant(body_layout, body)}
    return constant(isa.Command, fields).to_bytes(128, "little")


LAYOUTS = (
    isa.Command,
    isa.TransferBody,
    isa.MatmulBody,
    isa.VectorBody,
    isa.SemaphoreBody,
    isa.EndBody,
    isa.Completion,
    isa.DirectoryEntry,
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_packer_agrees_with_amaranth(layout):
    random = np.random.default_rng(1)
    packer = Packer(layout)
    for _ in range(20):
        values, nested = {}, {}
        for name, field in packer.fields.items():
            low = -(1 << field.width - 1) if field.signed else 0
            value = low + int.from_bytes(random.bytes(64), "little") % (1 << field.width)
            values[name] = value
            place = nested
            *path, last = name.replace("[", ".[").split(".")
            for key in path:
                place = place.setdefault(key, {})
            place[last] = value
        assert packer.pack(values) == constant(layout, arrays(nested))
        assert packer.unpack(packer.pack(values)) == values


def arrays(tree):
    """Turn the keys ``[0]``, ``[1]`` ... of nested dictionaries into lists."""
    if not isinstance(tree, dict):
        return tree
    if "[0]" in tree:
        return [arrays(tree[f"[{i}]"]) for i in range(len(tree))]
    return {key: arrays(value) for key, value in tree.items()}


def reference(sem, outer=False):
    return {"index": sem, "outer": int(outer), "enable": 1}


def test_load_bytes():
    command = commands.load(
        Operand(0x1000, inner=256, outer=-512),
        Operand(64, pong=128 - (1 << 20)),
        x_bytes=96,
        y=3,
        z=2,
        memory_y_stride=-96,
        scratchpad_z_stride=4096,
        queue=isa.Queue.LOAD1,
        inner=5,
        outer=7,
        wait=[Wait(3), Wait(15, outer=True)],
        signal=[Signal(1, outer=True)],
    )
    assert command == as_bytes(
        {
            "opcode": isa.Opcode.LOAD,
            "version": isa.ABI_VERSION,
            "queue": 1,
            "wait": [reference(3), reference(15, True)],
            "signal": [reference(1, True)],
            "inner": 5,
            "outer": 7,
            "operand": [
                {"base": 0x1000, "inner": 256, "outer": -512},
                {"base": 64, "pong": (128 - (1 << 20)) % (1 << 32)},
            ],
        },
        isa.TransferBody,
        {
            "x_bytes": 96,
            "y": 3,
            "z": 2,
            "memory_y_stride": -96,
            "scratchpad_z_stride": 4096,
        },
    )


def test_matmul_bytes():
    command = commands.matmul(
        Operand(0, pong=1024, pong_outer=True),
        Operand(2050, inner=64),
        Operand(4096, pong=512, pong_outer=True),
        k=40,
        n=9,
        entries=4,
        slice=16,
        n_inner=3,
        run_bytes=8,
        runs_inner=5,
        x_inner_stride=24,
        x_outer_stride=-72,
        x_run_stride=400,
        x_run_outer_stride=-6,
        out_outer_stride=48,
        stream_format=isa.Format.E5M2,
        encoding=isa.Encoding.SPARSE_1_8,
        in_format=isa.Format.BF16,
        out_format=isa.Format.INT8,
        block_scale=True,
        function=isa.Function.RELU,
        anchor=-126,
        zero_point=-3,
        clamp=(-100, 99),
        parameters=(1, 2, 0xFFFFFFFF),
        outer=2,
    )
    assert command == as_bytes(
        {
            "opcode": isa.Opcode.MATMUL,
            "version": isa.ABI_VERSION,
            "queue": isa.Queue.COMPUTE,
            "pong_outer": 0b101,
            "inner": 1,
            "outer": 2,
            "operand": [
                {"pong": 1024},
                {"base": 2050, "inner": 64},
                {"base": 4096, "pong": 512},
            ],
        },
        isa.MatmulBody,
        {
            "k": 40,
            "n": 9,
            "n_inner": 3,
            "entries": 4,
            "run_bytes": 8,
            "slice": 16,
            "runs_inner": 5,
            "x_run_stride": 400,
            "x_run_outer_stride": -6,
            "x_inner_stride": 24,
            "x_outer_stride": -72,
            "out_inner_stride": 1,
            "out_outer_stride": 48,
            "stream_format": 7,
            "encoding": 4,
            "in_format": 5,
            "out_format": 0,
            "flags": 1,
            "function": 1,
            "anchor": -126,
            "zero_point": -3,
            "clamp_low": -100,
            "clamp_high": 99,
            "parameter": [1, 2, 0xFFFFFFFF],
        },
    )


def test_small_commands_bytes():
    loops = {"version": isa.ABI_VERSION, "inner": 1, "outer": 1}
    assert commands.semaphore(7, 200) == as_bytes(
        {"opcode": isa.Opcode.SEMAPHORE, **loops}, isa.SemaphoreBody, {"index": 7, "value": 200}
    )
    assert commands.barrier() == as_bytes(
        {"opcode": isa.Opcode.BARRIER, **loops}, isa.BarrierBody, {}
    )
    assert commands.end(0x40, 9) == as_bytes(
        {"opcode": isa.Opcode.END, **loops}, isa.EndBody, {"completion": 0x40, "tag": 9}
    )


POOL = {
    "granules": 1,
    "out_y": 4,
    "out_x": 4,
    "kernel_y": 2,
    "kernel_x": 2,
    "in_y_stride": 256,
    "in_x_stride": 32,
    "in_ky_stride": 128,
    "in_kx_stride": 16,
    "out_y_stride": 64,
    "out_x_stride": 16,
}


CLAMPS = {"clamp_low": -128, "clamp_high": 127}
VECTOR = {
    "opcode": isa.Opcode.VECTOR,
    "version": isa.ABI_VERSION,
    "queue": isa.Queue.VECTOR,
    "inner": 1,
    "outer": 1,
}


def test_pool_bytes():
    header = {**VECTOR, "operand": [{}, {"base": 32}, {"base": 64}]}
    want = as_bytes(header, isa.VectorBody, {**POOL, **CLAMPS})
    assert commands.pool(Operand(32), Operand(64), **POOL) == want


def test_vector_bytes():
    numbers = {"a_zero": -128, "b_zero": 127, "zero_point": -129, "clamp_low": -5, "clamp_high": 6}
    sizes = {**POOL, "kernel_y": 1, "kernel_x": 1, **numbers}
    header = {**VECTOR, "operand": [{"base": 96}, {"base": 32}, {"base": 64}]}
    operands = Operand(32), Operand(64), Operand(96)
    for op, scales, bits in (
        (isa.VectorOp.ADD, {"a_scale": 1.0, "b_scale": -0.1}, (0x3F800000, 0xBDCCCCCD)),
        (isa.VectorOp.MULTIPLY, {"a_scale": 0.5}, (0x3F000000, 0)),
    ):
        body = {**sizes, "op": op, "a_scale": bits[0], "b_scale": bits[1]}
        want = as_bytes(header, isa.VectorBody, body)
        assert commands.vector(op, *operands, **sizes, **scales) == want
    header["operand"][0] = {}
    body = {**POOL, **CLAMPS, "op": isa.VectorOp.AVERAGE, "a_scale": 0x3E800000}
    got = commands.vector(isa.VectorOp.AVERAGE, *operands[:2], **POOL, a_scale=0.25)
    assert got == as_bytes(header, isa.VectorBody, body)


GOOD_LOAD = {"x_bytes": 16}
GOOD_MATMUL = {"k": 4, "n": 4, "entries": 1, "x_inner_stride": 4}


def vector(op, *second, **changes):
    sizes = {**POOL, "kernel_y": 1, "kernel_x": 1, **changes}
    return commands.vector(op, Operand(), Operand(16), *second, **sizes)


def matmul(**changes):
    return commands.matmul(Operand(), Operand(), Operand(), **{**GOOD_MATMUL, **changes})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: commands.load(Operand(8), Operand(), x_bytes=16), "memory.base .* 16, not 8"),
        (lambda: commands.load(Operand(), Operand(), x_bytes=20), "x_bytes .* 16, not 20"),
        (lambda: commands.load(Operand(), Operand(), x_bytes=0), "x_bytes .* not 0"),
        (lambda: commands.store(Operand(), Operand(), x_bytes=16, y=0), "y must be from 1"),
        (lambda: commands.load(Operand(1 << 32), Operand(), **GOOD_LOAD), r"operand\[0\].base"),
        (
            lambda: commands.load(Operand(), Operand(), **GOOD_LOAD, queue=isa.Queue.STORE),
            "LOAD0 or LOAD1",
        ),
        (lambda: commands.load(Operand(), Operand(), **GOOD_LOAD, outer=1 << 16), "outer must be"),
        (lambda: commands.load(Operand(), Operand(), **GOOD_LOAD, wait=[Wait(16)]), "semaphore"),
        (
            lambda: commands.load(
                Operand(), Operand(), **GOOD_LOAD, wait=[Wait(i) for i in range(5)]
            ),
            "at most 4",
        ),
        (lambda: commands.semaphore(1, 0), "value must be from 1 to 255, not 0"),
        (lambda: commands.end(8), "completion must be a multiple of 16"),
        (lambda: matmul(run_bytes=3), "run_bytes"),
        (lambda: matmul(k=32769), "k must be from 1 to 32768"),
        (lambda: matmul(k=3, in_format=isa.Format.INT4), "whole bytes of INT4, not 3"),
        (lambda: matmul(entries=0), "entries"),
        (lambda: matmul(slice=2), "slice must be a multiple of 16, not 2"),
        (lambda: matmul(runs_inner=0), "runs_inner"),
        (lambda: matmul(zero_point=128), "zero_point must be from -128 to 127, not 128"),
        (
            lambda: matmul(out_format=isa.Format.INT4, zero_point=8),
            "zero_point must be from -8 to 7, not 8",
        ),
        (lambda: matmul(out_format=isa.Format.INT4, clamp=(-9, 7)), "clamp .* -8 to 7"),
        (lambda: matmul(out_format=isa.Format.INT4, n_inner=3), "n_inner must be even"),
        (lambda: matmul(out_format=isa.Format.FP32, zero_point=1), "zero_point must be 0"),
        (
            lambda: commands.matmul(
                Operand(), Operand(), Operand(2), **GOOD_MATMUL, out_format=isa.Format.FP32
            ),
            "out.base must be a multiple of 4, not 2",
        ),
        (
            lambda: matmul(in_format=isa.Format.FP16, out_format=isa.Format.INT32),
            "out_format must not be INT32",
        ),
        (
            lambda: matmul(block_scale=True, out_format=isa.Format.INT32),
            "out_format must not be INT32",
        ),
        (
            lambda: matmul(stream_format=isa.Format.FP16, in_format=isa.Format.BF16),
            "path with FP16 streams",
        ),
        (lambda: matmul(in_format=isa.Format.BF16, anchor=33), "anchor must be from -126 to 32"),
        (lambda: matmul(anchor=1), "anchor must be 0 without BF16"),
        (lambda: matmul(parameters=(1, 2, 3, 4)), "parameters must be at most 3"),
        (lambda: commands.pool(Operand(), Operand(), **{**POOL, "kernel_x": 256}), "kernel_x"),
        (lambda: commands.pool(Operand(), Operand(), **{**POOL, "in_x_stride": 8}), "in_x_stride"),
        (lambda: vector(isa.VectorOp.ADD, a_scale=1, b_scale=1), "second must be given .* None"),
        (lambda: vector(isa.VectorOp.MAX, Operand()), "second must be given .* only"),
        (lambda: vector(isa.VectorOp.ADD, Operand(8), a_scale=1, b_scale=1), "second.base"),
        (lambda: vector(isa.VectorOp.ADD, Operand(), a_scale=1), "b_scale of ADD must be given"),
        (lambda: vector(isa.VectorOp.AVERAGE, a_scale=1, b_scale=1), "b_scale .* left out, not 1"),
        (lambda: vector(isa.VectorOp.MAX, a_scale=1), "a_scale of MAX must be left out"),
        (lambda: vector(isa.VectorOp.AVERAGE, a_scale=1e-39), "a_scale must be a normal .* 1e-39"),
        (lambda: vector(isa.VectorOp.AVERAGE, a_scale=1e39), "a_scale must be a normal"),
        (lambda: vector(isa.VectorOp.AVERAGE, a_scale=1, a_zero=128), "a_zero"),
        (
            lambda: vector(isa.VectorOp.MULTIPLY, Operand(), a_scale=1, kernel_x=2),
            r"of MULTIPLY must be 1, not \(1, 2\)",
        ),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_describe_names_what_is_not_zero():
    text = commands.describe(commands.load(Operand(0x100), Operand(), x_bytes=48))
    assert text == "LOAD(inner=1, outer=1, operand[0].base=0x100, x_bytes=48, y=1, z=1)"
    assert commands.describe(commands.encode(77, {}, version=9)).startswith("opcode 77 version=9(")
