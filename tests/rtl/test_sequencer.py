# amaranth: UnusedElaboratable=no
"""The sequencer, with a driver, a memory and units around it."""

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.core.sequencer import Sequencer
from deepseek.rtl.hostport.counters import CounterBank
from deepseek.rtl.hostport.csr import CsrBank
from deepseek.sim.benches.counter_bank import AMOUNTS
from deepseek.sim.runner import run_bench

BUILD = 0x0123456789ABCDEF


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_sequencer(name: str) -> None:
    component = Sequencer(preset(name), build_hash=BUILD)
    for bench in ("sequencer", "sequencer_steps", "counters"):
        run_bench(component, f"deepseek.sim.benches.{bench}", preset=name)


def test_counter_bank() -> None:
    run_bench(CounterBank(AMOUNTS), "deepseek.sim.benches.counter_bank")


def test_counter_bank_limits() -> None:
    with pytest.raises(ValueError, match="at most 16 counters have a turn, not 17"):
        CounterBank(((1, 0),) * 17)
    with pytest.raises(ValueError, match="a counter may grow by less than 2\\^27 a cycle"):
        CounterBank(((1 << 28, 0),))


def test_build_hash_is_checked() -> None:
    with pytest.raises(ValueError, match="build_hash must fit 64 bits"):
        CsrBank(preset("tiny"), 1 << 64)
