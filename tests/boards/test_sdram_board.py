"""A board whose memory is an SDRAM, without a card: what is read, and when."""

import contextlib
import dataclasses
import gzip
import json

import numpy as np
import pytest
from identity import SCRATCH_WORDS, check_memory, check_registers
from mirror import CYCLES, START, Mirror, mirror_shell

from deepseek.boards import board
from deepseek.boards.flow.build import build
from deepseek.boards.manifest import Manifest
from deepseek.host.transport.serial import SerialTransport, open_board
from deepseek.host.transport.virtual import netlist_path
from deepseek.rtl.isa.link import ShellCsr
from deepseek.rtl.shell import Shell
from deepseek.sim.sdram import sdram_verilog
from deepseek.sim.verilated.board import VirtualBoard
from deepseek.sim.verilated.convert import to_design
from deepseek.sim.verilated.late_reset import LateReset
from deepseek.sim.verilated.surroundings import Surroundings

VIRTUAL = board("virtual")
BEATS = 300


def design(manifest):
    settings = {"clock_hz": manifest.clock_hz, "baud": manifest.baud}
    if manifest.memory == "block RAM":
        card = Mirror(manifest.card, build_hash=manifest.build)
        return to_design(LateReset(Shell(manifest.card, **settings, card=card)), "board")
    shell = mirror_shell(manifest.card, **settings, build_hash=manifest.build, sdram=VIRTUAL.sdram)
    top = Surroundings(shell, clock_hz=manifest.clock_hz, sdram=VIRTUAL.sdram)
    made = to_design(LateReset(top), "board")
    return dataclasses.replace(made, verilog=f"{made.verilog}\n{sdram_verilog()}")


@contextlib.contextmanager
def powered(memory, folder):
    manifest = build(VIRTUAL, "tiny", folder, memory=memory).manifest
    settings = {"clock_hz": manifest.clock_hz, "baud": manifest.baud}
    virtual = VirtualBoard(
        manifest.card, build_hash=manifest.build, **settings, design=design(manifest)
    )
    with (
        virtual,
        contextlib.closing(SerialTransport(virtual.port, manifest, simulated=True)) as link,
    ):
        yield virtual, link


def mirrored(link, content):
    """Let the card copy what it is given; return the copy and the card's cycles."""
    link.write_memory(0, content)
    beats = content.size // 8
    link.csr_write(START, beats)
    link.run(100 * beats)
    return link.read_memory(content.size, content.size), link.csr_read(CYCLES)


def test_time_stands_still(tmp_path):
    """The card reads and writes as with block RAM, in the same cycles; these take longer."""
    content = np.random.default_rng(1).integers(0, 256, 8 * BEATS, dtype=np.uint8)
    wanted = ~content.reshape(-1, 8)[::-1].reshape(-1)
    counted = {}
    for memory in VIRTUAL.memories:
        with powered(memory, tmp_path) as (virtual, link):
            before, lived = virtual.cycles, link.csr_read(ShellCsr.CYCLES)
            copy, counted[memory] = mirrored(link, content)
            stood = virtual.cycles - before - (link.csr_read(ShellCsr.CYCLES) - lived)
            assert np.array_equal(copy, wanted)
            if memory == "sdram":
                assert virtual.output("fault") == 0
                assert stood > 4 * BEATS
    assert counted == {"block": 2 * BEATS + 2, "sdram": 2 * BEATS + 2}


def test_memory_and_registers(tmp_path):
    """The host reads what it writes, at both ends of 32 MiB and in all banks."""
    rng = np.random.default_rng(2)
    with powered("sdram", tmp_path) as (virtual, link):
        check_registers(link, rng, 2 * SCRATCH_WORDS)
        span = 500
        others = (int(x) for x in rng.integers(1 << 20, 31 << 20, 3))
        check_memory(link, rng, [0, (32 << 20) - span, *others], span)
        assert link.csr_read(ShellCsr.FRAMES_DROPPED) == 0
        assert virtual.output("fault") == 0


@pytest.mark.parametrize("name", ["ecpix5", "tangmega"])
def test_boards_without_one(tmp_path, name):
    with pytest.raises(ValueError, match=f"the board {name} has no memory 'sdram'; choose one of:"):
        build(board(name), "tiny", tmp_path, memory="sdram")


@pytest.fixture(scope="module")
def bitstream(cache_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPSEEK_CACHE", str(cache_folder))
        built = build(
            board("ulx3s"),
            "tiny",
            tmp_path_factory.mktemp("boards"),
            freq_mhz=12.5,
            memory="sdram",
            netlist=True,
            make_shell=mirror_shell,
        )
    return built.bitstream


def test_placed_and_routed(bitstream, cache):
    """The same of the device's cells: gate of the clock, pads, and all between."""
    assert bitstream.name == "ulx3s-tiny-sdram.bit"
    manifest = Manifest.of(bitstream)
    assert (manifest.memory, manifest.card.memory_bytes) == ("SDRAM", 32 << 20)
    netlist = json.loads(gzip.decompress(netlist_path(bitstream).read_bytes()))
    cells = netlist["modules"]["top"]["cells"].values()
    gates = [cell["connections"] for cell in cells if cell["type"] == "DCCA"]
    sources = [gate["CLKI"] for gate in gates]
    # Card and board have gates of their own at the same source.
    assert any(sources.count(source) == 2 for source in sources)
    content = np.random.default_rng(3).integers(0, 256, 8 * 40, dtype=np.uint8)
    with contextlib.closing(open_board(bitstream, board="virtual", netlist=True)) as link:
        copy, cycles = mirrored(link, content)
        assert np.array_equal(copy, ~content.reshape(-1, 8)[::-1].reshape(-1))
        assert cycles == 2 * 40 + 2
        assert "SDRAM" in link.details()["card_memory"]
