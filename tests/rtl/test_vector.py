"""The vector unit with all of its parts, and without some."""

import dataclasses
import json

import pytest

from deepseek.rtl.config import VECTOR_PARTS, CardConfig, preset
from deepseek.rtl.core.vector import VectorUnit
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("parts", [("pool",), ("pool", "reformat")])
def test_parts(parts):
    config = dataclasses.replace(preset("tiny"), vector_parts=parts)
    run_bench(VectorUnit(config), "deepseek.sim.benches.vector", preset=config)


def test_parts_keep_their_order_and_survive_json():
    config = dataclasses.replace(preset("tiny"), vector_parts=["reformat", "pool"])
    assert config.vector_parts == ("pool", "reformat")
    assert config.parts_mask == 0b101
    again = CardConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)
    assert preset("tiny").vector_parts == VECTOR_PARTS and preset("tiny").parts_mask == 0b111


@pytest.mark.parametrize("parts", [(), ("rows",), ("pool", "pool"), ("pool", "fft"), "pool"])
def test_a_card_has_the_pool_and_no_unknown_part(parts):
    with pytest.raises(ValueError, match="vector_parts must be pool"):
        dataclasses.replace(preset("tiny"), vector_parts=parts)
