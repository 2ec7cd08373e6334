"""The model of the link: against zlib, an independent decoder, and the protocol's own words."""

import zlib

import numpy as np
import pytest

from deepseek.sim.golden import link
from deepseek.sim.golden.link import Board, Deframer, ReplyFrame, request

MEMORY = 4096


def contents(rng: np.random.Generator, count: int) -> list[bytes]:
    """Return random contents, many of their bytes such that have to be escaped."""
    found = []
    for _ in range(count):
        size = int(rng.integers(0, 80))
        special = rng.choice([0x7D, 0x7E, 0x5D, 0x5E, 0x20], size=size)
        plain = rng.integers(0, 256, size=size)
        found.append(bytes(np.where(rng.random(size) < 0.4, special, plain).astype(np.uint8)))
    return found


def decode(line: bytes) -> list[bytes]:
    """Return the contents of the good frames in ``line``: RFC 1662, 4.2, without a state machine.

    Splits at the flags, undoes the escapes by replacing, and checks with zlib.
    """
    frames = []
    for piece in line.split(b"\x7e"):
        if not piece or piece.endswith(b"\x7d"):
            continue
        parts = piece.split(b"\x7d")
        plain = parts[0] + b"".join(bytes([part[0] ^ 0x20]) + part[1:] for part in parts[1:])
        if zlib.crc32(plain[:-4]) == int.from_bytes(plain[-4:], "little") and len(plain) >= 4:
            frames.append(plain[:-4])
    return frames


def test_check_sequence_of_the_standard_vector() -> None:
    assert link.check_sequence(b"123456789") == (0xCBF43926).to_bytes(4, "little")


def test_check_sequence_is_that_of_zlib() -> None:
    for content in contents(np.random.default_rng(1), 300):
        assert int.from_bytes(link.check_sequence(content), "little") == zlib.crc32(content)


def test_frame_by_hand() -> None:
    content = bytes([0x7E, 0x7D, 0x31, 0x11])
    fcs = zlib.crc32(content).to_bytes(4, "little")
    assert 0x7E not in fcs and 0x7D not in fcs
    assert link.frame(content) == b"\x7e\x7d\x5e\x7d\x5d\x31\x11" + fcs + b"\x7e"


def test_frames_are_read_by_an_independent_decoder() -> None:
    sent = contents(np.random.default_rng(2), 300)
    line = b"".join(map(link.frame, sent))
    assert decode(line) == sent
    assert Deframer().receive(line) == sent


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_damaged_frames(chunk: int) -> None:
    """Both decoders take the same frames out of a damaged line, however it is cut."""
    rng = np.random.default_rng(3)
    line = bytearray(b"".join(map(link.frame, contents(rng, 400))))
    for at in rng.integers(0, len(line), size=150):
        line[at] = rng.choice([rng.integers(0, 256), 0x7E, 0x7D])
    # An escape before an escape is not sent by anyone, and not the same to all decoders.
    damaged = bytes(line).replace(b"\x7d\x7d", b"\x7d")
    damaged = damaged.replace(b"\x7d\x7d", b"\x7d")
    deframer = Deframer()
    got = []
    for at in range(0, len(damaged), chunk):
        got += deframer.receive(damaged[at : at + chunk])
    assert got == decode(damaged)
    assert deframer.dropped > 100
    assert deframer.dropped + len(got) == sum(map(bool, damaged.split(b"\x7e")[:-1]))


def test_flags_may_be_shared_or_many() -> None:
    deframer = Deframer()
    one = link.frame(b"one")
    assert deframer.receive(one[:-1] + one + b"\x7e\x7e" + one) == [b"one"] * 3
    assert deframer.dropped == 0


def test_abort_and_garbage_are_counted() -> None:
    deframer = Deframer(shortest=2, longest=3)
    assert deframer.receive(b"noise" + link.frame(b"abc")[:-1] + b"\x7d\x7e") == []
    assert deframer.dropped == 2
    assert deframer.receive(b"\x7d\x7e") == [] and deframer.dropped == 3
    assert deframer.receive(link.frame(b"a") + link.frame(b"abcd")) == []
    assert deframer.dropped == 5
    assert deframer.receive(link.frame(b"ab") + link.frame(b"abc")) == [b"ab", b"abc"]


def ask(board: Board, content: bytes) -> ReplyFrame | None:
    """Send a request as a frame; return what is replied."""
    frames = decode(board.receive(link.frame(content)))
    assert len(frames) <= 1
    return ReplyFrame.parse(frames[0]) if frames else None


def test_memory_and_registers() -> None:
    board = Board(MEMORY)
    assert ask(board, request(7, link.HELLO)) == ReplyFrame(7, link.OK, b"\x01\0\0\0")
    assert ask(board, request(8, link.WRITE_MEMORY, 3, 5, b"hello")) == ReplyFrame(8, 0, b"")
    assert ask(board, request(9, link.READ_MEMORY, 1, 9)) == ReplyFrame(9, 0, b"\0\0hello\0\0")
    words = bytes(range(8))
    assert ask(board, request(10, link.WRITE_CSR, 0x100, 8, words)) == ReplyFrame(10, 0, b"")
    assert ask(board, request(11, link.READ_CSR, 0x104, 8)) == ReplyFrame(
        11, 0, words[4:] + b"\0" * 4
    )


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (request(0, 5, 0, 4), link.BAD_REQUEST),
        (request(0, 255, 0, 4), link.BAD_REQUEST),
        (request(0, link.READ_MEMORY, 0, 0), link.BAD_REQUEST),
        (request(0, link.READ_MEMORY, 0, 1025), link.BAD_REQUEST),
        (request(0, link.READ_MEMORY, 0, 1024), link.OK),
        (request(0, link.READ_MEMORY, MEMORY - 8, 8), link.OK),
        (request(0, link.READ_MEMORY, MEMORY - 8, 9), link.BAD_ADDRESS),
        (request(0, link.READ_MEMORY, 0xFFFFFFFF, 1), link.BAD_ADDRESS),
        (request(0, link.READ_MEMORY, 0, 4, b"more"), link.OK),
        (request(0, link.WRITE_MEMORY, 0, 4, b"123"), link.BAD_REQUEST),
        (request(0, link.WRITE_MEMORY, 0, 4, b"12345"), link.BAD_REQUEST),
        (request(0, link.WRITE_MEMORY, MEMORY - 3, 4, b"1234"), link.BAD_ADDRESS),
        (request(0, link.READ_CSR, 2, 4), link.BAD_REQUEST),
        (request(0, link.READ_CSR, 4, 6), link.BAD_REQUEST),
        (request(0, link.READ_CSR, 0xFFC, 4), link.OK),
        (request(0, link.READ_CSR, 0xFFC, 8), link.BAD_ADDRESS),
        (request(0, link.WRITE_CSR, 0x1000, 4, b"1234"), link.BAD_ADDRESS),
        (request(0, link.HELLO, 99, 99, b"more"), link.OK),
    ],
)
def test_replies(content: bytes, reply: int) -> None:
    board = Board(MEMORY)
    answer = ask(board, content)
    assert answer is not None and answer.reply == reply
    assert board.memory == bytes(MEMORY)
    assert board.expected == 1


def test_requests_are_answered_again_but_not_written_again() -> None:
    board = Board(MEMORY)
    first = request(0, link.WRITE_MEMORY, 0, 1, b"a")
    assert ask(board, first) == ReplyFrame(0, link.OK, b"")
    assert ask(board, request(1, link.WRITE_MEMORY, 0, 1, b"b")) == ReplyFrame(1, link.OK, b"")
    assert ask(board, first) == ReplyFrame(0, link.OK, b"")
    assert ask(board, request(2, link.READ_MEMORY, 0, 1)) == ReplyFrame(2, link.OK, b"b")
    board.memory[0] = ord("c")
    assert ask(board, request(2, link.READ_MEMORY, 0, 1)) == ReplyFrame(2, link.OK, b"c")
    assert board.expected == 3
    wrong = request(1, link.WRITE_MEMORY, MEMORY, 1, b"b")
    assert ask(board, wrong) == ReplyFrame(1, link.BAD_ADDRESS, b"")


@pytest.mark.parametrize("back", [1, 127])
def test_how_far_back_a_request_is_known(back: int) -> None:
    board = Board(MEMORY)
    ask(board, request(41, link.HELLO))
    assert ask(board, request(42 - back, link.READ_MEMORY, 0, 1)) is not None
    beyond = ask(board, request(42 - 128, link.READ_MEMORY, 0, 1))
    assert beyond == ReplyFrame(42, link.RESEND, b"")


def test_what_is_missing_is_asked_for_once_each_time() -> None:
    board = Board(MEMORY)

    def read(sequence: int) -> ReplyFrame | None:
        return ask(board, request(sequence, link.READ_MEMORY, 0, 1))

    resend = ReplyFrame(1, link.RESEND, b"")
    assert read(0) is not None
    assert [read(n) for n in (2, 3, 4)] == [resend, None, None]
    # The host has gone back, and the first one is lost again.
    assert [read(n) for n in (2, 3)] == [resend, None]
    assert read(0) == ReplyFrame(0, link.OK, b"\0")
    assert [read(n) for n in (5, 6)] == [resend, None]
    assert read(1) == ReplyFrame(1, link.OK, b"\0")
    assert read(3) == ReplyFrame(2, link.RESEND, b"")
    assert ask(board, request(200, link.HELLO)) is not None
    assert read(202) == ReplyFrame(201, link.RESEND, b"")


def test_a_reply_that_lies_about_its_length() -> None:
    with pytest.raises(ValueError, match="as long as it says"):
        ReplyFrame.parse(b"\x00\x00\x02\x00a")
