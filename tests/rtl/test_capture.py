"""The capture on the chip, against its golden model."""

import pytest

from deepseek.rtl.hostport.capture import Capture
from deepseek.sim.runner import run_bench


def test_capture():
    run_bench(Capture(depth=16), "deepseek.sim.benches.capture")


def test_refusals():
    with pytest.raises(ValueError, match="depth must be a power of two"):
        Capture(depth=48)
