"""Max pool against four nested loops."""

import numpy as np
import pytest

from deepseek.sim.golden.pool import max_pool


@pytest.mark.parametrize(
    "shape, kernel, stride, padding",
    [
        ((2, 6, 8, 3), (2, 2), (2, 2), (0, 0)),
        ((1, 7, 5, 2), (3, 3), (2, 2), (1, 1)),
        ((1, 4, 9, 1), (1, 4), (3, 1), (0, 2)),
    ],
)
def test_equals_loops(shape, kernel, stride, padding):
    x = np.random.default_rng(1).integers(-128, 128, shape, dtype=np.int8)
    got = max_pool(x, kernel=kernel, stride=stride, padding=padding)
    _, height, width, _ = shape
    for n, i, j, c in np.ndindex(got.shape):
        top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
        rows = range(max(top, 0), min(top + kernel[0], height))
        columns = range(max(left, 0), min(left + kernel[1], width))
        assert got[n, i, j, c] == max(x[n, y, z, c] for y in rows for z in columns)
    assert got.shape[1] == (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    assert got.shape[2] == (width + 2 * padding[1] - kernel[1]) // stride[1] + 1


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
