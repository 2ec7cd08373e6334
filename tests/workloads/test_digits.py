"""The digits workload: accuracy by the golden model, and whole runs on the functional card."""

import functools

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.workloads import WORKLOADS, workload
from deepseek.host.workloads.digits import TEST_IMAGES, Digits
from deepseek.host.workloads.runner import NetworkRunner, golden_tensors


@functools.cache
def digits():
    return Digits.load()


def test_accuracy():
    d = digits()
    reference = float((d.float_predictions() == d.labels).mean())
    output = golden_tensors(d.network(), d.quantized())[-1]
    quantized = float((d.predictions(output) == d.labels).mean())
    assert reference >= 0.98
    assert abs(quantized - reference) <= 0.005


def test_golden_network_follows_the_float_network():
    # Not only the winner: every INT8 output is within a few steps of the real number.
    d = digits()
    weights = d.weights
    golden = golden_tensors(d.network(), d.quantized())
    x = d.images.astype(np.float64)[..., None]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    real = np.zeros((len(x), 8, 8, 16))
    for ky in range(3):
        for kx in range(3):
            tap = weights["conv1_weight_float"][:, ky, kx, 0]
            real += padded[:, ky : ky + 8, kx : kx + 8] * tap
    real = np.maximum(real + weights["conv1_bias_float"], 0)
    back = (golden[0].astype(np.float64) - int(weights["conv1_zero_point"])) * float(
        weights["conv1_scale"]
    )
    inside = real < 255 * float(weights["conv1_scale"])
    assert np.abs(back - real)[inside].max() < 3 * float(weights["conv1_scale"])


def test_registry():
    assert workload("digits") is WORKLOADS["digits"]
    assert WORKLOADS["digits"].inputs == TEST_IMAGES
    with pytest.raises(ValueError, match="no workload 'digit'; choose one of: digits"):
        workload("digit")


@pytest.mark.parametrize(("preset", "limit"), [("tiny", 30), ("ecp5", 49), ("sim", 25)])
def test_run_on_the_functional_card(preset, limit):
    seen = []
    with Card.open("functional", preset=preset) as card:
        result = WORKLOADS["digits"].run(card, limit, lambda *step: seen.append(step))
    assert result.images == limit
    assert result.tensors == 5 * limit and result.bit_exact
    assert result.accuracy >= 0.95 and result.float_accuracy >= 0.95
    assert result.macs == 84224 * limit
    assert seen[-1] == ("images", 1.0) and len(seen) == -(-limit // result.batch)


def test_all_images():
    with Card.open("functional", preset="ecp5") as card:
        free = card.info().free_bytes
        result = WORKLOADS["digits"].run(card, None, None)
        assert card.info().free_bytes == free
    assert result.images == TEST_IMAGES and result.bit_exact
    assert abs(result.accuracy - result.float_accuracy) <= 0.005
    assert 0 < result.utilization <= 1
    counters = result.counters
    assert counters.bytes_read + counters.bytes_written > TEST_IMAGES * 2000


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_must_be_positive(limit):
    with (
        Card.open("functional", preset="tiny") as card,
        pytest.raises(ValueError, match=f"limit must be at least 1, not {limit}"),
    ):
        WORKLOADS["digits"].run(card, limit, None)


def test_a_wrong_weight_is_noticed():
    # What the card holds differs from what the golden model is given.
    d = digits()
    network = d.network()
    with (
        Card.open("functional", preset="tiny") as card,
        NetworkRunner(card, network, batch=4) as runner,
    ):
        weight = network.layers[2].weight
        original = weight.copy()
        try:
            weight[5, 1, 1, 3] += 1
            (batch,) = runner.run(d.quantized()[:4])
        finally:
            weight[:] = original
    assert batch.identical < 4 * 5
