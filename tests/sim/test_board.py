# amaranth: UnusedElaboratable=no
"""The virtual board's terminal and its time, on a design that sends back what it receives."""

import contextlib
import os
import select
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from deepseek.rtl.config import preset
from deepseek.rtl.hostport.uart import UartReceiver, UartTransmitter
from deepseek.sim.verilated.board import REST_CYCLES, VirtualBoard
from deepseek.sim.verilated.convert import to_design

SLOW = 60
"""Seconds within which everything happens that has to happen."""


class Echo(wiring.Component):
    """Sends every byte back; its lowest bit is ``busy`` from then on."""

    rx: In(1)
    tx: Out(1)
    busy: Out(1)

    def __init__(self, **rates):
        self.rates = rates
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(**self.rates)
        m.submodules.transmitter = transmitter = UartTransmitter(**self.rates)
        m.submodules.fifo = fifo = SyncFIFO(width=8, depth=64)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            fifo.w_data.eq(receiver.bytes.payload),
            fifo.w_en.eq(receiver.bytes.valid),
            transmitter.bytes.payload.eq(fifo.r_data),
            transmitter.bytes.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(transmitter.bytes.ready),
            self.tx.eq(transmitter.tx),
        ]
        with m.If(receiver.bytes.valid):
            m.d.sync += self.busy.eq(receiver.bytes.payload[0])
        return m


@contextlib.contextmanager
def echo(clock_hz=12_000_000, baud=3_000_000):
    rates = {"clock_hz": clock_hz, "baud": baud}
    design = to_design(Echo(**rates), "echo")
    with VirtualBoard(preset("tiny"), build_hash=0, design=design, **rates) as board:
        yield board


@contextlib.contextmanager
def opened(port):
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def receive(descriptor, count):
    """Return so many bytes; fail if they take too long."""
    data = b""
    while len(data) < count:
        assert select.select([descriptor], [], [], SLOW)[0], f"{len(data)} of {count} bytes came"
        data += os.read(descriptor, count - len(data))
    return data


def wait_for(condition):
    deadline = time.monotonic() + SLOW
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_rest(board):
    """Wait until the clock stands still; return where."""
    before = -1
    while before != board.cycles:
        before = board.cycles
        time.sleep(0.1)
    return before


@pytest.mark.parametrize(
    ("clock_hz", "baud"),
    [(12_000_000, 3_000_000), (10_000_000, 3_000_000), (100_000_000, 921_600), (8, 4)],
)
def test_every_byte_comes_back(clock_hz, baud):
    """In order and undamaged, also where a bit is no whole number of cycles."""
    rng = np.random.default_rng(1)
    data = bytes(range(256)) + rng.bytes(1000)
    with echo(clock_hz, baud) as board, opened(board.port) as line:
        before = board.cycles
        os.write(line, data)
        assert receive(line, len(data)) == data
        # A byte is ten bits.
        used = (board.cycles - before) * baud / clock_hz / 10
        assert len(data) < used < len(data) + 4 * 512 + REST_CYCLES


def test_terminal_is_raw_from_the_start():
    """A user who sets nothing gets every byte as it is; one who hangs up is followed by others."""
    data = b"\x00\x03\x04\r\n\x11\x13\x7f\xff"
    with echo() as board:
        for _ in range(2):
            with opened(board.port) as line:
                os.write(line, data)
                assert receive(line, len(data)) == data


def test_time_stands_still_when_there_is_nothing_to_do():
    with echo() as board, opened(board.port) as line:
        stopped = at_rest(board)
        os.write(line, b"\x02")
        assert receive(line, 1) == b"\x02"
        wait_for(lambda: board.cycles > stopped + REST_CYCLES)
        stopped = at_rest(board)
        os.write(line, b"\x01")  # busy
        wait_for(lambda: board.cycles > stopped + 10 * REST_CYCLES)
        os.write(line, b"\x02")
        at_rest(board)


def test_nothing_is_lost_while_nobody_reads():
    """Time stands still then, whatever else there would be to do."""
    data = np.random.default_rng(2).bytes(12_000)
    with echo() as board, opened(board.port) as line:
        os.set_blocking(line, False)
        sent = 0
        before = board.cycles - 1
        while board.cycles != before or sent < 8000:
            before = board.cycles
            with contextlib.suppress(BlockingIOError):
                sent += os.write(line, data[sent:])
            time.sleep(0.1)
        os.set_blocking(line, True)
        assert receive(line, sent) == data[:sent]


def test_cable_is_cut_and_plugged_in_again():
    with echo() as board:
        with opened(board.port) as line:
            os.write(line, bytes(4000))
            board.cut()
            with pytest.raises(OSError, match="Input/output error"):
                os.write(line, b"x")
            for _ in range(4001):
                with contextlib.suppress(OSError):
                    if os.read(line, 1) == b"":
                        break
            else:
                pytest.fail("not hung up on")
        with pytest.raises(ValueError, match="not connected"):
            _ = board.port
        cycles = at_rest(board)
        board.reconnect()
        with opened(board.port) as line:
            # What was in the middle of its way may still come.
            time.sleep(0.2)
            os.write(line, b"U" * 100)
            received = b""
            while not received.endswith(b"U" * 99):
                received += receive(line, 1)
        assert board.cycles > cycles
        port = board.port
        assert board.reconnect() == board.port
        with opened(board.port) as line:
            os.write(line, b"V")
            assert receive(line, 1) == b"V"
        assert Path(port).exists() == (port == board.port)


def test_busy_board_runs_without_cable():
    with echo() as board:
        with opened(board.port) as line:
            os.write(line, b"\x01")
            assert receive(line, 1) == b"\x01"
        board.cut()
        cycles = board.cycles
        wait_for(lambda: board.cycles > cycles + 10 * REST_CYCLES)


def test_close_ends_it_whatever_it_does():
    for what in (b"", b"\x01", bytes(3000), bytes([1]) * 12_000):
        with echo() as board:
            descriptor = os.open(board.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            if what:
                os.write(descriptor, what)
                time.sleep(0.1)
            os.close(descriptor)
        board.close()
        with pytest.raises(ValueError, match="switched off"):
            board.cut()


def test_interpreter_exits_with_a_board_that_runs():
    script = """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from test_board import echo, opened, receive
        context = echo()
        board = context.__enter__()
        line = os.open(board.port, os.O_RDWR | os.O_NOCTTY)
        os.write(line, bytes([1]))
        receive(line, 1)
        print("running")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=SLOW,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("running\n", "", 0)
