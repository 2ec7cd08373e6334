"""The PE's multiplier: all pairs of the short formats, and many of the long ones.

All pairs of FP16 numbers: ``python -m deepseek.sim.verilated.exhaustive``.
"""

import dataclasses
import os

import numpy as np
import pytest
from amaranth.hdl import Mux

from deepseek.rtl.isa import MAX_ANCHOR, MIN_ANCHOR, Mode
from deepseek.sim.verilated.exhaustive import Checkers, Multiplier, main
from deepseek.sim.verilated.pairs import campaigns

SEED = int(os.environ.get("SEED", "1"))
PAIRS = 1 << 24


def test_every_short_pair_and_many_long_ones():
    modes, anchors = set(), set()
    with Checkers(Multiplier(), threads=2, seed=SEED) as checkers:
        for campaign in campaigns(PAIRS):
            outcome = checkers.run(campaign)
            assert outcome.pairs == campaign.pairs
            assert not outcome.mismatches, f"{campaign.name}, SEED={SEED}: {outcome.first}"
            modes.add(campaign.mode)
            anchors.add(campaign.anchor)
    assert modes == set(Mode)
    assert {MIN_ANCHOR, MAX_ANCHOR} <= anchors


class Faulty(Multiplier):
    """A multiplier that gets one FP16 pair wrong: 1 times 1 in the last segment but one."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        product = m.submodules.product
        wrong = (product.mode == Mode.FP16) & (product.addend[2] == 1) & ~product.carry_in[0]
        m.d.comb += self.addend[2].eq(Mux(wrong, 3, product.addend[2]))
        return m


def test_a_wrong_product_is_found():
    every = next(iter(campaigns(None)))
    assert every.pairs == 1 << 32
    one = np.array([0x3C00], np.uint16)
    near = np.array([0x3BFF, 0x3C00, 0x3C01], np.uint16)
    with Checkers(Faulty()) as checkers:
        outcome = checkers.run(dataclasses.replace(every, w=one, x=near))
    assert outcome.mismatches == 2
    assert outcome.first.startswith("pair 1: 0x3c00 by 0x3c00 gives 000000 000003 000000 000000")
    assert "instead of 000000 000001 000000 000000" in outcome.first


@pytest.mark.parametrize("option", ["--pairs", "--threads"])
def test_mistakes_are_named(capsys, option):
    with pytest.raises(SystemExit) as stopped:
        main([option, "0"])
    assert stopped.value.code == 2
    assert f"{option} must be at least 1, not 0" in capsys.readouterr().err
