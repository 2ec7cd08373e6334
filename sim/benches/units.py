"""What surrounds a unit of the core in a bench: its queue, the scratchpad, card memory."""

import collections
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.config import GRANULE, CardConfig
from ...rtl.core.ports import READ_LATENCY, iteration_layout
from ...rtl.memory.bus import BURST_BYTES, request_layout, write_layout
from .lib import pack, sample, tick, unpack

__all__ = [
    "MemoryModel",
    "Outcome",
    "ScratchpadModel",
    "Stall",
    "UnitDriver",
    "banks_at",
    "noise",
    "reset",
    "see_errors",
]


def noise(rng: np.random.Generator, bits: int) -> int:
    """Return a random number of that many bits."""
    return int.from_bytes(rng.bytes((bits + 7) // 8), "little") & ((1 << bits) - 1)


async def reset(dut: Any) -> None:
    """Reset a design whose clock runs: no read is answered after it. Ends at a `tick`."""
    dut.rst.value = 1
    await tick(dut, READ_LATENCY)
    dut.rst.value = 0
    await tick(dut)


def banks_at(config: CardConfig, address: int, granules: int = 1, needed: int = -1) -> int:
    """Return a bit for each bank in which granules from ``address`` on lie, if they are needed."""
    banks = config.scratchpad_banks
    chosen = [lane for lane in range(granules) if needed >> lane & 1]
    places = [(address + lane) % (config.scratchpad_bytes // GRANULE) for lane in chosen]
    return sum({1 << (at + at // banks) % banks for at in places})


class Stall:
    """Draws in which cycles something may go on.

    Parameters
    ----------
    rng : numpy.random.Generator
    short : float
        Probability of a pause of one cycle.
    long : float
        Probability, in each cycle, that a pause of 20 to 300 cycles begins.
    """

    def __init__(self, rng: np.random.Generator, short: float = 0.0, long: float = 0.0) -> None:
        self._rng = rng
        self.short = short
        self.long = long
        self._rest = 0

    def go(self) -> bool:
        """Return whether this cycle is none of a pause."""
        if self._rest:
            self._rest -= 1
            return False
        if self.long and self._rng.random() < self.long:
            self._rest = int(self._rng.integers(20, 300))
            return False
        return not self.short or bool(self._rng.random() >= self.short)


class ScratchpadModel:
    """Bytes behind a unit's `ReadPort` and `WritePort`, called ``read`` and ``write``.

    Create it after `start`. ``stall`` may be changed at any time.

    Parameters
    ----------
    dut
    config : CardConfig
    rng : numpy.random.Generator
    read : int
        Granules of the read port, 0 for none.
    write : int
        Granules of the write port, 0 for none.

    Attributes
    ----------
    bytes : numpy.ndarray of uint8
    reads, writes : int
        Requests accepted so far.
    """

    def __init__(
        self, dut: Any, config: CardConfig, rng: np.random.Generator, *, read: int, write: int
    ) -> None:
        self.bytes = rng.integers(0, 256, config.scratchpad_bytes, np.uint8)
        self.read_stall = Stall(rng)
        self.write_stall = Stall(rng)
        self.reads = 0
        self.writes = 0
        self._rng = rng
        self._changing = np.zeros(0, np.int64)  # bytes written at the end of this cycle
        if read:
            cocotb.start_soon(self._run_read(dut, config, read))
        if write:
            cocotb.start_soon(self._run_write(dut, config, write))

    def _span(self, address: int, granules: int) -> np.ndarray:
        return np.arange(address * GRANULE, (address + granules) * GRANULE) % len(self.bytes)

    async def _run_read(self, dut: Any, config: CardConfig, granules: int) -> None:
        answers: collections.deque[int | None] = collections.deque([None] * READ_LATENCY)
        bits = 8 * GRANULE * granules
        while True:
            answer = answers.popleft()
            dut.read__data_valid.value = int(answer is not None)
            dut.read__data.value = noise(self._rng, bits) if answer is None else answer
            go = self.read_stall.go()
            dut.read__ready.value = int(go)
            await FallingEdge(dut.clk)
            asked = go and int(dut.read__valid.value)
            address = int(dut.read__address.value)
            if asked:
                needed = int(dut.read__needed.value) if granules > 1 else 1
                assert int(dut.read__banks.value) == banks_at(config, address, granules, needed)
            await RisingEdge(dut.clk)
            answers.append(None)
            if asked:
                self.reads += 1
                span = self._span(address, granules)
                found = self.bytes[span].copy()
                # Nobody may rely on what is written in the same cycle.
                found[np.isin(span, self._changing)] ^= self._rng.integers(1, 256, dtype=np.uint8)
                answers[-1] = int.from_bytes(found.tobytes(), "little")

    async def _run_write(self, dut: Any, config: CardConfig, granules: int) -> None:
        size = GRANULE * granules
        while True:
            go = self.write_stall.go()
            dut.write__ready.value = int(go)
            await FallingEdge(dut.clk)
            taken = go and int(dut.write__valid.value)
            self._changing = np.zeros(0, np.int64)
            if taken:
                address = int(dut.write__address.value)
                assert int(dut.write__banks.value) == banks_at(config, address, granules)
                span = self._span(address, granules)
                value = int(dut.write__data.value).to_bytes(size, "little")
                mask = int(dut.write__mask.value)
                assert mask, "a write without a byte"
                chosen = np.array([mask >> i & 1 for i in range(size)], bool)
                self._changing = span[chosen]
            await RisingEdge(dut.clk)
            if taken:
                self.bytes[span[chosen]] = np.frombuffer(value, np.uint8)[chosen]
                self.writes += 1


class MemoryModel:
    """Card memory behind a unit's `Bus`, called ``bus``.

    Checks every burst. The stalls may be changed at any time. Create it after `start`.

    Parameters
    ----------
    dut
    config : CardConfig
    rng : numpy.random.Generator
    latency : int
        Cycles from a request to its first beat or, for a write whose data are there, to
        ``written``.

    Attributes
    ----------
    bytes : numpy.ndarray of uint8
    busy : bool
        Whether a burst is not answered yet.
    """

    def __init__(
        self, dut: Any, config: CardConfig, rng: np.random.Generator, *, latency: int = 8
    ) -> None:
        self.bytes = rng.integers(0, 256, config.memory_bytes, np.uint8)
        self.latency = latency
        self.request_stall = Stall(rng)
        self.read_stall = Stall(rng)
        self.write_stall = Stall(rng)
        self._config = config
        self._rng = rng
        self._cycle = 0
        # (cycle from which it may be answered, address, beats) of each burst.
        self._reads: collections.deque[tuple[int, int, int]] = collections.deque()
        self._writes: collections.deque[tuple[int, int, int]] = collections.deque()
        self._data: collections.deque[tuple[np.ndarray, np.ndarray]] = collections.deque()
        cocotb.start_soon(self._run(dut))

    @property
    def busy(self) -> bool:
        return bool(self._reads or self._writes or self._data)

    def _accept(self, value: int) -> None:
        request = unpack(request_layout(self._config), value)
        width = self._config.bus_bytes
        address, beats = request["address"], request["last_beat"] + 1
        assert address % width == 0, f"burst at {address:#x} is not aligned"
        last = address + beats * width - 1
        assert address // BURST_BYTES == last // BURST_BYTES, f"burst at {address:#x} is too long"
        queue = self._writes if request["write"] else self._reads
        queue.append((self._cycle + self.latency, address, beats))

    def _answer_write(self) -> bool:
        if not self._writes or not self.write_stall.go():
            return False
        when, address, beats = self._writes[0]
        if self._cycle < when or len(self._data) < beats:
            return False
        self._writes.popleft()
        for i in range(beats):
            data, mask = self._data.popleft()
            start = address + i * self._config.bus_bytes
            self.bytes[start : start + len(data)][mask] = data[mask]
        return True

    def _answer_read(self) -> int | None:
        if not self._reads or self._cycle < self._reads[0][0] or not self.read_stall.go():
            return None
        when, address, beats = self._reads.popleft()
        if beats > 1:
            self._reads.appendleft((when, address + self._config.bus_bytes, beats - 1))
        return int.from_bytes(
            self.bytes[address : address + self._config.bus_bytes].tobytes(), "little"
        )

    async def _run(self, dut: Any) -> None:
        width = self._config.bus_bytes
        layout = write_layout(self._config)
        while True:
            self._cycle += 1
            beat = self._answer_read()
            dut.bus__read__valid.value = int(beat is not None)
            dut.bus__read__payload.value = noise(self._rng, 8 * width) if beat is None else beat
            dut.bus__written.value = int(self._answer_write())
            ready = self.request_stall.go()
            dut.bus__request__ready.value = int(ready)
            write_ready = self.write_stall.go()
            dut.bus__write__ready.value = int(write_ready)
            await FallingEdge(dut.clk)
            if ready and int(dut.bus__request__valid.value):
                self._accept(int(dut.bus__request__payload.value))
            if write_ready and int(dut.bus__write__valid.value):
                beat_written = unpack(layout, int(dut.bus__write__payload.value))
                data = beat_written["data"].to_bytes(width, "little")
                mask = [beat_written["mask"] >> i & 1 for i in range(width)]
                self._data.append((np.frombuffer(data, np.uint8), np.array(mask, bool)))
            await RisingEdge(dut.clk)


@dataclasses.dataclass
class Outcome:
    """How a command ended: iterations done, the error's status or None, and the cycles.

    ``cycles`` counts from the cycle that accepted the first iteration to the last ``done``.
    """

    done: int
    status: int | None
    cycles: int


class UnitDriver:
    """The queue's side of a unit's `UnitPort`, called ``unit``. Create it after `start`.

    Parameters
    ----------
    dut
    rng : numpy.random.Generator
    stall : float
        Probability of a pause of one cycle before an iteration.
    """

    def __init__(self, dut: Any, rng: np.random.Generator, *, stall: float = 0.0) -> None:
        self._dut = dut
        self._rng = rng
        self.stall = Stall(rng, stall)
        dut.unit__start__valid.value = 0

    async def run(
        self,
        body: int,
        operands: Sequence[Sequence[int]],
        *,
        opcode: int = 0,
        on_done: Callable[[int], None] = lambda index: None,
        limit: int = 200_000,
    ) -> Outcome:
        """Run a command's iterations, with at most two outstanding. Ends at a `tick`.

        Parameters
        ----------
        body : int
        operands : sequence of three addresses for each iteration
        opcode : int
            Units that run one kind of command do not look at it.
        on_done : callable
            Called with the number of each iteration in the cycle of its ``done``.
        limit : int
            Fail after as many cycles.
        """
        dut, layout = self._dut, iteration_layout()
        started = done = 0
        first = None
        offered = False
        # Without a next iteration the operands are noise, but the body stays.
        operand = [noise(self._rng, 32) for _ in range(3)]
        idle = pack(layout, operand=operand, opcode=opcode, body=body)
        dut.unit__start__payload.value = idle
        for cycle in range(limit):
            if not offered and started < len(operands) and started - done < 2:
                offered = self.stall.go()
                if offered:
                    operand = list(operands[started])
                    payload = pack(layout, operand=operand, opcode=opcode, body=body)
                    dut.unit__start__payload.value = payload
                    dut.unit__start__valid.value = 1
            await sample(dut)
            accepted = offered and int(dut.unit__start__ready.value)
            is_done, is_error = int(dut.unit__done.value), int(dut.unit__error.value)
            status = int(dut.unit__status.value)
            if accepted and first is None:
                first = cycle
            if is_done:
                assert done < started, "done without an iteration"
                on_done(done)
                done += 1
            await tick(dut)
            if accepted:
                started += 1
                offered = False
                dut.unit__start__payload.value = idle
                dut.unit__start__valid.value = 0
            if is_error:
                assert not is_done and done < started
                break
            if done == len(operands):
                break
        else:
            raise AssertionError(f"not within {limit} cycles; {done} iterations done")
        dut.unit__start__valid.value = 0
        dut.unit__start__payload.value = noise(self._rng, layout.size)
        assert first is not None
        return Outcome(done, status if is_error else None, cycle - first)

    async def refuse(self) -> None:
        """Check that the unit, which has failed, accepts nothing; then reset. Ends at a `tick`."""
        self._dut.unit__start__valid.value = 1
        await self.quiet(10)
        assert not int(self._dut.unit__start__ready.value)
        self._dut.unit__start__valid.value = 0
        await reset(self._dut)

    async def quiet(self, cycles: int) -> None:
        """Check that the unit neither ends nor starts anything for a while. Ends at a `tick`."""
        for _ in range(cycles):
            await sample(self._dut)
            assert not int(self._dut.unit__done.value), "done without an iteration"
            assert not int(self._dut.unit__error.value), "error without an iteration"
            await tick(self._dut)


async def see_errors(
    unit: UnitDriver,
    wanted: set[tuple[int, int]],
    attempt: Callable[[int], Awaitable[Outcome]],
    *,
    cases: int,
    limit: int = 1000,
) -> None:
    """Run commands that may fail until every wanted error was seen; a failed unit is reset.

    Parameters
    ----------
    unit : UnitDriver
    wanted : set of (status, 0 in the first iteration or 1 in a later one)
    attempt : async callable
        Runs the command of the given number, from 0 on.
    cases : int
        Run at least so many.
    limit : int
        Fail after as many.
    """
    seen: set[tuple[int, int]] = set()
    for case in range(limit):
        outcome = await attempt(case)
        if outcome.status is not None:
            seen.add((outcome.status, min(outcome.done, 1)))
            await unit.refuse()
        if case + 1 >= cases and wanted <= seen:
            return
    raise AssertionError(f"not seen in {limit} commands: {sorted(wanted - seen)}")
