"""Transposed convolutions: executed, and compared with sums that are scattered one by one."""

import numpy as np
import pytest

from deepseek.host.bench.conv import conv
from deepseek.host.bench.transposed_job import TransposedJob, transposed_shape
from deepseek.host.compiler.formats import DTYPES
from deepseek.host.compiler.transposed import TransposedShape, plan_transposed
from deepseek.rtl.config import PRESETS, preset
from deepseek.rtl.isa import Format, Function


def scattered(image, weights, shape):
    """The exact sums [H, W, filters]: every number of the image adds to the outputs it reaches."""
    (high, wide), (down, right) = shape.extent, shape.stride
    full = np.zeros(
        ((shape.height - 1) * down + high, (shape.width - 1) * right + wide, shape.filters),
        np.float64 if image.dtype.kind == "f" else np.int64,
    )
    # Room for rows and pixels that no number of the image reaches.
    full = np.pad(full, ((0, down), (0, right), (0, 0)))
    each, filters = shape.channels // shape.groups, shape.filters // shape.groups
    for group in range(shape.groups):
        some = slice(group * filters, (group + 1) * filters)
        numbers = image[..., group * each : (group + 1) * each]
        for y, x in np.ndindex(shape.kernel):
            top, left = y * shape.dilation[0], x * shape.dilation[1]
            rows = slice(top, top + (shape.height - 1) * down + 1, down)
            columns = slice(left, left + (shape.width - 1) * right + 1, right)
            full[rows, columns, some] += numbers @ weights[some, y, x].T
    (above, _), (before, _) = shape.padding
    height, width = shape.outputs
    return full[above : above + height, before : before + width]


def draw(random):
    kernel = tuple(int(v) for v in random.integers(1, 5, 2))
    stride = tuple(int(v) for v in random.integers(1, 4, 2))
    dilation = tuple(int(v) for v in random.integers(1, 3, 2))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    groups = int(random.choice([1, 1, 1, 2, 3]))
    return TransposedShape(
        height=int(random.integers(5, 14)),
        width=int(random.integers(5, 14)),
        channels=groups * int(random.integers(1, 20)),
        filters=groups * int(random.choice([1, 3, 8, 16])),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=tuple(
            (int(random.integers(0, extent)), int(random.integers(1 - step, extent)))
            for extent, step in zip(extents, stride, strict=True)
        ),
        groups=groups,
    )


def plan_of(config, weights, shape, **options):
    return plan_transposed(
        config,
        weights,
        (shape.height, shape.width, shape.channels),
        stride=shape.stride,
        dilation=shape.dilation,
        padding=shape.padding,
        groups=shape.groups,
        **options,
    )


def check(run, card, random, shape, **options):
    """Run one with exact integer results, and compare them."""
    each = shape.channels // shape.groups
    weights = random.integers(-128, 128, (shape.filters, *shape.kernel, each)).astype(np.int8)
    image = random.integers(-128, 128, (shape.height, shape.width, shape.channels), np.int8)
    zero = int(random.integers(-128, 128))
    bias = random.integers(-5000, 5000, shape.filters)
    plan = plan_of(
        card.config,
        weights,
        shape,
        in_format=Format.INT8,
        out_format=Format.INT32,
        bias=bias,
        in_zero_point=zero,
        **options,
    )
    wanted = scattered(image.astype(np.int64) - zero, weights.astype(np.int64), shape) + bias
    assert np.array_equal(run(card, plan, image), wanted), plan.describe()
    return plan


@pytest.mark.parametrize("name", list(PRESETS))
def test_random_layers(cards, run, name):
    random = np.random.default_rng(70)
    for _ in range(8):
        while True:
            try:
                shape = draw(random)
            except ValueError:  # the padding leaves nothing
                continue
            break
        check(run, cards[name], random, shape)


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [(2, 2, 0), (4, 2, 1), (3, 2, 1), (1, 2, 0), (1, 1, 0), (5, 3, 2)]
)
def test_common_layers(cards, run, kernel, stride, pad):
    """Upsampling by whole numbers: those whose convolutions are of one pixel, too."""
    random = np.random.default_rng(71)
    shape = TransposedShape(
        height=9,
        width=7,
        channels=32,
        filters=16,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=((pad, pad), (pad, pad)),
    )
    plan = check(run, cards["ecp5"], random, shape)
    assert len(plan.plans) == stride


def test_bands_and_functions(cards, run):
    """An image of several tiles, finished to INT8 and FP16."""
    random = np.random.default_rng(72)
    shape = TransposedShape(
        height=40, width=40, channels=32, filters=24, kernel=(4, 4), stride=(2, 2),
        padding=((1, 1), (1, 1)),
    )  # fmt: skip
    weights = random.integers(-8, 8, (24, 4, 4, 32)).astype(np.int8)
    image = random.integers(-128, 128, (40, 40, 32), np.int8)
    scales = np.float32(2.0) ** random.integers(-9, -5, 24)
    plan = plan_of(
        cards["tiny"].config, weights, shape, in_format=Format.INT8, scale=scales,
        function=Function.RELU, zero_point=-20,
    )  # fmt: skip
    sums = scattered(image.astype(np.int64), weights.astype(np.int64), shape)
    wanted = np.clip(np.rint(np.maximum(sums * scales.astype(np.float64), 0)) - 20, -128, 127)
    assert np.array_equal(run(cards["tiny"], plan, image), wanted)

    halves = DTYPES[Format.FP16]
    weights = random.integers(-8, 8, (24, 4, 4, 32)).astype(halves)
    image = random.integers(-8, 8, (40, 40, 32)).astype(halves)
    plan = plan_of(cards["tiny"].config, weights, shape, in_format=Format.FP16, scale=0.25)
    sums = scattered(image.astype(np.float64), weights.astype(np.float64), shape)
    assert np.array_equal(run(cards["tiny"], plan, image), (sums * 0.25).astype(halves))


@pytest.mark.parametrize("dtype", ["int8", "fp16", "bf16", "e4m3"])
def test_the_benchmark_equals_the_golden_model(cards, dtype):
    """Results that equal those of an image with zeros between its pixels; else it raises."""
    options = {"h": 6, "w": 9, "c": 16, "filters": 8, "kernel": "3x4", "stride": 2, "pad": 1}
    shape = transposed_shape(None, options, dilation="1", groups=1)
    job = TransposedJob(shape=shape, dtype=dtype, seed=3)
    result = conv(cards["tiny"], job)
    assert result.as_json()["shape"]["outputs"] == shape.outputs
    assert "--transposed" in result.command()
    with pytest.raises(ValueError, match="--layer"):
        transposed_shape("resnet50:conv1", {}, dilation="1", groups=1)


def test_pytorchs_sizes():
    """Sizes and output_padding as ConvTranspose2d documents them."""
    for size, kernel, stride, pad, more, dilation in (
        (5, 3, 2, 1, 1, 1), (7, 4, 2, 1, 0, 1), (6, 2, 3, 0, 2, 1), (9, 3, 2, 2, 0, 2),
    ):  # fmt: skip
        shape = TransposedShape(
            height=size, width=size, channels=1, filters=1, kernel=(kernel, kernel),
            stride=(stride, stride), dilation=(dilation, dilation),
            padding=((pad, pad - more), (pad, pad - more)),
        )  # fmt: skip
        wanted = (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + more + 1
        assert shape.outputs == (wanted, wanted)


def test_refused():
    config = preset("tiny")
    weights = np.ones((4, 3, 3, 4), np.int8)
    image, fmt = (8, 8, 4), {"in_format": Format.INT8}
    with pytest.raises(ValueError, match="INT4"):
        plan_transposed(config, weights, image, **fmt, out_format=Format.INT4)
    with pytest.raises(ValueError, match="padding must be less than the kernel's extent of 3"):
        plan_transposed(config, weights, image, **fmt, padding=3)
    with pytest.raises(ValueError, match="weights must have 2 channels"):
        plan_transposed(config, weights, image, **fmt, groups=2)
    with pytest.raises(ValueError, match="leave some output"):
        plan_transposed(config, weights, (1, 1, 4), **fmt, padding=((2, 2), (2, 2)))
    plan = plan_transposed(config, weights, image, **fmt, stride=2)
    with pytest.raises(ValueError, match=r"\[8, 8, 4\]"):
        plan.pack_x(np.zeros((8, 8, 3), np.int8))
