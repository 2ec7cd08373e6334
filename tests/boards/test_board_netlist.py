"""A board's netlist behind the pseudo-terminal: pins, PLL, link and memory, without a card."""

import dataclasses
import gzip
import json
import select

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from identity import SCRATCH_WORDS, Identity, check_memory, check_registers
from typer.testing import CliRunner

from deepseek.boards import board
from deepseek.boards.flow.build import build
from deepseek.boards.manifest import Manifest
from deepseek.host.cli import app
from deepseek.host.transport.base import SetupError
from deepseek.host.transport.serial import open_board
from deepseek.host.transport.virtual import netlist_path
from deepseek.rtl.hostport.link import Link
from deepseek.rtl.hostport.shell import Lasting, ShellRegisters
from deepseek.rtl.isa import Csr
from deepseek.rtl.isa.link import ShellCsr
from deepseek.rtl.memory.block import BlockStorage
from deepseek.sim.verilated import board as virtual_board

ULX3S = board("ulx3s")
MEGAHERTZ = 12.0
"""Few cycles a bit: the line is played bit by bit."""

MEMORY_BYTES = 64 << 10
SPAN = 1000


class LinkShell(wiring.Component):
    """The shell without card and capture."""

    def __init__(self, config, *, clock_hz, baud, build_hash):
        self.config = dataclasses.replace(config, memory_bytes=MEMORY_BYTES)
        self._settings = {"clock_hz": clock_hz, "baud": baud}
        self._build_hash = build_hash
        lights = {name: Out(1) for name in ("running", "activity", "error")}
        super().__init__({"rx": In(1), "tx": Out(1), **lights})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.identity = identity = Identity(self._build_hash)
        m.submodules.storage = storage = BlockStorage(self.config)
        m.submodules.link = link = Link(self.config, **self._settings)
        m.submodules.registers = registers = ShellRegisters(clock_hz=self._settings["clock_hz"])
        m.submodules.lasting = lasting = Lasting(width=1)
        connect(m, link.memory, storage.host)
        connect(m, link.csr, registers.link)
        connect(m, registers.card, identity.host)
        m.d.comb += [
            link.rx.eq(self.rx),
            link.memory_ready.eq(storage.host_ready),
            self.tx.eq(link.tx),
            registers.dropped.eq(link.dropped),
            lasting.events.eq(~link.tx),
            lasting.tick.eq(1),
            self.activity.eq(lasting.lights),
        ]
        return m


@pytest.fixture(scope="module")
def bitstream(cache_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPSEEK_CACHE", str(cache_folder))
        built = build(
            ULX3S,
            "tiny",
            tmp_path_factory.mktemp("boards"),
            freq_mhz=MEGAHERTZ,
            netlist=True,
            make_shell=LinkShell,
        )
    return built.bitstream


def test_link_and_memory(bitstream, cache):
    """Registers and memory through the pins of the placed and routed board."""
    rng = np.random.default_rng(1)
    manifest = Manifest.of(bitstream)
    netlist = json.loads(gzip.decompress(netlist_path(bitstream).read_bytes()))
    cells = netlist["modules"]["top"]["cells"].values()
    kinds = {(cell["type"], cell["parameters"].get("MODE", "")) for cell in cells}
    assert {("TRELLIS_COMB", "DPRAM"), ("DP16KD", ""), ("EHXPLLL", "")} <= kinds
    link = open_board(bitstream, board="virtual", netlist=True)
    try:
        check_registers(link, rng, 3 * SCRATCH_WORDS)
        assert link.csr_read(Csr.BUILD_LOW) == manifest.build & 0xFFFFFFFF
        assert link.csr_read(ShellCsr.CLOCK_HZ) == manifest.clock_hz
        assert "netlist of ulx3s" in link.details()["board"]
        check_memory(link, rng, (0, MEMORY_BYTES - SPAN), SPAN)
        assert link.csr_read(ShellCsr.FRAMES_DROPPED) == 0
    finally:
        link.close()


def test_requests_that_wait_at_power_up(bitstream, cache, monkeypatch):
    """What was sent before the board's clock ran arrives once, and whole."""
    serve = virtual_board._serve

    def late(model, terminal, stop, rates):
        assert select.select([terminal], [], [], 60.0)[0]
        serve(model, terminal, stop, rates)

    monkeypatch.setattr(virtual_board, "_serve", late)
    link = open_board(bitstream, board="virtual", netlist=True)
    try:
        assert link.csr_read(ShellCsr.FRAMES_DROPPED) == 0
        assert link.statistics.repeated == 0
    finally:
        link.close()


def test_refusals(bitstream, cache, tmp_path):
    """One line with the next step, for each way in which a netlist can be of no use."""
    with pytest.raises(ValueError, match="runs on the virtual board only: add --board virtual"):
        open_board(bitstream, netlist=True)
    copy = tmp_path / bitstream.name
    copy.write_bytes(bitstream.read_bytes())
    Manifest.of(bitstream).write(copy)
    with pytest.raises(SetupError, match=r"has no netlist ulx3s-tiny.netlist.json.gz beside it"):
        open_board(copy, board="virtual", netlist=True)
    netlist_path(copy).write_bytes(netlist_path(bitstream).read_bytes()[:1000])
    with pytest.raises(SetupError, match="is damaged"):
        open_board(copy, board="virtual", netlist=True)
    netlist_path(copy).with_suffix("").write_text("{}")
    words = f"run digits --board virtual --netlist --bitstream {copy}"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ") and "next: " in result.stderr


def test_netlist_of_another_board(bitstream, cache, tmp_path):
    copy = tmp_path / bitstream.name
    copy.write_bytes(bitstream.read_bytes())
    manifest = json.loads((bitstream.with_name(f"{bitstream.name}.json")).read_text())
    manifest["board"] = "ecpix5"
    path = copy.with_name(f"{copy.name}.json")
    path.write_text(json.dumps(manifest))
    netlist_path(copy).write_bytes(netlist_path(bitstream).read_bytes())
    with pytest.raises(SetupError, match="has no pin clk100_0__io: it is not of this board's card"):
        open_board(copy, board="virtual", netlist=True)
    path.write_text(json.dumps({**manifest, "device": "LIFCL-40"}))
    with pytest.raises(SetupError, match="models for the cells of ECP5 only; next: leave --netli"):
        open_board(copy, board="virtual", netlist=True)
