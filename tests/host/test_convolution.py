"""Convolution plans: executed, compared with the golden model and with sums of shifted images."""

import dataclasses

import numpy as np
import pytest

from deepseek.host.bench.conv import conv
from deepseek.host.bench.conv_job import ConvJob
from deepseek.host.bench.networks import LAYERS, NETWORKS
from deepseek.host.card import Card
from deepseek.host.compiler import convolution_windows
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.convolution import ConvShape, plan_conv
from deepseek.host.compiler.convolution_tiles import tilings
from deepseek.host.compiler.formats import DTYPES
from deepseek.host.compiler.tiling import MemorySpeed
from deepseek.rtl.config import PRESETS, preset
from deepseek.rtl.isa import Encoding, Format, Function, Opcode

INTEGERS = {Format.INT8: 128, Format.INT4: 8}


def direct(image, weights, shape, zero_point):
    """The exact sums [H, W, filters]: one shifted image for each place of the kernel."""
    values = np.pad(image.astype(np.int64) - zero_point, (*shape.padding, (0, 0)))
    (height, width), each = shape.outputs, shape.filters // shape.groups
    parts = np.split(values, shape.groups, axis=2)
    sums = np.zeros((height, width, shape.filters), np.int64)
    for y, x in np.ndindex(shape.kernel):
        down, right = y * shape.dilation[0], x * shape.dilation[1]
        for group, part in enumerate(parts):
            seen = part[down :: shape.stride[0], right :: shape.stride[1]][:height, :width]
            filters = slice(group * each, (group + 1) * each)
            sums[..., filters] += seen @ weights[filters, y, x].astype(np.int64).T
    return sums


def draw(random, *, channels=20, filters=12):
    """A shape with every parameter at random."""
    groups = int(random.choice([1, 1, 1, 2, 3, 8]))
    kernel = tuple(int(v) for v in random.integers(1, 5, 2))
    dilation = tuple(int(v) for v in random.integers(1, 4, 2))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return ConvShape(
        height=int(random.integers(12, 36)),
        width=int(random.integers(12, 36)),
        channels=groups * int(random.integers(1, channels)),
        filters=groups * int(random.integers(1, filters)),
        kernel=kernel,
        stride=tuple(int(v) for v in random.integers(1, 4, 2)),
        dilation=dilation,
        padding=tuple(tuple(int(v) for v in random.integers(0, e + 1, 2)) for e in extents),
        groups=groups,
    )


def plan_of(config, weights, shape, **options):
    return plan_conv(
        config,
        weights,
        (shape.height, shape.width, shape.channels),
        stride=shape.stride,
        dilation=shape.dilation,
        padding=shape.padding,
        groups=shape.groups,
        **options,
    )


def integers(random, shape, fmt, density=1.0):
    limit = INTEGERS[fmt]
    values = random.integers(-limit, limit, shape).astype(np.int8)
    values[random.random(shape) >= density] = 0
    return values


def check(run, card, random, shape, fmt=Format.INT8, density=1.0, **options):
    """Run a convolution with exact results, and compare them with `direct`; return the plan."""
    each = shape.channels // shape.groups
    weights = integers(random, (shape.filters, *shape.kernel, each), fmt, density)
    image = integers(random, (shape.height, shape.width, shape.channels), fmt)
    zero_point = int(random.integers(-INTEGERS[fmt], INTEGERS[fmt]))
    bias = random.integers(-5000, 5000, shape.filters)
    plan = plan_of(
        card.config,
        weights.astype(DTYPES[fmt]),
        shape,
        in_format=fmt,
        out_format=Format.INT32,
        bias=bias,
        in_zero_point=zero_point,
        **options,
    )
    found = run(card, plan, image.astype(DTYPES[fmt]))
    assert np.array_equal(found, direct(image, weights, shape, zero_point) + bias), plan.tiling
    return plan


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("fmt", list(INTEGERS), ids=lambda fmt: fmt.name)
def test_random_layers(cards, run, name, fmt):
    random = np.random.default_rng(40 + fmt.value)
    for index in range(8):
        density = float(random.choice([0.0, 0.2, 1.0]))
        check(run, cards[name], random, draw(random), fmt, density if index % 2 else 1.0)


@pytest.mark.parametrize("dtype", ["int4", "int8", "e4m3", "e5m2", "fp16", "bf16"])
def test_every_format_equals_the_golden_model(cards, dtype):
    random = np.random.default_rng(50)
    outputs = ["int4", "int8", "e4m3", "e5m2", "fp16", "bf16", "fp32"]
    for index, out_dtype in enumerate(outputs):
        shape = draw(random, channels=6, filters=6)
        name = list(PRESETS)[index % len(PRESETS)]
        job = ConvJob(shape=shape, dtype=dtype, out_dtype=out_dtype, seed=index)
        assert conv(cards[name], job).counters.cycles > 0


def test_scales_zero_points_clamps_and_relu(cards, run):
    random = np.random.default_rng(51)
    for fmt in INTEGERS:
        shape = draw(random)
        each = shape.channels // shape.groups
        weights = integers(random, (shape.filters, *shape.kernel, each), fmt)
        image = integers(random, (shape.height, shape.width, shape.channels), fmt)
        # Powers of two: all steps are exact but the last, which rounds to even.
        scale = 2.0 ** -random.integers(3, 9, shape.filters)
        plan = plan_of(
            cards["tiny"].config,
            weights,
            shape,
            weights_format=fmt,
            in_format=fmt,
            out_format=fmt,
            scale=scale,
            in_zero_point=3,
            zero_point=-2,
            clamp=(-5, 6),
            function=Function.RELU,
        )
        found = run(cards["tiny"], plan, image).astype(np.int8)
        sums = np.maximum(np.rint(direct(image, weights, shape, 3) * scale), 0)
        assert np.array_equal(found, np.clip(sums - 2, -5, 6))


def test_long_windows_are_worked_through_in_slices(cards, run):
    random = np.random.default_rng(52)
    for name, channels, filters, size in [
        ("tiny", 130, 37, 6),
        ("ecp5", 200, 40, 7),
        ("sim", 300, 21, 7),
    ]:
        shape = ConvShape(
            height=size,
            width=size,
            channels=channels,
            filters=filters,
            kernel=(3, 3),
            padding=((1, 1), (1, 1)),
        )
        assert check(run, cards[name], random, shape).tiling.streams.k == 9 * channels


def test_rows_between_windows_are_not_loaded(cards, run):
    random = np.random.default_rng(56)
    shape = ConvShape(height=23, width=20, channels=40, filters=20, kernel=(1, 2), stride=(3, 2))
    plan = check(run, cards["tiny"], random, shape)
    loads = [decode(command) for command in plan.commands(0, 1 << 16, 1 << 17)]
    rows = [f["y"] * f["inner"] for f in loads if f["opcode"] is Opcode.LOAD and f["y"] > 1]
    ones = [f["inner"] for f in loads if f.get("memory_y_stride") and f["y"] == 1]
    assert sum(rows) + sum(ones) == 8


def test_the_longest_window(cards, run):
    random = np.random.default_rng(53)
    shape = ConvShape(height=1, width=1, channels=32768, filters=2, kernel=(1, 1))
    check(run, cards["sim"], random, shape)
    job = ConvJob(shape=shape, dtype="fp16", out_dtype="fp32")
    assert conv(cards["sim"], job).plan.tiling.streams.run_bytes == 32768


@pytest.mark.parametrize("encoding", list(Encoding), ids=lambda e: e.name)
def test_every_encoding(cards, run, encoding):
    random = np.random.default_rng(54)
    shape = ConvShape(height=9, width=8, channels=16, filters=21, kernel=(3, 2))
    weights = integers(random, (21, 3, 2, 16), Format.INT8)
    weights[..., np.arange(16) % 8 != 3] = 0  # one of eight: every pattern
    image = integers(random, (9, 8, 16), Format.INT8)
    plan = plan_of(
        cards["tiny"].config,
        weights,
        shape,
        in_format=Format.INT8,
        out_format=Format.INT32,
        encoding=encoding,
    )
    assert plan.encoding is encoding
    assert np.array_equal(run(cards["tiny"], plan, image), direct(image, weights, shape, 0))


def test_narrow_groups_share_an_iteration(cards, run):
    random = np.random.default_rng(55)
    shape = ConvShape(height=20, width=20, channels=32, filters=32, kernel=(3, 3), groups=32)
    plan = check(run, cards["ecp5"], random, shape)
    assert plan.tiling.streams.groups < 32
    assert plan.encoding is not Encoding.DENSE


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("chosen", range(0, 1000, 143))
def test_tilings_that_are_not_the_best(cards, run, monkeypatch, groups, chosen):
    """A plan is right for any tiling, not only for the one that the estimate prefers."""

    def only(problem, streams):
        found = [t for t in tilings(problem, streams) if t.passes > 1 and t.tiles > groups]
        return [dataclasses.replace(found[chosen % len(found)], cycles=0)] if found else []

    monkeypatch.setattr(convolution_windows, "tilings", only)
    shape = ConvShape(
        height=17,
        width=11,
        channels=4 * groups,
        filters=20 * groups,
        kernel=(3, 3),
        stride=(2, 1),
        padding=((1, 0), (2, 1)),
        groups=groups,
    )
    check(run, cards["tiny"], np.random.default_rng(chosen), shape, density=0.5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rows", [1, 3, 4])
@pytest.mark.parametrize("several", [False, True])
def test_loads_and_stores_take_turns(cards, run, monkeypatch, groups, rows, several):
    """Where memory is slow if they compete; with a last tile of rows like the others, or not."""

    def only(problem, streams):
        found = tilings(problem, streams)
        return [t for t in found if t.turns and t.rows == rows and (t.tiles > groups) is several]

    monkeypatch.setattr(convolution_windows, "tilings", only)
    shape = ConvShape(
        height=14, width=9, channels=8 * groups, filters=8 * groups, kernel=(3, 3), groups=groups
    )
    plan = check(
        run,
        cards["tiny"],
        np.random.default_rng(61),
        shape,
        memory=MemorySpeed(8.0, 64, 12.0),
        kind="windows",
    )
    assert plan.tiling.turns
    decoded = [decode(command) for command in plan.commands(0, 1 << 20, 2 << 20)]
    for opcode, most in ((Opcode.LOAD, 4), (Opcode.STORE, 2)):
        assert [fields["opcode"] for fields in decoded].count(opcode) <= most


def test_a_convolution_is_few_commands():
    weights = np.ones((256, 1, 1, 64), np.int8)
    plan = plan_conv(preset("ecp5"), weights, (56, 56, 64), in_format=Format.INT8)
    opcodes = [decode(command)["opcode"] for command in plan.commands(0, 1 << 20, 1 << 22)]
    assert opcodes.count(Opcode.MATMUL) <= 3
    assert len(opcodes) <= 12
    assert plan.cycles < plan.shape.macs / (8 * 8 * 2) / 0.98


@pytest.mark.parametrize("kind", ["windows", "swapped"])
def test_estimates_follow_the_model(cards, kind):
    for name in ("conv2-first-reduce", "conv5-expand"):
        job = ConvJob(shape=LAYERS[f"resnet50:{name}"].shape, kind=kind)
        result = conv(cards["ecp5"], job)
        assert result.plan.cycles == pytest.approx(result.counters.cycles, rel=0.1)


def test_the_networks_have_their_published_multiplications():
    known = {"resnet50": (54, 24, 4_089_184_256), "mobilenetv2": (53, 31, 300_774_272)}
    for name, (layers, distinct, macs) in known.items():
        found = NETWORKS[name]
        assert (sum(layer.times for layer in found), len(found)) == (layers, distinct)
        assert sum(layer.macs for layer in found) == macs
    assert len(LAYERS) == 24 + 31


ONES = np.ones((4, 3, 3, 4), np.int8)


@pytest.mark.parametrize(
    ("weights", "image", "options", "message"),
    [
        (ONES[0], (8, 8, 4), {}, r"weights must have the shape \[filters, KH, KW, channels\]"),
        (ONES, (8, 8, 5), {}, "weights must have 5 channels, for 5 in 1 groups, not 4"),
        (ONES, (0, 8, 4), {}, "height must be at least 1, not 0"),
        (ONES, (8, 8, 4), {"stride": 0}, r"stride must be at least 1, not \(0, 0\)"),
        (ONES, (8, 8, 4), {"dilation": (1, 0)}, "dilation must be at least 1"),
        (ONES, (8, 8, 4), {"padding": 4}, "padding must be from 0 to the kernel's extent of 3"),
        (ONES, (8, 8, 4), {"padding": -1}, "padding must be from 0"),
        (ONES, (2, 8, 4), {}, "kernel must be at most the padded image's height of 2, not 3"),
        (ONES, (8, 2, 4), {"dilation": 2, "padding": 1}, "image's width of 4, not 5"),
        (ONES, (8, 8, 6), {"groups": 4}, "channels must be a multiple of the 4 groups, not 6"),
        (ONES, (8, 8, 12), {"groups": 3}, "filters must be a multiple of the 3 groups, not 4"),
        (ONES, (8, 8, 4), {"groups": 0}, "groups must be at least 1, not 0"),
        (ONES, (8, 8, 4), {"in_zero_point": 128}, "in_zero_point must be from -128 to 127"),
        (ONES, (8, 8, 4), {"bias": np.ones(3)}, "bias must be a number or have the shape"),
        (ONES, (8, 8, 4), {"scale": np.ones(3)}, "scale must be a number or have the shape"),
        (ONES, (8, 8, 4), {"scale": 0}, "scale must be finite and normal"),
        (ONES, (8, 8, 4), {"encoding": Encoding.SPARSE_2_4}, "pattern of SPARSE_2_4"),
        (ONES.astype(np.int32), (8, 8, 4), {}, "weights must be one of int8"),
        (np.ones((1, 3, 3, 4000), np.int8), (4, 4, 4000), {}, "at most 32768 numbers, not 36000"),
        (ONES, (8, 9000, 4), {}, "no tile of a 3 x 3 convolution of 8 x 9000 x 4 numbers fits"),
    ],
)
def test_mistakes_are_named(weights, image, options, message):
    with pytest.raises(ValueError, match=message):
        plan_conv(preset("tiny"), weights, image, in_format=Format.INT8, **options)


def test_mistakes_of_float_formats_and_images_are_named():
    weights = np.ones((4, 1, 1, 4), DTYPES[Format.BF16])
    with pytest.raises(ValueError, match="anchor must be given"):
        plan_conv(preset("tiny"), weights, (4, 4, 4), in_format=Format.BF16)
    with pytest.raises(ValueError, match="the card has no path for BF16 with FP16"):
        plan_conv(preset("tiny"), weights, (4, 4, 4), in_format=Format.FP16, anchor=0)
    with pytest.raises(ValueError, match="in_zero_point must be 0 for BF16"):
        plan_conv(
            preset("tiny"), weights, (4, 4, 4), in_format=Format.BF16, anchor=0, in_zero_point=1
        )
    plan = plan_conv(preset("tiny"), ONES, (8, 8, 4), in_format=Format.INT8)
    with pytest.raises(ValueError, match=r"image must have the shape \[8, 8, 4\]"):
        plan.pack_x(np.ones((8, 8, 3), np.int8))
    with pytest.raises(ValueError, match="image must be INT8"):
        plan.pack_x(np.ones((8, 8, 4), np.float16))


def test_on_the_rtl(run):
    random = np.random.default_rng(60)
    with Card.open("rtl", preset="tiny", memory="ideal") as card:
        shape = ConvShape(
            height=9,
            width=10,
            channels=3,
            filters=9,
            kernel=(3, 3),
            stride=(2, 1),
            padding=((1, 1), (1, 0)),
        )
        check(run, card, random, shape, memory=card.memory_speed)
        shape = dataclasses.replace(shape, channels=6, filters=6, dilation=(1, 2), groups=6)
        check(run, card, random, shape, memory=card.memory_speed)
        conv(card, ConvJob(shape=shape, dtype="fp16", out_dtype="int4"))
