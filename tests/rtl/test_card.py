"""The whole card, with a host and a memory around it."""

from deepseek.rtl.card import Card
from deepseek.rtl.config import preset
from deepseek.sim.runner import run_bench


def test_card() -> None:
    run_bench(Card(preset("tiny")), "deepseek.sim.benches.card", preset="tiny")
