"""A component on a clock that stands still is like one whose clock always ticks."""

import os
import random

import pytest
from amaranth.hdl import Fragment, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from deepseek.rtl.hierarchy import sleeper
from deepseek.sim.verilated.convert import to_design
from deepseek.sim.verilated.model import Model


class Steps(wiring.Component):
    """Adds ``by`` two cycles after ``go``."""

    go: In(1)
    by: In(8)
    total: Out(8)
    left: Out(1)

    def elaborate(self, platform):
        m = Module()
        by = Signal(8, init=3)
        m.d.sync += self.left.eq(self.go)
        with m.If(self.go):
            m.d.sync += by.eq(self.by)
        with m.If(self.left):
            m.d.sync += self.total.eq(self.total + by)
        return m


class Both(wiring.Component):
    """`Steps` twice, one of them asleep unless it has to be awake."""

    go: In(1)
    by: In(8)
    always: Out(8)
    sometimes: Out(8)

    def __init__(self, awake):
        self._awake = awake
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        always, sometimes = Steps(), Steps()
        m.submodules.always = always
        m.submodules.sometimes = sleeper(m, "asleep", sometimes, self._awake(sometimes), platform)
        for steps, total in ((always, self.always), (sometimes, self.sometimes)):
            m.d.sync += [steps.go.eq(self.go), steps.by.eq(self.by)]
            m.d.comb += total.eq(steps.total)
        return m


def run(awake):
    """Return how often the two totals were different in 500 cycles."""
    draw = random.Random(int(os.environ.get("SEED", "1")))
    different, seen = 0, set()
    with Model(to_design(Both(awake), "top")) as model:
        model.reset()
        for cycle in range(500):
            if cycle == 250:
                model.reset()
            model.set("go", draw.random() < 0.3)
            model.set("by", draw.getrandbits(8))
            model.tick()
            different += model.get("always") != model.get("sometimes")
            seen.add(model.get("always"))
    assert len(seen) > 100
    return different


def test_a_sleeper_misses_nothing():
    assert run(lambda steps: steps.go | steps.left) == 0


@pytest.mark.parametrize("name", ["go", "left"])
def test_a_sleeper_sleeps(name):
    assert run(lambda steps: getattr(steps, name)) > 10


def test_a_platform_has_one_clock():
    m, steps = Module(), Steps()
    m.submodules.steps = sleeper(m, "asleep", steps, steps.go, platform=object())
    assert m.submodules.steps is steps
    Fragment.get(m, None)
