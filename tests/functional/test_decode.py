"""Bytes to fields and back, against amaranth's own constants and views."""

import numpy as np
import pytest
from amaranth.lib import data

from deepseek.rtl import isa
from deepseek.sim.functional.decode import dtype, pack, reserved_mask, unpack

LAYOUTS = [
    isa.Command,
    isa.TransferBody,
    isa.MatmulBody,
    isa.VectorBody,
    isa.SemaphoreBody,
    isa.EndBody,
    isa.Completion,
    isa.DirectoryEntry,
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_random_bytes_agree_with_amaranth(layout):
    size = layout.as_shape().size // 8
    raw = np.random.default_rng(size).bytes(size)
    values = unpack(layout, raw)
    assert pack(layout, values) == raw

    def check(constant, value):
        if isinstance(constant, data.Const):
            keys = value if isinstance(value, dict) else range(len(value))
            for key in keys:
                check(constant[key], value[key])
        else:
            assert getattr(constant, "value", constant) == value

    # Enumerations that random bits do not name have no constant.
    if layout not in (isa.Command, isa.Completion):
        check(layout.from_bits(int.from_bytes(raw, "little")), values)


def test_sizes():
    assert isa.Command.as_shape().size == 8 * isa.COMMAND_BYTES
    for layout in LAYOUTS[1:6]:
        assert layout.as_shape().size == 512
    assert dtype(isa.DirectoryEntry).itemsize == 16


def test_known_bytes():
    entry = {"stream": 0x0201, "count": 0x0403, "out_offset": 5, "bias": 0x80000000, "scale": 7}
    raw = bytes.fromhex("01020304 05000000 00000080 07000000")
    assert pack(isa.DirectoryEntry, entry) == raw
    array = np.frombuffer(raw, dtype(isa.DirectoryEntry))
    assert {name: int(array[name][0]) for name in array.dtype.names} == entry
    reference = pack(isa.SemaphoreRef, {"index": 5, "outer": 1, "enable": 1})
    assert reference == bytes([0xC5])
    body = {"k": 1, "x_run_stride": -2, "zero_point": -3, "parameter": [0, 0, 9]}
    raw = pack(isa.MatmulBody, body)
    assert raw[12:16] == (-2).to_bytes(4, "little", signed=True)
    assert unpack(isa.MatmulBody, raw)["parameter"] == [0, 0, 9]


def test_reserved_mask():
    assert reserved_mask(isa.SemaphoreRef) == 0x30
    assert reserved_mask(isa.EndBody) == ((1 << 448) - 1) << 64
    assert reserved_mask(isa.Command) == int.from_bytes(b"\x30" * 8, "little") << 32


@pytest.mark.parametrize(
    "values, match",
    [({"tag": 1 << 32}, "hold"), ({"tag": -1}, "hold"), ({"nothing": 0}, "fields must")],
)
def test_pack_refuses(values, match):
    with pytest.raises(ValueError, match=match):
        pack(isa.EndBody, values)


def test_dtype_refuses():
    with pytest.raises(ValueError, match="whole bytes"):
        dtype(isa.Command)
    with pytest.raises(ValueError, match="structure"):
        dtype(isa.Status)
