"""A board with a GW5A: the same flow with other tools."""

import gzip
import json

import pytest
from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from deepseek.boards import BOARDS, BoardError
from deepseek.boards.families import GOWIN, Resources, family_of
from deepseek.boards.flow.build import build, build_hash
from deepseek.boards.flow.convert import convert_unit
from deepseek.boards.flow.netlist import split
from deepseek.boards.flow.synthesis import link, netlist_resources, synthesise
from deepseek.boards.flow.tools import Processes
from deepseek.boards.manifest import Manifest
from deepseek.rtl.isa import ABI_VERSION
from deepseek.rtl.tech.multiply import Multiply
from deepseek.rtl.tech.ram import RegisteredRam

BOARD = BOARDS["tangmega"]


class Shell(wiring.Component):
    """The small design, memory and multiplier of `rtl.tech`, and such as yosys finds."""

    def __init__(self, echo):
        self.echo = echo
        lights = {name: Out(1) for name in ("running", "activity", "error")}
        super().__init__({"rx": In(1), "tx": Out(1, init=1), **lights})

    def elaborate(self, platform):
        m = Module()
        m.submodules.echo = echo = self.echo
        m.submodules.multiply = multiply = Multiply(15, 15, 30)
        m.submodules.ram = ram = RegisteredRam(15, 64)
        m.submodules.small = small = Memory(shape=unsigned(4), depth=16, init=[])
        write, read = small.write_port(), small.read_port(domain="comb")
        line = Signal(15)
        product = Signal(signed(30))
        m.d.sync += [
            line.eq(Cat(self.rx, line)),
            multiply.a.eq(line),
            multiply.b.eq(ram.data),
            product.eq(line.as_signed() * multiply.p[15:].as_signed()),
        ]
        m.d.comb += [
            write.en.eq(line[3]),
            write.addr.eq(line[4:]),
            write.data.eq(line[8:]),
            read.addr.eq(line),
            ram.write.eq(line[0]),
            ram.write_address.eq(line),
            ram.write_data.eq(multiply.p),
            ram.read.eq(line[1]),
            ram.read_address.eq(line[2:]),
            echo.rx.eq(self.rx),
            self.tx.eq(echo.tx),
            self.running.eq(echo.running ^ read.data.xor()),
            self.activity.eq(echo.activity),
            self.error.eq(echo.error ^ product.xor()),
        ]
        return m


def test_bitstream(cache, tmp_path, make_shell):
    built = build(
        BOARD, "tiny", tmp_path, netlist=True, make_shell=lambda *_, **__: Shell(make_shell(None))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tangmega-tiny.fs",
        "tangmega-tiny.fs.json",
        "tangmega-tiny.netlist.json.gz",
        "tangmega-tiny.report.json",
    ]
    manifest = Manifest.of(built.bitstream)
    assert manifest == built.manifest
    assert manifest.build == build_hash(BOARD, manifest.card, BOARD.clock_hz)
    assert manifest.tools.keys() >= {"yosys", "nextpnr-himbaechel-gowin", "gowin_pack"}
    assert manifest.fmax_mhz * 1e6 >= manifest.clock_hz == 50_000_000

    about, *lines = built.bitstream.read_text().splitlines()
    assert about.startswith(f"//Build: tangmega tiny {manifest.build_hash} ABI {ABI_VERSION}")
    commands = {line[:8]: line[8:] for line in lines[:12]}
    assert int(commands["00000110"], 2) == 0x0001081B  # the device's IDCODE
    assert set("".join(lines)) == {"0", "1"}
    # Frames of configuration, among which some of the design are not all zero.
    assert len({line for line in lines if len(line) > 200}) > 20

    text = gzip.decompress((tmp_path / "tangmega-tiny.netlist.json.gz").read_bytes())
    placed = json.loads(text)["modules"]["top"]["cells"].values()
    # Place and route calls a block RAM with a port to write and one to read SDP.
    wanted = {"LUT4", "ALU", "DFFRE", "RAM16SDP4", "MULTALU27X18", "SDP"}
    assert wanted <= {cell["type"] for cell in placed}

    report = json.loads((tmp_path / "tangmega-tiny.report.json").read_text())
    blocks = {row["block"]: row for row in report["blocks"]}
    assert blocks["lane"]["instances"] == 4
    assert blocks["lane"]["ff"] == 4 * 12
    assert report["use"]["EBR"] == {"used": 3, "of": 340, "percent": 0.9}
    assert report["use"]["FF"]["of"] == 138_240
    assert report["use"]["DSP"]["used"] == 2
    path = report["critical_path"]
    assert path["ns"] == pytest.approx(1e3 / report["fmax_mhz"], rel=0.1)
    assert str(path["ns"]) in report["critical_path_in_words"]


class Product(wiring.Component):
    """A multiplier that is not one of `rtl.tech`."""

    def __init__(self, a, b):
        super().__init__({"a": In(a), "b": In(b), "p": Out(a.width + b.width)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.p.eq(self.a * self.b)
        return m


PROOF = """read_rtlil gold.il
rename top gold
read_json gate.json
rename top gate
read_verilog -overwrite -icells +/gowin/cells_sim.v
read_verilog MULTALU27X18.v
setattr -mod -unset top gold gate
hierarchy -check
proc
flatten
opt -full
miter -equiv -flatten -make_outputs gold gate miter
hierarchy -top miter
flatten
opt -full
sat -verify -prove trigger 0 miter
"""

MODEL = """module MULTALU27X18 (input signed [26:0] A, input signed [17:0] B, output [47:0] DOUT);
    parameter C_SEL = 1;
    wire signed [47:0] product = A * B;
    assign DOUT = C_SEL ? 48'bx : product;
endmodule
"""


@pytest.mark.parametrize(
    ("a", "b", "dsps"),
    [
        (unsigned(5), unsigned(4), 1),
        (signed(5), signed(4), 1),
        (signed(3), unsigned(5), 1),
        (unsigned(27), unsigned(2), 2),
        (signed(27), signed(2), 1),
    ],
)
def test_multipliers(cache, tmp_path, a, b, dsps):
    """Made of the device's, and proven to multiply. The signed ones take 27 x 18 bits."""
    texts = convert_unit(Product(a, b)).texts
    design = split(texts)
    netlists = synthesise(design, family=GOWIN)
    _, netlist = link(design, netlists, family=GOWIN)
    assert netlist_resources(netlist, design, family=GOWIN)[""].dsp == dsps
    for cell in netlist["modules"]["top"]["cells"].values():
        if cell["type"] == "MULTALU27X18":
            wanted = ("A", "B", "DOUT")
            cell["connections"] = {name: cell["connections"][name] for name in wanted}
            cell["parameters"] = {"C_SEL": cell["parameters"]["C_SEL"]}
    (tmp_path / "gold.il").write_text("".join(texts.values()))
    (tmp_path / "gate.json").write_text(json.dumps(netlist))
    (tmp_path / "MULTALU27X18.v").write_text(MODEL)
    (tmp_path / "proof.ys").write_text(PROOF)
    with Processes() as processes:
        processes.run("yosys", ["-q", "-l", "log", "proof.ys"], tmp_path, log="log")


def test_what_cells_take():
    cells = {"LUT3": 2, "MUX2_LUT5": 1, "ALU": 3, "RAM16SDP4": 1, "DFFRE": 4, "DFF": 1, "VCC": 1}
    assert GOWIN.count({**cells, "SDPX9B": 2, "MULTALU27X18": 1}) == Resources(11, 5, 1, 2)


@pytest.mark.parametrize("device", ["GW5A-LV25", "XC7A35T"])
def test_unknown_device(device):
    with pytest.raises(BoardError, match="boards/families"):
        family_of(device).capacity(device)
