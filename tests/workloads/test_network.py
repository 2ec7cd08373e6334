"""Convolutions and networks of odd shapes: golden model against loops, card against golden."""

import dataclasses
import itertools

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.conv import lower_conv
from deepseek.host.compiler.network import INPUT, Add, AveragePool, Conv, MaxPool, Network
from deepseek.host.compiler.program import Program
from deepseek.host.compiler.tensor import TensorLayout
from deepseek.host.workloads.runner import NetworkRunner
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Encoding, Opcode
from deepseek.sim.golden.network import conv2d

CONVS = [
    # height, width, channels, outputs, kernel, stride, padding
    (8, 8, 1, 16, (3, 3), (1, 1), (1, 1)),
    (5, 7, 3, 9, (3, 2), (2, 1), (1, 0)),
    (9, 6, 16, 5, (1, 1), (1, 1), (0, 0)),
    (7, 7, 20, 33, (3, 3), (2, 2), (1, 1)),
    (6, 11, 2, 17, (5, 3), (1, 3), (2, 1)),
    (3, 4, 7, 11, (3, 4), (1, 1), (0, 0)),
    (1, 9, 5, 4, (1, 5), (1, 2), (0, 2)),
    (4, 4, 128, 8, (3, 3), (1, 1), (0, 0)),  # windows longer than an operand memory
]

DILATIONS = [
    # height, width, channels, outputs, kernel, stride, padding, dilation
    (9, 9, 3, 5, (3, 3), (1, 1), (2, 2), (2, 2)),
    (8, 7, 16, 9, (2, 3), (2, 1), (0, 2), (1, 2)),
    (9, 5, 4, 7, (3, 2), (1, 2), (3, 0), (3, 1)),
]


def random_conv(rng, name, channels, outputs, kernel, stride, padding, zero_point):
    weight = rng.integers(-127, 128, (outputs, *kernel, channels), dtype=np.int8)
    weight[rng.random(weight.shape) < 0.3] = 0
    bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
    bias -= zero_point * weight.reshape(outputs, -1).sum(axis=1, dtype=np.int32)
    scale = rng.uniform(0.2, 2, outputs) / (40 * np.sqrt(weight[0].size))
    return Conv(
        name=name,
        weight=weight,
        bias=bias,
        scale=scale.astype(np.float32),
        stride=stride,
        padding=padding,
        relu=bool(rng.integers(2)),
        zero_point=int(rng.integers(-128, 128)),
    )


def loops(x, conv, zero_point):
    """A convolution with the zero point where the mathematics has it, one output at a time."""
    (n, height, width, _), (outputs, kernel_y, kernel_x, _) = x.shape, conv.weight.shape
    real = x.astype(np.int64) - zero_point
    weight = conv.weight.astype(np.int64)
    bias = conv.bias + zero_point * weight.reshape(outputs, -1).sum(axis=1)
    out_y = (height + 2 * conv.padding[0] - kernel_y) // conv.stride[0] + 1
    out_x = (width + 2 * conv.padding[1] - kernel_x) // conv.stride[1] + 1
    result = np.zeros((n, out_y, out_x, outputs), np.int8)
    for image, oy, ox in itertools.product(range(n), range(out_y), range(out_x)):
        total = bias.copy()
        for ky, kx in itertools.product(range(kernel_y), range(kernel_x)):
            y = oy * conv.stride[0] + ky - conv.padding[0]
            x_ = ox * conv.stride[1] + kx - conv.padding[1]
            if 0 <= y < height and 0 <= x_ < width:
                total += weight[:, ky, kx] @ real[image, y, x_]
        value = total.astype(np.float32) * conv.scale
        if conv.relu:
            value = np.maximum(value, np.float32(0))
        result[image, oy, ox] = np.clip(np.rint(value) + conv.zero_point, -128, 127)
    return result


def case(index):
    rng = np.random.default_rng(index)
    height, width, channels, outputs, kernel, stride, padding = CONVS[index]
    zero_point = int(rng.integers(-128, 128))
    conv = random_conv(rng, "conv", channels, outputs, kernel, stride, padding, zero_point)
    images = rng.integers(-128, 128, (3, height, width, channels), dtype=np.int8)
    return conv, images, zero_point


@pytest.mark.parametrize("index", range(len(CONVS)))
def test_golden_convolution(index):
    conv, images, zero_point = case(index)
    result = conv2d(
        images,
        conv.weight,
        bias=conv.bias,
        scale=conv.scale,
        stride=conv.stride,
        padding=conv.padding,
        pad_value=zero_point,
        function="relu" if conv.relu else "none",
        zero_point=conv.zero_point,
    )
    expected = loops(images, conv, zero_point)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["tiny", "wide", "ecp5", "sim"])
def test_convolutions_on_the_card(name):
    with Card.open("functional", preset=name) as card:
        for index in range(len(CONVS)):
            conv, images, zero_point = case(index)
            network = Network(shape=images.shape[1:], zero_point=zero_point, layers=[conv])
            with NetworkRunner(card, network, batch=2) as runner:
                results = [batch.tensors[0] for batch in runner.run(images)]
            np.testing.assert_array_equal(np.concatenate(results), loops(images, conv, zero_point))


@pytest.mark.parametrize("index", range(len(DILATIONS)))
def test_dilated_convolutions_on_the_card(index):
    rng = np.random.default_rng(40 + index)
    height, width, channels, outputs, kernel, stride, padding, dilation = DILATIONS[index]
    conv = random_conv(rng, "conv", channels, outputs, kernel, stride, padding, 5)
    conv = dataclasses.replace(conv, dilation=dilation)
    images = rng.integers(-128, 128, (3, height, width, channels), dtype=np.int8)
    network = Network(shape=images.shape[1:], zero_point=5, layers=[conv])
    with (
        Card.open("functional", preset="tiny") as card,
        NetworkRunner(card, network, batch=2) as runner,
    ):
        results = [batch.tensors[0] for batch in runner.run(images)]
    plain = dataclasses.replace(conv, weight=conv.spread, dilation=(1, 1))
    np.testing.assert_array_equal(np.concatenate(results), loops(images, plain, 5))


def test_lowering_picks_the_shortest_form():
    config = preset("ecp5")
    rng = np.random.default_rng(1)
    target = TensorLayout(height=8, width=8, channels=16, pixel_bytes=16)

    def kernel(channels, weight):
        halo = TensorLayout(height=8, width=8, channels=channels, pixel_bytes=channels, halo=(1, 1))
        bias, scale = np.zeros(16, np.int32), np.ones(16, np.float32)
        lowered = lower_conv(
            config, weight, bias=bias, scale=scale, source=halo, target=target, padding=(1, 1)
        )
        return lowered.window.run_bytes, lowered.k, lowered.blob.encoding is Encoding.DELTA

    # Three short runs would take three reads a column; one run over them takes two.
    thin = rng.integers(1, 127, (16, 3, 3, 1), dtype=np.int8)
    assert kernel(1, thin) == (23, 23, False)
    full = rng.integers(1, 127, (16, 3, 3, 32), dtype=np.int8)
    assert kernel(32, full) == (96, 288, False)
    assert kernel(32, np.where(rng.random(full.shape) < 0.2, full, 0)) == (96, 288, True)


def deep_network(rng, depth):
    """More layers than there are semaphores for, with pooling and 1 x 1 images at the end."""
    layers = []
    point = first = int(rng.integers(-128, 128))
    shape = (8, 8, 3)
    for number in range(depth):
        if number in (3, 5):
            layers.append(MaxPool(name=f"pool{number}", kernel=(2, 2), stride=(2, 2)))
            continue
        channels = layers and next(x for x in layers[::-1] if isinstance(x, Conv)).weight.shape[0]
        # The last two are fully connected.
        kernel, padding = ((3, 3), (1, 1)) if number < depth - 2 else ((1, 1), (0, 0))
        if number == depth - 2:
            kernel = (2, 2)
        conv = random_conv(
            rng, f"conv{number}", channels or 3, 5 + 3 * number, kernel, (1, 1), padding, point
        )
        point = conv.zero_point
        layers.append(conv)
    return Network(shape=shape, zero_point=first, layers=layers)


@pytest.mark.parametrize("name", ["tiny", "ecp5"])
def test_deep_network(name):
    rng = np.random.default_rng(7)
    network = deep_network(rng, 11)
    images = rng.integers(-128, 128, (7, 8, 8, 3), dtype=np.int8)
    with (
        Card.open("functional", preset=name) as card,
        NetworkRunner(card, network, batch=3) as runner,
    ):
        opcodes = [decode(command)["opcode"] for command in runner.program.run(0, 3)]
        assert Opcode.BARRIER in opcodes
        batches = list(runner.run(images))
    assert sum(batch.identical for batch in batches) == 7 * 11
    assert all(len(np.unique(tensor)) > 5 for tensor in batches[0].tensors)


def test_pooling_of_the_input_and_after_a_folded_layer():
    rng = np.random.default_rng(3)
    pool = MaxPool(name="pool", kernel=(2, 3), stride=(2, 1))
    conv = random_conv(rng, "conv", 19, 40, (2, 3), (1, 1), (0, 0), -7)
    last = MaxPool(name="last", kernel=(1, 1), stride=(1, 1))
    network = Network(shape=(4, 5, 19), zero_point=-7, layers=[pool, conv, last])
    images = rng.integers(-128, 128, (5, 4, 5, 19), dtype=np.int8)
    with (
        Card.open("functional", preset="tiny") as card,
        NetworkRunner(card, network, batch=5) as runner,
    ):
        (batch,) = runner.run(images)
    assert batch.identical == 15


def residual_network(rng, widths, *, readers=1):
    """Blocks as in ResNet: two convolutions and a shortcut, which has one of its own where the
    shape changes; the last tensor of the blocks is added up ``readers`` times."""
    points = {}

    def conv(name, source, inputs, outputs, kernel=3, stride=1, **options):
        half = kernel // 2
        sizes = (kernel, kernel), (stride, stride), (half, half)
        found = random_conv(rng, name, inputs, outputs, *sizes, points[source])
        points[name] = int(rng.integers(-128, 0))
        return dataclasses.replace(found, source=source, zero_point=points[name], **options)

    def add(name, source, other, **options):
        points[name] = int(rng.integers(-128, 0))
        scale, other_scale = rng.uniform(0.3, 1, 2)
        return Add(
            name=name,
            source=source,
            other=other,
            scale=scale,
            other_scale=other_scale,
            zero_point=points[name],
            **options,
        )

    points[INPUT] = int(rng.integers(-128, 128))
    layers = [conv("stem", INPUT, 3, widths[0])]
    last, channels = "stem", widths[0]
    for number, width in enumerate(widths):
        stride = 1 if width == channels else 2
        short = last
        if stride > 1:
            short = f"short{number}"
            layers.append(conv(short, last, channels, width, 1, stride, relu=False))
        layers.append(conv(f"first{number}", last, channels, width, 3, stride))
        layers.append(conv(f"second{number}", f"first{number}", width, width, relu=False))
        last, channels = f"sum{number}", width
        layers.append(add(last, f"second{number}", short, relu=True))
    blocks, total = last, last
    for number in range(1, readers):
        layers.append(add(f"again{number}", total, blocks))
        total = f"again{number}"
    points["mean"] = 3
    layers.append(
        AveragePool(
            name="mean", source=total, kernel=(2, 2), stride=(2, 2), scale=1.3, zero_point=3
        )
    )
    layers.append(conv("classes", "mean", channels, 10, 1))
    return Network(shape=(8, 8, 3), zero_point=points[INPUT], layers=layers)


def by_formula(network, images):
    """Outputs of all layers, pooling and sums in FP32 as the mathematics has them."""
    tensors = {INPUT: images}
    points = dict(zip(tensors, [network.zero_point], strict=True))
    last = INPUT
    for layer in network.layers:
        source = layer.source or last
        x, zero = tensors[source], points[source]
        if isinstance(layer, Conv):
            out = loops(x, layer, zero)
        else:
            real = x.astype(np.float32) - zero
            if isinstance(layer, AveragePool):
                n, height, width, channels = x.shape
                ky, kx = layer.kernel
                real = real.reshape(n, height // ky, ky, width // kx, kx, channels)
                real = real.sum(axis=(2, 4)) * np.float32(layer.scale / (ky * kx))
            else:
                other = tensors[layer.other].astype(np.float32) - points[layer.other]
                real = real * np.float32(layer.scale) + other * np.float32(layer.other_scale)
                real = np.maximum(real, 0) if layer.relu else real
            out = np.clip(np.rint(real) + layer.zero_point, -128, 127).astype(np.int8)
        last = layer.name
        tensors[last], points[last] = out, layer.zero_point
    return [tensors[layer.name] for layer in network.layers]


@pytest.mark.parametrize(
    ("backend", "name", "widths", "readers"),
    [
        ("functional", "tiny", (5, 5, 9), 1),
        ("functional", "wide", (16, 32), 5),
        ("functional", "ecp5", (16, 16, 32, 32), 3),
        ("functional", "sim", (20, 40), 6),
        ("rtl", "tiny", (5, 5, 9), 1),
        ("rtl", "tiny", (16, 16), 5),
    ],
)
def test_residual_networks(backend, name, widths, readers):
    """All blocks in one job, each tensor equal to the formulas."""
    rng = np.random.default_rng(sum(widths) + readers)
    network = residual_network(rng, widths, readers=readers)
    images = rng.integers(-128, 128, (3, 8, 8, 3), dtype=np.int8)
    with Card.open(backend, preset=name) as card, NetworkRunner(card, network, batch=2) as runner:
        batches = list(runner.run(images))
    assert sum(batch.identical for batch in batches) == 3 * len(network.layers)
    for index, expected in enumerate(by_formula(network, images)):
        found = np.concatenate([batch.tensors[index] for batch in batches])
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(found)) > 5


@pytest.mark.parametrize("readers", [1, 2, 3, 4, 5, 9])
def test_every_signal_has_its_wait(readers):
    """Between two barriers each semaphore orders one pair of commands, and none is left over."""
    rng = np.random.default_rng(11)
    program = Program(preset("tiny"), residual_network(rng, (5,), readers=readers))
    stretches = [{"wait": [], "signal": []}]
    for command in program.run(0, 1):
        fields = decode(command)
        if fields["opcode"] is Opcode.BARRIER:
            stretches.append({"wait": [], "signal": []})
            continue
        for kind, found in stretches[-1].items():
            found += [
                fields[f"{kind}[{n}].index"] for n in range(4) if fields[f"{kind}[{n}].enable"]
            ]
    assert len(stretches) > 1 or readers < 3
    for stretch in stretches:
        assert len(set(stretch["signal"])) == len(stretch["signal"]) > 0
        assert sorted(stretch["wait"]) == sorted(stretch["signal"])


def test_refusals_of_tensors():
    conv = random_conv(np.random.default_rng(5), "conv", 4, 8, (1, 1), (1, 1), (0, 0), 0)
    add = Add(name="sum", other=INPUT)
    with pytest.raises(ValueError, match="layer sum: takes tensors of one shape, not 3 x 3 x 8 an"):
        Network(shape=(3, 3, 4), zero_point=0, layers=[conv, add])
    late = dataclasses.replace(conv, source="sum")
    with pytest.raises(ValueError, match=r"layer conv: takes 'sum', which is none of .*: input"):
        Network(shape=(3, 3, 4), zero_point=0, layers=[late, add])


def test_refusals():
    rng = np.random.default_rng(5)
    conv = random_conv(rng, "long", 4096, 8, (3, 3), (1, 1), (0, 0), 0)
    network = Network(shape=(4, 4, 4096), zero_point=0, layers=[conv])
    with pytest.raises(ValueError, match=r"layer long: .* 32768 values.* not 36864"):
        Program(preset("tiny"), network)
    conv = random_conv(rng, "wide", 128, 8, (3, 3), (1, 1), (0, 0), 0)
    with pytest.raises(ValueError, match="layer wide: weight must have 4 input channels, not 128"):
        Network(shape=(4, 4, 4), zero_point=0, layers=[conv])
    with pytest.raises(ValueError, match="layer wide: kernel must fit the 2 x 4 input"):
        Network(shape=(2, 4, 128), zero_point=0, layers=[conv])
    with pytest.raises(ValueError, match="different names"):
        Network(shape=(8, 8, 128), zero_point=0, layers=[conv, conv])
    big = random_conv(rng, "big", 16, 16, (1, 1), (1, 1), (0, 0), 0)
    network = Network(shape=(60, 60, 16), zero_point=0, layers=[big])
    with pytest.raises(ValueError, match="preset tiny has 65536; use a larger preset"):
        Program(preset("tiny"), network)
    network = Network(shape=(16, 16, 16), zero_point=0, layers=[big])
    with pytest.raises(ValueError, match="use a batch of at most 7"):
        Program(preset("tiny"), network, batch=8)
    with pytest.raises(ValueError, match="batch must be from 1 to 64, not 0"):
        Program(preset("tiny"), network, batch=0)


def test_layout_round_trip():
    rng = np.random.default_rng(9)
    layout = TensorLayout(height=3, width=5, channels=6, pixel_bytes=16, halo=(1, 2))
    images = rng.integers(-128, 128, (4, 3, 5, 6), dtype=np.int8)
    data = layout.pack(images, fill=-9)
    assert data.size == 4 * layout.image_bytes and layout.image_bytes % 16 == 0
    np.testing.assert_array_equal(layout.unpack(data), images)
    outside = data.view(np.int8).reshape(4, layout.image_bytes)[:, : layout.origin]
    assert (outside == -9).all()
    with pytest.raises(ValueError, match=r"images must be int8 \[N, 3, 5, 6\]"):
        layout.pack(images[..., :5], fill=0)
