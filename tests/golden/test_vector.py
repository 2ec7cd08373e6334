"""The vector unit's golden model: against nested loops, rational numbers and onnxruntime."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deepseek.sim.golden.slow import round_to
from deepseek.sim.golden.vector import add, average, average_pool, max_pool, multiply

SHAPES = [
    ((2, 6, 8, 3), (2, 2), (2, 2), (0, 0)),
    ((1, 7, 5, 2), (3, 3), (2, 2), (1, 1)),
    ((1, 4, 9, 1), (1, 4), (3, 1), (0, 2)),
    ((2, 3, 4, 5), (3, 4), (1, 1), (0, 0)),
]


def windows_of(x, shape, kernel, stride, padding):
    """Yield the place of each result, and the numbers of its window that are not padding."""
    _, height, width, _ = x.shape
    for n, i, j, c in np.ndindex(shape):
        top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
        rows = range(max(top, 0), min(top + kernel[0], height))
        columns = range(max(left, 0), min(left + kernel[1], width))
        yield (n, i, j, c), [int(x[n, y, z, c]) for y in rows for z in columns]


def test_shapes():
    for shape, kernel, stride, padding in SHAPES:
        got = max_pool(np.zeros(shape, np.int8), kernel=kernel, stride=stride, padding=padding)
        assert got.shape[1] == (shape[1] + 2 * padding[0] - kernel[0]) // stride[0] + 1
        assert got.shape[2] == (shape[2] + 2 * padding[1] - kernel[1]) // stride[1] + 1


@pytest.mark.parametrize("shape, kernel, stride, padding", SHAPES)
def test_max_equals_loops(shape, kernel, stride, padding):
    x = np.random.default_rng(1).integers(-128, 128, shape, dtype=np.int8)
    got = max_pool(x, kernel=kernel, stride=stride, padding=padding)
    for place, window in windows_of(x, got.shape, kernel, stride, padding):
        assert got[place] == max(window)


def fp32(value):
    """A rational number rounded to FP32."""
    return round_to(Fraction(value), 24, -149, 104)


def bits(scale):
    return int(np.float32(scale).view(np.uint32))


def result(value, zero_point, low, high):
    """A rational number rounded to nearest even (as Python does), clamped, cut to 8 bits."""
    return (min(max(round(value) + zero_point, low), high) + 128) % 256 - 128


OUTPUTS = [(0, -128, 127), (-7, -128, 127), (40, -20, 100), (-30000, -300, 32767), (3, 90, -90)]


@pytest.mark.parametrize("shape, kernel, stride, padding", SHAPES)
@pytest.mark.parametrize("zero, scale", [(0, 0.25), (-128, 0.1), (127, -0.5), (5, 1 / 3)])
def test_average_equals_loops(shape, kernel, stride, padding, zero, scale):
    x = np.random.default_rng(2).integers(-128, 128, shape, dtype=np.int8)
    output = dict(zip(("zero_point", "clamp_low", "clamp_high"), OUTPUTS[1], strict=True))
    layout = {"kernel": kernel, "stride": stride, "padding": padding}
    got = average_pool(x, **layout, zero=zero, scale=bits(scale), **output)
    for place, window in windows_of(x, got.shape, kernel, stride, padding):
        total = sum(number - zero for number in window)
        value = fp32(total * Fraction(float(np.float32(scale))))
        assert got[place] == result(value, *OUTPUTS[1])


@pytest.mark.parametrize("zero_point, low, high", OUTPUTS)
def test_sums_and_products_are_rational_numbers_rounded(zero_point, low, high):
    rng = np.random.default_rng(3)
    output = {"zero_point": zero_point, "clamp_low": low, "clamp_high": high}
    a, b = rng.integers(-128, 128, (2, 200), dtype=np.int8)
    for a_zero, b_zero in ((0, 0), (127, -128), (-3, 11)):
        scales = [float(np.float32(s)) for s in rng.choice([0.5, 0.25, 0.3, -0.7, 1 / 128], 2)]
        first, second = (Fraction(scale) for scale in scales)
        zeros = {"a_zero": a_zero, "b_zero": b_zero}
        sums = add(a, b, **zeros, a_scale=bits(scales[0]), b_scale=bits(scales[1]), **output)
        products = multiply(a, b, **zeros, scale=bits(scales[0]), **output)
        totals = rng.integers(-(1 << 24), (1 << 24) + 1, 200)
        averages = average(totals, scale=bits(scales[0] / 65536), **output)
        for i in range(200):
            x, y = int(a[i]) - a_zero, int(b[i]) - b_zero
            value = fp32(fp32(x * first) + fp32(y * second))
            assert sums[i] == result(value, zero_point, low, high)
            assert products[i] == result(fp32(x * y * first), zero_point, low, high)
            value = fp32(int(totals[i]) * first / 65536)
            assert averages[i] == result(value, zero_point, low, high)


def test_extreme_scales():
    """Infinities saturate, opposite ones and what is too small make 0."""
    a, b = np.array([100, -100, 100, 0], np.int8), np.array([100, -100, -100, 0], np.int8)
    huge, tiny = 0x7F7FFFFF, 0x00800000
    assert add(a, b, a_scale=huge, b_scale=huge, zero_point=1).tolist() == [127, -128, 1, 1]
    assert add(a, b, a_scale=tiny, b_scale=tiny).tolist() == [0, 0, 0, 0]
    assert multiply(a, b, scale=huge).tolist() == [127, 127, -128, 0]
    assert average(a.astype(np.int64), scale=huge | 1 << 31).tolist() == [-128, 127, -128, 0]


def test_equals_onnxruntime():
    """Results that `tools/record_onnxruntime.py` wrote down, of networks' scales."""
    with np.load(Path(__file__).with_name("onnxruntime.npz")) as recorded:
        cases = {name: recorded[name] for name in recorded.files}
    for i, (scales, zeros) in enumerate(zip(cases["scales"], cases["zeros"].tolist(), strict=True)):
        a, b, a_zero, b_zero = cases["a"][i], cases["b"][i], zeros[0], zeros[1]
        x, y, out = scales
        common = {"zero_point": zeros[2]}
        pair = {"a_zero": a_zero, "b_zero": b_zero, **common}
        got = add(a, b, a_scale=bits(x / out), b_scale=bits(y / out), **pair)
        np.testing.assert_array_equal(got, cases["add"][i])
        got = multiply(a, b, scale=bits(x * y / out), **pair)
        np.testing.assert_array_equal(got, cases["multiply"][i])
        image = a.reshape(1, 7, 9, -1)
        scale = bits(x / (out * np.float32(63)))
        got = average_pool(image, kernel=(7, 9), stride=(1, 1), zero=a_zero, scale=scale, **common)
        np.testing.assert_array_equal(got.reshape(-1), cases["average"][i])


@pytest.mark.parametrize(
    "shape, change, match",
    [
        ((1, 4, 4), {}, "x must"),
        ((1, 4, 4, 1), {"stride": (0, 1)}, "stride"),
        ((1, 4, 4, 1), {"padding": (2, 0)}, "padding"),
        ((1, 1, 4, 1), {}, "kernel"),
    ],
)
def test_refuses(shape, change, match):
    arguments = {"kernel": (2, 2), "stride": (1, 1), **change}
    with pytest.raises(ValueError, match=match):
        max_pool(np.zeros(shape, np.int8), **arguments)
    with pytest.raises(ValueError, match=match):
        average_pool(np.zeros(shape, np.int8), scale=bits(1), **arguments)


def test_refuses_scales_and_shapes():
    x = np.zeros(3, np.int8)
    for scale in (0, 0x7FFFFF, 0x7F800000, 0xFFC00000):
        with pytest.raises(ValueError, match="scale must"):
            average(np.zeros(1, np.int64), scale=scale)
        with pytest.raises(ValueError, match="b_scale must"):
            add(x, x, a_scale=bits(1), b_scale=scale)
    with pytest.raises(ValueError, match="one shape"):
        multiply(x, x[:2], scale=bits(1))
    with pytest.raises(ValueError, match="sums must"):
        average(np.array([(1 << 24) + 1]), scale=bits(1))
