"""What the link carries, in bytes of data a second, measured against its line."""

import collections
import itertools
import os
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.triggers import Timer
from cocotb.utils import get_sim_time

from ..golden import link
from ..golden.link import Deframer, ReplyFrame, request
from .lib import CLOCK_NS, rng, start
from .line import Line

BYTES = 6 * 1024
LEAST = float(os.environ["LEAST_SHARE"])


class Host(Line):
    """A host that keeps the line busy: as many requests on their way as the window takes."""

    def __init__(self, dut: Any) -> None:
        bit_ns = CLOCK_NS * float(os.environ["CLOCKS_A_BIT"])
        super().__init__(dut, bit_ns, phase_ns=0.3 * CLOCK_NS)
        self._deframer = Deframer(shortest=4)
        self.replies: collections.deque[ReplyFrame] = collections.deque()

    def arrived(self) -> None:
        frames = self._deframer.receive(bytes(self.got[-1:]))
        self.replies.extend(map(ReplyFrame.parse, frames))

    async def ask(self, requests: Iterator[bytes]) -> list[bytes]:
        """Send requests in order, and return the data of their replies."""
        waiting: collections.deque[bytes] = collections.deque()
        data = []
        upcoming = next(requests, None)
        silent = 0
        while upcoming is not None or waiting:
            room = link.WINDOW_BYTES - sum(map(len, waiting))
            if upcoming is not None and len(upcoming) <= room and len(waiting) < 100:
                self.put(link.frame(upcoming))
                waiting.append(upcoming)
                upcoming = next(requests, None)
            elif self.replies:
                reply = self.replies.popleft()
                assert (reply.sequence, reply.reply) == (waiting.popleft()[0], link.OK)
                data.append(reply.data)
                silent = 0
            else:
                await Timer(self.bit_ns, "ns", round_mode="round")
                silent += 1
                assert silent < 15 * link.WINDOW_BYTES, "no reply"
        return data


@cocotb.test()
async def speed(dut: Any) -> None:
    """Long writes, then long reads of the same random data."""
    dut.rx.value = 1
    await start(dut)
    data = rng().bytes(BYTES)
    host = Host(dut)
    at = range(0, BYTES, link.MAX_DATA)
    sequence = itertools.count(1)
    await host.ask(iter([request(0, link.HELLO)]))
    writes = (
        request(next(sequence), link.WRITE_MEMORY, a, link.MAX_DATA, data[a : a + link.MAX_DATA])
        for a in at
    )
    reads = (request(next(sequence), link.READ_MEMORY, a, link.MAX_DATA) for a in at)
    for name, requests in (("written", writes), ("read", reads)):
        before = get_sim_time("ns")
        got = b"".join(await host.ask(requests))
        assert got == (b"" if name == "written" else data)
        share = BYTES / ((get_sim_time("ns") - before) / (10 * host.bit_ns))
        print(f"link: {name} at {100 * share:.2f} % of the line", flush=True)
        assert LEAST <= share < 1
    assert int(dut.dropped.value) == 0
