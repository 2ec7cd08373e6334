"""Every plan of a convolution against recorded results of onnxruntime (QLinearConv)."""

from pathlib import Path

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler.convolution import PLANNERS, plan_conv
from deepseek.rtl.isa import Format

with np.load(Path(__file__).with_name("onnxruntime_conv.npz")) as recorded:
    ARRAYS = {name: recorded[name] for name in recorded.files}
CASES = sorted({int(name.partition("_")[0]) for name in ARRAYS})


@pytest.fixture(scope="module")
def card():
    with Card.open("functional", preset="tiny") as opened:
        yield opened


def test_shapes_are_as_recorded():
    assert len(CASES) == 12
    found = {
        name.partition("_")[2]: [ARRAYS[f"{c}_{name.partition('_')[2]}"] for c in CASES]
        for name in ARRAYS
    }
    for name in ("stride", "dilation", "padding", "groups"):
        assert len({value.tobytes() for value in found[name]}) > 2
    assert all(len(np.unique(y)) > 25 for y in found["y"])


@pytest.mark.parametrize("case", CASES)
def test_equals_onnxruntime(card, run, case):
    given = {
        name.partition("_")[2]: array
        for name, array in ARRAYS.items()
        if name.startswith(f"{case}_")
    }
    kinds = 0
    for kind in (None, *PLANNERS):
        try:
            plan = plan_conv(
                card.config,
                given["w"],
                given["x"].shape,
                in_format=Format.INT8,
                stride=tuple(given["stride"].tolist()),
                dilation=tuple(given["dilation"].tolist()),
                padding=tuple(map(tuple, given["padding"].tolist())),
                groups=int(given["groups"]),
                scale=given["scale"],
                bias=given["bias"],
                in_zero_point=int(given["zeros"][0]),
                zero_point=int(given["zeros"][1]),
                kind=kind,
            )
        except ValueError:
            assert kind not in (None, "windows")
            continue
        assert np.array_equal(run(card, plan, given["x"]), given["y"]), plan.kind
        kinds += 1
    whole = given["w"].shape[0] % 16 == 0 or given["y"].shape[:2] == (1, 1)
    assert kinds >= 2 + (whole and given["x"].shape[2] % 16 == 0 and given["groups"] == 1)
