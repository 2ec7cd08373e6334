"""A small design in the place of the shell: an echo, and the card's sort of cells."""

import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from deepseek.rtl.hierarchy import Repeated


class Lane(wiring.Component):
    """A sum of a memory's words: look-up tables, a carry chain, a block RAM."""

    def __init__(self, width: int = 12) -> None:
        self.width = width
        super().__init__({"step": In(unsigned(width)), "total": Out(unsigned(width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal.like(self.total)
        m.d.sync += total.eq(total + (self.step ^ total[1:]))
        m.d.comb += self.total.eq(total)
        return m


class Unit(wiring.Component):
    """Two equal lanes, one behind the other, and a memory."""

    def __init__(self) -> None:
        super().__init__({"step": In(12), "total": Out(12)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=unsigned(12), depth=1024, init=[])
        write, read = memory.write_port(), memory.read_port()
        previous = self.step
        for index in range(2):
            lane = Lane()
            m.submodules[f"lane{index}"] = Repeated(lane, "lane")
            m.d.comb += lane.step.eq(previous)
            previous = lane.total
        m.d.comb += [
            write.addr.eq(self.step),
            write.data.eq(previous),
            write.en.eq(1),
            read.addr.eq(previous),
            self.total.eq(read.data),
        ]
        return m


class EchoShell(wiring.Component):
    """Sends what it receives, and lights LEDs."""

    def __init__(self, *, units: int = 2) -> None:
        self.units = units
        lights = {name: Out(1) for name in ("running", "activity", "error")}
        super().__init__({"rx": In(1), "tx": Out(1, init=1), **lights})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        received = Signal(init=1)
        count = Signal(12)
        m.d.sync += [received.eq(self.rx), self.tx.eq(received), count.eq(count + received)]
        parity = Signal(self.units)
        for index in range(self.units):
            unit = Unit()
            m.submodules[f"unit{index}"] = unit
            m.d.comb += [unit.step.eq(count), parity[index].eq(unit.total.xor())]
        m.d.comb += [
            self.running.eq(parity.xor()),
            self.activity.eq(~received),
            self.error.eq(parity.all()),
        ]
        return m


@pytest.fixture
def make_shell():
    """Stands for the shell in a build."""
    return lambda config, **_: EchoShell()


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """A build cache that was empty when the tests began."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(cache_folder, monkeypatch):
    """Tests build in the same cache."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(cache_folder))
    return cache_folder
