"""The host's side of the link, against the golden board, on lines that lie and with exact time."""

import json
import random
import shlex
import struct

import numpy as np
import pytest
from fake_board import Hostile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from deepseek.host.bench.link import Noise, SimulatedLine
from deepseek.host.cli import app
from deepseek.host.compiler.packing import Packer
from deepseek.host.transport import link as link_module
from deepseek.host.transport.framing import FrameReader, encode_frame
from deepseek.host.transport.link import Link, LinkError, PayloadSize
from deepseek.rtl.isa.link import (
    MAX_DATA,
    WINDOW_BYTES,
    LinkOp,
    Reply,
    ReplyHeader,
    RequestHeader,
    ShellCsr,
)
from deepseek.sim.golden import link as golden

BAUD = 3_000_000
MEMORY = 1 << 18

frames = st.binary(min_size=1, max_size=64) | st.lists(
    st.sampled_from([0x7D, 0x7E, 0x5D, 0x5E, 0]), min_size=1, max_size=40
).map(bytes)


class Board(golden.Board):
    """The golden board, its own framing included; keeps what it has carried out."""

    def __init__(self):
        super().__init__(MEMORY)
        self.done = []
        self.silent = False

    def answer(self, line):
        return [] if self.silent else [self.receive(line)]

    def _run(self, op, length, address, data, *, write):
        if write:
            self.done.append((LinkOp(op), address, length))
        return super()._run(op, length, address, data, write=write)


@pytest.fixture(autouse=True)
def faster_check(monkeypatch):
    """The golden check sequence goes bit by bit."""
    import zlib

    monkeypatch.setattr(golden, "check_sequence", lambda c: zlib.crc32(c).to_bytes(4, "little"))


def connected(
    board=None, *, there=bytes, back=bytes, latency=0.001, seed=0, line=SimulatedLine, **options
):
    board = board or Board()
    wire = line(board.answer, baud=BAUD, latency=latency, there=there, back=back)
    host = Link(wire, baud=BAUD, clock=wire.clock, seed=seed, **options)
    host.hello()
    return host, board, wire


def noise(nbytes, seed=0):
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8).tobytes()


@given(frames)
def test_frames_are_those_of_the_golden_model(content):
    assert encode_frame(content) == golden.frame(content)
    assert FrameReader().feed(golden.frame(content)) == [content]


@given(st.lists(frames, max_size=6), st.integers(0, 1 << 32), st.floats(0, 0.2))
def test_damaged_frames_are_dropped_as_by_the_golden_model(contents, seed, errors):
    line = Hostile(seed, errors=errors)(b"".join(map(golden.frame, contents)))
    reader, model = FrameReader(), golden.Deframer(shortest=1)
    chop = random.Random(seed)
    got = []
    rest = line
    while rest:
        count = chop.randrange(1, 9)
        got += reader.feed(rest[:count])
        rest = rest[count:]
    assert got == model.receive(line)
    assert reader.dropped == model.dropped


def test_a_line_without_flags_fills_no_memory():
    reader = FrameReader()
    for _ in range(100):
        assert reader.feed(bytes(1000)) == []
    assert len(reader._begun) < 3000
    assert reader.feed(b"\x7e" + golden.frame(b"after it")) == [b"after it"]
    assert reader.dropped == 1


def test_headers_are_those_of_the_specification():
    request = Packer(RequestHeader).pack(
        {"sequence": 0x12, "op": LinkOp.WRITE_MEMORY.value, "length": 0x345, "address": 0x6789ABCD}
    )
    packed = link_module._REQUEST.pack(0x12, LinkOp.WRITE_MEMORY.value, 0x345, 0x6789ABCD)
    assert packed == request.to_bytes(8, "little")
    reply = Packer(ReplyHeader).pack({"sequence": 7, "reply": Reply.RESEND.value, "length": 0x102})
    assert link_module._REPLY.pack(7, Reply.RESEND.value, 0x102) == reply.to_bytes(4, "little")


@pytest.mark.parametrize("latency", [0.0, 0.001, 0.002])
def test_a_clean_line_is_used_to_nine_tenths(latency):
    host, board, wire = connected(latency=latency)
    data = noise(200_000)
    begin = wire.clock()
    host.write_memory(64, data)
    host.flush()
    middle = wire.clock()
    assert host.read_memory(64, len(data)) == data
    end = wire.clock()
    assert bytes(board.memory[64 : 64 + len(data)]) == data
    limit = BAUD / 10
    assert len(data) / (middle - begin) > 0.9 * limit
    assert len(data) / (end - middle) > 0.9 * limit
    assert host.statistics.repeated == host.statistics.timeouts == 0
    assert host.statistics.data_written == len(data)


class Watched(SimulatedLine):
    """Holds the host to the protocol: its window, and no write behind a read without an answer."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._seen = FrameReader()
        self._sent = {}
        self.waiting = {}
        self.fullest = 0

    def write(self, data):
        (content,) = golden.Deframer().receive(data)
        sequence, op, _, _ = struct.unpack_from("<BBHI", content)
        again = self._sent.get(sequence) == content
        self._sent[sequence] = content
        if sequence not in self.waiting and not again:
            reads = [s for s, (kind, _) in self.waiting.items() if kind in golden_reads()]
            assert op in golden_reads() or not reads
            self.waiting[sequence] = (op, len(content))
            oldest = next(iter(self.waiting))
            assert (sequence - oldest) % 256 <= 127
        self.fullest = max(self.fullest, sum(size for _, size in self.waiting.values()))
        assert self.fullest <= WINDOW_BYTES
        super().write(data)

    def read(self):
        data = super().read()
        for content in self._seen.feed(data):
            if content[1] != golden.RESEND:
                self.waiting.pop(content[0], None)
        return data


def golden_reads():
    return (golden.HELLO, golden.READ_CSR, golden.READ_MEMORY)


HARM = [
    {"errors": 1e-4},
    {"errors": 1e-3},
    {"lost": 0.1},
    {"doubled": 0.2},
    {"cut": 0.1},
    {"errors": 3e-4, "lost": 0.05, "doubled": 0.05, "cut": 0.05},
]


@pytest.mark.parametrize(
    "harm", HARM, ids=lambda harm: "-".join(f"{k}{v}" for k, v in harm.items())
)
@pytest.mark.parametrize("seed", range(3))
def test_everything_arrives_once_and_in_order(harm, seed):
    host, board, _ = connected(
        there=Hostile(2 * seed, **harm), back=Hostile(2 * seed + 1, **harm), seed=seed, line=Watched
    )
    chance = random.Random(seed)
    model = bytearray(MEMORY)
    asked = []
    for number in range(40):
        address, count = chance.randrange(MEMORY - 5000), chance.randrange(1, 5000)
        what = chance.randrange(4)
        if what == 0:
            host.write_register(4 * number, number)
            asked.append((LinkOp.WRITE_CSR, 4 * number, 4))
        elif what == 1:
            assert host.read_memory(address, count) == model[address : address + count]
        elif what == 2:
            values = host.read_registers([4 * number, 4 * number + 4, 0x20])
            assert values[0] == 0
        else:
            data = chance.randbytes(count)
            host.write_memory(address, data)
            model[address : address + count] = data
            asked.append((LinkOp.WRITE_MEMORY, address, count))
    host.flush()
    assert board.memory == model
    writes = []
    for op, address, length in board.done:
        if op in (LinkOp.WRITE_CSR, LinkOp.WRITE_MEMORY):
            last = writes[-1] if writes else (None, 0, 0)
            wanted = asked[len(writes) - 1] if writes else (None, 0, 0)
            if last[0] is op and last[1] + last[2] == address and last[2] < wanted[2]:
                writes[-1] = (op, last[1], last[2] + length)
            else:
                writes.append((op, address, length))
    assert writes == asked


def test_an_answer_that_does_not_come_holds_the_others():
    """The board forgets requests that are more than 127 back."""
    host, _, wire = connected(line=Watched, give_up=100)
    for number in range(300):
        host.write_register(8 * number, number)
    host.flush()
    unlucky = []

    def swallow(data):
        (content,) = golden.Deframer().receive(data)
        if len(unlucky) < 60 and unlucky[:1] in ([], [content[0]]):
            unlucky.append(content[0])
            return b""
        return data

    wire._back = swallow
    assert host.read_registers([8 * number for number in range(300)]) == list(range(300))
    assert len(unlucky) == 60


def test_registers_in_a_row_are_one_request():
    host, board, _ = connected()
    for address in range(0x100, 0x110, 4):
        host.write_register(address, 0x1000 + address)
    host.flush()
    board.done.clear()
    order = [0x100, 0x104, 0x108, 0x30, 0x10C]
    assert host.read_registers(order) == [0x1100, 0x1104, 0x1108, 0, 0x110C]
    assert board.done == [
        (LinkOp.READ_CSR, 0x100, 12),
        (LinkOp.READ_CSR, 0x30, 4),
        (LinkOp.READ_CSR, 0x10C, 4),
    ]


def test_writes_do_not_wait_for_answers():
    host, _, wire = connected(latency=0.01)
    begin = wire.clock()
    for number in range(20):
        host.write_register(4 * number, number)
    assert wire.clock() == begin
    host.read_registers([0])
    assert wire.clock() - begin < 0.025


def test_payload_adapts():
    size = PayloadSize()
    assert size.size == MAX_DATA and size.clean
    for _ in range(200):
        size.tell(lost=True)
    assert size.size == 64 and not size.clean
    for _ in range(2000):
        size.tell(lost=False)
    assert size.size == MAX_DATA and size.clean


@pytest.mark.parametrize("errors", [1e-4, 3e-4])
def test_noise_costs_less_with_smaller_pieces(errors, monkeypatch):
    """Adapting must pay: the same transfer with pieces of one size takes longer."""

    def seconds():
        total = 0
        for seed in range(3):
            host, _, wire = connected(
                there=Noise(errors, seed), back=Noise(errors, 100 + seed), seed=seed
            )
            host.write_memory(0, noise(100_000))
            host.flush()
            total += wire.clock()
        return total

    adapted = seconds()
    monkeypatch.setattr(PayloadSize, "tell", lambda self, *, lost: None)
    assert seconds() > 1.1 * adapted


def test_silence_is_told_after_a_while():
    host, board, wire = connected()
    board.silent = True
    begin = wire.clock()
    with pytest.raises(LinkError, match=r"has not answered for 4 s; next: check that the port"):
        host.read_memory(0, 100)
    assert 4 < wire.clock() - begin < 6
    with pytest.raises(LinkError, match="the link is down; next: open the card again"):
        host.read_memory(0, 100)
    board.silent = False
    host.hello()
    assert host.read_memory(0, 100) == bytes(100)


def test_noise_instead_of_a_board():
    chance = random.Random(1)
    wire = SimulatedLine(lambda data: [chance.randbytes(50)], baud=BAUD, latency=0.001)
    host = Link(wire, baud=BAUD, clock=wire.clock)
    with pytest.raises(LinkError, match=r"though \d+ bytes came: the line is noisy, its speed is"):
        host.hello()


def test_an_echo_instead_of_a_board():
    wire = SimulatedLine(lambda data: [data], baud=BAUD, latency=0.001)
    host = Link(wire, baud=BAUD, clock=wire.clock)
    with pytest.raises(LinkError, match="the port sends back what it is sent; next: check"):
        host.hello()


def test_another_version_of_the_protocol(monkeypatch):
    monkeypatch.setattr(golden, "VERSION", 9)
    with pytest.raises(LinkError, match=r"version 9 of the link's protocol, this host version 1"):
        connected()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda host: host.read_memory(MEMORY - 4, 8), "refused READ_MEMORY of 8 bytes at 0x3fffc"),
        (
            lambda host: host.write_memory(MEMORY, b"x"),
            "refused WRITE_MEMORY of 1 bytes at 0x40000",
        ),
        (lambda host: host.read_registers([2]), "refused READ_CSR of 4 bytes at 0x2: it does not"),
    ],
)
def test_what_the_board_refuses_is_an_error_of_its_own(act, message):
    host, _, _ = connected()
    with pytest.raises(LinkError, match=message):
        act(host)
        host.flush()
    # The link goes on.
    assert host.read_registers([ShellCsr.CYCLES]) == [0]


def test_an_interrupted_read_does_not_let_a_write_pass():
    host, board, wire = connected(line=Watched)
    honest = wire.read

    def interrupted():
        raise KeyboardInterrupt

    wire.read = interrupted
    with pytest.raises(KeyboardInterrupt):
        host.read_memory(0, 50_000)
    assert len(wire.waiting) > 2
    wire.read = honest
    host.write_memory(0, b"later")
    assert host.read_memory(0, 5) == b"later"
    assert board.done[-2:] == [(LinkOp.WRITE_MEMORY, 0, 5), (LinkOp.READ_MEMORY, 0, 5)]


def test_a_host_that_was_away():
    """Answers that have waited for the host are not late."""
    host, _, wire = connected()
    host.write_memory(0, noise(4000))
    wire._now += 100.0
    assert host.read_memory(0, 4000) == noise(4000)
    assert host.statistics.timeouts == host.statistics.repeated == 0


def test_a_host_that_was_stopped_tries_again():
    lost = [b"frame"]
    host, _, wire = connected()
    wire._back = lambda data: lost.clear() or b"" if lost else data
    honest = wire.read

    def stopped():
        wire._now += 100.0
        wire.read = honest
        return b""

    wire.read = stopped
    assert host.read_memory(0, 4) == bytes(4)
    assert not lost


def test_a_board_that_has_restarted():
    host, board, _ = connected(seed=5)
    for number in range(60):
        host.write_register(0, number)
    host.flush()
    board.expected = (board.expected + 200) % 256
    with pytest.raises(LinkError, match="speaks of other requests: it was reset or loaded again"):
        host.read_memory(0, 4)
    host.hello()
    assert host.read_memory(0, 4) == bytes(4)


def bench(line):
    return CliRunner().invoke(app, shlex.split("bench link " + line))


def test_bench_link():
    result = bench("--bytes 2e5 --errors 1e-4 --runs 2 --seed 7 --json")
    assert result.exit_code == 0, result.stderr
    runs = [json.loads(line) for line in result.stdout.splitlines()]
    assert [run["seed"] for run in runs] == [7, 8]
    for run in runs:
        assert (run["name"], run["wrong_bytes"], run["bit_exact"]) == ("link", 0, True)
        assert run["spoilt"] > 0 and run["repeated"] > 0
        assert 0.5 < run["write_of_limit"] < 1 and 0.5 < run["read_of_limit"] < 1
    result = bench("--bytes 1e5")
    assert result.exit_code == 0, result.stderr
    assert "link to golden model: 100,000 bytes each way, 3,000,000 baud, 0 err" in result.stdout


def test_bench_link_prints_no_figure_of_wrong_bytes(monkeypatch):
    def careless(escaped):
        return escaped[:-4] or None

    monkeypatch.setattr("deepseek.host.transport.framing._decode", careless)
    result = bench("--bytes 1e5 --errors 3e-4 --json")
    assert result.exit_code != 0
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--bytes 0", "--bytes must be from 1 to 2^30, not 0"),
        ("--bytes 1.5", "--bytes must be a whole number, not 1.5"),
        ("--bytes nan", "--bytes must be a whole number, not nan"),
        ("--bytes inf", "--bytes must be a whole number, not inf"),
        ("--bitstream x --bytes 0", "--bytes must be at least 1, not 0"),
        ("--errors 1", "--errors must be a probability below 1, not 1.0"),
        ("--errors -0.1", "--errors must be a probability below 1, not -0.1"),
        ("--errors nan", "--errors must be a probability below 1, not nan"),
        ("--baud 0", "--baud must be at least 1, not 0"),
        ("--baud inf", "--baud must be a whole number, not inf"),
        ("--latency -1", "--latency must be a number of at least 0, not -1.0"),
        ("--latency nan", "--latency must be a number of at least 0, not nan"),
        ("--latency inf", "--latency must be a number of at least 0, not inf"),
        ("--runs 0", "--runs must be at least 1, not 0"),
        ("--seed -1", "--seed must be at least 0, not -1"),
        ("--port x", "--port needs a bitstream: add --bitstream FILE"),
        ("--bitstream x --errors 0.1", "--errors, --baud and --latency are for a simulated line"),
    ],
)
def test_bench_link_takes_no_nonsense(line, message):
    result = bench(line)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}; ")
