"""Depthwise plans: executed, and compared with sums of shifted images and with other plans."""

import dataclasses

import numpy as np
import pytest

from deepseek.host.bench.networks import NETWORKS
from deepseek.host.compiler import depthwise
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.convolution import ConvShape, plan_conv
from deepseek.host.compiler.convolution_shape import ConvLayout
from deepseek.host.compiler.depthwise_tiles import DepthwiseProblem, DepthwiseTiling
from deepseek.host.compiler.tiling import MemorySpeed
from deepseek.rtl.config import PRESETS, preset
from deepseek.rtl.isa import Encoding, Format, Function, Opcode


def direct(image, weights, shape, zero_point):
    """The exact sums [H, W, filters]: one shifted image for each place of the kernel."""
    values = np.pad(image.astype(np.int64) - zero_point, (*shape.padding, (0, 0)))
    (height, width), each = shape.outputs, shape.filters // shape.groups
    channels = shape.channels // shape.groups
    sums = np.zeros((height, width, shape.groups, each), np.int64)
    grouped = weights.reshape(shape.groups, each, *shape.kernel, channels).astype(np.int64)
    for y, x in np.ndindex(shape.kernel):
        down, right = y * shape.dilation[0], x * shape.dilation[1]
        seen = values[down :: shape.stride[0], right :: shape.stride[1]][:height, :width]
        seen = seen.reshape(height, width, shape.groups, channels)
        sums += np.einsum("hwgc,gfc->hwgf", seen, grouped[:, :, y, x])
    return sums.reshape(height, width, shape.filters)


def draw(random, groups, size=24):
    kernel = tuple(int(v) for v in random.integers(1, 5, 2))
    dilation = tuple(int(v) for v in random.integers(1, 3, 2))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return ConvShape(
        height=int(random.integers(8, size)),
        width=int(random.integers(8, size)),
        channels=groups * int(random.choice([1, 1, 1, 2, 4])),
        filters=groups * int(random.choice([1, 1, 2])),
        kernel=kernel,
        stride=tuple(int(v) for v in random.integers(1, 4, 2)),
        dilation=dilation,
        padding=tuple(tuple(int(v) for v in random.integers(0, e + 1, 2)) for e in extents),
        groups=groups,
    )


def plan_of(config, weights, shape, kind="depthwise", **options):
    return plan_conv(
        config,
        weights,
        (shape.height, shape.width, shape.channels),
        in_format=options.pop("in_format", Format.INT8),
        stride=shape.stride,
        dilation=shape.dilation,
        padding=shape.padding,
        groups=shape.groups,
        kind=kind,
        **options,
    )


def check(counted, card, random, shape, density=1.0, **options):
    """Run a convolution whose scales are powers of two, so that numpy rounds as the card does."""
    each = shape.channels // shape.groups
    weights = random.integers(-128, 128, (shape.filters, *shape.kernel, each)).astype(np.int8)
    weights[random.random(weights.shape) >= density] = 0
    image = random.integers(-128, 128, (shape.height, shape.width, shape.channels), np.int8)
    in_zero, zero = (int(v) for v in random.integers(-128, 128, 2))
    bias = random.integers(-5000, 5000, shape.filters)
    scales = np.float32(2.0) ** random.integers(-11, -5, shape.filters)
    plan = plan_of(
        card.config,
        weights,
        shape,
        scale=scales,
        bias=bias,
        in_zero_point=in_zero,
        zero_point=zero,
        clamp=(-120, 119),
        **options,
    )
    found, cycles = counted(card, plan, image)
    wanted = (direct(image, weights, shape, in_zero) + bias) * scales.astype(np.float64)
    if options.get("function") is Function.RELU:
        wanted = np.maximum(wanted, 0)
    wanted = np.clip(np.rint(wanted) + zero, -120, 119)
    assert np.array_equal(found, wanted), plan.describe()
    return plan, cycles


@pytest.mark.parametrize("name", list(PRESETS))
def test_random_layers(cards, counted, name):
    random = np.random.default_rng(60)
    for index in range(8):
        shape = draw(random, int(random.choice([2, 5, 16, 24, 48])))
        density = float(random.choice([0.0, 0.5, 1.0]))
        function = Function.RELU if index % 2 else Function.NONE
        check(counted, cards[name], random, shape, density, function=function)


def test_bands_share_rows_and_chunks_differ(cards, counted):
    """A layer cut both ways: rows that bands share are copied, the last chunk is smaller."""
    random = np.random.default_rng(61)
    for stride, kernel in ((1, 3), (2, 3), (1, 5)):
        pad = kernel // 2
        shape = ConvShape(
            height=50,
            width=49,
            channels=80,
            filters=80,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            groups=80,
        )
        plan, _ = check(counted, cards["tiny"], random, shape)
        tiling = plan.tiling
        assert tiling.shares and tiling.buffers == 2 and len(tiling.bands) > 2
        opcodes = [decode(command)["opcode"] for command in plan.commands(0, 1 << 20, 2 << 20)]
        assert opcodes.count(Opcode.VECTOR) == len(tiling.sections)
        # Each row of each section is loaded once.
        rows = tiling.rows_in(shape.outputs[0])
        wanted = sum(
            rows * (tiling.problem.layout.row_bytes if tiling.whole else pixels * channels)
            for _, channels, _, width in tiling.sections
            for pixels in (tiling.pixels_in(width),)
        )
        assert plan_bytes(plan) == wanted + len(plan.weights)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_few_channels_in_one_group(cards, counted, channels):
    """The first layer of a network: what is picked is all channels of a pixel."""
    random = np.random.default_rng(64)
    shape = ConvShape(
        height=40,
        width=38,
        channels=channels,
        filters=24,
        kernel=(3, 3),
        stride=(2, 2),
        padding=((1, 1), (1, 1)),
        groups=1,
    )
    plan, _ = check(counted, cards["sim"], random, shape)
    assert plan.tiling.part == channels
    check(counted, cards["tiny"], random, shape)


@pytest.mark.parametrize(
    ("name", "row", "start", "pitch", "moved"),
    [
        ("sim", 128, 0, 576, 128),
        ("sim", 96, 96, 384, 128),
        ("sim", 64, 0, 144, 112),  # in one beat of four rows, else in two
        ("sim", 80, 64, 144, 128),
        ("ecp5", 80, 64, 144, 80),
    ],
)
def test_memory_moves_whole_beats(name, row, start, pitch, moved):
    layout = ConvLayout(
        shape=ConvShape(height=8, width=8, channels=8, filters=8, kernel=(3, 3), groups=8),
        in_format=Format.INT8,
        out_format=Format.INT8,
    )
    config = preset(name)
    problem = DepthwiseProblem(config=config, layout=layout, memory=MemorySpeed(16.0))
    assert problem.beats(row, start, pitch) == moved


def plan_bytes(plan):
    """Bytes that a plan's loads read."""
    total = 0
    for command in plan.commands(0, 1 << 20, 2 << 20):
        fields = decode(command)
        if fields["opcode"] is Opcode.LOAD:
            rows = fields["y"] * fields["z"] * fields["inner"] * fields["outer"]
            total += rows * fields["x_bytes"]
    return total


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (4, 1)])
def test_every_way_to_cut_gives_the_same_bits(cards, counted, monkeypatch, tile):
    """Chunks, strips, bands and parts of every kind that the planner may choose."""
    random = np.random.default_rng(62)
    shape = ConvShape(
        height=13,
        width=11,
        channels=96,
        filters=96,
        kernel=(3, 3),
        padding=((1, 1), (1, 1)),
        groups=96,
    )
    high, wide = tile
    shared = set()
    for part, chunk, strip, rows in (
        (16, 16, 11, high),
        (16, 32, 2 * wide, 4 * high),
        (32, 96, wide, high),
        (32, 96, 3 * wide, 2 * high),
        (32, 64, 11, 2 * high),
        (16, 80, 2 * wide, 13),
        (48, 96, 11, 4 * high),
    ):
        sizes = {"tile": tile, "part": part, "chunk": chunk, "strip": strip}

        def chosen(problem, sizes=sizes, rows=rows):
            return [DepthwiseTiling(problem=problem, rows=rows, buffers=2, **sizes)]

        monkeypatch.setattr(depthwise, "tilings", chosen)
        plan, _ = check(counted, cards["ecp5"], random, shape)
        shared.add(plan.tiling.shares)
    assert shared == {True, False}


@pytest.mark.parametrize("name", ["ecp5", "sim"])
def test_depthwise_layers_of_mobilenet_are_planned_so(name):
    config = preset(name)
    layers = [layer for layer in NETWORKS["mobilenetv2"] if layer.shape.groups > 1]
    assert layers
    for layer in layers[-2:]:
        shape = layer.shape
        weights = np.ones((shape.filters, *shape.kernel, 1), np.int8)
        plan = plan_of(config, weights, shape, kind=None)
        assert plan.kind == "depthwise"
        assert plan.tiling.scratchpad_bytes <= config.scratchpad_bytes
        windows = plan_of(config, weights, shape, kind="windows")
        assert plan.cycles < windows.cycles / 1.2


def test_the_estimate_is_near_the_model(cards, counted):
    random = np.random.default_rng(63)
    shape = ConvShape(
        height=28,
        width=28,
        channels=64,
        filters=64,
        kernel=(3, 3),
        padding=((1, 1), (1, 1)),
        groups=64,
    )
    plan, cycles = check(counted, cards["ecp5"], random, shape)
    assert 0.7 < plan.cycles / cycles < 1.4


def test_what_has_no_depthwise_plan():
    config = preset("tiny")
    shape = ConvShape(height=8, width=8, channels=8, filters=8, kernel=(3, 3), groups=8)
    weights = np.ones((8, 3, 3, 1), np.int8)
    whole = dataclasses.replace(shape, groups=1)
    refused = [
        (np.ones((8, 3, 3, 8), np.int8), whole, {}),
        (weights.astype(np.float16), shape, {"in_format": Format.FP16}),
        (weights, shape, {"out_format": Format.INT32}),
        (weights, shape, {"encoding": Encoding.DENSE}),
        (weights, shape, {"scale": 2.0**100}),
    ]
    for values, asked, options in refused:
        with pytest.raises(ValueError, match="depthwise"):
            plan_of(config, values, asked, **options)
    with pytest.raises(ValueError, match=r"\[8, 8, 8\]"):
        plan_of(config, weights, shape).pack_x(np.zeros((8, 8, 4), np.int8))
