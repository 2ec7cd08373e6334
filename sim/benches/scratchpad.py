"""Bench of the scratchpad; ``$READERS`` and ``$WRITERS`` hold the granules of its ports."""

import collections
import json
import os
from typing import Any

import cocotb
import numpy as np

from ...rtl.config import GRANULE
from ...rtl.core.ports import READ_LATENCY
from .lib import bench_config, rng, sample, start, tick
from .units import banks_at, noise

READERS: list[int] = json.loads(os.environ.get("READERS", "[1]"))
WRITERS: list[int] = json.loads(os.environ.get("WRITERS", "[1]"))


class Model:
    """The scratchpad's bytes, and who is served in a cycle."""

    def __init__(self, banks: int, granules: int) -> None:
        self.banks = banks
        self.granules = granules
        self.words = np.zeros((granules, GRANULE), np.uint8)
        self.steady = np.ones((granules, GRANULE), bool)  # not written in this cycle

    def bank(self, granule: int) -> int:
        """Return the bank of a granule; `Scratchpad` says why."""
        return (granule + granule // self.banks) % self.banks

    def grants(
        self, requests: list[int | None], widths: list[int], needed: list[int]
    ) -> list[bool]:
        """Serve requests in order; each takes all of the banks that it needs or nothing."""
        taken: set[int] = set()
        result = []
        for address, width, bits in zip(requests, widths, needed, strict=True):
            lanes = range(0) if address is None else range(address, address + width)
            span = [granule for lane, granule in enumerate(lanes) if bits >> lane & 1]
            wanted = {self.bank(granule % self.granules) for granule in span}
            granted = bool(wanted) and not wanted & taken
            taken |= wanted if granted else set()
            result.append(granted)
        return result

    def span(self, address: int, width: int) -> np.ndarray:
        return np.arange(address, address + width) % self.granules

    def read(self, address: int, width: int) -> int:
        return int.from_bytes(self.words[self.span(address, width)].tobytes(), "little")

    def known(self, address: int, needed: int, width: int) -> int:
        """Return a mask of the bits that a read returns: not those that are being written."""
        bytes_known = self.steady[self.span(address, width)].copy()
        bytes_known[[not needed >> i & 1 for i in range(width)]] = False
        return int.from_bytes(np.where(bytes_known, 255, 0).astype(np.uint8).tobytes(), "little")

    def write(self, address: int, width: int, value: int, mask: int) -> None:
        span = self.span(address, width)
        chosen = np.array([mask >> i & 1 for i in range(width * GRANULE)], bool)
        chosen = chosen.reshape(width, GRANULE)
        fresh = np.frombuffer(value.to_bytes(width * GRANULE, "little"), np.uint8)
        self.words[span] = np.where(chosen, fresh.reshape(width, GRANULE), self.words[span])
        self.steady[span] = ~chosen


class Traffic:
    """Drives every port in every cycle, and compares grants and data with the model."""

    def __init__(self, dut: Any, r: np.random.Generator) -> None:
        self.config = config = bench_config()
        self.dut = dut
        self.r = r
        self.model = Model(config.scratchpad_banks, config.scratchpad_bytes // GRANULE)
        self.answers: collections.deque[list[tuple[int, int] | None]] = collections.deque(
            [[None] * len(READERS)] * READ_LATENCY
        )
        self.refused = collections.Counter[str]()
        self.served = collections.Counter[str]()

    def port(self, name: str, member: str) -> Any:
        return getattr(self.dut, f"{name}__{member}")

    async def cycle(self, reads: list[int | None], writes: list[int | None]) -> None:
        """One cycle with these requests (addresses; None is no request). Ends at a `tick`."""
        r, model = self.r, self.model
        data = []
        needed = [int(r.integers(1, 1 << width)) for width in READERS]
        for i, (width, bits) in enumerate(zip(READERS, needed, strict=True)):
            if width > 1:
                self.port(f"read{i}", "needed").value = bits
        for name, requests, widths in (("read", reads, READERS), ("write", writes, WRITERS)):
            for i, (address, width) in enumerate(zip(requests, widths, strict=True)):
                port = f"{name}{i}"
                valid = address is not None
                if address is None:
                    address = int(r.integers(model.granules))
                self.port(port, "valid").value = int(valid)
                self.port(port, "address").value = address
                bits = needed[i] if name == "read" else -1
                self.port(port, "banks").value = banks_at(self.config, address, width, bits)
                if name == "write":
                    mask = noise(r, GRANULE * width)
                    if r.random() < 0.3:
                        mask = (1 << GRANULE * width) - 1
                    data.append((noise(r, 8 * GRANULE * width), mask))
                    self.port(port, "data").value, self.port(port, "mask").value = data[-1]
        await sample(self.dut)

        expected = self.answers.popleft()
        for i, answer in enumerate(expected):
            answered = int(self.port(f"read{i}", "data_valid").value)
            assert answered == (answer is not None), f"read{i}: data_valid"
            if answer is not None:
                value, known = answer
                found = int(self.port(f"read{i}", "data").value) & known
                assert found == value & known, f"read{i}: data"

        granted = {
            "read": model.grants(reads, READERS, needed),
            "write": model.grants(writes, WRITERS, [(1 << width) - 1 for width in WRITERS]),
        }
        for name, requests in (("read", reads), ("write", writes)):
            for i, address in enumerate(requests):
                port = f"{name}{i}"
                if address is not None:
                    ready = int(self.port(port, "ready").value)
                    assert ready == granted[name][i], f"{port}: ready"
                    (self.served if ready else self.refused)[port] += 1
        answers = [
            model.read(address, width) if go and address is not None else None
            for address, width, go in zip(reads, READERS, granted["read"], strict=True)
        ]
        model.steady[:] = True
        for address, width, go, word in zip(writes, WRITERS, granted["write"], data, strict=True):
            if go and address is not None:
                model.write(address, width, *word)
        self.answers.append(
            [
                None if answer is None else (answer, model.known(address or 0, bits, width))
                for answer, address, width, bits in zip(
                    answers, reads, READERS, needed, strict=True
                )
            ]
        )
        await tick(self.dut)

    async def idle(self, cycles: int = 3) -> None:
        for _ in range(cycles):
            await self.cycle([None] * len(READERS), [None] * len(WRITERS))


async def begin(dut: Any) -> Traffic:
    """Start the design with no request, and clear its bytes: they outlive a reset."""
    for name, widths in (("read", READERS), ("write", WRITERS)):
        for i in range(len(widths)):
            getattr(dut, f"{name}{i}__valid").value = 0
    await start(dut)
    traffic = Traffic(dut, rng())
    dut.write0__data.value = 0
    dut.write0__mask.value = (1 << GRANULE * WRITERS[0]) - 1
    dut.write0__valid.value = 1
    for address in range(0, traffic.model.granules, WRITERS[0]):
        dut.write0__address.value = address
        dut.write0__banks.value = banks_at(traffic.config, address, WRITERS[0])
        await tick(dut)
    return traffic


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Every mix of load on the ports, to few and to many rows."""
    traffic = await begin(dut)
    r, granules = traffic.r, traffic.model.granules
    for _ in range(40):
        rates = {name: r.choice([0.0, 0.2, 0.6, 1.0], 8) for name in ("read", "write")}
        near = int(r.choice([2, 4, 16, granules]))
        base = int(r.choice([0, granules - 1, int(r.integers(granules))]))

        def draw(widths: list[int], rates: np.ndarray, base: int = base, near: int = near) -> list:
            return [
                (base + int(r.integers(near))) % granules if r.random() < rate else None
                for rate in rates[: len(widths)]
            ]

        for _ in range(60):
            await traffic.cycle(draw(READERS, rates["read"]), draw(WRITERS, rates["write"]))
    await traffic.idle()
    for i in range(len(READERS)):
        assert traffic.served[f"read{i}"] > 100
        assert traffic.refused[f"read{i}"] > 10 if i else not traffic.refused["read0"]
    for i in range(len(WRITERS)):
        assert traffic.served[f"write{i}"] > 100
        assert traffic.refused[f"write{i}"] > 10 if i else not traffic.refused["write0"]


@cocotb.test()
async def every_granule(dut: Any) -> None:
    """Write all of it, each port a share, then read all of it through every port."""
    traffic = await begin(dut)
    granules = traffic.model.granules
    address = 0
    while address < granules:
        port = address // 4 % len(WRITERS)
        writes: list[int | None] = [None] * len(WRITERS)
        writes[port] = address
        await traffic.cycle([None] * len(READERS), writes)
        address += WRITERS[port]
    for address in range(granules):
        # Neighbours apart, so that no port waits for another.
        reads: list[int | None] = [None] * len(READERS)
        reads[address % len(READERS)] = address
        await traffic.cycle(reads, [None] * len(WRITERS))
    await traffic.idle()


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """Ports in banks of their own are all served in every cycle, whatever their priority."""
    traffic = await begin(dut)
    banks, granules = traffic.model.banks, traffic.model.granules
    for cycle in range(2 * granules):
        requests = []
        for widths in (READERS, WRITERS):
            room, addresses = banks - 1, []  # so many in a row never share a bank
            for width in widths:
                room -= width
                addresses.append((cycle + room) % granules if room >= 0 else None)
            requests.append(addresses)
        await traffic.cycle(*requests)
    await traffic.idle()
    assert not traffic.refused


@cocotb.test()
async def reset_drops_reads(dut: Any) -> None:
    """A reset drops the answers under way, and keeps the bytes."""
    traffic = await begin(dut)
    for address in range(8):
        await traffic.cycle([None] * len(READERS), [address] + [None] * (len(WRITERS) - 1))
    for _ in range(3):
        await traffic.cycle([0] + [None] * (len(READERS) - 1), [None] * len(WRITERS))
    dut.rst.value = 1
    await tick(dut)
    dut.rst.value = 0
    dut.read0__valid.value = 0
    traffic.answers = collections.deque([[None] * len(READERS)] * READ_LATENCY)
    await traffic.idle()
    for address in range(8):
        await traffic.cycle([address] + [None] * (len(READERS) - 1), [None] * len(WRITERS))
    await traffic.idle()
