"""A serial line, driven and sampled by time: some steps a byte, and not one a clock."""

import collections
import itertools
from typing import Any

import cocotb
from cocotb.triggers import Event, FallingEdge, Timer

__all__ = ["Line"]


class Line:
    """The host's end of the pins ``rx`` and ``tx`` of a design.

    Parameters
    ----------
    dut
    bit_ns : float
    phase_ns : float
        How long after `put` the line begins, if it was idle. At two clocks a bit the edges must
        keep away from those of the clock.

    Attributes
    ----------
    got : bytearray
        What the design has sent.
    """

    def __init__(self, dut: Any, bit_ns: float, *, phase_ns: float) -> None:
        self.bit_ns = bit_ns
        self.got = bytearray()
        self._rx, self._tx = dut.rx, dut.tx
        self._levels: collections.deque[tuple[int, float]] = collections.deque()
        self._more, self._sent = Event(), Event()
        self._rx.value = 1
        cocotb.start_soon(self._drive(phase_ns))
        cocotb.start_soon(self._take())

    @property
    def sending(self) -> bool:
        """Whether something is left to be sent."""
        return bool(self._levels)

    def hold(self, level: int, bits: float) -> None:
        """Hold the line at a level for a time, after all that was sent before."""
        self._levels.append((level, bits))
        self._sent.clear()
        self._more.set()

    def put(self, data: bytes) -> None:
        """Send bytes."""
        for byte in data:
            levels = [0, *(byte >> n & 1 for n in range(8)), 1]
            for level, run in itertools.groupby(levels):
                self.hold(level, len(list(run)))

    async def sent(self) -> None:
        """Wait until all is sent."""
        if self._levels:
            await self._sent.wait()

    def arrived(self) -> None:
        """Called for each byte, when it is the last one of ``got``."""

    async def _drive(self, phase_ns: float) -> None:
        while True:
            await self._more.wait()
            await Timer(phase_ns, "ns", round_mode="round")
            while self._levels:
                level, bits = self._levels[0]
                self._rx.value = level
                await Timer(bits * self.bit_ns, "ns", round_mode="round")
                self._levels.popleft()
            self._sent.set()
            self._more.clear()

    async def _take(self) -> None:
        while True:
            await FallingEdge(self._tx)
            await Timer(1.5 * self.bit_ns, "ns", round_mode="round")
            byte = 0
            for n in range(8):
                byte |= int(self._tx.value) << n
                await Timer(self.bit_ns, "ns", round_mode="round")
            assert int(self._tx.value), "a stop bit is low"
            self.got.append(byte)
            self.arrived()
