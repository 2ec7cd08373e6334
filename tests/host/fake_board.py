"""A board for tests: the golden side of the link on a simulated card, behind lines that lie."""

import errno
import os
import random
import select
import threading
import time
import tty

import numpy as np

from deepseek.boards.manifest import Manifest
from deepseek.host.card import Card
from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand
from deepseek.host.transport.framing import FrameReader, encode_frame
from deepseek.rtl.config import preset
from deepseek.rtl.isa import ABI_VERSION, Csr
from deepseek.rtl.isa.link import LINK_VERSION, SHELL_BASE, LinkOp, ShellCsr
from deepseek.sim.functional.card import FunctionalCard
from deepseek.sim.golden import link as golden

CLOCK_HZ = 25_000_000
BUILD = 0x0123456789ABCDEF


class Hostile:
    """Spoils bytes, and loses, doubles and cuts off whole chunks, at random."""

    def __init__(self, seed, *, errors=0.0, lost=0.0, doubled=0.0, cut=0.0):
        self._random = random.Random(seed)
        self.errors, self.lost, self.doubled, self.cut = errors, lost, doubled, cut

    def __call__(self, data):
        chance = self._random.random
        if chance() < self.lost:
            return b""
        if chance() < self.doubled:
            data += data
        if chance() < self.cut:
            data = data[: self._random.randrange(len(data) + 1)]
        if self.errors:
            spoilt = bytearray(data)
            for at in range(len(spoilt)):
                if chance() < self.errors:
                    spoilt[at] ^= self._random.randrange(1, 256)
            data = bytes(spoilt)
        return data


class Memory:
    """A simulated card's memory, as the golden board takes it."""

    def __init__(self, card):
        self._card = card

    def __len__(self):
        return self._card.config.memory_bytes

    def __getitem__(self, span):
        return self._card.read_memory(span.start, span.stop - span.start)

    def __setitem__(self, span, data):
        self._card.write_memory(span.start, np.frombuffer(data, np.uint8))


class FakeBoard(golden.Board):
    """The golden board on a functional card, which runs while the host looks at the cycles.

    Members
    -------
    done : list of (LinkOp, address, bytes)
        What was carried out, each once.
    hangs : bool
        Jobs never end, though the clock goes on.
    stopped : bool
        The clock stands still, too.
    moment : callable or None
        Takes `LinkOp` and address; the card runs only just before such a request.
    """

    def __init__(self, config, *, build=BUILD, clock_hz=CLOCK_HZ, version=LINK_VERSION):
        super().__init__(1, read_csr=self._read, write_csr=self._write)
        self.card = FunctionalCard(config)
        self.card.build_hash = build
        self.memory = Memory(self.card)
        self.clock_hz = clock_hz
        self.version = version
        self.done = []
        self.cycles = 0
        self.hangs = self.stopped = False
        self.moment = None
        self._frames = FrameReader()

    def answer(self, line):
        """Take bytes; return the frames that answer. (The golden framing takes its time.)"""
        replies = [self.carry_out(content) for content in self._frames.feed(line)]
        return [encode_frame(reply) for reply in replies if reply is not None]

    def restart(self):
        """Power off and on: what the board knew is gone."""
        self.expected = 0
        self._ahead = None

    def _run(self, op, length, address, data, *, write):
        if op == golden.HELLO:
            return self.version.to_bytes(4, "little")
        if self.moment is not None and self.moment(LinkOp(op), address):
            self.card.run(1_000_000)
        if write:
            self.done.append((LinkOp(op), address, bytes(data)))
        return super()._run(op, length, address, data, write=write)

    def _read(self, address):
        if address < SHELL_BASE:
            return self.card.csr_read(address)
        if address == ShellCsr.CYCLES and not self.stopped:
            runs = not self.hangs and self.moment is None
            self.cycles += 4_000_000 if self.hangs else 50_000
            self.cycles += self.card.run(1_000_000) if runs else 0
        interrupt = self.card.csr_read(Csr.COMPLETED) != self.card.csr_read(Csr.ACK)
        registers = {
            ShellCsr.CLOCK_HZ: self.clock_hz,
            ShellCsr.CYCLES: self.cycles & 0xFFFFFFFF,
            ShellCsr.CYCLES_HIGH: self.cycles >> 32,
            ShellCsr.SHELL_STATE: int(interrupt),
        }
        return registers.get(address, 0)

    def _write(self, address, value):
        if address < SHELL_BASE:
            self.card.csr_write(address, value)


class Terminal:
    """A pseudo-terminal with something behind it: a serial port of the operating system.

    Parameters
    ----------
    answer : callable
        Takes bytes, returns chunks to send back.
    there, back : callable
        Change chunks on their way.
    cut_after : int or None
        Pull the cable when so many bytes have come.

    Members
    -------
    port : str
        Its name.
    """

    def __init__(self, answer, *, there=bytes, back=bytes, cut_after=None):
        self._answer, self._there, self._back = answer, there, back
        self._left = cut_after
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def cut(self):
        """Pull the cable."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._slave)
                os.close(self._master)

    def _serve(self):
        while True:
            with self._lock:
                if self._closed:
                    return
                ready, _, _ = select.select([self._master], [], [], 0)
                data = os.read(self._master, 4096) if ready else b""
            if not data:
                time.sleep(0.0005)
                continue
            if self._left is not None:
                self._left -= len(data)
                if self._left < 0:
                    self.cut()
                    return
            for chunk in self._answer(self._there(data)):
                self._send(self._back(chunk))

    def _send(self, data):
        os.set_blocking(self._master, False) if not self._closed else None
        while data:
            with self._lock:
                if self._closed:
                    return
                try:
                    data = data[os.write(self._master, data) :]
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        raise
            if data:
                time.sleep(0.0005)


def board_config():
    """The card of preset tiny, as boards have it."""
    config = preset("tiny")
    return type(config)(**{**vars(config), "memory_bytes": 256 << 10})


def make_bitstream(folder, config=None, **changes):
    """Write a bitstream that is none, and its manifest; return its path."""
    config = config or board_config()
    path = folder / "card.bit"
    path.write_bytes(b"bitstream" * 100)
    fields = {
        "board": "ulx3s",
        "device": "LFE5U-85F",
        "speed": "6",
        "preset": "tiny",
        "config": vars(config),
        "abi": ABI_VERSION,
        "link_version": LINK_VERSION,
        "build_hash": f"{BUILD:016x}",
        "clock_hz": CLOCK_HZ,
        "baud": 3_000_000,
        "memory": "block RAM",
        "tools": {"yosys": "0.1"},
        "seed": 1,
        "fmax_mhz": 30.0,
        **Manifest.measure(path.read_bytes()),
    }
    Manifest(**{**fields, **changes}).write(path)
    return path


def open_card(bitstream, terminal):
    """Open the card of a bitstream that runs already."""
    return Card.open("board", bitstream=bitstream, port=terminal.port, load=False)


def copy(card, source, target):
    """Commands that copy a buffer by way of the scratchpad."""
    return [
        commands.load(Operand(source.address), Operand(0), x_bytes=source.nbytes),
        commands.barrier(),
        commands.store(Operand(target.address), Operand(0), x_bytes=source.nbytes),
    ]


def check_copy(card, nbytes=4096, seed=0):
    """Run such a job, and check that it did its work; return its result."""
    source, target = card.allocate(nbytes), card.allocate(nbytes)
    data = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)
    card.write(source, data)
    result = card.submit(copy(card, source, target)).wait()
    assert np.array_equal(card.read(target), data)
    card.free(source)
    card.free(target)
    return result
