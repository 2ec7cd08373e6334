"""A card whose memory makes it wait lives the same cycles as one whose memory is block RAM."""

import pytest
from board_jobs import (
    CONFIG,
    VIRTUAL,
    check_job,
    check_memory_beside_a_job,
    connected,
)
from slow_memory import SlowMemory

from deepseek.boards.flow.build import build
from deepseek.host.capture import SIGNALS, Capture
from deepseek.host.card import Card
from deepseek.host.workloads import digits
from deepseek.rtl.isa import Csr
from deepseek.rtl.isa.link import ShellCsr
from deepseek.rtl.shell import Shell
from deepseek.sim.verilated.board import VirtualBoard
from deepseek.sim.verilated.convert import to_design
from deepseek.sim.verilated.late_reset import LateReset
from deepseek.sim.verilated.surroundings import Surroundings

LATENCY, SEED = 9, 0x1234567


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return build(VIRTUAL, "tiny", tmp_path_factory.mktemp("bitstream")).manifest


def power(manifest, design=None):
    return VirtualBoard(
        manifest.card,
        build_hash=manifest.build,
        clock_hz=manifest.clock_hz,
        baud=manifest.baud,
        design=design,
    )


@pytest.fixture(scope="module")
def block(manifest):
    with power(manifest) as board:
        yield board


@pytest.fixture(scope="module")
def held(manifest):
    shell = Shell(
        manifest.card,
        clock_hz=manifest.clock_hz,
        baud=manifest.baud,
        build_hash=manifest.build,
        memory=SlowMemory(manifest.card, latency=LATENCY, seed=SEED),
    )
    top = LateReset(Surroundings(shell, clock_hz=manifest.clock_hz))
    with power(manifest, to_design(top, "board", arrays=True)) as board:
        yield board


def test_the_same_cycles(block, held, manifest):
    """Cycles, counters and tensors of a network, and every cycle of it that a capture shows."""
    results, views, lived, passed = {}, {}, {}, {}
    for name, board in (("block", block), ("held", held)):
        with connected(board, manifest) as link:
            begin, start = link.csr_read(ShellCsr.CYCLES), board.cycles
            capture = Capture(link)
            capture.arm("compute.start=1,compute.ready=1", after=400)
            results[name] = digits.run(Card(link, memory="ideal"), 1)
            views[name] = view(capture.read())
            lived[name] = link.csr_read(ShellCsr.CYCLES) - begin
            passed[name] = board.cycles - start
    one, other = results["block"], results["held"]
    assert one.bit_exact and other.bit_exact
    assert one.cycles == other.cycles
    assert one.counters == other.counters
    assert views["block"] == views["held"] and len(set(views["block"])) > 20
    # Its clock did stand still.
    assert lived["block"] + 100_000 > passed["block"]
    assert passed["held"] > lived["held"] + 1000


def view(recording):
    """Return what the probe shows in each of the cycles after the trigger, but for the host."""
    shown = (1 << 64) - 1
    for name in ("irq", "host_write", "host_address"):
        offset, width = SIGNALS[name]
        shown &= ~(((1 << width) - 1) << offset)
    assert recording.trigger is not None
    found, at = [], 0
    for cycle in range(recording.trigger, recording.trigger + 400):
        while at + 1 < len(recording.cycles) and recording.cycles[at + 1] <= cycle:
            at += 1
        found.append(recording.values[at] & shown)
    assert recording.cycles[-1] >= recording.trigger + 400
    return found


def test_jobs(held, manifest, rng, times):
    """With the timing of HBM, after errors too; the host uses memory meanwhile."""
    with connected(held, manifest) as link:
        for _ in range(2 * times):
            check_job(link, rng)
        check_memory_beside_a_job(link, rng)


def test_registers(held, manifest, rng):
    """All of card, shell and capture, one after the other and many at once."""
    with connected(held, manifest) as link:
        assert link.csr_read(ShellCsr.CLOCK_HZ) == manifest.clock_hz
        assert link.csr_read(Csr.MEMORY_BYTES) == CONFIG.memory_bytes
        values = {}
        for _ in range(100):
            register = int(rng.choice([ShellCsr.CAPTURE_MASK, ShellCsr.CAPTURE_VALUE_HIGH]))
            register = int(rng.choice([register, Csr.RING_BASE, Csr.WATCHDOG]))
            values[register] = int(rng.integers(1 << 10)) << 7
            link.csr_write(register, values[register])
        assert link.csr_read_many(list(values)) == list(values.values())
        assert link.csr_read(ShellCsr.FRAMES_DROPPED) == 0
