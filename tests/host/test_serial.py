"""Cards behind a serial port of the operating system: the board is a fake, all else is real."""

import dataclasses
import os
import random
import threading
import time

import numpy as np
import pytest
from fake_board import (
    BUILD,
    FakeBoard,
    Hostile,
    Terminal,
    board_config,
    check_copy,
    copy,
    make_bitstream,
    open_card,
)

from deepseek.boards.manifest import ManifestError
from deepseek.host.allocator import OutOfMemoryError
from deepseek.host.card import Card
from deepseek.host.compiler import commands
from deepseek.host.errors import CardError, CardMismatchError, CardTimeoutError
from deepseek.host.transport import LinkError, SetupError, open_transport, serial
from deepseek.host.transport.ports import SerialPort
from deepseek.rtl.isa import ABI_VERSION, Csr
from deepseek.rtl.isa.link import LINK_VERSION, LinkOp


@pytest.fixture
def impatient(monkeypatch):
    """For boards that do not answer; others may take their time on a loaded machine."""
    monkeypatch.setattr(serial, "GIVE_UP_S", 0.3)


@pytest.fixture
def bitstream(tmp_path):
    return make_bitstream(tmp_path)


@pytest.fixture
def board():
    return FakeBoard(board_config())


def test_a_card_behind_a_terminal_is_like_any_other(bitstream, board):
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        info = card.info()
        assert (info.backend, info.preset, info.build) == ("board", "tiny", f"{BUILD:016x}")
        assert info.memory_bytes == 256 << 10
        assert info.free_bytes >= 240 << 10
        result = check_copy(card)
        with Card.open("functional", preset=board_config()) as other:
            assert check_copy(other) == result
        assert card.transport.cycles > 0
        assert card.transport.cycles_modelled is False
        assert card.transport.statistics.data_written > 4096
        assert card.transport.details()["port"] == terminal.port


def test_a_job_takes_few_round_trips(bitstream, board):
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        source, target = card.allocate(256), card.allocate(256)
        card.read(source)
        before = dataclasses.replace(card.transport.statistics)
        card.submit(copy(card, source, target)).wait()
        after = card.transport.statistics
        assert after.requests - before.requests < 20


@pytest.mark.parametrize("register", [Csr.COMPLETED, Csr.RING_HEAD, Csr.STATE])
def test_a_job_that_ends_while_the_host_looks(bitstream, board, register, monkeypatch):
    """Between two requests a card that runs by itself does what it likes."""
    monkeypatch.setattr("deepseek.host.waiting.RUN_S", 0.001)
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        source, target = card.allocate(64), card.allocate(64)
        card.write(source, np.arange(64, dtype=np.uint8))
        job = card.submit(copy(card, source, target))
        if register is Csr.COMPLETED:
            monkeypatch.setattr("deepseek.host.waiting.RUN_S", 1000.0)
        board.moment = lambda op, address: op is LinkOp.READ_CSR and address == register
        before = card.transport.statistics.requests
        job.wait()
        assert card.transport.statistics.requests - before < 40
        assert np.array_equal(card.read(target), np.arange(64))


def test_jobs_longer_than_the_ring(bitstream, board):
    """The ring of a small memory is small; the board's card fetches while the host writes."""
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        source, target = card.allocate(64), card.allocate(64)
        for length in (5, 127, 500, 1):
            card.write(source, np.full(64, length % 251, np.uint8))
            fill = [commands.barrier()] * length
            card.submit(fill + copy(card, source, target)).wait()
            assert (card.read(target) == length % 251).all()
        assert board.card.csr_read(Csr.RING_SIZE) == 128


@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_errs_changes_nothing(bitstream, board, seed):
    harm = {"errors": 2e-4, "lost": 0.01, "doubled": 0.02, "cut": 0.01}
    there, back = Hostile(2 * seed, **harm), Hostile(2 * seed + 1, **harm)
    with (
        Terminal(board.answer, there=there, back=back) as terminal,
        open_card(bitstream, terminal) as card,
    ):
        for number in range(4):
            check_copy(card, 16 << 10, number)
        assert card.transport.statistics.repeated


def test_what_does_not_fit_says_what_it_needs_and_has(bitstream, board):
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        with pytest.raises(OutOfMemoryError, match=r"300000 bytes requested.*, 245760 free"):
            card.allocate(300_000)


def test_no_such_port(bitstream, tmp_path):
    with pytest.raises(SetupError, match=r"cannot open .*nothing: there is no such port; next: "):
        Card.open("board", bitstream=bitstream, port=str(tmp_path / "nothing"), load=False)


def test_a_port_that_is_no_port(bitstream, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(SetupError, match="cannot open"):
        Card.open("board", bitstream=bitstream, port=str(path), load=False)


def test_a_busy_port(bitstream, board):
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        with pytest.raises(SetupError, match="another program has it open; next: close that one"):
            open_card(bitstream, terminal)
        check_copy(card)
        card.close()
        card.close()
        with open_card(bitstream, terminal) as again:
            check_copy(again)


def test_a_port_is_free_after_ctrl_c_while_it_closes(bitstream, board, monkeypatch):
    with Terminal(board.answer) as terminal:
        card = open_card(bitstream, terminal)

        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr(card.transport._link, "flush", interrupt)
        with pytest.raises(KeyboardInterrupt):
            card.close()
        SerialPort(terminal.port, 115_200).close()


def test_registers_take_32_bits(bitstream, board):
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        for value in (-1, 1 << 32):
            with pytest.raises(ValueError, match=f"a register takes 32 bits, not {value}"):
                card.transport.csr_write(Csr.WATCHDOG, value)
        check_copy(card)


def test_nothing_is_left_of_another_host(bitstream, board):
    board.card.csr_write(Csr.WATCHDOG, 7)
    board.card.csr_write(Csr.RING_TAIL, 9)
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        assert card.transport.csr_read(Csr.WATCHDOG) == 100_000
        check_copy(card)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build": 0x1234}, "build hash is 0000000000001234, the manifest says 0123456789abcdef"),
        ({"clock_hz": 12_000_000}, "clock is 12,000,000 Hz, the manifest says 25,000,000 Hz"),
        ({"version": 7}, "speaks version 7 of the link's protocol, this host version 1"),
    ],
)
def test_another_bitstream_on_the_board(bitstream, changes, message):
    board = FakeBoard(board_config(), **changes)
    with Terminal(board.answer) as terminal:
        with pytest.raises((SetupError, LinkError), match=message):
            open_card(bitstream, terminal)
        # The port is free again.
        SerialPort(terminal.port, 115_200).close()


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (Csr.ID, "something answers on .*, but no card: its identification reads 0x00001234"),
        (Csr.ABI, "its instruction set version is 4660, the manifest says"),
    ],
)
def test_another_card_on_the_board(bitstream, board, register, message):
    honest = board.card.csr_read
    board.card.csr_read = lambda address: 0x1234 if address == register else honest(address)
    with Terminal(board.answer) as terminal, pytest.raises(SetupError, match=message):
        open_card(bitstream, terminal)


def test_another_geometry_on_the_board(tmp_path, board):
    config = dataclasses.replace(board_config(), operand_depth=512)
    bitstream = make_bitstream(tmp_path, config)
    with Terminal(board.answer) as terminal:
        with pytest.raises(CardMismatchError, match="operand depth is 1024, expected 512"):
            open_card(bitstream, terminal)


def test_a_silent_board(bitstream, impatient):
    with Terminal(lambda data: []) as terminal:
        with pytest.raises(LinkError, match=r"has not answered for 0\.3 s; next: check that the p"):
            open_card(bitstream, terminal)


def test_noise_instead_of_a_board(bitstream, impatient):
    chance = random.Random(3)
    with Terminal(lambda data: [chance.randbytes(100)]) as terminal:
        with pytest.raises(LinkError, match=r"though \d+ bytes came: the line is noisy"):
            open_card(bitstream, terminal)


def test_noise_without_end(bitstream, impatient):
    """Bytes that come all the time are no reason to wait for ever."""
    chance = random.Random(3)
    with Terminal(lambda data: []) as terminal:
        ended = threading.Event()

        def make_noise():
            while not ended.is_set():
                terminal._send(chance.randbytes(200))
                time.sleep(0.001)

        noise = threading.Thread(target=make_noise)
        noise.start()
        try:
            with pytest.raises(LinkError, match=r"though \d+ bytes came: the line is noisy"):
                open_card(bitstream, terminal)
        finally:
            ended.set()
            noise.join()


def test_noise_before_a_board_answers(bitstream, board):
    """What the adapter held from before is not taken for answers."""
    with Terminal(board.answer) as terminal:
        os.write(terminal._master, random.Random(4).randbytes(3000))
        with open_card(bitstream, terminal) as card:
            check_copy(card)


def test_the_cable_is_pulled_in_a_transfer(bitstream, board):
    with Terminal(board.answer, cut_after=100_000) as terminal:
        card = open_card(bitstream, terminal)
        buffer = card.allocate(200 << 10)
        message = "the line to the board was cut .* next: plug it in and run the command again"
        with pytest.raises(LinkError, match=message):
            card.write(buffer, np.zeros(buffer.nbytes, np.uint8))
            card.read(buffer)
        with pytest.raises(LinkError, match="the link is down"):
            card.read(buffer, nbytes=1)
        card.close()
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        check_copy(card)


def test_the_cable_is_pulled_in_a_job(bitstream, board):
    """The job hangs on; after the cable is plugged in the card is reset and usable."""
    with Terminal(board.answer) as terminal:
        card = open_card(bitstream, terminal)
        source, target = card.allocate(4096), card.allocate(4096)
        board.hangs = True
        job = card.submit(copy(card, source, target))
        threading.Timer(0.3, terminal.cut).start()
        begin = time.monotonic()
        with pytest.raises(LinkError, match="the line to the board was cut"):
            job.wait()
        assert time.monotonic() - begin < 5
        card.close()
    assert board.card.csr_read(Csr.RING_TAIL)
    board.hangs = False
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        assert board.card.csr_read(Csr.RING_TAIL) == 0
        check_copy(card)


@pytest.mark.parametrize("deadline", [{}, {"max_cycles": 10_000_000}, {"deadline_s": 0.5}])
def test_a_card_that_never_finishes(bitstream, board, deadline, monkeypatch):
    monkeypatch.setattr("deepseek.host.waiting.JOB_S", 1)
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        source, target = card.allocate(4096), card.allocate(4096)
        board.hangs = True
        begin = time.monotonic()
        with pytest.raises(CardTimeoutError, match=r"the job did not end within [\d]+ cycles"):
            card.submit(copy(card, source, target)).wait(**deadline)
        assert time.monotonic() - begin < 10
        board.hangs = False
        check_copy(card)


def test_a_full_ring_that_nothing_empties(bitstream, board, monkeypatch):
    monkeypatch.setattr("deepseek.host.waiting.JOB_S", 1)
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        board.hangs = True
        with pytest.raises(CardError, match="the ring is full and the card takes no command"):
            card.submit([commands.barrier()] * 200)
        board.hangs = False
        check_copy(card)


def test_a_card_whose_clock_stands_still(bitstream, board, monkeypatch):
    monkeypatch.setattr(serial, "SLACK_S", 0.2)
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        source, target = card.allocate(4096), card.allocate(4096)
        board.stopped = True
        with pytest.raises(CardTimeoutError, match="the job did not end within 0 cycles"):
            card.submit(copy(card, source, target)).wait()
        board.stopped = False
        check_copy(card)


def test_a_board_that_restarts(bitstream, board):
    with Terminal(board.answer) as terminal, open_card(bitstream, terminal) as card:
        check_copy(card)
        board.cycles = 0
        source, target = card.allocate(4096), card.allocate(4096)
        with pytest.raises(LinkError, match="the board has restarted: its cycles count anew"):
            card.submit(copy(card, source, target)).wait()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"abi": ABI_VERSION + 1}, f"has version {ABI_VERSION + 1} of the instruction set, this"),
        ({"link_version": LINK_VERSION + 4}, "version 5 of the link's protocol, this host drives"),
        ({"board": "ecpix5"}, "card.bit is for the board ecpix5 (LFE5U-85F), not ulx3s; next: b"),
        ({"board": "virtual"}, "card.bit is for the board virtual (LFE5U-85F), not ulx3s; next: "),
    ],
)
def test_a_bitstream_for_something_else(tmp_path, changes, message):
    bitstream = make_bitstream(tmp_path, **changes)
    with pytest.raises(SetupError) as raised:
        open_transport("board", bitstream=bitstream, board="ulx3s", port="/dev/null", load=False)
    assert message in str(raised.value)


def test_a_truncated_bitstream_and_one_without_a_manifest(bitstream):
    whole = bitstream.read_bytes()
    bitstream.write_bytes(whole[:-10])
    with pytest.raises(ManifestError, match="is truncated: 890 of 900 bytes"):
        open_transport("board", bitstream=bitstream)
    bitstream.write_bytes(whole)
    bitstream.with_name("card.bit.json").unlink()
    with pytest.raises(ManifestError, match="has no manifest"):
        open_transport("board", bitstream=bitstream)


def test_arguments_that_do_not_go_together(bitstream):
    with pytest.raises(ValueError, match="the board backend needs a bitstream: --bitstream FILE"):
        Card.open("board")
    with pytest.raises(ValueError, match="are for a board, not for 'functional'"):
        Card.open("functional", bitstream=bitstream)
    with pytest.raises(ValueError, match="the board backend has no waves"):
        Card.open("board", bitstream=bitstream, waves="x.vcd")
    with pytest.raises(ValueError, match="the virtual board has a port of its own, not 'x'"):
        Card.open("board", bitstream=bitstream, board="virtual", port="x")
