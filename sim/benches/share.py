"""Bench of `LaneShare`: what several engines send comes out as what one engine would."""

import dataclasses
from typing import Any

import cocotb
import numpy as np

from ...rtl.array.ports import drain_layout, visit_layout
from .lib import StreamSink, StreamSource, bench_config, pack, rng, sample, start, tick, unpack

__all__ = ["full_rate", "random_visits"]

_VALID = pack(drain_layout(), valid=1)


@dataclasses.dataclass
class Visit:
    """An engine's descriptor, the number of its block over all iterations, and its beats."""

    engine: int
    block: int
    fields: dict[str, int]
    beats: list[int]


def plan(
    r: np.random.Generator, engines: int, beats: int, iterations: int, most: int
) -> tuple[list[list[Visit]], set[int]]:
    """Return the visits of each engine, and the last blocks of the iterations."""
    queues: list[list[Visit]] = [[] for _ in range(engines)]
    block, last_blocks = 0, set()
    for _ in range(iterations):
        blocks = int(r.integers(1, 5))
        for number in range(blocks):
            slices = int(r.integers(1, 3))
            for engine, queue in enumerate(queues):
                rows = int(r.integers(0, most + 1))
                kinds: list[tuple[int, int] | None] = [
                    (s, row) for s in range(slices) for row in range(rows)
                ]
                kinds = kinds or [None]
                for i, kind in enumerate(kinds):
                    fields = {
                        name: int(r.integers(1 << 32)) for name in ("address", "bias", "scale")
                    }
                    fields |= {
                        "slot": kind[1] if kind else 0,
                        "slice_first": int(kind is None or kind[0] == 0),
                        "slice_last": int(kind is None or kind[0] == slices - 1),
                        "block_first": int(number == 0),
                        "block_new": int(i == 0),
                        "empty": int(kind is None),
                        "iteration_last": int(number == blocks - 1 and i == len(kinds) - 1),
                    }
                    words = [int(x) for x in r.integers(1 << 55, size=beats if kind else 0)]
                    queue.append(Visit(engine, block, fields, words))
            block += 1
        last_blocks.add(block - 1)
    return queues, last_blocks


class Bench:
    """The engines with their credits, and a lane."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut, self.config, self.r, self.stall = dut, bench_config(), rng(), stall
        self.engines = self.config.engines_per_lane
        self.beats = 2 * self.config.cols
        self.credits = [2] * self.engines
        self.came: list[int] = []  # beats
        self.first_beat = self.cycle = 0
        self.sink = StreamSink(dut, "lane_visit", stall=stall, rng=self.r)
        cocotb.start_soon(self._lane())

    async def _lane(self) -> None:
        """Take beats, of visits that have been offered only."""
        before = 0  # a beat that was not taken
        while True:
            takes = self.r.random() >= self.stall
            self.dut.lane_credit.value = int(takes)
            await sample(self.dut)
            self.cycle += 1
            for engine in range(self.engines):
                self.credits[engine] += int(self.dut.credit.value) >> engine & 1
            assert max(self.credits) <= 2, "a credit too many"
            beat = int(self.dut.lane_drain.value)
            assert before in (0, beat), "a beat that did not wait"
            before = 0 if takes or not beat & _VALID else beat
            if beat & _VALID and takes:
                self.first_beat = self.first_beat or self.cycle
                self.came.append(beat & ~_VALID)
                known = sum(not unpack(visit_layout(), item)["empty"] for item in self.sink.items)
                if self.dut.lane_visit__valid.value:
                    offered = int(self.dut.lane_visit__payload.value)
                    known += not unpack(visit_layout(), offered)["empty"]
                assert len(self.came) <= self.beats * known, "a beat before its descriptor"
            await tick(self.dut)

    async def run(self, queues: list[list[Visit]]) -> None:
        """Send all visits of all engines."""
        tasks = [cocotb.start_soon(self._engine(e, queue)) for e, queue in enumerate(queues)]
        for task in tasks:
            await task
        for _ in range(2000):
            if len(self.came) == sum(len(v.beats) for queue in queues for v in queue):
                break
            await tick(self.dut)
        await tick(self.dut, 30)

    async def _engine(self, engine: int, queue: list[Visit]) -> None:
        source = StreamSource(self.dut, f"visit__{engine}", stall=self.stall, rng=self.r)
        drain = getattr(self.dut, f"drain__{engine}")
        known = [source.put(pack(visit_layout(), visit.fields)) for visit in queue]
        pause = self.stall and self.r.choice([0.0, self.stall, 0.9])
        for visit, event in zip(queue, known, strict=True):
            await event.wait()
            while visit.beats and not self.credits[engine]:
                await tick(self.dut)
            self.credits[engine] -= bool(visit.beats)
            for beat in visit.beats:
                while self.r.random() < pause:
                    await tick(self.dut)
                drain.value = beat | _VALID
                await tick(self.dut)
                drain.value = beat

    def check(self, queues: list[list[Visit]], last_blocks: set[int]) -> list[Visit]:
        """Check all that came; return the visits in their order."""
        left, order = [list(queue) for queue in queues], []
        seen: dict[int, int] = {}
        count = sum(map(len, queues))
        assert len(self.sink.items) == count, f"{len(self.sink.items)} visits, not {count}"
        for item in self.sink.items:
            fields = unpack(visit_layout(), item)
            engine = fields["slot"] % self.engines
            visit = left[engine].pop(0)
            order.append(visit)
            seen[visit.block] = seen.get(visit.block, 0) + 1
            all_of_block = sum(v.block == visit.block for queue in queues for v in queue)
            expected = visit.fields | {
                "slot": visit.fields["slot"] * self.engines + engine,
                "block_new": int(seen[visit.block] == 1),
                "iteration_last": int(
                    visit.block in last_blocks and seen[visit.block] == all_of_block
                ),
            }
            assert {name: fields[name] for name in expected} == expected
        blocks = [visit.block for visit in order]
        assert blocks == sorted(blocks), "blocks in one another"
        beats = [beat for visit in order for beat in visit.beats]
        assert self.came == beats, "other beats than those of the visits, in their order"
        return order


async def _begin(dut: Any, stall: float) -> Bench:
    dut.lane_credit.value = 0
    for engine in range(bench_config().engines_per_lane):
        getattr(dut, f"drain__{engine}").value = 0
        getattr(dut, f"visit__{engine}__valid").value = 0
    await start(dut)
    return Bench(dut, stall)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.2, 0.6])
async def random_visits(dut: Any, stall: float) -> None:
    """Blocks with rows for all engines, for some, for none; at any pace."""
    bench = await _begin(dut, stall)
    queues, last_blocks = plan(bench.r, bench.engines, bench.beats, 12, 3)
    await bench.run(queues)
    bench.check(queues, last_blocks)


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """Engines that always have results keep the lane busy, and take turns."""
    bench = await _begin(dut, 0.0)
    rows = 20
    queues = [
        [
            Visit(
                engine,
                0,
                dict.fromkeys(("address", "bias", "scale", "empty"), 0)
                | {
                    "slot": row,
                    "slice_first": 1,
                    "slice_last": 1,
                    "block_first": 1,
                    "block_new": int(row == 0),
                    "iteration_last": int(row == rows - 1),
                },
                [int(x) for x in bench.r.integers(1 << 55, size=bench.beats)],
            )
            for row in range(rows)
        ]
        for engine in range(bench.engines)
    ]
    await bench.run(queues)
    order = bench.check(queues, {0})
    for i in range(len(order) - 4 * bench.engines):
        taken = {visit.engine for visit in order[i : i + 2 * bench.engines]}
        assert len(taken) == bench.engines, f"from visit {i} on only engines {taken}"
    need = bench.engines * rows * bench.beats
    cycles = bench.cycle - bench.first_beat - 30
    dut._log.info("%d beats in %d cycles", need, cycles)
    assert cycles <= need + 4
