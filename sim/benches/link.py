"""Bench of `Link`, bit by bit: every byte that it sends, writes or reads against the model.

What a test puts on the line goes to the model at once, so what must come back, and what must be
done with memory and registers, is known before the design has it.
"""

import collections
import os
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge, Timer, ValueChange

from ...rtl.hostport.csr import HOST_READ_LATENCY
from ..golden import link
from ..golden.link import Board, request
from .lib import CLOCK_NS, bench_config, rng, sample, start, tick
from .line import Line


class Registers:
    """4096 bytes of registers that keep what is written, and who looked at them."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values.copy()
        self.log: list[tuple[str, int, int]] = []

    def read(self, address: int) -> int:
        value = int(self.values[address // 4])
        if address:  # 0 is what the port shows when nothing is asked for
            self.log.append(("read", address, value))
        return value

    def write(self, address: int, value: int) -> None:
        self.values[address // 4] = value
        self.log.append(("write", address, value))


class Bench(Line):
    """Drives all ports. Those for memory and registers are looked at when they do something.

    Parameters
    ----------
    dut
    r : numpy.random.Generator
    stall : float
        Probability, in each cycle, of memory not being ready.
    held : float
        Probability, in each cycle, of the registers standing still.

    Attributes
    ----------
    wanted : bytearray
        What the line must bring.
    stuck : bool
        Memory is never ready.
    lost : int
        Frames that the model does not know, and that must be dropped.
    """

    def __init__(
        self, dut: Any, r: np.random.Generator, *, stall: float, held: float = 0.0
    ) -> None:
        self.dut = dut
        self.config = bench_config()
        bit_ns = CLOCK_NS * float(os.environ["CLOCKS_A_BIT"])
        super().__init__(dut, bit_ns, phase_ns=CLOCK_NS * float(r.uniform(0.1, 0.9)))
        self.rng = r
        self.stall, self.held = stall, held
        self.stuck = False
        self.lost = 0
        words = r.integers(0, 1 << 32, size=link.CSR_BYTES // 4)
        image = r.bytes(self.config.memory_bytes)
        self.want_csr, self.got_csr = Registers(words), Registers(words)
        self.board = Board(
            self.config.memory_bytes,
            read_csr=self.want_csr.read,
            write_csr=self.want_csr.write,
        )
        self.board.memory[:] = image
        self.memory = bytearray(image)
        self.accesses = 0
        self.wanted = bytearray()
        self._moved, self._silent = (0, False), 0
        self._unanswered: collections.deque[tuple[int, int]] = collections.deque()
        dut.memory_ready.value = 0
        dut.csr__read_data.value = int(words[0])
        dut.csr_held.value = 0
        serve = (self._serve_memory(), self._serve_reads(), self._serve_writes())
        for task in (*serve, self._hold()):
            cocotb.start_soon(task)

    def send(self, line: bytes, *, lost: int = 0) -> None:
        """Put bytes on the line, and note what they must lead to.

        With ``lost`` that is nothing, but that so many frames are dropped.
        """
        self.put(line)
        self.lost += lost
        if not lost:
            self.wanted += self.board.receive(line)

    async def heard(self) -> None:
        """Wait until all is sent, and what it causes at once has happened."""
        await self.sent()
        await self.pause(100)

    async def pause(self, cycles: int) -> None:
        """Wait for some cycles."""
        await Timer(cycles * CLOCK_NS, "ns")
        await tick(self.dut)

    def arrived(self) -> None:
        at = len(self.got)
        assert self.got[at - 1 :] == self.wanted[at - 1 : at], (
            f"byte {at - 1} is {self.got[-1]:#x}; "
            f"wanted {bytes(self.wanted[max(at - 20, 0) : at + 4])!r}"
        )

    async def _serve_memory(self) -> None:
        dut, width = self.dut, self.config.bus_bytes
        while True:
            if not int(dut.memory__enable.value):
                await RisingEdge(dut.memory__enable)
            held: tuple[int, ...] | None = None
            ready = False
            while not ready:
                while self.stuck:
                    await tick(dut, 20)
                ready = bool(self.rng.random() >= self.stall)
                dut.memory_ready.value = int(ready)
                await sample(dut)
                assert int(dut.memory__enable.value), "an access was taken back"
                write, address = int(dut.memory__write.value), int(dut.memory__address.value)
                access: tuple[int, ...] = (write, address)
                if write:
                    access += (int(dut.memory__write_data.value), int(dut.memory__write_mask.value))
                assert held in (None, access), "an access changed before it was taken"
                held = access
                await tick(dut)
            dut.memory_ready.value = int(self.rng.random() < 0.5)
            self.accesses += 1
            at = address * width
            if write:
                for lane in range(width):
                    if access[3] >> lane & 1:
                        self.memory[at + lane] = access[2] >> (8 * lane) & 0xFF
                await sample(dut)
            else:
                beat = self.memory[at : at + width]
                dut.memory__read_data.value = int.from_bytes(beat, "little")
                await sample(dut)
                await tick(dut)
                noise = int.from_bytes(self.rng.bytes(width), "little")
                dut.memory__read_data.value = noise

    async def _hold(self) -> None:
        while self.held:
            await tick(self.dut)
            self.dut.csr_held.value = int(self.rng.random() < self.held)

    async def _live(self, cycles: int) -> None:
        """Wait for so many cycles of the registers, from a `sample` on; ends at a `tick`."""
        while cycles:
            cycles -= not int(self.dut.csr_held.value)
            await tick(self.dut)
            if cycles:
                await sample(self.dut)

    async def _serve_reads(self) -> None:
        """Show what the address named, for an address of 0, too."""
        dut = self.dut
        while True:
            await ValueChange(dut.csr__address)
            await sample(dut)
            address = int(dut.csr__address.value)
            assert address % 4 == 0
            value = 0
            if not int(dut.csr__write.value):
                value = self.got_csr.read(address)
            cocotb.start_soon(self._answer(value))

    async def _answer(self, value: int) -> None:
        await self._live(HOST_READ_LATENCY)
        self.dut.csr__read_data.value = value

    async def _serve_writes(self) -> None:
        dut = self.dut
        while True:
            await RisingEdge(dut.csr__write)
            await sample(dut)
            address = int(dut.csr__address.value)
            self.got_csr.write(address, int(dut.csr__write_data.value))
            if not address:
                await self._live(HOST_READ_LATENCY + 1)
                dut.csr__read_data.value = int(self.got_csr.values[0])

    async def progress(self) -> None:
        """Wait for a while, but not for ever while nothing comes back."""
        await Timer(20 * self.bit_ns + 100 * CLOCK_NS, "ns")
        moved = (len(self.got), self.sending)
        self._silent = 0 if self.sending or moved != self._moved else self._silent + 1
        self._moved = moved
        assert self._silent < 100, f"{len(self.got)} of {len(self.wanted)} bytes came back"

    async def answered(self) -> None:
        """Wait until all replies are there."""
        await self.heard()
        while len(self.got) < len(self.wanted):
            await self.progress()
        await tick(self.dut)

    async def settle(self) -> None:
        """Wait until the line is silent; compare all that is kept."""
        await self.answered()
        await Timer(100 * self.bit_ns, "ns")
        await self.pause(5000)
        assert self.got == self.wanted
        assert int(self.dut.dropped.value) == self.board.dropped + self.lost
        assert self.memory == self.board.memory
        assert self.got_csr.log == self.want_csr.log

    async def request(self, content: bytes, line: bytes | None = None) -> None:
        """Send a request as soon as the window has room; as ``line``, if there is one."""
        while True:
            while self._unanswered and self._unanswered[0][0] <= len(self.got):
                self._unanswered.popleft()
            waiting = sum(size for _, size in self._unanswered)
            if waiting + len(content) <= link.WINDOW_BYTES:
                break
            await self.progress()
        self.send(link.frame(content) if line is None else line)
        self._unanswered.append((len(self.wanted), len(content)))


def random_request(r: np.random.Generator, sequence: int, memory_bytes: int) -> bytes:
    """Return a request that is good, most of the time."""
    op = int(r.choice([0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 129]))
    length = int(r.choice([1, 4, 8, int(r.integers(0, 40)), int(r.integers(0, 200))]))
    address = int(r.integers(0, memory_bytes))
    if op in (link.READ_CSR, link.WRITE_CSR):
        address = int(r.integers(0, link.CSR_BYTES))
        if r.random() < 0.9:
            address, length = address & ~3, (length + 3) & ~3
    kind = r.random()
    if kind < 0.05:
        address = memory_bytes - length + int(r.integers(-2, 3))
    elif kind < 0.08:
        address = link.CSR_BYTES - length + 4 * int(r.integers(-2, 3))
    elif kind < 0.11:
        address = int(r.integers(0, 1 << 32))
    elif kind < 0.14:
        length = int(r.integers(1025, 1 << 16))
    size = 0
    if op in (link.WRITE_CSR, link.WRITE_MEMORY):
        size = min(length, 1024)
    if r.random() < 0.06:
        size = max(0, size + int(r.integers(-3, 4)))
    special = r.choice([0x7D, 0x7E], size=size)
    data = np.where(r.random(size) < 0.2, special, r.integers(0, 256, size=size))
    return request(sequence, op, max(address, 0), length, bytes(data.astype(np.uint8)))


def damaged(r: np.random.Generator, line: bytes) -> bytes:
    """Return a frame with bytes changed, lost, repeated or added; still with a flag at its end."""
    hurt = bytearray(line[:-1])
    for _ in range(int(r.integers(1, 3))):
        at = int(r.integers(1, len(hurt)))
        match int(r.integers(6)):
            case 0:
                hurt[at] ^= 1 << int(r.integers(8))
            case 1:
                del hurt[at]
            case 2:
                hurt.insert(at, hurt[at])
            case 3:
                hurt[at:at] = r.bytes(int(r.integers(1, 6)))
            case 4:
                hurt[at] = int(r.choice([0x7D, 0x7E]))
            case 5:
                hurt += b"\x7d"
        if len(hurt) < 2:
            break
    return bytes(hurt) + b"\x7e"


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.7])
async def random_frames(dut: Any, stall: float) -> None:
    """Good frames, damaged ones and garbage; sequences that fit, repeat, or leave some out.
    Memory and registers make the link wait, or do not."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=stall, held=stall)
    recent: list[bytes] = [request(0, link.HELLO)]
    bench.send(r.integers(0, 0x70, size=5, dtype=np.uint8).tobytes())
    for _ in range(200):
        expected = bench.board.expected
        content = random_request(r, expected, bench.config.memory_bytes)
        kind = r.random()
        if kind < 0.1:
            content = recent[int(r.integers(len(recent)))]
        elif kind < 0.2:
            skip = int(r.choice([1, 2, 3, 100, 127, 128, 129, int(r.integers(256))]))
            content = bytes([(expected + skip) % 256]) + content[1:]
        recent = [*recent[-6:], content]
        line = link.frame(content)
        if kind > 0.85:
            line = damaged(r, line)
        elif kind > 0.8:
            line = r.bytes(int(r.integers(1, 20))) + line
        elif kind > 0.6:
            line = line[1:]  # one flag for both
        await bench.request(content, line)
        if r.random() < 0.2:
            bench.hold(1, 50 * r.random())
    await bench.settle()
    assert bench.accesses > 500 and len(bench.got_csr.log) > 50
    assert bench.board.dropped > 10


@cocotb.test()
async def longest_frames(dut: Any) -> None:
    """As many bytes as there may be, at any alignment; and one more."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.3)
    at = int(r.integers(3, 8))
    data = r.bytes(1024)
    await bench.request(request(0, link.WRITE_MEMORY, at, 1024, data))
    await bench.request(request(1, link.READ_MEMORY, at - 3, 1024))
    await bench.request(request(2, link.WRITE_CSR, 0x104, 1024, data))
    await bench.request(request(3, link.READ_CSR, 0x104, 1024))
    bench.send(link.frame(request(4, link.WRITE_MEMORY, at, 1024, data + b"x")))
    bench.send(link.frame(request(4, link.READ_MEMORY, at, 1)[:7]))
    bench.send(link.frame(b""))
    assert bench.board.dropped == 3
    await bench.request(request(4, link.READ_MEMORY, at, 7))
    await bench.settle()


@cocotb.test()
async def whole_window(dut: Any) -> None:
    """A window full of requests waits for a memory that is busy; what comes then is dropped."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0)
    bench.stuck = True
    sizes = [1024] * 3 + [0] * 125
    assert sum(8 + size for size in sizes) == link.WINDOW_BYTES
    for sequence, size in enumerate(sizes):
        op = link.WRITE_MEMORY if size else link.READ_MEMORY
        at = int(r.integers(0, 2048))
        bench.send(link.frame(request(sequence, op, at, size or 1, r.bytes(size))))
    await bench.heard()
    assert int(dut.dropped.value) == 0
    further = request(len(sizes), link.READ_MEMORY, 0, 1)
    for _ in range(3):
        bench.send(link.frame(further), lost=1)
    await bench.heard()
    assert int(dut.dropped.value) == 3 and not bench.got
    bench.stuck = False
    await bench.answered()
    await bench.request(further)
    await bench.settle()


@cocotb.test()
async def held_low_and_noise(dut: Any) -> None:
    """The line is held low, then noise; the next frame is served."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0)
    bench.hold(0, 60)
    bench.hold(1, 20)
    await bench.request(request(0, link.HELLO))
    await bench.settle()
    for _ in range(4000):
        bench.hold(int(r.integers(0, 2)), 3 * r.random())
    bench.hold(1, 20)
    await bench.heard()
    # How many frames the noise was depends on when its bits are looked at.
    bench.send(b"\x7e")
    await bench.heard()
    bench.lost = int(dut.dropped.value) - bench.board.dropped
    await bench.request(request(77, link.HELLO))
    await bench.request(request(78, link.READ_MEMORY, 5, 40))
    await bench.settle()
