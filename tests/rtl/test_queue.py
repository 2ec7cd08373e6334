"""The queues and the semaphores."""

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.bank import QueueBank
from deepseek.sim.runner import run_bench


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_queue(name: str) -> None:
    run_bench(QueueBank(preset(name)), "deepseek.sim.benches.queue", preset=name)
