"""A design taken apart by hierarchy, synthesised in parts, and linked again."""

import gzip
import json
import re

import pytest
from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from deepseek.boards.families import ECP5, GOWIN
from deepseek.boards.flow.convert import TOP, convert_unit
from deepseek.boards.flow.netlist import BLOCK, split
from deepseek.boards.flow.synthesis import Resources, link, netlist_resources, owner, synthesise
from deepseek.boards.flow.tools import Processes, ToolFailure
from deepseek.rtl.hierarchy import Repeated


class Filter(wiring.Component):
    """Equal inside wherever it stands, but for what Amaranth calls its ports."""

    def __init__(self, taps=3):
        self.taps = taps
        super().__init__({"i": In(signed(8)), "o": Out(signed(8)), "flag": Out(1)})

    def elaborate(self, platform):
        m = Module()
        line = [Signal(signed(8), name=f"tap{n}", init=n) for n in range(self.taps)]
        for before, after in zip([self.i, *line], line, strict=False):
            m.d.sync += after.eq(before)
        m.d.comb += [self.o.eq(sum(line)), self.flag.eq(line[-1] < 0)]
        return m


class Pair(wiring.Component):
    """Filters one behind the other: two of them repeated, one its own."""

    def __init__(self):
        super().__init__({"i": In(signed(8)), "o": Out(signed(8)), "flags": Out(4)})

    def elaborate(self, platform):
        m = Module()
        value, flags = self.i, []
        for index in range(2):
            part = Filter()
            m.submodules[f"part{index}"] = Repeated(part, "filter")
            m.d.comb += part.i.eq(value)
            value, flags = part.o, [*flags, part.flag]
        m.submodules.own = own = Filter(taps=2)
        m.submodules.twin = twin = Filter(taps=2)
        m.d.comb += [
            own.i.eq(value),
            twin.i.eq(own.o ^ value),
            self.o.eq(twin.o),
            self.flags.eq(Cat(*flags, own.flag, twin.flag)),
        ]
        return m


@pytest.fixture(scope="module")
def texts():
    return convert_unit(Pair()).texts


def small(texts):
    """Split so that every module is a block."""
    return split(texts, split_bytes=0, part_bytes=0)


def test_blocks_and_instances(texts):
    whole, parts = split(texts), small(texts)
    assert set(whole.blocks) == {TOP, "filter"}
    assert whole.instances() == {"": TOP, "part0.instance": "filter", "part1.instance": "filter"}
    assert parts.instances() == {
        "": TOP,
        "part0.instance": "filter",
        "part1.instance": "filter",
        "part0": "top.part0",
        "part1": "top.part1",
        "own": "top.own",
        "twin": "top.twin",
    }


def test_equal_blocks_have_equal_texts(texts):
    parts = small(texts)
    assert parts.blocks["top.own"].text == parts.blocks["top.twin"].text
    assert f"module \\{BLOCK}\n" in parts.blocks["top.own"].text
    for block in parts.blocks.values():
        assert not re.search(r"\\port\$\d+\$\d+", block.text)


def test_text_does_not_depend_on_what_is_around(texts):
    class Around(wiring.Component):
        def __init__(self):
            super().__init__({"i": In(signed(8)), "o": Out(signed(8)), "flags": Out(5)})

        def elaborate(self, platform):
            m = Module()
            m.submodules.pair = pair = Pair()
            m.d.sync += [pair.i.eq(self.i + 1), self.o.eq(pair.o ^ self.i)]
            m.d.comb += self.flags.eq(pair.flags)
            return m

    alone, around = small(texts), small(convert_unit(Around()).texts)
    assert around.blocks["top.pair.own"].text == alone.blocks["top.own"].text


def test_names_of_cells_lead_to_blocks():
    paths = {"": "top", "shell.unit": "unit", "shell.unit.lane0.instance": "lane"}
    for name, path in (
        (r"$flatten\shell.unit.$abc$12$lut$5", "shell.unit"),
        (r"$flatten\shell.unit.lane0.instance.$auto$ff.cc:1:slice$3", "shell.unit.lane0.instance"),
        ("shell.unit.total", "shell.unit"),
        ("shell.units.total", ""),
        ("$abc$1$lut", ""),
        ("shell.unit.lane0.instance.a.b.c", "shell.unit.lane0.instance"),
    ):
        assert owner(name, paths) == path


@pytest.mark.parametrize(
    ("family", "models"), [(ECP5, "lattice/cells_sim_ecp5.v"), (GOWIN, "gowin/cells_sim.v")]
)
def test_linked_netlist_is_the_design(texts, tmp_path, family, models):
    """Proven by induction, with the vendor's cells as yosys models them."""
    parts = small(texts)
    netlists = synthesise(parts, family=family)
    path, netlist = link(parts, netlists, family=family)
    assert json.loads(gzip.decompress(path.read_bytes())) == netlist
    kinds = {family.kinds.get(cell["type"]) for cell in netlist["modules"][TOP]["cells"].values()}
    assert kinds <= {"LUT", "multiplexer", "carry cell", "register", None}  # None: a constant
    found = netlist_resources(netlist, parts, family=family)
    assert found["own"].ff == 2 * 8
    assert found["part0.instance"].ff == found["part1.instance"].ff == 3 * 8
    total = sum(found.values(), Resources())
    assert total.ff == 2 * 16 + 2 * 24
    assert sum((netlists[x].own for x in parts.instances().values()), Resources()).ff == total.ff

    (tmp_path / "gold.il").write_text("".join(texts.values()))
    (tmp_path / "gate.json").write_text(json.dumps(netlist))
    (tmp_path / "proof.ys").write_text(PROOF.replace("MODELS", models))
    with Processes() as processes:
        processes.run("yosys", ["-q", "-l", "log", "proof.ys"], tmp_path, log="log")

    # The proof can fail: one table with another content.
    cells = netlist["modules"][TOP]["cells"].values()
    table = next(cell for cell in cells if family.kinds.get(cell["type"]) == "LUT")
    bits = table["parameters"]["INIT"]
    table["parameters"]["INIT"] = "".join("10"[int(bit)] for bit in bits)
    (tmp_path / "gate.json").write_text(json.dumps(netlist))
    with Processes() as processes, pytest.raises(ToolFailure):
        processes.run("yosys", ["-q", "-l", "log", "proof.ys"], tmp_path, log="log")


PROOF = """read_rtlil gold.il
hierarchy -top top
proc
flatten
opt_clean
rename top gold
design -stash gold
read_json gate.json
read_verilog -overwrite -icells +/MODELS
hierarchy -top top
proc
flatten
opt_clean
rename top gate
design -stash gate
design -copy-from gold gold
design -copy-from gate gate
equiv_make gold gate equiv
hierarchy -top equiv
opt_expr
opt_clean
equiv_simple -undef
equiv_induct -undef
equiv_status -assert
"""
