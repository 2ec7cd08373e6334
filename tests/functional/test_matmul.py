"""One iteration of MATMUL, against loops over single elements written from ``rtl/isa/``."""

import math

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import BITS, LANES, Encoding, Format, MatmulFlag, Opcode
from deepseek.sim.functional import matmul
from deepseek.sim.functional.assemble import blob
from deepseek.sim.functional.checks import matmul_mode
from deepseek.sim.functional.slow import INTEGERS, field, matmul_results, to_fraction
from deepseek.sim.functional.streams import DTYPES
from deepseek.sim.functional.testing import matmul_body
from deepseek.sim.functional.units import execute
from deepseek.sim.golden.slow import number

CONFIG = preset("tiny")
BLOB, X, OUT = 16 * 37, 20002, 40000


def run(body, operand, scratchpad):
    memory = np.zeros(16, np.uint8)
    return execute(
        Opcode.MATMUL, body, operand, memory=memory, scratchpad=scratchpad, config=CONFIG
    )


def compare(body, operand, scratchpad, work, before):
    """Compare the scratchpad after an iteration with the reference, byte by byte."""
    results, flags = matmul_results(body, operand, before)
    assert work.flags == flags
    fmt = Format(body["out_format"])
    bits, memory, touched = BITS[fmt], bytes(scratchpad), set()
    for (at, half), want in results.items():
        value = field(memory, at, 4 * half, bits)
        touched |= set(range(at, at + max(1, bits // 8)))
        if fmt in INTEGERS or fmt is Format.INT32:
            got = value - (1 << bits) if value >> bits - 1 else value
        elif fmt is Format.FP32:
            got = to_fraction(value)
        else:
            got = number(value, fmt.name.lower())
        if isinstance(want, float) and math.isnan(want):
            assert math.isnan(got)
        else:
            assert got == want, (hex(at), got, float(want))
    changed = np.flatnonzero(before != scratchpad)
    assert set(changed.tolist()) <= touched
    assert results


def random_numbers(rng, shape, fmt, zeros, spread=1.0):
    """Raw numbers without infinities and NaNs."""
    if fmt in INTEGERS:
        half = 1 << BITS[fmt] - 1
        values = rng.integers(-half, half, shape)
    else:
        values = rng.normal(size=shape) * np.exp2(rng.normal(size=shape) * spread)
        values = values.astype(np.float32).view(np.uint32) >> 16
        if fmt is not Format.BF16:
            values = (values << 16).view(np.float32).clip(-400, 400).astype(np.float16)
            values = values.view(np.uint16)
        if fmt is Format.E5M2:
            values = values >> 8
        if fmt is Format.E4M3:
            values = rng.integers(0, 127, shape) | rng.integers(0, 2, shape) << 7
    return np.where(rng.random(shape) < zeros, 0, values).astype(DTYPES[fmt])


def pattern(rng, weights, encoding, length):
    """Set to zero what a stream of N of M cannot hold, in each slice."""
    most, group = {
        Encoding.SPARSE_2_4: (2, 4),
        Encoding.SPARSE_1_4: (1, 4),
        Encoding.SPARSE_1_8: (1, 8),
    }[encoding]
    for row in weights:
        for start in range(0, len(row), length):
            for first in range(start, min(start + length, len(row)), group):
                places = np.arange(first, min(first + group, start + length, len(row)))
                row[rng.permutation(places)[most:]] = 0


I4, I8, I32 = Format.INT4, Format.INT8, Format.INT32
F8, G8, F16, B16, F32 = Format.E4M3, Format.E5M2, Format.FP16, Format.BF16, Format.FP32
DENSE, DELTA = Encoding.DENSE, Encoding.DELTA
S24, S14, S18 = Encoding.SPARSE_2_4, Encoding.SPARSE_1_4, Encoding.SPARSE_1_8

CASES = [
    # stream, in, out, encoding, rows, runs, run, slice, n, n_inner, block scale, anchor
    (I8, I8, I8, DENSE, 5, 3, 6, 18, 11, 4, 0, 0),
    (I8, I8, I32, DELTA, 9, 1, 600, 600, 3, 8, 0, 0),
    (I8, I8, F16, DELTA, 4, 2, 8, 99, 4, 2, 0, 0),
    (I8, I8, F32, DENSE, 1, 1, 1, 1, 1, 1, 0, 0),
    (I8, I8, F32, S24, 5, 5, 9, 16, 5, 2, 1, 0),
    (I4, I4, I4, DENSE, 6, 2, 20, 40, 9, 4, 0, 0),
    (I4, I4, I32, S24, 7, 3, 34, 48, 7, 9, 0, 0),
    (I4, I4, I4, DELTA, 3, 1, 46, 32, 5, 5, 1, 0),
    (I4, I8, I4, S14, 4, 6, 7, 16, 6, 2, 0, 0),
    (I8, I4, I32, S18, 4, 3, 14, 32, 6, 4, 0, 0),
    (F16, F16, F16, DENSE, 6, 5, 4, 20, 9, 3, 0, 0),
    (F16, F16, F32, DELTA, 7, 3, 100, 80, 5, 5, 0, 0),
    (F16, F16, I8, S24, 3, 1, 37, 16, 7, 3, 1, 0),
    (I8, F16, B16, S18, 5, 4, 9, 16, 4, 4, 0, 0),
    (F8, F8, F8, DENSE, 5, 4, 8, 32, 4, 3, 0, 0),
    (F8, I4, F16, S14, 5, 4, 8, 16, 4, 3, 1, 0),
    (G8, F8, G8, DELTA, 5, 2, 30, 32, 4, 3, 0, 0),
    (B16, B16, B16, DENSE, 5, 4, 8, 16, 6, 3, 0, -20),
    (B16, B16, F32, DELTA, 6, 6, 8, 32, 4, 4, 1, -9),
    (B16, I8, I4, S24, 4, 6, 8, 16, 7, 7, 0, -8),
    (G8, B16, F8, S18, 4, 6, 8, 48, 3, 2, 0, -30),
    (I4, B16, F32, S14, 4, 6, 8, 16, 3, 2, 0, -2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(v) for v in case[:4]))
def test_matmul_equals_loops(case):
    stream, source, target, encoding, rows, runs, run_length, length, n, n_inner, scaled, anchor = (
        case
    )
    rng = np.random.default_rng(CASES.index(case))
    k, size, out_size = runs * run_length, max(1, BITS[source] // 8), max(1, BITS[target] // 8)
    slices = -(-k // length)
    weights = random_numbers(rng, (rows, k), stream, 0.9 if encoding is DELTA else 0.1)
    if encoding not in (DENSE, DELTA):
        pattern(rng, weights, encoding, length)
    weights[rows // 2] = 0 if encoding is DELTA else weights[rows // 2]
    shape = (slices, rows)
    bias = rng.normal(size=shape).astype(np.float32).view(np.uint32)
    if {stream, source} <= INTEGERS and not scaled:
        bias = rng.integers(-1000, 1000, shape).astype(np.uint32)
    scale = ((rng.random(shape) * 0.02 + 0.001) * rng.choice([-1, 1], shape)).astype(np.float32)
    content = blob(
        weights,
        fmt=stream,
        encoding=encoding,
        slice=length,
        out_offset=rng.permutation(rows) * 512,
        bias=bias,
        scale=scale.view(np.uint32),
    )
    scratchpad = np.frombuffer(rng.bytes(CONFIG.scratchpad_bytes), np.uint8).copy()
    scratchpad[BLOB : BLOB + len(content)] = np.frombuffer(content, np.uint8)
    resident = random_numbers(rng, 8000, source, 0.1)
    resident = rng.integers(0, 256, 8000, np.uint8) if source is I4 else resident.view(np.uint8)
    scratchpad[X : X + resident.size] = resident
    body = matmul_body(
        k=k,
        n=n,
        n_inner=n_inner,
        entries=rows,
        run_bytes=run_length * BITS[source] // 8,
        runs_inner=2,
        slice=length,
        x_run_stride=size * (run_length + 3),
        x_run_outer_stride=-size * 7,
        x_inner_stride=size * 5,
        x_outer_stride=size * 17,
        out_inner_stride=out_size * 3,
        out_outer_stride=out_size * 29,
        stream_format=stream,
        encoding=encoding,
        in_format=source,
        out_format=target,
        flags=MatmulFlag.BLOCK_SCALE if scaled else 0,
        function=rows % 2,
        anchor=anchor,
        zero_point=5,
        clamp_low=-90,
        clamp_high=100,
    )
    operand = (BLOB, X + size * 7 * runs, OUT)
    before = scratchpad.copy()
    work = run(body, operand, scratchpad)
    compare(body, operand, scratchpad, work, before)
    blocks = -(-n // (CONFIG.cols * LANES[matmul_mode(body)]))
    counts = np.frombuffer(content, "<u2").reshape(-1, 8)[: slices * rows, 1].reshape(shape)
    issued = [0] * CONFIG.rows
    for block in range(blocks):
        for i in range(rows):
            issued[(block * rows + i) % CONFIG.rows] += int(counts[:, i].sum())
    assert work.issued == tuple(issued)


@pytest.mark.parametrize("target", [F32, I4])
def test_columns_may_be_worked_on_in_parts(target, monkeypatch):
    rng = np.random.default_rng(4)
    content = blob(random_numbers(rng, (3, 16), F16, 0), fmt=F16, out_offset=[0, 256, 512])
    noise = random_numbers(rng, CONFIG.scratchpad_bytes // 2, F16, 0.1).view(np.uint8)
    body = matmul_body(k=16, n=23, n_inner=6, entries=3, run_bytes=32, runs_inner=1, slice=16)
    body |= {"stream_format": F16.value, "in_format": F16.value, "out_format": target.value}
    body |= {"x_inner_stride": 32, "x_outer_stride": 198, "out_inner_stride": 4}
    body |= {"out_outer_stride": 24}
    scratchpads = []
    for numbers in (1 << 23, 64):
        monkeypatch.setattr(matmul, "COLUMN_NUMBERS", numbers)
        scratchpad = noise.copy()
        scratchpad[: len(content)] = np.frombuffer(content, np.uint8)
        run(body, (0, 4096, 16384), scratchpad)
        scratchpads.append(scratchpad)
    np.testing.assert_array_equal(*scratchpads)
    assert np.any(scratchpads[0] != noise)


def test_negative_strides_and_shared_addresses():
    """Strides of zero and below are strides like any others."""
    rng = np.random.default_rng(3)
    weights = random_numbers(rng, (2, 8), I8, 0)
    content = blob(weights, out_offset=[0, 64])
    scratchpad = np.frombuffer(rng.bytes(CONFIG.scratchpad_bytes), np.uint8).copy()
    scratchpad[: len(content)] = np.frombuffer(content, np.uint8)
    body = matmul_body(
        k=8,
        n=6,
        n_inner=3,
        entries=2,
        run_bytes=2,
        runs_inner=3,
        slice=8,
        x_run_stride=-2,
        x_run_outer_stride=1,
        x_inner_stride=0,
        x_outer_stride=-1,
        out_inner_stride=4,
        out_outer_stride=-12,
        out_format=I32,
    )
    operand, before = (0, 5000, 8012), scratchpad.copy()
    compare(body, operand, scratchpad, run(body, operand, scratchpad), before)


def test_odd_columns_of_int4_have_no_address():
    """Their strides do not matter, and the half byte behind the last column is 0."""
    weights = np.full((1, 4), 3, np.int8)
    content = blob(weights, fmt=I4)
    scratchpad = np.full(CONFIG.scratchpad_bytes, 0x21, np.uint8)
    scratchpad[: len(content)] = np.frombuffer(content, np.uint8)
    body = matmul_body(k=4, n=3, n_inner=3, entries=1, run_bytes=2, runs_inner=1, slice=4)
    body |= {"stream_format": I4.value, "in_format": I4.value, "out_format": I4.value}
    body |= {"out_inner_stride": -1000, "clamp_low": -99, "clamp_high": 99}
    run(body, (0, 1024, 3000), scratchpad)
    total = 3 * (1 + 2 + 1 + 2) & 15
    assert (scratchpad[3000], scratchpad[1000]) == (total << 4 | total, total)
    assert scratchpad[2000] == scratchpad[4000] == 0x21


def test_empty_rows_do_nothing():
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    body = matmul_body(k=4, n=2, n_inner=2, entries=3, run_bytes=4, runs_inner=1, slice=4)
    work = run(body, (0, 1024, 2048), scratchpad)
    assert not any(work.issued)
    assert not scratchpad.any()


def test_longest_k():
    """32,768 products in slices of 1,024 and in one, in 4 rows: no partial sum is kept then."""
    k = 32768
    weights = np.full((4, k), -128, np.int8)
    weights[1] = 127
    for length in (1024, k):
        rows = [np.flatnonzero(np.arange(k) % 4096 == 5 + m) for m in range(4)]
        sparse = np.zeros_like(weights)
        for m, places in enumerate(rows):
            sparse[m, places] = weights[m, places]
        raw_blob = blob(sparse, encoding=DELTA, slice=length, out_offset=np.arange(4) * 4)
        scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
        scratchpad[: len(raw_blob)] = np.frombuffer(raw_blob, np.uint8)
        x, out = 48 << 10, 60 << 10
        scratchpad[x : x + 4096] = np.arange(4096, dtype=np.uint8)
        body = matmul_body(k=k, n=1, n_inner=1, entries=4, run_bytes=4096, runs_inner=8)
        body |= {"slice": length, "out_format": I32.value, "encoding": DELTA.value}
        run(body, (0, x, out), scratchpad)
        got = scratchpad[out : out + 16].view("<i4")
        want = [8 * w * (5 + m) for m, w in enumerate((-128, 127, -128, -128))]
        np.testing.assert_array_equal(got, want)
