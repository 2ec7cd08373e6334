"""The row engine against streams written from the specification, alone and behind its port."""

from deepseek.rtl.config import CardConfig, preset
from deepseek.sim.benches.described import DescribedEngine
from deepseek.sim.benches.stream_port import EngineGroup
from deepseek.sim.runner import run_bench

UNEVEN = CardConfig(
    name="uneven",
    rows=6,
    cols=3,
    scratchpad_banks=4,
    scratchpad_bytes=128 << 10,
    stream_ports=2,
    bus_bytes=8,
    hbm_channels=1,
    operand_depth=64,
    partial_beats=64,
)
"""Rows and columns that are no powers of two, and the shortest ring."""


def test_row_engine():
    run_bench(DescribedEngine(preset("tiny")), "deepseek.sim.benches.row_engine", preset="tiny")


def test_short_ring():
    run_bench(
        DescribedEngine(UNEVEN),
        "deepseek.sim.benches.row_engine",
        preset=UNEVEN,
        testcase=["mixture", "rotation/mode=INT8", "dealing_on", "long_k/stall=0.3"],
    )


def test_stream_port():
    run_bench(EngineGroup(preset("tiny")), "deepseek.sim.benches.stream_port", preset="tiny")
