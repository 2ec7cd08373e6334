"""Concatenation and upsampling: executed, and compared with NumPy."""

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler.rearrange import concatenate, upsample
from deepseek.rtl.config import PRESETS, preset


def run(card, arrays, out_bytes, commands_of):
    """The output of ``commands_of(addresses, out)``, and that nothing behind it was touched."""
    buffers = [card.allocate(array.nbytes) for array in arrays]
    out = card.allocate(out_bytes + 64)
    for buffer, array in zip(buffers, arrays, strict=True):
        card.write(buffer, array)
    card.write(out, np.full(out_bytes + 64, 0xA5, np.uint8))
    card.submit(commands_of([buffer.address for buffer in buffers], out.address)).wait()
    raw = card.read(out)
    for buffer in (*buffers, out):
        card.free(buffer)
    assert (raw[out_bytes:] == 0xA5).all()
    return raw[:out_bytes]


def check_concatenate(card, random):
    rows = int(random.integers(1, 3000))
    sizes = [16 * int(random.integers(1, 9)) for _ in range(random.integers(1, 5))]
    arrays = [random.integers(0, 256, (rows, size), np.uint8) for size in sizes]
    got = run(
        card,
        arrays,
        rows * sum(sizes),
        lambda at, out: concatenate(
            card.config, list(zip(at, sizes, strict=True)), rows=rows, out=out
        ),
    )
    assert np.array_equal(got.reshape(rows, -1), np.concatenate(arrays, axis=1))


def check_upsample(card, random):
    height, width = (int(v) for v in random.integers(1, 40, 2))
    pixel = 16 * int(random.integers(1, 5))
    factors = tuple(int(v) for v in random.integers(1, 4, 2))
    image = random.integers(0, 256, (height, width, pixel), np.uint8)
    want = image.repeat(factors[0], axis=0).repeat(factors[1], axis=1)
    got = run(
        card,
        [image],
        want.nbytes,
        lambda at, out: upsample(
            card.config, at[0], out, shape=(height, width, pixel), factors=factors
        ),
    )
    assert np.array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("check", [check_concatenate, check_upsample])
@pytest.mark.parametrize("name", PRESETS)
def test_random_shapes(cards, name, check):
    random = np.random.default_rng(7)
    for _ in range(6):
        check(cards[name], random)


@pytest.mark.parametrize("check", [check_concatenate, check_upsample])
def test_on_the_rtl(check):
    random = np.random.default_rng(8)
    with Card.open("rtl", preset="tiny") as card:
        check(card, random)


def test_refusals():
    tiny = preset("tiny")
    with pytest.raises(ValueError, match="multiple of 16"):
        concatenate(tiny, [(0, 24)], rows=1, out=0)
    with pytest.raises(ValueError, match=r"must fit half of the scratchpad, 32,768 bytes"):
        concatenate(tiny, [(0, 32_768), (65_536, 16)], rows=1, out=0)
    with pytest.raises(ValueError, match="parts"):
        concatenate(tiny, [], rows=1, out=0)
    with pytest.raises(ValueError, match="factors"):
        upsample(tiny, 0, 4096, shape=(2, 2, 16), factors=(0, 1))
    with pytest.raises(ValueError, match="a row of the output"):
        upsample(tiny, 0, 4096, shape=(2, 64, 256), factors=(1, 3))
