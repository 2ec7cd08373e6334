"""What the tests of plans share."""

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.rtl.config import PRESETS


@pytest.fixture(scope="module")
def cards():
    """Simulated cards, by preset."""
    opened = {name: Card.open("functional", preset=name) for name in PRESETS}
    yield opened
    for card in opened.values():
        card.close()


def run_and_count(card, plan, image):
    buffers = [card.allocate(n) for n in (plan.weights_bytes, plan.x_bytes, plan.y_bytes, 256)]
    try:
        card.write(buffers[0], plan.weights)
        card.write(buffers[1], plan.pack_x(image))
        card.write(buffers[2], np.full(plan.y_bytes, 0x5A, np.uint8))
        card.write(buffers[3], np.full(256, 0x77, np.uint8))
        ended = card.submit(plan.commands(*(buffer.address for buffer in buffers[:3]))).wait()
        output = plan.unpack_y(card.read(buffers[2]))
        assert (card.read(buffers[3]) == 0x77).all()
    finally:
        for buffer in buffers:
            card.free(buffer)
    return output, ended.cycles


@pytest.fixture(scope="session")
def counted():
    """Function that runs a convolution, with bytes behind the output that nothing may touch.

    It returns the output and the cycles.
    """
    return run_and_count


@pytest.fixture(scope="session")
def run():
    """As `counted`, without the cycles."""
    return lambda card, plan, image: run_and_count(card, plan, image)[0]
