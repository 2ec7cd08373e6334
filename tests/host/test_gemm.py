"""Whole GEMM plans: executed by the functional simulator, compared with the golden model."""

import dataclasses

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.gemm import plan_gemm
from deepseek.host.compiler.tiling import GemmShape, MemorySpeed, tilings
from deepseek.rtl.config import PRESETS, preset
from deepseek.rtl.isa import Format, Function, Opcode
from deepseek.sim.golden import epilogue, exact

OUTPUTS = {np.int8: list(Format), np.float16: [Format.INT8, Format.FP16, Format.FP32]}


@pytest.fixture(scope="module")
def cards():
    opened = {name: Card.open("functional", preset=name) for name in PRESETS}
    yield opened
    for card in opened.values():
        card.close()


def operands(random, m, n, k, dtype, density):
    if dtype is np.int8:
        a = random.integers(-128, 128, (m, k), np.int8)
        x = random.integers(-128, 128, (n, k), np.int8)
    else:
        a = random.standard_normal((m, k)).astype(dtype)
        x = random.standard_normal((n, k)).astype(dtype)
        x[random.random((n, k)) < 0.001] = np.inf
    a[random.random((m, k)) >= density] = 0
    return a, x


def run_and_compare(card, random, m, n, k, dtype, out_format, *, sparse, density=1.0):
    a, x = operands(random, m, n, k, dtype, density)
    scale = random.uniform(0.5, 1.5, m).astype(np.float32) / np.float32(k)
    function = Function.RELU if random.random() < 0.5 else Function.NONE
    if dtype is np.int8:
        bias = random.integers(-5000, 5000, m).astype(np.int32)
    else:
        bias = random.standard_normal(m).astype(np.float32)
    zero_point, clamp = (11, (-77, 99)) if out_format is Format.INT8 else (0, (-128, 127))
    plan = plan_gemm(
        card.config,
        a,
        n,
        out_format=out_format,
        scale=scale,
        bias=bias,
        function=function,
        zero_point=zero_point,
        clamp=clamp,
        sparse=sparse,
    )
    sizes = (plan.a_image.size, plan.b_bytes, plan.c_bytes)
    buffers = [card.allocate(nbytes) for nbytes in sizes]
    guard = card.allocate(256)
    try:
        card.write(buffers[0], plan.a_image)
        card.write(buffers[1], plan.pack_b(x))
        card.write(buffers[2], np.full(plan.c_bytes, 0x5A, np.uint8))
        card.write(guard, np.full(256, 0x77, np.uint8))
        card.submit(plan.commands(*(b.address for b in buffers))).wait()
        actual = plan.unpack_c(card.read(buffers[2]))
        assert (card.read(guard) == 0x77).all()
    finally:
        for buffer in (*buffers, guard):
            card.free(buffer)
    names = {Format.INT8: "int8", Format.FP16: "fp16", Format.INT32: "int32", Format.FP32: "fp32"}
    fmt = "int8" if dtype is np.int8 else "fp16"
    bits = (lambda v: v) if fmt == "int8" else (lambda v: v.view(np.uint16))
    expected = epilogue.finish(
        exact.gemm(bits(a), bits(x), fmt),
        bias=bias.view(np.uint32),
        scale=scale.view(np.uint32),
        function="relu" if function is Function.RELU else "none",
        out_format=names[out_format],
        zero_point=zero_point,
        clamp_low=clamp[0],
        clamp_high=clamp[1],
    )
    assert actual.shape == (m, n)
    wrong = np.argwhere(actual.view(expected.dtype) != expected)
    assert not len(wrong), (m, n, k, plan.tiling, wrong[0])
    return plan


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("dtype", [np.int8, np.float16])
def test_shapes_that_do_not_divide(cards, name, dtype):
    random = np.random.default_rng(21)
    card = cards[name]
    corners = [(1, 1, 1), (1, 130, 7), (130, 1, 9), (4, 16, 1024), (65, 33, 1023), (3, 5, 1000)]
    drawn = [tuple(int(v) for v in random.integers(1, 140, 3)) for _ in range(14)]
    for index, (m, n, k) in enumerate(corners + drawn):
        out_format = OUTPUTS[dtype][index % len(OUTPUTS[dtype])]
        density = float(random.choice([0.0, 0.01, 0.1, 0.6, 1.0]))
        sparse = bool(index & 1)
        run_and_compare(card, random, m, n, k, dtype, out_format, sparse=sparse, density=density)


@pytest.mark.parametrize("memory", ["hbm", "ideal"])
def test_on_the_rtl(memory):
    random = np.random.default_rng(31)
    with Card.open("rtl", preset="tiny", memory=memory) as card:
        for index, (m, n, k, dtype, out_format) in enumerate(
            [
                (1, 1, 1, np.int8, Format.INT32),
                (9, 7, 33, np.float16, Format.FP16),
                (70, 33, 300, np.int8, Format.INT8),
                (21, 50, 1024, np.float16, Format.FP32),
                (130, 17, 40, np.int8, Format.FP16),
            ]
        ):
            for sparse in (False, True):
                density = (1.0, 0.2, 0.01)[index % 3] if sparse else 1.0
                run_and_compare(
                    card, random, m, n, k, dtype, out_format, sparse=sparse, density=density
                )


def test_every_kind_of_tiling(cards):
    """Shapes that need tiles in both directions, remainders, and each choice of buffers."""
    random = np.random.default_rng(4)
    card = cards["tiny"]
    seen = set()
    for m, n, k, dtype, out in [
        (150, 150, 260, np.int8, Format.INT32),
        (131, 77, 512, np.float16, Format.FP32),
        (300, 20, 64, np.int8, Format.INT8),
        (9, 40, 1024, np.float16, Format.INT8),
        (20, 700, 96, np.int8, Format.INT8),
        (37, 49, 1024, np.float16, Format.FP16),
        (8, 8, 8, np.int8, Format.INT8),
    ]:
        plan = run_and_compare(card, random, m, n, k, dtype, out, sparse=False)
        seen.add((plan.tiling.b_resident, plan.tiles[0] > 1, plan.tiles[1] > 1))
    for choice in zip(*seen, strict=True):
        assert set(choice) == {False, True}


@pytest.mark.parametrize("chosen", [0, 1, 2, 3, 5, 8, 13, 40, 90, -1])
def test_tilings_that_are_not_the_best(cards, monkeypatch, chosen):
    """A plan is right for any tiling, not only for the one that the estimate prefers."""
    from deepseek.host.compiler import gemm

    def reordered(config, shape):
        order = tilings(config, shape)
        at = chosen % len(order)
        return order[at:] + order[:at]

    monkeypatch.setattr(gemm, "tilings", reordered)
    random = np.random.default_rng(chosen % 99)
    for sparse in (False, True):
        run_and_compare(
            cards["tiny"], random, 61, 83, 75, np.int8, Format.FP16, sparse=sparse, density=0.4
        )


def test_estimates_are_ordered_and_fit():
    config = preset("ecp5")
    shape = GemmShape(
        m=256,
        n=256,
        k=256,
        in_format=Format.INT8,
        out_format=Format.INT8,
        row_entries=256,
        row_bytes=256,
        memory=MemorySpeed(16),
    )
    found = tilings(config, shape)
    assert [t.cycles for t in found] == sorted(t.cycles for t in found)
    # The best leaves less than five percent to loads, stores and overheads.
    assert found[0].cycles < 256**3 / (8 * 8 * 2) / 0.95
    slower = tilings(config, dataclasses.replace(shape, memory=MemorySpeed(0.5)))
    assert slower[0].cycles > found[0].cycles


def test_a_gemm_is_few_commands():
    plan = plan_gemm(preset("ecp5"), np.ones((1000, 999), np.int8), 1001, out_format=Format.INT8)
    commands = plan.commands(0, 1 << 24, 1 << 25)
    assert len(commands) <= 3 + 4 * 4
    fields = [decode(command) for command in commands]
    tiles = sum(f["inner"] * f["outer"] for f in fields if f["opcode"] is Opcode.MATMUL)
    assert tiles == plan.tiles[0] * plan.tiles[1]


@pytest.mark.parametrize(
    ("a", "n", "message"),
    [
        (np.ones((4, 1025), np.int8), 4, "K = 1025 is longer .* preset tiny: at most 1024"),
        (np.ones((4, 4), np.int32), 4, "a must be int8 or float16, not 'int32'"),
        (np.ones(4, np.int8), 4, r"\[M, K\]"),
        (np.ones((4, 4), np.int8), 0, "n must be at least 1, not 0"),
    ],
)
def test_mistakes_are_named(a, n, message):
    with pytest.raises(ValueError, match=message):
        plan_gemm(preset("tiny"), a, n, out_format=Format.INT8)


def test_operand_b_is_checked():
    plan = plan_gemm(preset("tiny"), np.ones((4, 4), np.int8), 3, out_format=Format.INT8)
    with pytest.raises(ValueError, match=r"int8 of shape \[3, 4\], not int8 \(4, 3\)"):
        plan.pack_b(np.ones((4, 3), np.int8))
