"""One iteration of LOAD and STORE, against loops written from ``rtl/isa/``."""

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import Opcode, Status
from deepseek.sim.functional.checks import Fault
from deepseek.sim.functional.units import execute

CONFIG = preset("tiny")
TOP = CONFIG.scratchpad_bytes


def run(opcode, body, operand, scratchpad, memory=None):
    memory = np.zeros(16, np.uint8) if memory is None else memory
    return execute(opcode, body, operand, memory=memory, scratchpad=scratchpad, config=CONFIG)


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE])
@pytest.mark.parametrize("seed", range(3))
def test_transfer_equals_loops(opcode, seed):
    rng = np.random.default_rng(seed)
    memory = np.frombuffer(rng.bytes(1 << 16), np.uint8).copy()
    memory = np.concatenate([memory, np.zeros(CONFIG.memory_bytes - memory.size, np.uint8)])
    scratchpad = np.frombuffer(rng.bytes(CONFIG.scratchpad_bytes), np.uint8).copy()
    x_bytes, y, z = (int(v) for v in rng.integers(1, 6, 3) * (16, 1, 1))
    strides = [int(v) * 16 for v in rng.permutation([-40, 40, 6, -200, 200])[:4]]
    strides[0], strides[2] = 16 * 6, -16 * 7
    names = ["memory_y_stride", "memory_z_stride", "scratchpad_y_stride", "scratchpad_z_stride"]
    body = {"x_bytes": x_bytes, "y": y, "z": z, **dict(zip(names, strides, strict=True))}
    operand = (1 << 15, 1 << 15, 0)
    want_memory, want_scratchpad = bytearray(memory), bytearray(scratchpad)
    for k in range(z):
        for j in range(y):
            card = operand[0] + j * body["memory_y_stride"] + k * body["memory_z_stride"]
            local = operand[1] + j * body["scratchpad_y_stride"] + k * body["scratchpad_z_stride"]
            if opcode is Opcode.LOAD:
                want_scratchpad[local : local + x_bytes] = bytes(memory[card : card + x_bytes])
            else:
                want_memory[card : card + x_bytes] = bytes(scratchpad[local : local + x_bytes])
    work = run(opcode, body, operand, scratchpad, memory)
    assert bytes(scratchpad) == bytes(want_scratchpad)
    assert bytes(memory) == bytes(want_memory)
    assert (work.read or work.written) == x_bytes * y * z


def test_transfer_counts_whole_beats():
    config = preset("sim")
    memory, scratchpad = np.zeros(1 << 12, np.uint8), np.zeros(1 << 12, np.uint8)
    body = {"x_bytes": 32, "y": 2, "z": 1, "memory_y_stride": 64, "memory_z_stride": 0}
    body |= {"scratchpad_y_stride": 32, "scratchpad_z_stride": 0}
    for address, beats in ((0, 2), (32, 2), (48, 4)):
        work = execute(
            Opcode.LOAD,
            body,
            (address, 0, 0),
            memory=memory,
            scratchpad=scratchpad,
            config=config,
        )
        assert work.read == 64 * beats


@pytest.mark.parametrize(
    "change, operands, status",
    [
        ({"x_bytes": 0}, (0, 0, 0), Status.BAD_LENGTH),
        ({"y": 0}, (8, 0, 0), Status.BAD_LENGTH),
        ({"z": 0}, (0, 0, 0), Status.BAD_LENGTH),
        ({"x_bytes": 8}, (0, 0, 0), Status.BAD_ALIGNMENT),
        ({}, (8, 0, 0), Status.BAD_ALIGNMENT),
        ({}, (0, 4, 0), Status.BAD_ALIGNMENT),
        ({"scratchpad_z_stride": 8}, (0, 0, 0), Status.BAD_ALIGNMENT),
        ({"memory_y_stride": -8}, (0, 0, 0), Status.BAD_ALIGNMENT),
        ({}, (CONFIG.memory_bytes - 32, 0, 0), Status.BAD_ADDRESS),
        ({}, (0, TOP - 32, 0), Status.BAD_ADDRESS),
        ({"memory_y_stride": -16}, (0, 0, 0), Status.BAD_ADDRESS),
        ({}, (0xFFFFFFF0, 0, 0), Status.BAD_ADDRESS),
        ({"x_bytes": 0xFFFFFFF0}, (16, 0, 0), Status.BAD_ADDRESS),
    ],
)
def test_transfer_refuses(change, operands, status):
    body = {"x_bytes": 16, "y": 3, "z": 1, "memory_y_stride": 16, "memory_z_stride": 0}
    body |= {"scratchpad_y_stride": 16, "scratchpad_z_stride": 0, **change}
    with pytest.raises(Fault) as fault:
        run(Opcode.LOAD, body, operands, np.zeros(TOP, np.uint8))
    assert fault.value.status is status
