"""The whole board, from the driver through the operating system's terminal to the pins and back."""

import json
import os
import sys
import threading
import time

import numpy as np
import pytest
from board_jobs import (
    CONFIG,
    DATA,
    RECORD,
    SHOWN_BYTES,
    VIRTUAL,
    begin,
    check_job,
    check_memory_beside_a_job,
    connected,
    outcome,
    ring_doorbell,
    small_job,
    start_job,
)
from typer.testing import CliRunner
from vcd.reader import TokenKind, tokenize

from deepseek.boards.flow.build import build
from deepseek.host.card import Card
from deepseek.host.cli import app
from deepseek.host.transport.link import LinkError
from deepseek.host.workloads import digits
from deepseek.rtl.isa import Csr, Opcode
from deepseek.rtl.isa.link import ShellCsr
from deepseek.sim.functional.assemble import command, semaphore
from deepseek.sim.functional.card import FunctionalCard
from deepseek.sim.verilated.board import REST_CYCLES, VirtualBoard


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(VIRTUAL, "tiny", tmp_path_factory.mktemp("bitstream"))


@pytest.fixture(scope="module")
def manifest(built):
    return built.manifest


@pytest.fixture(scope="module")
def virtual(manifest):
    with VirtualBoard(
        manifest.card,
        build_hash=manifest.build,
        clock_hz=manifest.clock_hz,
        baud=manifest.baud,
    ) as powered:
        yield powered


@pytest.fixture
def link(virtual, manifest):
    with connected(virtual, manifest) as transport:
        yield transport


def test_registers_and_memory(link, virtual, rng):
    """What was written is read, wherever it begins and ends; the neighbours stay as they are."""
    assert link.csr_read(ShellCsr.CLOCK_HZ) == VIRTUAL.clock_hz
    assert link.csr_read(Csr.MEMORY_BYTES) == CONFIG.memory_bytes == 256 << 10
    assert 0 < link.cycles < virtual.cycles
    span = 5000
    image = rng.integers(0, 256, span, dtype=np.uint8)
    for base in (0, CONFIG.memory_bytes - span):
        link.write_memory(base, image)
        for _ in range(20):
            first = int(rng.integers(span))
            piece = rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8)[: span - first]
            image[first : first + piece.size] = piece
            link.write_memory(base + first, piece)
            first = int(rng.integers(span - 40))
            assert np.array_equal(link.read_memory(base + first, 40), image[first : first + 40])
        assert np.array_equal(link.read_memory(base, span), image)
    assert link.csr_read(ShellCsr.FRAMES_DROPPED) == 0


def test_jobs(link, rng, times):
    """The same bytes on the board and on the functional simulator leave the same bytes."""
    for _ in range(3 * times):
        check_job(link, rng)


def test_lights(link, virtual, rng):
    begin(link)
    assert virtual.output("activity")
    ring_doorbell(link, [command(Opcode.LOAD, {"x_bytes": 3, "y": 1, "z": 1}, operands=[0, 0])])
    link.run(100_000)
    assert link.csr_read(Csr.ERROR) & 0xFF
    assert virtual.output("error") and virtual.output("running")
    check_job(link, rng)


def test_memory_while_a_job_runs(link, rng):
    check_memory_beside_a_job(link, rng)


def test_cable_pulled_in_a_transfer(virtual, manifest, rng):
    """The transfer fails at once; after reconnection all is as before."""
    for write in (True, False):
        with connected(virtual, manifest) as link:
            before = virtual.cycles
            failed = []

            def transfer(link=link, write=write, failed=failed):
                try:
                    if write:
                        link.write_memory(0, rng.integers(0, 256, 100_000, dtype=np.uint8))
                        link.csr_read(Csr.STATE)
                    else:
                        link.read_memory(0, 100_000)
                except LinkError as error:
                    failed.append(str(error))

            worker = threading.Thread(target=transfer)
            worker.start()
            while virtual.cycles < before + 100_000:
                time.sleep(0.01)
            virtual.cut()
            cut = time.monotonic()
            worker.join(60)
            assert time.monotonic() - cut < 5
            assert len(failed) == 1
        virtual.reconnect()
        with connected(virtual, manifest) as link:
            check_job(link, rng)


def test_job_ends_without_cable(virtual, manifest, rng):
    writes, commands = small_job(rng)
    functional = FunctionalCard(CONFIG)
    blank = np.zeros(SHOWN_BYTES, np.uint8)
    functional.write_memory(DATA, blank)
    start_job(functional, writes, commands)
    functional.run(2_000_000)
    with connected(virtual, manifest) as link:
        link.write_memory(DATA, blank)
        start_job(link, writes, commands)
        link.csr_read(Csr.STATE)
        virtual.cut()
    before = -1
    while before != virtual.cycles:
        before = virtual.cycles
        time.sleep(0.2)
    virtual.reconnect()
    with connected(virtual, manifest) as link:
        assert outcome(link) == outcome(functional)


def test_cable_pulled_in_a_job_that_hangs(virtual, manifest, rng):
    """The job still hangs after reconnection; a reset frees the card."""
    never = command(
        Opcode.LOAD, {"x_bytes": 16, "y": 1, "z": 1}, operands=[0, 0], wait=[semaphore(3)]
    )
    with connected(virtual, manifest) as link:
        begin(link)
        link.csr_write(Csr.WATCHDOG, 0xFFFFFFFF)
        end = command(Opcode.END, {"completion": RECORD, "tag": 1})
        ring_doorbell(link, [never, end])
        assert link.csr_read(Csr.STATE) & 1
        assert virtual.output("busy") and virtual.output("running")
        virtual.cut()
    before = virtual.cycles
    while virtual.cycles < before + 5 * REST_CYCLES:
        time.sleep(0.01)
    virtual.reconnect()
    with connected(virtual, manifest) as link:
        assert link.csr_read(Csr.STATE) & 1
        assert link.csr_read(Csr.COMPLETED) == 0
        check_job(link, rng)


def host(*words):
    return CliRunner().invoke(app, ["run", *map(str, words)])


def test_workload_from_the_command_line(built):
    """The same tensors as everywhere, and with ideal memory the same cycles as the RTL alone."""
    words = ("digits", "--limit", 3, "--bitstream", built.bitstream, "--memory", "ideal", "--json")
    result = host(*words, "--board", "virtual")
    assert result.exit_code == 0, result.stderr
    fields = json.loads(result.stdout)
    assert fields["bit_exact"] and fields["backend"] == "board"
    results = {}
    for backend in ("functional", "rtl"):
        with Card.open(backend, preset=CONFIG, memory="ideal") as card:
            # A job that comes 16 cycles after the reset waits for the semaphores to be cleared:
            # no line is as fast as that.
            card.transport.csr_read(Csr.STATE)
            results[backend] = digits.run(card, 3)
            assert results[backend].bit_exact
    assert fields["cycles"] == results["rtl"].cycles
    for other in results.values():
        assert fields["accuracy"] == other.accuracy
        for counter in ("mac_active", "bytes_read", "bytes_written"):
            assert fields[counter] == getattr(other.counters, counter)


def test_steps_and_capture_in_a_terminal(built, tmp_path, monkeypatch, capsys):
    """Somebody at a terminal steps through a run, while the chip captures; the result is right."""
    path = tmp_path / "card.vcd"
    words = f"run digits --limit 1 --json --board virtual --bitstream {built.bitstream} --step"
    words += f" --capture {path} --trigger compute.start=1,compute.ready=1 --after 100"
    keyboard, terminal = os.openpty()
    os.write(keyboard, b"\n2\nc\n")
    with os.fdopen(terminal, encoding="ascii") as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        app(words.split(), standalone_mode=False)
    os.close(keyboard)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["bit_exact"]
    steps = [line for line in shown.err.splitlines() if line.startswith("[")]
    assert [step.split("]")[0] for step in steps] == ["[0", "[1", "[2", "[3"]
    assert "LOAD(" in steps[0]
    assert shown.err.count("\n    ") == 3 and "bytes read" in shown.err
    assert "trigger in cycle" in shown.err

    changes, time_ps, names = {}, 0, {}
    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.VAR:
                names[token.data.id_code] = token.data.reference
            elif token.kind is TokenKind.CHANGE_TIME:
                time_ps = token.data
            elif token.kind is TokenKind.CHANGE_SCALAR:
                changes.setdefault(names[token.data.id_code], []).append(
                    (time_ps, token.data.value)
                )
    rises = [time for time, value in changes["trigger"] if value == "1"]
    assert len(rises) == 1
    assert any(value == "1" for _, value in changes["read_beat"])
    assert time_ps > rises[0]


def test_cable_pulled_under_the_command_line(built, monkeypatch):
    """One line with the next step and exit code 2; nothing hangs."""

    class Loose(VirtualBoard):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            threading.Thread(target=self.pull, daemon=True).start()

        def pull(self):
            while self.cycles < 200_000:
                time.sleep(0.01)
            self.cut()

    monkeypatch.setattr("deepseek.sim.verilated.board.VirtualBoard", Loose)
    result = host("digits", "--bitstream", built.bitstream)
    assert result.exit_code == 2
    assert result.stdout == ""
    message = result.stderr.splitlines()[-1]
    assert message.startswith("error: ") and "next: " in message
