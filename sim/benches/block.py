"""Bench of `BlockStorage`: both ports at random against a model of the bytes."""

import collections
from typing import Any

import cocotb
import numpy as np

from ...rtl.memory.bus import STORAGE_LATENCY
from .lib import bench_config, rng, sample, start, tick
from .storage import Access, drive_storage, number

HOST_READ, HOST_WRITE = STORAGE_LATENCY + 1, 1
"""Cycles for which an access of the host waits. What it does to memory it does a cycle late."""


class Bench:
    """The ports, and the bytes that they must read."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.config, self.rng = dut, bench_config(), rng()
        self.width = self.config.bus_bytes
        self.words = np.zeros((self.config.memory_bytes // self.width, self.width), np.uint8)
        self.busy, self.span = 0.0, 1
        self.card = collections.deque[np.ndarray | None]([None] * STORAGE_LATENCY)
        self.held: Access | None = None  # by the host
        self.waited = 0
        self.late: Access | None = None  # what it did in the cycle before, and memory does now
        self.read: np.ndarray | None = None  # by the access that the host holds
        self.shown: np.ndarray | None = None
        self.count: collections.Counter[str] = collections.Counter()

    def random(self) -> Access | None:
        """Return a read or a write, or nothing. Addresses are the lowest of either half, or the
        highest."""
        r = self.rng
        if r.random() >= self.busy:
            return None
        places = (0, len(self.words) // 2, len(self.words) - self.span)
        address = int(r.choice(places)) + int(r.integers(self.span))
        mask = r.random(self.width) < r.choice([0.1, 0.5, 1.0])
        write = r.random() < 0.5
        return address, r.integers(256, size=self.width, dtype=np.uint8) if write else None, mask

    def drive(self, port: str, access: Access | None) -> None:
        drive_storage(self.dut, port, access, self.rng, self.width)

    def defined(self, access: Access | None, first: Access | None) -> Access | None:
        """Return ``access`` without what is void beside ``first`` in the same cycle."""
        if access is None or first is None or access[0] != first[0]:
            return access
        if access[1] is None or first[1] is None:
            return access if access[1] is first[1] else None
        self.count["both write a word"] += 1
        return access[0], access[1], access[2] & ~first[2]

    def answer(self, access: Access | None) -> np.ndarray | None:
        """Return what is read now, if the access is a read."""
        return self.words[access[0]].copy() if access is not None and access[1] is None else None

    def check(self, port: str, wanted: np.ndarray | None) -> None:
        if wanted is not None:
            value = int(getattr(self.dut, f"{port}__read_data").value)
            assert value == number(wanted), port
            self.count[f"{port} reads"] += 1

    async def step(self) -> None:
        """Run a cycle."""
        fresh = self.held is None
        if fresh:
            self.held = self.random()
        host, last, acting, self.late = self.held, False, self.late, None
        if host is not None:
            last = self.waited == (HOST_READ if host[1] is None else HOST_WRITE)
            # It reads in the first cycle of its access, and writes in the last.
            self.late = host if (fresh if host[1] is None else last) else None
        card = self.defined(self.random(), acting)
        self.drive("card", card)
        self.drive("host", host)
        await sample(self.dut)
        self.check("card", self.card.popleft())
        self.check("host", self.shown)
        self.shown = None
        self.card.append(self.answer(card))
        if acting is not None:
            self.read = self.answer(acting)
        if host is not None:
            assert int(self.dut.host_ready.value) == last
            if last:
                self.shown = self.read
                self.held, self.read, self.waited = None, None, 0
            else:
                self.waited += 1
        for access in (card, acting):
            if access is not None and access[1] is not None:
                address, written, mask = access
                self.words[address] = np.where(mask, written, self.words[address])
        await tick(self.dut)


@cocotb.test()
async def random_accesses(dut):
    """What one port writes, both read; bytes that the mask leaves out stay."""
    bench = Bench(dut)
    for port in ("card", "host"):
        bench.drive(port, None)
    await start(dut)
    for cycle in range(12_000):
        bench.busy = (0.3, 1.0)[cycle // 500 % 2]
        bench.span = (4, 1000)[cycle // 1000 % 2]
        await bench.step()
    assert len(bench.count) == 3 and min(bench.count.values()) > 20, bench.count
