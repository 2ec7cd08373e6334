"""One iteration of each unit, against loops over single elements written from ``rtl/isa.py``."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import Format, Function, MatmulFlag, Opcode, Status
from deepseek.sim.functional.assemble import blob
from deepseek.sim.functional.checks import Fault
from deepseek.sim.functional.units import execute
from deepseek.sim.golden.pool import max_pool
from deepseek.sim.golden.slow import dot_fp16, round_to

CONFIG = preset("tiny")
ONE = 0x3F800000


def run(opcode, body, operand, scratchpad, memory=None):
    memory = np.zeros(16, np.uint8) if memory is None else memory
    return execute(opcode, body, operand, memory=memory, scratchpad=scratchpad, config=CONFIG)


def matmul_body(**fields):
    names = "k n n_inner visits run_bytes x_run_stride x_inner_stride x_outer_stride"
    names += " out_inner_stride out_outer_stride in_format out_format flags function zero_point"
    body = dict.fromkeys(names.split(), 0)
    body |= {"clamp_low": -128, "clamp_high": 127, "parameter": [0] * 4}
    return body | {name: int(getattr(value, "value", value)) for name, value in fields.items()}


def read_stream(memory, address, count, in_format, sparse):
    """Return (index, value bits) of a stream, entry by entry."""
    entries, k = [], -1
    size = 1 if in_format is Format.INT8 else 2
    per_granule = (5 if size == 2 else 8) if sparse else 16 // size
    for i in range(count):
        granule = address + 16 * (i // per_granule)
        at = granule + (i % per_granule) * size
        value = int.from_bytes(memory[at : at + size], "little")
        delta = memory[granule + per_granule * size + i % per_granule] if sparse else 0
        k += delta + 1
        entries.append((k, value))
    return entries


def reference(body, operand, scratchpad):
    """Return the scratchpad after MATMUL, element by element."""
    before, after = bytes(scratchpad), bytearray(scratchpad)
    base, x, out = operand
    in_format, out_format = Format(body["in_format"]), Format(body["out_format"])
    size = 1 if in_format is Format.INT8 else 2
    for e in range(body["visits"] * CONFIG.rows):
        entry = before[base + 16 * e : base + 16 * e + 16]
        stream, count, out_offset, bias, scale = struct.unpack("<HHIII", entry)
        if not count:
            continue
        sparse = body["flags"] == MatmulFlag.SPARSE
        entries = read_stream(before, base + 16 * stream, count, in_format, sparse)
        for j in range(body["n"]):
            outer, inner = divmod(j, body["n_inner"])
            values = []
            for k, _ in entries:
                run_index, rest = divmod(k * size, body["run_bytes"])
                at = x + outer * body["x_outer_stride"] + inner * body["x_inner_stride"]
                at += run_index * body["x_run_stride"] + rest
                values.append(int.from_bytes(before[at : at + size], "little"))
            result = finish_one(body, out_format, entries, values, bias, scale)
            at = out + out_offset + outer * body["out_outer_stride"]
            at += inner * body["out_inner_stride"]
            after[at : at + len(result)] = result
    return after


def to_float(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def finish_one(body, out_format, entries, values, bias, scale):
    """One result's bytes. Operands are such that nothing is infinite, and no zero negative."""
    if body["in_format"] == Format.INT8.value:
        signed = [(v ^ 128) - 128 for v in values]
        total = sum(((w ^ 128) - 128) * v for (_, w), v in zip(entries, signed, strict=True))
        total += bias - (1 << 32) if bias >> 31 else bias
        if out_format is Format.INT32:
            return struct.pack("<i", max(-(2**31), min(2**31 - 1, total)))
        value = Fraction(total)
    else:
        value = dot_fp16([w for _, w in entries], values).value
    value = round_to(value, 24, -149, 104) * Fraction(to_float(scale))
    value = round_to(value, 24, -149, 104)
    if body["in_format"] == Format.FP16.value:
        value = round_to(value + Fraction(to_float(bias)), 24, -149, 104)
    if body["function"] == Function.RELU.value:
        value = max(value, Fraction(0))
    if out_format is Format.INT8:
        number = round(value) + body["zero_point"]
        return struct.pack("<b", min(max(number, body["clamp_low"]), body["clamp_high"]))
    if out_format is Format.FP16:
        return struct.pack("<e", float(round_to(value, 11, -24, 5)))
    return struct.pack("<f", float(value))


def random_operands(rng, shape, in_format, zeros):
    if in_format is Format.INT8:
        values = rng.integers(-128, 128, shape, dtype=np.int8)
    else:
        values = rng.normal(size=shape).astype(np.float16).view(np.uint16)
    return np.where(rng.random(shape) < zeros, 0, values).astype(values.dtype)


CASES = [
    # in, out, sparse, rows, k, run, n, n_inner
    (Format.INT8, Format.INT8, False, 5, 18, 6, 11, 4),
    (Format.INT8, Format.INT32, True, 9, 600, 600, 3, 8),
    (Format.INT8, Format.FP16, True, 4, 16, 16, 4, 2),
    (Format.INT8, Format.FP32, False, 1, 1, 1, 1, 1),
    (Format.FP16, Format.FP16, False, 6, 20, 4, 9, 3),
    (Format.FP16, Format.FP32, True, 7, 300, 100, 5, 5),
    (Format.FP16, Format.INT8, True, 3, 11, 11, 7, 3),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(v) for v in case[:4]))
def test_matmul_equals_loops(case):
    in_format, out_format, sparse, rows, k, run_length, n, n_inner = case
    rng = np.random.default_rng(CASES.index(case))
    size = 1 if in_format is Format.INT8 else 2
    out_size = {Format.INT8: 1, Format.FP16: 2}.get(out_format, 4)
    weights = random_operands(rng, (rows, k), in_format, 0.9 if sparse else 0.1)
    weights[rows // 2] = 0 if sparse else weights[rows // 2]  # an empty stream
    bias = rng.normal(size=rows).astype(np.float32).view(np.uint32)
    if in_format is Format.INT8:
        bias = rng.integers(-1000, 1000, rows).astype(np.uint32)
    scale = (rng.random(rows) * 0.02 + 0.001).astype(np.float32)
    scale[::2] *= -1
    scratchpad = np.frombuffer(rng.bytes(CONFIG.scratchpad_bytes), np.uint8).copy()
    raw, visits = blob(
        weights,
        rows=CONFIG.rows,
        sparse=sparse,
        out_offset=rng.permutation(rows) * 512,
        bias=bias,
        scale=scale.view(np.uint32),
    )
    base, x, out = 16 * 37, 20000 + size, 40000
    scratchpad[base : base + len(raw)] = np.frombuffer(raw, np.uint8)
    resident = random_operands(rng, 8000, in_format, 0.1).view(np.uint8)
    scratchpad[x : x + resident.size] = resident[: 16000 // size * size]
    body = matmul_body(
        k=k,
        n=n,
        n_inner=n_inner,
        visits=visits,
        run_bytes=run_length * size,
        x_run_stride=size * (run_length + 3),
        x_inner_stride=size * 5,
        x_outer_stride=size * 17,
        out_inner_stride=out_size * 3,
        out_outer_stride=out_size * 29,
        in_format=in_format,
        out_format=out_format,
        flags=MatmulFlag.SPARSE if sparse else 0,
        function=Function.RELU if rows % 2 else Function.NONE,
        zero_point=5,
        clamp_low=-90,
        clamp_high=100,
    )
    want = reference(body, (base, x, out), scratchpad)
    work = run(Opcode.MATMUL, body, (base, x, out), scratchpad)
    changed = np.flatnonzero(np.frombuffer(want, np.uint8) != scratchpad)
    assert not changed.size, changed[:10]
    blocks = -(-n // (CONFIG.cols * (2 if in_format is Format.INT8 else 1)))
    counts = np.frombuffer(raw, "<u2").reshape(-1, 8)[: visits * CONFIG.rows, 1]
    assert work.issued == int(counts.sum()) * blocks
    if sparse:
        assert counts.sum() < 0.3 * weights.size or k < 20


def test_matmul_negative_strides_and_shared_addresses():
    """Strides of zero and below are strides like any others."""
    rng = np.random.default_rng(3)
    weights = random_operands(rng, (2, 8), Format.INT8, 0)
    raw, visits = blob(weights, rows=CONFIG.rows, out_offset=[0, 64])
    scratchpad = np.frombuffer(rng.bytes(CONFIG.scratchpad_bytes), np.uint8).copy()
    scratchpad[: len(raw)] = np.frombuffer(raw, np.uint8)
    body = matmul_body(
        k=8,
        n=6,
        n_inner=3,
        visits=visits,
        run_bytes=2,
        x_run_stride=-2,
        x_inner_stride=0,
        x_outer_stride=-1,
        out_inner_stride=4,
        out_outer_stride=-12,
        out_format=Format.INT32,
    )
    operand = (0, 5000, 8012)
    want = reference(body, operand, scratchpad)
    run(Opcode.MATMUL, body, operand, scratchpad)
    assert bytes(scratchpad) == bytes(want)


def test_matmul_of_empty_entries_does_nothing():
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    body = matmul_body(k=4, n=2, n_inner=2, visits=3, run_bytes=4)
    work = run(Opcode.MATMUL, body, (0, 1024, 2048), scratchpad)
    assert work.issued == 0
    assert not scratchpad.any()


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


def test_pool_equals_golden():
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (1, 9, 7, 32), dtype=np.int8)
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    scratchpad[4096 : 4096 + x.size] = x.reshape(-1).view(np.uint8)
    body = {"granules": 2, "out_y": 4, "out_x": 3, "kernel_y": 3, "kernel_x": 2, "in_format": 0}
    body |= {"in_y_stride": 2 * 7 * 32, "in_x_stride": 2 * 32}
    body |= {"in_ky_stride": 7 * 32, "in_kx_stride": 32}
    body |= {"out_y_stride": 3 * 32 + 16, "out_x_stride": 32}
    run(Opcode.POOL, body, (0, 4096, 32768), scratchpad)
    want = max_pool(x, kernel=(3, 2), stride=(2, 2))
    assert want.shape == (1, 4, 3, 32)
    for y in range(4):
        at = 32768 + y * body["out_y_stride"]
        assert scratchpad[at : at + 96].tobytes() == want[0, y].tobytes()
    written = scratchpad[32768:].nonzero()[0]
    assert written.max() < 3 * body["out_y_stride"] + 96


def good_matmul():
    """A MATMUL without a fault: FP16, 2 rows, K 8 in runs of 4, 6 columns."""
    rng = np.random.default_rng(6)
    weights = random_operands(rng, (2, 8), Format.FP16, 0)
    raw, visits = blob(weights, rows=CONFIG.rows, out_offset=[0, 64], sparse=True)
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    scratchpad[: len(raw)] = np.frombuffer(raw, np.uint8)
    body = matmul_body(
        k=8,
        n=6,
        n_inner=4,
        visits=visits,
        run_bytes=8,
        x_run_stride=16,
        x_inner_stride=2,
        x_outer_stride=32,
        out_inner_stride=4,
        out_outer_stride=16,
        in_format=Format.FP16,
        out_format=Format.FP32,
        flags=MatmulFlag.SPARSE,
    )
    return body, [0, 1024, 2048], scratchpad


TOP = CONFIG.scratchpad_bytes

BAD_MATMUL = [
    ({"k": 0}, {}, {}, Status.BAD_LENGTH),
    ({"k": 1028, "run_bytes": 8}, {}, {}, Status.BAD_LENGTH),
    ({"n": 0}, {}, {}, Status.BAD_LENGTH),
    ({"n_inner": 0}, {}, {}, Status.BAD_LENGTH),
    ({"visits": 0}, {}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 0}, {}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 6}, {}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 32}, {}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 32, "in_format": 2}, {}, {}, Status.BAD_LENGTH),
    ({"in_format": 2}, {}, {}, Status.BAD_FORMAT),
    ({"in_format": 9}, {}, {}, Status.BAD_FORMAT),
    ({"out_format": 4}, {}, {}, Status.BAD_FORMAT),
    ({"out_format": 2}, {}, {}, Status.BAD_FORMAT),
    ({"flags": 3}, {}, {}, Status.BAD_FORMAT),
    ({"function": 2}, {}, {}, Status.BAD_FORMAT),
    ({"flags": 3}, {0: 8}, {}, Status.BAD_FORMAT),
    ({}, {0: 8}, {}, Status.BAD_ALIGNMENT),
    ({}, {1: 1025}, {}, Status.BAD_ALIGNMENT),
    ({"x_run_stride": 3}, {}, {}, Status.BAD_ALIGNMENT),
    ({"x_inner_stride": 3}, {}, {}, Status.BAD_ALIGNMENT),
    ({"x_outer_stride": -1}, {}, {}, Status.BAD_ALIGNMENT),
    ({"k": 3, "run_bytes": 3}, {}, {}, Status.BAD_ALIGNMENT),
    ({}, {2: 2050}, {}, Status.BAD_ALIGNMENT),
    ({"out_inner_stride": 2}, {}, {}, Status.BAD_ALIGNMENT),
    ({"out_outer_stride": 2, "n": 1}, {}, {}, Status.BAD_ALIGNMENT),
    ({}, {}, {4: b"\x02"}, Status.BAD_ALIGNMENT),
    ({}, {0: TOP}, {}, Status.BAD_ADDRESS),
    ({}, {0: TOP - 48}, {}, Status.BAD_ADDRESS),
    ({"visits": 65535}, {}, {}, Status.BAD_ADDRESS),
    ({}, {1: TOP - 56}, {}, Status.BAD_ADDRESS),
    ({"x_outer_stride": -1026}, {}, {}, Status.BAD_ADDRESS),
    ({"x_run_stride": 1 << 30}, {}, {}, Status.BAD_ADDRESS),
    ({"x_run_stride": -1026}, {}, {}, Status.BAD_ADDRESS),
    ({}, {2: TOP - 84}, {}, Status.BAD_ADDRESS),
    ({"out_outer_stride": -2064}, {2: 2060}, {}, Status.BAD_ADDRESS),
    ({}, {}, {7: b"\xff"}, Status.BAD_ADDRESS),
    ({}, {}, {0: b"\xff\xff"}, Status.BAD_ADDRESS),
    ({"k": 4}, {}, {}, Status.BAD_INDEX),
    ({}, {}, {64 + 12: b"\xff"}, Status.BAD_INDEX),
    ({"flags": 0, "k": 4}, {}, {}, Status.BAD_INDEX),
]


@pytest.mark.parametrize("change, operands, patch, status", BAD_MATMUL)
def test_matmul_refuses(change, operands, patch, status):
    body, operand, scratchpad = good_matmul()
    body |= change
    for index, value in operands.items():
        operand[index] = value
    for address, raw in patch.items():
        scratchpad[address : address + len(raw)] = np.frombuffer(raw, np.uint8)
    with pytest.raises(Fault) as fault:
        run(Opcode.MATMUL, body, operand, scratchpad)
    assert fault.value.status is status


def test_matmul_accepts_the_last_bytes():
    body, _, scratchpad = good_matmul()
    x_end = 32 + 2 + 16 + 8  # the last outer step has two columns, the full one four
    out_end = 64 + 16 + 4 + 4
    run(Opcode.MATMUL, body, (0, TOP - x_end, 2048), scratchpad)
    run(Opcode.MATMUL, body, (0, 1024, TOP - out_end), scratchpad)
    for operand in ((0, TOP - x_end + 2, 2048), (0, 1024, TOP - out_end + 4)):
        with pytest.raises(Fault, match="BAD_ADDRESS"):
            run(Opcode.MATMUL, body, operand, scratchpad)


def test_sparse_escape_beyond_k_is_refused():
    weights = np.array([[1] + [0] * 299], np.int8)
    raw, visits = blob(weights, rows=CONFIG.rows, sparse=True)
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    scratchpad[: len(raw)] = np.frombuffer(raw, np.uint8)
    scratchpad[2] = 2  # one more entry: value 0, delta 255, index 256
    scratchpad[64 + 9] = 255
    for k, status in ((300, None), (256, Status.BAD_INDEX)):
        body = matmul_body(k=k, n=1, n_inner=1, visits=visits, run_bytes=k, out_format=2)
        body["flags"] = 1
        if status is None:
            run(Opcode.MATMUL, body, (0, 1024, 2048), scratchpad)
        else:
            with pytest.raises(Fault, match=status.name):
                run(Opcode.MATMUL, body, (0, 1024, 2048), scratchpad)


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


@pytest.mark.parametrize(
    "change, operands, status",
    [
        *(({name: 0}, (0, 0, 4096), Status.BAD_LENGTH) for name in ("granules", "out_y", "out_x")),
        *(({name: 0}, (0, 0, 4096), Status.BAD_LENGTH) for name in ("kernel_y", "kernel_x")),
        ({"in_format": 1}, (0, 8, 4096), Status.BAD_FORMAT),
        ({}, (0, 8, 4096), Status.BAD_ALIGNMENT),
        ({}, (0, 0, 4097), Status.BAD_ALIGNMENT),
        ({"in_kx_stride": 8}, (0, 0, 4096), Status.BAD_ALIGNMENT),
        ({"out_y_stride": 8}, (0, 0, 4096), Status.BAD_ALIGNMENT),
        ({}, (0, TOP - 48, 4096), Status.BAD_ADDRESS),
        ({"in_ky_stride": -16}, (0, 0, 4096), Status.BAD_ADDRESS),
        ({}, (0, 0, TOP - 16), Status.BAD_ADDRESS),
    ],
)
def test_pool_refuses(change, operands, status):
    body = {"granules": 1, "out_y": 1, "out_x": 2, "kernel_y": 2, "kernel_x": 2, "in_format": 0}
    body |= dict.fromkeys(("in_y_stride", "in_ky_stride", "out_y_stride"), 32)
    body |= dict.fromkeys(("in_x_stride", "in_kx_stride", "out_x_stride"), 16)
    with pytest.raises(Fault) as fault:
        run(Opcode.POOL, body | change, operands, np.zeros(TOP, np.uint8))
    assert fault.value.status is status
