"""The compute unit, fed with commands that follow each other."""

import dataclasses

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.compute import ComputeUnit
from deepseek.rtl.tech import ECP5, GENERIC, still
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize(("engines", "copies"), [(1, ECP5), (2, GENERIC)])
def test_compute(engines: int, copies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row engine with an epilogue lane of its own, or two with one; the mode in registers on
    its way to the PEs, as on a device, or as a wire."""
    monkeypatch.setattr(still, "technology", lambda platform: copies)
    config = dataclasses.replace(preset("tiny"), name="shared", engines_per_lane=engines)
    run_bench(ComputeUnit(config), "deepseek.sim.benches.compute", preset=config)
