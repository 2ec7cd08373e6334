"""The link between host and board."""

import dataclasses

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from deepseek.rtl.config import CardConfig, preset
from deepseek.rtl.hostport.link import Link
from deepseek.rtl.memory.block import BlockStorage
from deepseek.sim.runner import run_bench


def small(name: str) -> CardConfig:
    """Return a preset with little memory, whose end is soon reached."""
    return dataclasses.replace(preset(name), memory_bytes=1 << 14)


@pytest.mark.parametrize(("name", "clocks"), [("tiny", 4), ("sim", 2)])
def test_link(name: str, clocks: int) -> None:
    config = small(name)
    link = Link(config, clock_hz=clocks * 1_000_000, baud=1_000_000)
    env = {"CLOCKS_A_BIT": str(clocks)}
    run_bench(link, "deepseek.sim.benches.link", preset=config, env=env)


class Served(wiring.Component):
    """A link with memory behind it, and no registers."""

    def __init__(self, config: CardConfig, *, clock_hz: int, baud: int) -> None:
        self.config = config
        self._link = Link(config, clock_hz=clock_hz, baud=baud)
        super().__init__({"rx": In(1), "tx": Out(1), "dropped": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.link = link = self._link
        m.submodules.storage = storage = BlockStorage(self.config)
        connect(m, link.memory, storage.host)
        m.d.comb += [
            link.memory_ready.eq(storage.host_ready),
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            self.dropped.eq(link.dropped),
        ]
        return m


def test_speed() -> None:
    """At 48 MHz and 3 Mbaud, at least 96 % of the line are data, both ways."""
    served = Served(small("tiny"), clock_hz=48_000_000, baud=3_000_000)
    env = {"CLOCKS_A_BIT": "16", "LEAST_SHARE": "0.96"}
    run_bench(served, "deepseek.sim.benches.link_speed", env=env)
