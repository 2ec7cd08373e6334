"""Whole GEMM plans: executed by the functional simulator, compared with the golden model."""

import dataclasses

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler import gemm
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.estimate import tilings
from deepseek.host.compiler.formats import DTYPES, raw_bits
from deepseek.host.compiler.gemm import Matrix, plan_gemm
from deepseek.host.compiler.tiling import MemorySpeed
from deepseek.host.compiler.window import window_anchor
from deepseek.rtl.config import PRESETS, preset
from deepseek.rtl.isa import (
    INPUT_FORMATS,
    OUTPUT_FORMATS,
    Encoding,
    Flag,
    Format,
    Function,
    Opcode,
    array_mode,
)
from deepseek.sim.golden import epilogue, exact

INTEGERS = (Format.INT8, Format.INT4)
PAIRS = [(s, x) for s in INPUT_FORMATS for x in INPUT_FORMATS if array_mode(s, x) is not None]


def numbers(random, rows, k, fmt, density=1.0):
    if fmt in INTEGERS:
        low = -128 if fmt is Format.INT8 else -8
        values = random.integers(low, -low, (rows, k)).astype(np.int8)
    else:
        values = random.standard_normal((rows, k)).astype(np.float32)
    values[random.random((rows, k)) >= density] = 0
    return values.astype(DTYPES[fmt])


def golden(array, fmt):
    return array.astype(np.int8) if fmt in INTEGERS else raw_bits(array, fmt)


def wanted(plan, a, b, out_format, *, scale, bias, block=None, **options):
    """C[M, N] by the golden models, computed in the roles of the plan."""
    formats = (plan.a_format, plan.b_format)
    stream, resident = golden(a, formats[0]), golden(b, formats[1])
    if plan.stream == "b":
        stream, resident, formats = resident, stream, formats[::-1]
    names = [fmt.name.lower() for fmt in formats]
    size = block or plan.k
    sums = [
        exact.gemm(
            np.ascontiguousarray(stream[:, start : start + size]),
            np.ascontiguousarray(resident[:, start : start + size]),
            *names,
            anchor=plan.schedule.epilogue.anchor,
        )
        for start in range(0, plan.k, size)
    ]
    rows = len(stream)
    if block:
        scales = np.ascontiguousarray(np.broadcast_to(scale, (rows, len(sums))).T)
    else:
        scales = np.ascontiguousarray(np.broadcast_to(np.reshape(scale, -1), (rows,)))
    result = epilogue.finish(
        sums if block else sums[0],
        bias=np.ascontiguousarray(np.broadcast_to(np.reshape(bias, -1), (rows,))).view(np.uint32),
        scale=scales.astype(np.float32).view(np.uint32),
        out_format=out_format.name.lower(),
        **options,
    ).values
    return result.T if plan.stream == "b" else result


def run(card, plan, a, b):
    """Run a plan, with bytes around C that nothing may touch; return C's bits and the result."""
    buffers = [card.allocate(size) for size in (plan.a_bytes, plan.b_bytes, plan.c_bytes)]
    guard = card.allocate(256)
    try:
        card.write(buffers[0], plan.pack_a(a))
        card.write(buffers[1], plan.pack_b(b))
        card.write(buffers[2], np.full(plan.c_bytes, 0x5A, np.uint8))
        card.write(guard, np.full(256, 0x77, np.uint8))
        ended = card.submit(plan.commands(*(buffer.address for buffer in buffers))).wait()
        c = plan.unpack_c(card.read(buffers[2]))
        assert (card.read(guard) == 0x77).all()
    finally:
        for buffer in (*buffers, guard):
            card.free(buffer)
    return c, ended


def check(card, random, m, k, n, formats, out_format, *, density=1.0, block=None, **options):
    """Plan, run and compare a product with random scales and biases; return plan and job."""
    a, b = numbers(random, m, k, formats[0]), numbers(random, n, k, formats[1])
    stream = options.get("stream", "a")
    sent = a if stream != "b" else b
    sent[random.random(sent.shape) >= density] = sent.dtype.type(0)
    rows = len(sent)
    integer = all(fmt in INTEGERS for fmt in formats)
    scale = random.uniform(0.5, 1.5, (rows, -(-k // block) if block else 1)) / k
    scale = scale.astype(np.float32)
    if integer and block is None:
        bias = random.integers(-5000, 5000, rows).astype(np.int32)
    else:
        bias = random.standard_normal(rows).astype(np.float32)
    relu = bool(random.random() < 0.3)
    zero_point, clamp = 0, None
    if out_format in INTEGERS:
        zero_point, clamp = (11, (-77, 99)) if out_format is Format.INT8 else (-2, (-7, 6))
    shaped = [bias[None] if stream == "b" else bias]
    shaped.append(scale if block else scale[:, 0][None] if stream == "b" else scale[:, 0])
    plan = plan_gemm(
        card.config,
        a,
        b,
        out_format=out_format,
        bias=shaped[0],
        scale=shaped[1],
        scale_axis="ab".index(stream),
        block=block,
        function=Function.RELU if relu else Function.NONE,
        zero_point=zero_point,
        clamp=clamp,
        **options,
    )
    assert plan.stream == stream
    c, ended = run(card, plan, a, b)
    low, high = clamp or (None, None)
    expected = wanted(
        plan,
        a,
        b,
        out_format,
        scale=scale,
        bias=bias,
        block=block,
        function="relu" if relu else "none",
        zero_point=zero_point,
        clamp_low=low,
        clamp_high=high,
    )
    assert c.shape == (m, n)
    found = golden(c, out_format) if out_format is not Format.INT32 else c
    wrong = np.argwhere(found.astype(np.int64) != expected.astype(np.int64))
    assert not len(wrong), (m, k, n, plan.tiling, wrong[0])
    return plan, ended


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("stream", ["a", "b"])
def test_shapes_that_do_not_divide(cards, name, stream):
    random = np.random.default_rng(21)
    corners = [(1, 1, 1), (1, 7, 130), (130, 9, 1), (4, 1024, 16), (33, 1023, 65), (3, 1000, 5)]
    drawn = [tuple(int(v) for v in random.integers(1, 140, 3)) for _ in range(10)]
    for index, (m, k, n) in enumerate(corners + drawn):
        fmt = (Format.INT8, Format.FP16, Format.INT4)[index % 3]
        outputs = [Format.INT8, Format.FP16, Format.FP32, Format.E4M3]
        density = float(random.choice([0.0, 0.01, 0.1, 0.6, 1.0]))
        check(
            cards[name],
            random,
            m,
            k,
            n,
            (fmt, fmt),
            outputs[index % 4],
            stream=stream,
            density=density,
        )


@pytest.mark.parametrize("formats", PAIRS, ids=lambda p: f"{p[0].name}-{p[1].name}")
def test_every_pair_of_formats(cards, formats):
    random = np.random.default_rng(5)
    integer = all(fmt in INTEGERS for fmt in formats)
    outputs = [fmt for fmt in OUTPUT_FORMATS if integer or fmt is not Format.INT32]
    for index, out_format in enumerate(outputs):
        stream = "a" if index % 2 or out_format is Format.INT4 else "b"
        m, k, n = (int(v) for v in random.integers(1, 60, 3))
        check(cards["tiny"], random, m, k, n, formats, out_format, stream=stream)


@pytest.mark.parametrize("encoding", list(Encoding), ids=lambda e: e.name)
def test_every_encoding(cards, encoding):
    random = np.random.default_rng(6)
    for m, k, n, fmt in [(40, 130, 33, Format.INT8), (21, 700, 20, Format.FP16)]:
        a, b = numbers(random, m, k, fmt, 0.3), numbers(random, n, k, fmt)
        for start in range(0, k, 8):  # at most one of eight: every pattern
            a[:, start : start + 8][:, random.integers(8) != np.arange(8)[: k - start]] = 0
        plan = plan_gemm(cards["tiny"].config, a, b, out_format=Format.FP32, encoding=encoding)
        if plan.stream == "a":
            assert plan.encoding is encoding
        c, _ = run(cards["tiny"], plan, a, b)
        expected = wanted(plan, a, b, Format.FP32, scale=np.float32(1), bias=np.uint32(0))
        assert np.array_equal(c.view(np.uint32), expected)


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_long_sums(cards, name):
    random = np.random.default_rng(8)
    card = cards[name]
    for m, k, n, fmt, density in [
        (70, 1040, 20, Format.INT8, 1.0),
        (33, 2500, 17, Format.INT8, 0.1),
        (9, 3001, 9, Format.FP16, 1.0),
        (1, 5001, 20, Format.INT4, 1.0),
        (3, 1, 20, Format.INT4, 1.0),
    ]:
        for stream in ("a", "b"):
            check(card, random, m, k, n, (fmt, fmt), Format.FP32, stream=stream, density=density)


def test_the_longest_sums(cards):
    random = np.random.default_rng(9)
    for fmt in (Format.INT8, Format.FP16):
        check(cards["sim"], random, 2, 32768, 3, (fmt, fmt), Format.FP32)


def test_block_scales(cards):
    random = np.random.default_rng(10)
    for fmt, k, block, stream in [
        (Format.INT8, 300, 128, "a"),
        (Format.INT4, 260, 32, "b"),
        (Format.FP16, 1500, 128, "a"),
        (Format.BF16, 90, 16, "b"),
        (Format.E4M3, 40, 64, "a"),
    ]:
        check(cards["tiny"], random, 40, k, 21, (fmt, fmt), Format.FP32, stream=stream, block=block)


@pytest.mark.parametrize("chosen", [*range(0, 100, 12), -1])
@pytest.mark.parametrize("stream", ["a", "b"])
def test_tilings_that_are_not_the_best(cards, monkeypatch, chosen, stream):
    """A plan is right for any tiling, not only for the one that the estimate prefers."""

    def reordered(problem):
        order = tilings(problem)
        at = chosen % len(order)
        return order[at:] + order[:at]

    monkeypatch.setattr(gemm, "tilings", reordered)
    random = np.random.default_rng(chosen % 99)
    for density in (1.0, 0.3):
        check(
            cards["tiny"],
            random,
            100,
            300,
            83,
            (Format.INT8, Format.INT8),
            Format.FP16,
            stream=stream,
            density=density,
        )


@pytest.mark.parametrize("memory", ["hbm", "ideal"])
def test_on_the_rtl(memory):
    random = np.random.default_rng(31)
    with Card.open("rtl", preset="tiny", memory=memory) as card:
        for m, k, n, formats, out_format, density, options in [
            (1, 1, 1, (Format.INT8, Format.INT8), Format.INT32, 1.0, {}),
            (9, 33, 7, (Format.FP16, Format.FP16), Format.FP16, 1.0, {"stream": "b"}),
            (70, 300, 33, (Format.INT8, Format.INT4), Format.INT4, 0.2, {}),
            (21, 1100, 30, (Format.BF16, Format.E4M3), Format.E5M2, 1.0, {"stream": "b"}),
            (2, 2500, 21, (Format.INT8, Format.INT8), Format.FP16, 1.0, {}),
            (40, 200, 17, (Format.INT4, Format.INT4), Format.FP32, 0.5, {"block": 64}),
        ]:
            options = {"memory": card.memory_speed} | options
            plan, ended = check(
                card, random, m, k, n, formats, out_format, density=density, **options
            )
            if memory == "ideal":
                assert abs(ended.cycles - plan.cycles) < 0.1 * ended.cycles + 60


def test_operands_that_come_later(cards):
    random = np.random.default_rng(3)
    card = cards["ecp5"]
    later = (Matrix((40, 96), Format.FP16), Matrix((24, 96), Format.BF16))
    with pytest.raises(ValueError, match="no path"):
        plan_gemm(card.config, *later, out_format=Format.FP16)
    later = (Matrix((40, 96), Format.E5M2), Matrix((24, 96), Format.BF16))
    with pytest.raises(ValueError, match="anchor must be given"):
        plan_gemm(card.config, *later, out_format=Format.FP16)
    plan = plan_gemm(card.config, *later, out_format=Format.FP32, anchor=-64)
    for _ in range(2):
        a, b = numbers(random, 40, 96, Format.E5M2), numbers(random, 24, 96, Format.BF16)
        c, _ = run(card, plan, a, b)
        expected = wanted(plan, a, b, Format.FP32, scale=np.float32(1), bias=np.uint32(0))
        assert np.array_equal(c.view(np.uint32), expected)


def test_the_window_holds_the_largest_product(cards):
    random = np.random.default_rng(4)
    card = cards["tiny"]
    for magnitude in (0, 70, -110):
        a = (numbers(random, 9, 40, Format.FP32) * 2.0**magnitude).astype(DTYPES[Format.BF16])
        b = numbers(random, 5, 40, Format.BF16)
        a[3, 17], b[2, 17] = np.abs(a).max(), np.abs(b).max()
        anchor = window_anchor(a, b)
        for lower, above in ((0, False), (1, True)):
            if not -126 <= anchor - lower <= 32:
                continue
            plan = plan_gemm(card.config, a, b, out_format=Format.BF16, anchor=anchor - lower)
            _, ended = run(card, plan, a, b)
            assert bool(ended.flags & Flag.ABOVE) == above


def test_estimates_are_ordered():
    config = preset("ecp5")
    a, b = np.ones((256, 256), np.int8), np.ones((256, 256), np.int8)
    plan = plan_gemm(config, a, b, out_format=Format.INT8)
    found = tilings(plan.problem)
    assert [t.cycles for t in found] == sorted(t.cycles for t in found)
    # The best leaves less than one percent to loads, stores and overheads.
    assert found[0].cycles < 256**3 / (8 * 8 * 2) / 0.99
    slower = tilings(dataclasses.replace(plan.problem, memory=MemorySpeed(0.5)))
    assert slower[0].cycles > found[0].cycles


def test_a_gemm_is_few_commands():
    a, b = np.ones((1000, 999), np.int8), np.ones((1001, 999), np.int8)
    plan = plan_gemm(preset("sim"), a, b, out_format=Format.INT8)
    fields = [decode(command) for command in plan.commands(0, 1 << 24, 1 << 25)]
    matmuls = [f for f in fields if f["opcode"] is Opcode.MATMUL]
    assert len(matmuls) == 1
    assert matmuls[0]["inner"] * matmuls[0]["outer"] == plan.tiling.tiles * plan.tiling.parts
    assert len(fields) <= 4 + 8 * plan.tiling.panels


ONES = np.ones((4, 4), np.int8)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (np.ones((4, 32769), np.int8), np.ones((4, 32769), np.int8), {}, "K must be at most 32768"),
        (np.ones((4, 4), np.int32), ONES, {}, "a must be one of int8, .* not 'int32'"),
        (np.ones(4, np.int8), ONES, {}, r"a must have the shape \[rows, K\]"),
        (ONES, np.ones((4, 3), np.int8), {}, r"b must have the shape \[N, 4\], not \(4, 3\)"),
        (ONES, ONES, {"stream": "c"}, "stream must be 'a', 'b' or None, not 'c'"),
        (ONES, ONES, {"stream": "b", "scale": np.ones(4)}, "must agree"),
        (ONES, ONES, {"scale": np.ones(3)}, "scale must be a number or have 4 rows"),
        (ONES, ONES, {"block": 3}, "block must be a multiple of 16, not 3"),
        (
            np.ones((5, 2048), np.int8),
            np.ones((5, 2048), np.int8),
            {"block": 1040},
            r"block must be at most 1024 \(operand_depth\) .* the 4 engines, not 1040",
        ),
        (
            ONES,
            ONES,
            {"encoding": Encoding.SPARSE_1_8, "stream": "a"},
            "a must have the pattern of SPARSE_1_8",
        ),
        (
            np.ones((9, 32768), np.float16),
            np.ones((9, 32768), np.float16),
            {},
            "no tile of a 9 x 32768 by 32768 x 9 product fits",
        ),
    ],
)
def test_mistakes_are_named(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        plan = plan_gemm(preset("tiny"), a, b, out_format=Format.INT8, **options)
        plan.pack_a(a)
        plan.pack_b(b)


def test_operands_are_checked():
    plan = plan_gemm(preset("tiny"), ONES, np.ones((3, 4), np.int8), out_format=Format.INT8)
    with pytest.raises(ValueError, match=r"b must have the shape \[3, 4\], not \(4, 3\)"):
        plan.pack_b(np.ones((4, 3), np.int8))
    with pytest.raises(ValueError, match="b must be INT8, not 'float16'"):
        plan.pack_b(np.ones((3, 4), np.float16))
