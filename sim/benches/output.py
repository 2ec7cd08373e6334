"""Bench of `OutputMerge`: every byte arrives, in time and merged, lanes that lag behind first."""

from typing import Any

import cocotb
import numpy as np

from ...rtl.config import GRANULE
from ...rtl.core.output import lane_write_layout
from .lib import StreamSource, bench_config, pack, rng, sample, start, tick, within
from .units import banks_at

__all__ = ["drifted_lanes", "lowest_first", "one_write_for_all", "random_writes"]

AREA = 8
"""Granules that one iteration writes to; the next one uses the next as many."""


class Bench:
    """Sources for the lanes, and a scratchpad that is ready as it likes."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut = dut
        self.config = bench_config()
        self.rng = rng()
        self.layout = lane_write_layout(self.config)
        self.stall = stall
        self.lanes = [
            StreamSource(dut, f"lane__{r}", stall=stall, rng=self.rng)
            for r in range(self.config.epilogue_lanes)
        ]
        self.memory: dict[int, int] = {}
        self.writes: list[int] = []
        self.done = 0
        self.need: list[dict[int, int]] = []
        """For each iteration the bytes that it writes, by address."""
        cocotb.start_soon(self._scratchpad())

    async def _scratchpad(self) -> None:
        kept = None
        while True:
            ready = bool(self.rng.random() >= self.stall)
            self.dut.write__ready.value = ready
            await sample(self.dut)
            if self.dut.iteration_done.value:
                # A read accepted now sees the writes of the cycles before this one.
                assert self.done < len(self.need), "an iteration too many"
                for address, byte in self.need[self.done].items():
                    assert self.memory.get(address) == byte, f"{address:#x} of {self.done}"
                self.done += 1
            if self.dut.write__valid.value:
                write = (
                    int(self.dut.write__address.value),
                    int(self.dut.write__data.value),
                    int(self.dut.write__mask.value),
                )
                assert write[2], "a write of nothing"
                assert int(self.dut.write__banks.value) == banks_at(self.config, write[0])
                assert kept in (None, write), "the write changed before it was taken"
                kept = None if ready else write
                if ready:
                    self._write(*write)
            else:
                assert kept is None, "the write was withdrawn"
            await tick(self.dut)

    def _write(self, address: int, data: int, mask: int) -> None:
        self.writes.append(address)
        for byte in range(GRANULE):
            if mask >> byte & 1:
                place = address * GRANULE + byte
                assert place not in self.memory, f"{place:#x} was written twice"
                self.memory[place] = data >> 8 * byte & 255

    def put(self, lane: int, granule: int, items: dict[int, int], done: int = 0) -> Any:
        """Queue a write of some bytes (by their place in the granule)."""
        return self.lanes[lane].put(
            pack(
                self.layout,
                address=granule,
                data=sum(value << 8 * byte for byte, value in items.items()),
                mask=sum(1 << byte for byte in items),
                some=int(bool(items)),
                done=done,
            )
        )

    async def finished(self, iterations: int) -> None:
        """Wait until so many iterations are done."""
        while self.done < iterations:
            await tick(self.dut)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.2, 0.7])
async def random_writes(dut: Any, stall: float) -> None:
    """Lanes share granules at random; an iteration is done only when its bytes are written."""
    await start(dut)
    bench = Bench(dut, stall)
    r, rows = bench.rng, bench.config.epilogue_lanes
    iterations = 40
    plans: list[list[list[tuple[int, dict[int, int]]]]] = []
    for iteration in range(iterations):
        owner = r.integers(rows + 1, size=(AREA, GRANULE))
        plan = []
        for lane in range(rows):
            writes = []
            for granule in r.permutation(AREA).tolist() if r.random() < 0.8 else []:
                owned = np.flatnonzero(owner[granule] == lane).tolist()
                if owned:
                    items = {byte: int(r.integers(256)) for byte in owned}
                    writes.append((iteration * AREA + granule, items))
            plan.append(writes)
        plans.append(plan)
        bench.need.append(
            {
                granule * GRANULE + byte: value
                for writes in plan
                for granule, items in writes
                for byte, value in items.items()
            }
        )

    async def send(index: int) -> None:
        for iteration, plan in enumerate(plans):
            # The queue keeps two iterations outstanding.
            await bench.finished(iteration - 1)
            writes = plan[index]
            marked = bool(writes) and r.random() < 0.5
            for i, (granule, items) in enumerate(writes):
                await bench.put(index, granule, items, int(marked and i == len(writes) - 1)).wait()
            if not marked:
                await bench.put(index, int(r.integers(AREA)), {}, 1).wait()

    for index in range(rows):
        cocotb.start_soon(send(index))
    await within(20000, bench.finished(iterations), "the last iteration")
    await tick(dut, 20)
    assert bench.done == iterations
    assert bench.memory == {k: v for need in bench.need for k, v in need.items()}


@cocotb.test()
async def one_write_for_all(dut: Any) -> None:
    """Lanes in step that write to the same granules need one write for each."""
    await start(dut)
    bench = Bench(dut, 0.0)
    rows, count = bench.config.epilogue_lanes, 50
    for lane in range(rows):
        for granule in range(count):
            bench.put(lane, granule, {lane: granule})
    await tick(dut, 2 * count + 10)
    assert bench.writes == list(range(count))
    assert len(bench.memory) == rows * count


@cocotb.test()
async def drifted_lanes(dut: Any) -> None:
    """Lanes that start at different times soon share their writes again."""
    await start(dut)
    bench = Bench(dut, 0.0)
    rows, count = bench.config.epilogue_lanes, 300
    last = []
    for lane in range(rows):
        for granule in range(count):
            done = bench.put(lane, granule, {lane: granule & 255})
        last.append(done)
        await tick(dut, 7)
    for done in last:
        await within(4 * count, done.wait(), "the last write")
    await tick(dut, 5)
    dut._log.info("%d writes for %d granules of %d lanes", len(bench.writes), count, rows)
    assert len(bench.memory) == rows * count
    # Those ahead go on alone until the last has begun.
    assert len(bench.writes) <= count + 7 * rows


@cocotb.test()
async def lowest_first(dut: Any) -> None:
    """The lowest address goes first, but that of a lane that is an iteration ahead comes last."""
    await start(dut)
    bench = Bench(dut, 0.0)
    rows = bench.config.epilogue_lanes
    bench.need = [{}]
    bench.put(0, 0, {}, 1)
    await tick(dut, 4)
    bench.stall = 1.0  # what waits is compared while another write is before the port
    bench.put(1, 500, {0: 0})
    await tick(dut, 4)
    for lane in range(rows):
        bench.put(lane, lane and 1000 - lane, {0: lane})
    await tick(dut, 6)
    bench.stall = 0.0
    await tick(dut, rows + 6)
    waited = [1000 - lane for lane in range(rows - 1, 0, -1)]
    assert sorted(bench.writes) == sorted([500, *waited, 0])
    assert bench.writes[:2] == [500, waited[0]]
    assert bench.writes[-1] == 0
