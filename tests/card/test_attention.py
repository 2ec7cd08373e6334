"""Attention on the Verilated card equals the golden models, whatever the blocks."""

import pytest

from deepseek.host.bench import ATTENTION_DTYPES, AttentionJob, attention
from deepseek.host.card import Card


@pytest.fixture(scope="module")
def cards(name):
    with (
        Card.open("rtl", preset=name, memory="hbm") as hbm,
        Card.open("rtl", preset=name, memory="ideal") as ideal,
    ):
        yield hbm, ideal


@pytest.mark.parametrize("dtype", ATTENTION_DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_golden_models(cards, dtype, causal, rng, times):
    for turn in range(3 * times):
        job = AttentionJob(
            heads=int(rng.integers(1, 4)),
            seq=int(rng.integers(1, 70)),
            dim=int(rng.integers(1, 40)),
            dtype=dtype,
            causal=causal,
            seed=int(rng.integers(1 << 30)),
        )
        result = attention(cards[turn % 2], job, rows=int(rng.integers(2, 33)))
        assert result.error <= result.bound
