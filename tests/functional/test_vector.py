"""One iteration of VECTOR, against loops written from ``rtl/isa/``."""

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import Command, Opcode, Status, VectorBody, VectorOp
from deepseek.sim.functional.checks import Fault
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.random_jobs import RandomJobs
from deepseek.sim.functional.units import execute
from deepseek.sim.golden.vector import max_pool

CONFIG = preset("tiny")
TOP = CONFIG.scratchpad_bytes
ONE, HALF = 0x3F800000, 0x3F000000
COUNTS = ("granules", "out_y", "out_x", "kernel_y", "kernel_x")
PAIRS = (VectorOp.ADD, VectorOp.MULTIPLY)


def run(body, operand, scratchpad):
    memory = np.zeros(16, np.uint8)
    return execute(
        Opcode.VECTOR, body, operand, memory=memory, scratchpad=scratchpad, config=CONFIG
    )


def plain(op, **changes):
    body = {"op": op.value, "in_format": 0, "a_scale": ONE, "b_scale": ONE}
    body |= {"a_zero": 0, "b_zero": 0, "zero_point": 0, "clamp_low": -128, "clamp_high": 127}
    return body | changes


def test_max_equals_golden():
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (1, 9, 7, 32), dtype=np.int8)
    scratchpad = np.zeros(TOP, np.uint8)
    scratchpad[4096 : 4096 + x.size] = x.reshape(-1).view(np.uint8)
    body = plain(VectorOp.MAX, granules=2, out_y=4, out_x=3, kernel_y=3, kernel_x=2)
    body |= {"in_y_stride": 2 * 7 * 32, "in_x_stride": 2 * 32}
    body |= {"in_ky_stride": 7 * 32, "in_kx_stride": 32}
    body |= {"out_y_stride": 3 * 32 + 16, "out_x_stride": 32}
    run(body, (0, 4096, 32768), scratchpad)
    want = max_pool(x, kernel=(3, 2), stride=(2, 2))
    assert want.shape == (1, 4, 3, 32)
    for y in range(4):
        at = 32768 + y * body["out_y_stride"]
        assert scratchpad[at : at + 96].tobytes() == want[0, y].tobytes()
    written = scratchpad[32768:].nonzero()[0]
    assert written.max() < 3 * body["out_y_stride"] + 96


def one(body, window, other):
    """One result, in single precision numbers of Python's own making."""
    single = np.float32
    scales = np.array([body["a_scale"], body["b_scale"]], np.uint32).view(single)
    match VectorOp(body["op"]):
        case VectorOp.MAX:
            return max(window)
        case VectorOp.AVERAGE:
            value = single(sum(a - body["a_zero"] for a in window)) * scales[0]
        case VectorOp.ADD:
            value = single(window[0] - body["a_zero"]) * scales[0]
            value += single(other - body["b_zero"]) * scales[1]
        case VectorOp.MULTIPLY:
            value = single((window[0] - body["a_zero"]) * (other - body["b_zero"])) * scales[0]
    # Python rounds to even, too.
    number = max(round(float(value)) + body["zero_point"], body["clamp_low"])
    return (min(number, body["clamp_high"]) + 128) % 256 - 128


@pytest.mark.parametrize("op", VectorOp)
@pytest.mark.parametrize("in_place", [False, True])
def test_equals_loops(op, in_place):
    rng = np.random.default_rng(op.value)
    scratchpad = np.frombuffer(rng.bytes(TOP), np.uint8).copy()
    body = plain(op, granules=2, out_y=3, out_x=4, kernel_y=1, kernel_x=1)
    body |= {"in_y_stride": -256, "in_x_stride": 48, "out_y_stride": 160, "out_x_stride": 32}
    body |= {"in_ky_stride": 176, "in_kx_stride": 32}
    body |= {"a_zero": 5, "b_zero": -9, "zero_point": -3, "clamp_low": -100, "clamp_high": 200}
    body |= {"a_scale": ONE, "b_scale": HALF}
    if op is VectorOp.MULTIPLY:
        body |= {"a_scale": 0x3C23D70A}  # 0.01
    operand = [20480, 4096, 32768]
    if in_place:
        body |= {"out_y_stride": -256, "out_x_stride": 48}
        operand[2] = operand[1]
        if op in PAIRS:
            operand[2] = operand[0]
            body |= {"out_y_stride": 176, "out_x_stride": 32}
    elif op not in PAIRS:
        body |= {"kernel_y": 2, "kernel_x": 3, "a_scale": 0x3E2AAAAB}  # 1/6
    want = scratchpad.copy().view(np.int8)
    before = want.copy()
    for y, x, c in np.ndindex(3, 4, 32):
        at = operand[1] + y * body["in_y_stride"] + x * body["in_x_stride"] + c
        other = operand[0] + y * body["in_ky_stride"] + x * body["in_kx_stride"] + c
        window = [
            int(before[at + ky * body["in_ky_stride"] + kx * body["in_kx_stride"]])
            for ky in range(body["kernel_y"])
            for kx in range(body["kernel_x"])
        ]
        place = operand[2] + y * body["out_y_stride"] + x * body["out_x_stride"] + c
        want[place] = one(body, window, int(before[other]))
    work = run(body, operand, scratchpad)
    np.testing.assert_array_equal(scratchpad.view(np.int8), want)
    reads = body["kernel_y"] * body["kernel_x"] + (op in PAIRS)
    assert work.busy == 24 * (reads if op is VectorOp.MAX else 8)


def refused(body, operands, status):
    with pytest.raises(Fault) as fault:
        run(body, operands, np.zeros(TOP, np.uint8))
    assert fault.value.status is status


@pytest.mark.parametrize(
    "change, operands, status",
    [
        *(({name: 0}, (0, 0, 4096), Status.BAD_LENGTH) for name in COUNTS),
        ({"in_format": 1, "op": 1, "a_scale": 0}, (0, 8, 4096), Status.BAD_FORMAT),
        ({"op": 4}, (0, 0, 4096), Status.BAD_FORMAT),
        ({"a_scale": 0}, (0, 8, 4096), Status.BAD_ALIGNMENT),
        ({}, (0, 0, 4097), Status.BAD_ALIGNMENT),
        ({"in_kx_stride": 8}, (0, 0, 4096), Status.BAD_ALIGNMENT),
        ({"out_y_stride": 8}, (0, 0, 4096), Status.BAD_ALIGNMENT),
        ({"a_scale": 0x7FFFFF}, (0, 0, TOP), Status.BAD_SCALE),
        ({}, (0, TOP - 48, 4096), Status.BAD_ADDRESS),
        ({"in_ky_stride": -16}, (0, 0, 4096), Status.BAD_ADDRESS),
        ({}, (0, 0, TOP - 16), Status.BAD_ADDRESS),
    ],
)
def test_refuses_windows(change, operands, status):
    body = plain(VectorOp.AVERAGE, granules=1, out_y=1, out_x=2, kernel_y=2, kernel_x=2)
    body |= dict.fromkeys(("in_y_stride", "in_ky_stride", "out_y_stride"), 32)
    body |= dict.fromkeys(("in_x_stride", "in_kx_stride", "out_x_stride"), 16)
    refused(body | change, operands, status)


@pytest.mark.parametrize("op", PAIRS)
@pytest.mark.parametrize(
    "change, operands, status",
    [
        ({"kernel_y": 2, "in_format": 1}, (0, 0, 4096), Status.BAD_LENGTH),
        ({"kernel_x": 2}, (0, 0, 4096), Status.BAD_LENGTH),
        ({}, (8, 0, 4096), Status.BAD_ALIGNMENT),
        ({"a_scale": 0x7F800000}, (0, 0, 4096), Status.BAD_SCALE),
        ({}, (TOP - 16, 0, 4096), Status.BAD_ADDRESS),
        ({}, (0, TOP - 16, 4096), Status.BAD_ADDRESS),
        ({"in_kx_stride": -16}, (0, 0, 4096), Status.BAD_ADDRESS),
    ],
)
def test_refuses_pairs(op, change, operands, status):
    body = plain(op, granules=1, out_y=1, out_x=2, kernel_y=1, kernel_x=1)
    body |= dict.fromkeys(("in_y_stride", "in_ky_stride", "out_y_stride"), 32)
    body |= dict.fromkeys(("in_x_stride", "in_kx_stride", "out_x_stride"), 16)
    refused(body | change, operands, status)


def test_looks_only_at_what_it_uses():
    shape = dict.fromkeys(COUNTS, 1)
    strides = ("in_y", "in_x", "in_ky", "in_kx", "out_y", "out_x")
    shape |= dict.fromkeys((f"{name}_stride" for name in strides), 0)
    scratchpad = np.zeros(TOP, np.uint8)
    for op, scales in (
        (VectorOp.MAX, {"a_scale": 0, "b_scale": 0}),
        (VectorOp.AVERAGE, {"b_scale": 0}),
    ):
        run(plain(op, **shape) | scales, (0xFFFFFFFF, 0, 16), scratchpad)
    run(plain(VectorOp.MULTIPLY, **shape) | {"b_scale": 0x7F800000}, (0, 0, 16), scratchpad)
    refused(plain(VectorOp.ADD, **shape) | {"b_scale": 1}, (0, 0, 16), Status.BAD_SCALE)


def test_random_jobs_have_every_operation():
    rng = np.random.default_rng(1)
    jobs = RandomJobs(CONFIG, rng, base=1 << 22, nbytes=1 << 23)
    seen = set()
    for _ in range(40):
        for raw in jobs.job(8).commands:
            command = unpack(Command, raw)
            if command["opcode"] == Opcode.VECTOR.value:
                second, source, target = (item["base"] for item in command["operand"])
                body = unpack(VectorBody, command["body"])
                seen.add((VectorOp(body["op"]), target in (second, source)))
    assert seen == {(op, False) for op in VectorOp} | {(op, True) for op in PAIRS}
