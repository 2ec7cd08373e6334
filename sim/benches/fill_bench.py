"""What the tests of the fill path share: its surroundings, and running commands in them."""

import collections
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.config import RELEASE_WORDS, CardConfig
from ...rtl.core.ports import READ_LATENCY
from ...rtl.isa import BITS, LANES, MatmulBody
from .fill_cases import Body, expected, one_nan
from .lib import StreamSource, bench_config, pack, rng, start, tick, unpack, within
from .prepared import word_layout
from .units import banks_at

__all__ = ["Command", "Surroundings", "follow", "prepare", "run"]

Command = tuple[Body, Any, list[int]]
"""Fields, resident format, and the address of the window in each iteration."""


class Surroundings:
    """The scratchpad, the ring and the engines around the fill path, cycle by cycle.

    Reads are answered after `READ_LATENCY` cycles. Words must come in step, at the ring addresses
    that the blocks' lengths give, and never where what was there is not released yet. Units of
    `RELEASE_WORDS` are released some time after they are complete.

    Attributes
    ----------
    stall : float
        Probability that the read port is not ready.
    keep : int
        Units that are released only when no word has come for a while.
    pause : float
        Probability that a release that could come does not in this cycle.
    words : list of tuple
        Values of all columns.
    done : list of int
        How many words there were at each pulse of ``done``.
    cycle, first, last : int
        The present cycle; those of the first and the newest word.
    reads, first_read, last_read : int
        How many reads were accepted, and the cycles of the first and the newest.
    """

    def __init__(
        self, dut: Any, config: CardConfig, memory: npt.NDArray[np.uint8], r: np.random.Generator
    ) -> None:
        self.dut, self.config, self.memory, self.r = dut, config, memory, r
        self.stall, self.pause, self.keep = 0.0, 0.0, 0
        self.layout = word_layout(config)
        self.ports = [getattr(dut, f"fill__{c}") for c in range(config.cols)]
        self.claimed = self.complete = self.released = 0
        self.address = 0
        self.blocks: collections.deque[int] = collections.deque()
        self.block_left = 0
        self.cycle = 0
        self.clear()
        cocotb.start_soon(self._run())

    def clear(self) -> None:
        """Forget what came so far."""
        self.words: list[tuple[int, ...]] = []
        self.done: list[int] = []
        self.reads = 0
        self.first = self.last = self.first_read = self.last_read = -1
        self.started: list[int] = []

    def _read(self, ready: bool) -> int | None:
        dut, config = self.dut, self.config
        if not (ready and int(dut.read__valid.value)):
            return None
        self.first_read = self.cycle if not self.reads else self.first_read
        self.reads += 1
        self.last_read = self.cycle
        at, width = 16 * int(dut.read__address.value), 2 * config.fill_bytes
        span = np.take(self.memory, np.arange(at, at + width), mode="wrap")
        # What was not asked for is not there.
        needed = int(dut.read__needed.value)
        banks = banks_at(config, at // 16, width // 16, needed)
        assert int(dut.read__banks.value) == banks
        lanes = np.repeat([needed >> i & 1 for i in range(width // 16)], 16).astype(bool)
        noise = self.r.integers(0, 256, width, np.uint8)
        return int.from_bytes(np.where(lanes, span, noise).tobytes(), "little")

    def _word(self) -> None:
        columns = self.config.cols
        valid = self.layout["valid"].offset
        if not int(self.ports[0].value) >> valid & 1:
            other = self.ports[self.cycle % columns]
            assert not int(other.value) >> valid & 1, "columns are not in step"
            return
        packed = [int(port.value) for port in self.ports]
        assert len({value >> 16 for value in packed}) == 1, "columns are not in step"
        if not self.block_left:
            assert self.blocks, "more words than there are"
            self.block_left = self.blocks.popleft()
            self.address = -(-self.address // RELEASE_WORDS) * RELEASE_WORDS
        address = unpack(self.layout, packed[0])["address"]
        assert address == self.address % self.config.operand_depth
        self.claimed += self.address % RELEASE_WORDS == 0
        held = self.claimed - self.released
        assert held <= self.config.operand_depth // RELEASE_WORDS, "overwritten before release"
        self.address += 1
        self.block_left -= 1
        self.complete += self.address % RELEASE_WORDS == 0 or not self.block_left
        self.words.append(tuple(value & 0xFFFF for value in packed))
        self.first = self.cycle if self.first < 0 else self.first
        self.last = self.cycle

    async def _run(self) -> None:
        dut, r = self.dut, self.r
        pipeline: list[int | None] = [None] * READ_LATENCY
        release = 0
        noise = int.from_bytes(r.bytes(2 * self.config.fill_bytes), "little")
        while True:
            due = pipeline.pop()
            dut.read__data_valid.value = int(due is not None)
            dut.read__data.value = noise if due is None else due
            ready = not self.stall or r.random() >= self.stall
            dut.read__ready.value = int(ready)
            self.released += release
            idle = self.cycle - self.last > 20
            held = self.complete - self.released
            release = int(held > (0 if idle else self.keep) and r.random() >= self.pause)
            dut.release.value = release
            await FallingEdge(dut.clk)
            pipeline.insert(0, self._read(ready))
            if int(dut.start__valid.value) and int(dut.start__ready.value):
                self.started.append(self.cycle)
            self._word()
            if int(dut.done.value):
                self.done.append(len(self.words) if self.last == self.cycle else -1)
            self.cycle += 1
            await RisingEdge(dut.clk)

    async def wait(self, words: int) -> None:
        """Wait until there are so many words, and that no more come."""
        while len(self.words) < words:
            await tick(self.dut)
        await tick(self.dut, 12)
        assert len(self.words) == words


async def prepare(
    dut: Any,
) -> tuple[CardConfig, np.random.Generator, npt.NDArray[np.uint8], Surroundings]:
    """Start the design; return its sizes, the test's generator, the scratchpad and the rest."""
    config, r = bench_config(), rng()
    for name in ("release", "read__ready", "read__data_valid", "start__valid"):
        getattr(dut, name).value = 0
    dut.body.value = 0
    await start(dut)
    memory = r.integers(0, 256, config.scratchpad_bytes, np.uint8)
    return config, r, memory, Surroundings(dut, config, memory, r)


async def run(
    dut: Any,
    env: Surroundings,
    source: StreamSource,
    fields: Body,
    resident: Any,
    mode: Any,
    addresses: list[int],
) -> None:
    """Run iterations of one command, and compare every word."""
    await follow(dut, env, source, mode, [(fields, resident, addresses)])


async def follow(
    dut: Any, env: Surroundings, source: StreamSource, mode: Any, commands: list[Command]
) -> None:
    """Run commands of one mode, right behind each other, and compare every word."""
    config = env.config
    iterations_of = [
        (command, [expected(env.memory, x, *command[:2], mode, config) for x in command[2]])
        for command in commands
    ]
    env.clear()
    reads = 0
    counts: list[int] = []
    for (fields, resident, _), iterations in iterations_of:
        run_length = fields["run_bytes"] * 8 // BITS[resident]
        chunks = -(-fields["run_bytes"] // config.fill_bytes) * (fields["k"] // run_length)
        for words in iterations:
            blocks, k = words.shape[:2]
            env.blocks.extend([k] * blocks)
            counts.append(blocks * k)
            reads += chunks * config.cols * LANES[mode] * blocks

    async def give() -> None:
        for fields, _, addresses in commands:
            dut.body.value = pack(MatmulBody, fields)
            events = [source.put(x) for x in addresses]
            await events[-1].wait()
            # The body is needed in the cycle of the start only.
            dut.body.value = int.from_bytes(env.r.bytes(64), "little")

    async def finish() -> None:
        await give()
        await env.wait(sum(counts))

    await within(20 * (reads + sum(counts)) + 2000, finish(), f"{commands}")
    assert env.done == np.cumsum(counts).tolist()
    words = np.array(env.words)
    bits = 16 // LANES[mode]
    for (fields, resident, _), iterations in iterations_of:
        for wanted_words in iterations:
            blocks, k = wanted_words.shape[:2]
            got, words = words[: blocks * k].reshape(blocks, k, config.cols), words[blocks * k :]
            checked = 0
            for lane in range(LANES[mode]):
                wanted = wanted_words[..., lane]
                part = got >> bits * lane & ((1 << bits) - 1)
                if bits == 16:
                    part = one_nan(part, mode)
                real = wanted >= 0
                assert (part[real] == wanted[real]).all(), f"{lane}, {resident}, {mode}: {fields}"
                checked += int(real.sum())
            assert checked == fields["n"] * k
    assert not len(words)
