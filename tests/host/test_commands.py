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
    isa.PoolBody,
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
        k=12,
        n=9,
        visits=4,
        n_inner=3,
        run_bytes=8,
        x_inner_stride=24,
        x_outer_stride=-72,
        x_run_stride=400,
        out_outer_stride=48,
        in_format=isa.Format.FP16,
        out_format=isa.Format.INT8,
        sparse=True,
        function=isa.Function.RELU,
        zero_point=-3,
        clamp=(-100, 99),
        parameters=(1, 2, 3, 0xFFFFFFFF),
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
            "k": 12,
            "n": 9,
            "n_inner": 3,
            "visits": 4,
            "run_bytes": 8,
            "x_run_stride": 400,
            "x_inner_stride": 24,
            "x_outer_stride": -72,
            "out_inner_stride": 1,
            "out_outer_stride": 48,
            "in_format": 1,
            "out_format": 0,
            "flags": 1,
            "function": 1,
            "zero_point": -3,
            "clamp_low": -100,
            "clamp_high": 99,
            "parameter": [1, 2, 3, 0xFFFFFFFF],
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


def test_pool_bytes():
    assert commands.pool(Operand(32), Operand(64), **POOL) == as_bytes(
        {
            "opcode": isa.Opcode.POOL,
            "version": isa.ABI_VERSION,
            "queue": isa.Queue.VECTOR,
            "inner": 1,
            "outer": 1,
            "operand": [{}, {"base": 32}, {"base": 64}],
        },
        isa.PoolBody,
        POOL,
    )


GOOD_LOAD = {"x_bytes": 16}
GOOD_MATMUL = {"k": 4, "n": 4, "visits": 1, "x_inner_stride": 4}


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
        (
            lambda: commands.matmul(Operand(), Operand(), Operand(), **GOOD_MATMUL, run_bytes=3),
            "run_bytes",
        ),
        (
            lambda: commands.matmul(Operand(), Operand(), Operand(), **GOOD_MATMUL, zero_point=128),
            "zero_point must be from -128 to 127, not 128",
        ),
        (
            lambda: commands.matmul(
                Operand(), Operand(), Operand(2), **GOOD_MATMUL, out_format=isa.Format.FP32
            ),
            "out.base must be a multiple of 4, not 2",
        ),
        (
            lambda: commands.matmul(
                Operand(),
                Operand(),
                Operand(),
                **GOOD_MATMUL,
                in_format=isa.Format.FP16,
                out_format=isa.Format.INT32,
            ),
            "not INT32",
        ),
        (lambda: commands.pool(Operand(), Operand(), **{**POOL, "kernel_x": 256}), "kernel_x"),
        (lambda: commands.pool(Operand(), Operand(), **{**POOL, "in_x_stride": 8}), "in_x_stride"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_describe_names_what_is_not_zero():
    text = commands.describe(commands.load(Operand(0x100), Operand(), x_bytes=48))
    assert text == "LOAD(inner=1, outer=1, operand[0].base=0x100, x_bytes=48, y=1, z=1)"
    assert commands.describe(commands.encode(77, {}, version=9)).startswith("opcode 77 version=9(")
