"""Bench of `EpilogueLane`: whole commands against the golden model, write by write."""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import Event

from ...rtl.array.ports import drain_layout, visit_layout
from ...rtl.config import GRANULE, CardConfig
from ...rtl.core.output import lane_write_layout
from ...rtl.isa import LANES, OUTPUT_FORMATS, Format, MatmulBody, Mode, Status
from .epilogue_jobs import PATHS, Job, Path, Visit, Write
from .lib import StreamSink, StreamSource, bench_config, pack, rng, sample, start, tick, within

__all__ = [
    "all_paths",
    "commands_follow",
    "full_rate",
    "latency",
    "no_room",
    "runs_ahead",
    "slices_back_to_back",
    "slow_writes",
    "switch_costs_little",
]


class Bench:
    """The lane's surroundings: an engine with two credits, and a sink for the writes."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut = dut
        self.rng = rng()
        self.config = bench_config()
        self.stall = stall
        self.shared = self.config.engines_per_lane > 1
        self.credits = 2
        self.errors: list[tuple[int, Status]] = []  # with the turn of the iteration
        self.flags: list[tuple[int, int]] = []
        self.turn = 0  # of the iteration that is next
        self.cycle = 0
        self.visit = StreamSource(dut, "visit", stall=stall, rng=self.rng)
        self.write = StreamSink(dut, "write", stall=stall, rng=self.rng)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            await sample(self.dut)
            self.cycle += 1
            self.credits += 0 if self.shared else int(self.dut.credit.value)
            assert self.credits <= 2, "a credit too many"
            for turn, flags in enumerate((self.dut.flags__0, self.dut.flags__1)):
                if int(self.dut.error.value) >> turn & 1:
                    self.errors.append((turn, Status(int(self.dut.status.value))))
                if flags.value:
                    self.flags.append((turn, int(flags.value)))

    async def drain(self, beats: list[int]) -> None:
        """Drain beats, as soon as there is a credit; to a shared lane, each until it is taken."""
        while self.credits == 0 or self.rng.random() < self.stall:
            await tick(self.dut)
        self.credits -= not self.shared
        for beat in beats:
            while self.rng.random() < self.stall:
                await tick(self.dut)
            self.dut.drain.value = beat
            taken = False
            while not taken:
                await sample(self.dut)
                taken = not self.shared or bool(self.dut.credit.value)
                await tick(self.dut)
            self.dut.drain.value = beat ^ pack(drain_layout(), valid=1)

    async def run(self, job: Job) -> int:
        """Run a command, check all that comes back, and return the cycles it took."""
        return await self.follow([job])

    async def take(self, job: Job, first: bool) -> None:
        """Keep an iteration's command."""
        self.dut.body.value = pack(MatmulBody, job.command)
        self.dut.first.value = int(first)
        self.dut.take.value = 1
        await tick(self.dut)
        self.dut.take.value = 0
        self.dut.first.value = int(self.rng.integers(2))
        await tick(self.dut)
        # What is not kept is lost.
        self.dut.body.value = int.from_bytes(self.rng.bytes(64), "little")
        # Whether its path is that of the one before is known later, but before the first visit.
        await tick(self.dut, 3)

    async def follow(self, jobs: list[Job]) -> int:
        """Run commands with one mode and anchor as one stream of visits.

        As in the compute unit at most two iterations are under way. Checks all that comes back, and
        returns the cycles it took.
        """
        iterations = [
            (job, visits, number == 0)
            for job in jobs
            for number, visits in enumerate(job.iterations)
        ]
        expected = [job.expected_of(visits) for job, visits, _ in iterations]
        ends = np.cumsum([len(writes) for writes, _, _ in expected]).tolist()
        events: list[tuple[Visit, Event]] = []

        async def describe() -> None:
            for number, (job, visits, first) in enumerate(iterations):
                if number > 1:
                    await within(20000, self.write.wait(ends[number - 2]), "the last but one")
                await self.take(job, first)
                new = [self.visit.put(pack(visit_layout(), visit.fields)) for visit in visits]
                events.extend(zip(visits, new, strict=True))

        async def drains() -> None:
            for number in range(sum(len(visits) for _, visits, _ in iterations)):
                while number >= len(events):
                    await tick(self.dut)
                visit, accepted = events[number]
                await within(5000, accepted.wait(), "a descriptor")
                if visit.beats:
                    await within(5000, self.drain(visit.beats), "a credit")

        begin = self.cycle
        describing = cocotb.start_soon(describe())
        await drains()
        await describing
        got = await within(5000, self.write.take(ends[-1]), "the last write")
        cycles = self.cycle - begin
        self.check(iterations, expected, got)
        await tick(self.dut, 8)
        assert not self.write.items, "a write too many"
        errors = [(n & 1, error) for n, (_, part, _) in enumerate(expected) for error in part]
        flags = [(n & 1, flag) for n, (_, _, part) in enumerate(expected) for flag in part]
        # The first iteration's turn is that which the one before has left.
        errors, flags = ([(self.turn ^ turn, item) for turn, item in x] for x in (errors, flags))
        assert self.flags == flags, f"{iterations[0][0].path}: flags {self.flags}, not {flags}"
        assert self.errors == errors, f"{len(self.errors)} errors, not {len(errors)}"
        self.errors, self.flags = [], []
        self.turn ^= len(iterations) & 1
        assert self.credits == 2
        return cycles

    def check(self, iterations: Any, expected: Any, got: list[int]) -> None:
        """Compare the writes of all iterations."""
        items = iter(got)
        for (job, _, _), (writes, _, _) in zip(iterations, expected, strict=True):
            for i, right in enumerate(writes):
                fields = unpack_write(self.config, next(items))
                if right[2] == 0:
                    right = (fields[0], *right[1:])
                assert fields == right, (
                    f"write {i} of {job.path}, {job.slices} slices, {job.command}: "
                    f"{[hex(x) for x in fields]}, not {[hex(x) for x in right]}"
                )


def unpack_write(config: CardConfig, item: int) -> Write:
    """Return address, data, mask and done of a write."""
    fields = {
        name: item >> field.offset & ((1 << field.width) - 1)
        for name, field in lane_write_layout(config)
    }
    assert fields["some"] == bool(fields["mask"])
    return (fields["address"], fields["data"], fields["mask"], fields["done"])


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def all_paths(dut: Any, stall: float) -> None:
    """Every mode, output and function, with random geometries, slices and numbers."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, stall)
    # Wider lanes take longer, and differ in little else.
    for index in bench.rng.permutation(len(PATHS))[: 4 * len(PATHS) // bench.config.cols]:
        await bench.run(Job(bench.config, bench.rng, PATHS[index]))


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def commands_follow(dut: Any, stall: float) -> None:
    """Commands of one mode with different outputs, functions, scales and layouts in one stream."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, stall)
    r = bench.rng
    for mode in Mode:
        paths = [path for path in PATHS if path.mode is mode]
        for _ in range(1 + (bench.config.cols == 4)):
            bench.write.stall = float(r.choice([stall, 0.8]))
            anchor = int(r.integers(-126, 33)) if mode is Mode.BF16 else 0
            jobs: list[Job] = []
            while len(jobs) < 8:
                path = jobs[-1].path if jobs and r.random() < 0.3 else paths[r.integers(len(paths))]
                same = jobs[-1].command if jobs and r.random() < 0.5 else {}
                kept = ("parameter", "zero_point", "clamp_low", "clamp_high", "function")
                fields = {name: same[name] for name in kept if name in same} | {"anchor": anchor}
                fields["function"] = path.function
                # Short ones, some of them without any results.
                jobs.append(
                    Job(
                        bench.config,
                        r,
                        path,
                        iterations=int(r.integers(1, 3)),
                        slices=int(r.integers(1, 3)),
                        rows=int(r.integers(0, 3)),
                        n=int(r.integers(1, 2 * bench.config.cols * LANES[mode])),
                        empty=float(r.choice([0.2, 0.9])),
                        n_inner=65534,
                        **fields,
                    )
                )
            await bench.follow(jobs)


@cocotb.test()
async def switch_costs_little(dut: Any) -> None:
    """Between commands with one path there is no gap, else one that is soon made up for."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    for targets, gap in (((Format.FP32,) * 4, 4), ((Format.FP32, Format.INT8) * 2, 3 * 44)):
        jobs = []
        for target in targets:
            size = 4 if target is Format.FP32 else 1
            fields: Any = {"n": 4 * bench.config.cols, "n_inner": 65535}
            fields |= {"out_inner_stride": size, "out_outer_stride": 0, "function": 0}
            fields |= {"zero_point": 0, "clamp_low": -128, "clamp_high": 127, "parameter": [0] * 3}
            path = Path(Mode.FP16, target)
            jobs.append(
                Job(
                    bench.config, bench.rng, path, iterations=1, slices=1, rows=2, empty=0, **fields
                )
            )
        need = sum(len(visit.beats) for job in jobs for visit in job.visits)
        cycles = await bench.follow(jobs)
        dut._log.info("%s: %d cycles, not below %d", targets, cycles, need)
        assert cycles <= need + 60 + gap


@cocotb.test()
async def slow_writes(dut: Any) -> None:
    """Nothing is lost when the scratchpad is nearly always busy."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    bench.write.stall = 0.9
    for path in PATHS[::17]:
        await bench.run(Job(bench.config, bench.rng, path))


@cocotb.test()
async def slices_back_to_back(dut: Any) -> None:
    """Slices of one row follow each other at once: each finds what the one before has left."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    for mode in Mode:
        for blocks in (False, True):
            for stall in (0.0, 0.5):
                bench.write.stall = stall
                path = Path(mode, Format.FP32, blocks=blocks)
                job = Job(bench.config, bench.rng, path, slices=8, rows=1, empty=0)
                await bench.run(job)


@cocotb.test()
@cocotb.parametrize((("stride", "blocks"), [(1, False), (GRANULE // 4, False), (1, True)]))
async def full_rate(dut: Any, stride: int, blocks: bool) -> None:
    """Without stalls the lane takes a beat a cycle (of INT4 every second), whether granules are
    shared or not."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    for mode in Mode:
        job = Job(
            bench.config,
            bench.rng,
            Path(mode, Format.FP32, blocks=blocks),
            empty=0,
            rows=2,
            slices=1 + blocks,
            n=8 * bench.config.cols * LANES[mode],
            n_inner=65535,
            out_inner_stride=4 * stride,
            out_outer_stride=0,
        )
        need = sum(len(visit.beats) for visit in job.visits) * (1 + (mode == Mode.INT4))
        cycles = await bench.run(job)
        dut._log.info("%s: %d cycles, not below %d", mode.name, cycles, need)
        assert cycles <= need + 60


@cocotb.test()
async def latency(dut: Any) -> None:
    """The latency of each path is what the lane's documentation says."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    expected = {
        Path(Mode.INT8, Format.INT32): 13,
        Path(Mode.INT8, Format.FP32): 31,
        Path(Mode.INT8, Format.INT8): 38,
        Path(Mode.FP16, Format.FP32): 40,
        Path(Mode.FP16, Format.E4M3): 47,
    }
    seen = {"drain": 0, "write": 0}
    valid = pack(drain_layout(), valid=1)

    async def watch() -> None:
        while True:
            await sample(dut)
            if int(dut.drain.value) & valid:
                seen["drain"] = bench.cycle
            if dut.write__valid.value:
                seen["write"] = bench.cycle

    cocotb.start_soon(watch())
    for path, cycles in expected.items():
        job = Job(bench.config, bench.rng, path, iterations=1, slices=1, rows=1, empty=0, n=1)
        await bench.run(job)
        assert seen["write"] - seen["drain"] == cycles, (path, seen)
        await tick(dut, 45)  # else a command with another path would have to wait


@cocotb.test()
async def runs_ahead(dut: Any) -> None:
    """Sixteen descriptors are taken before anything is drained."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    for path in (PATHS[0], Path(Mode.FP16, Format.FP32, blocks=True)):
        width = bench.config.cols * LANES[path.mode]
        job = Job(
            bench.config,
            bench.rng,
            path,
            iterations=1,
            slices=4,
            rows=1,
            empty=0,
            n=4 * width,
            n_inner=1,
        )
        visits = job.iterations[0]
        await bench.take(job, True)
        events = [bench.visit.put(pack(visit_layout(), visit.fields)) for visit in visits]
        await within(60, events[-1].wait(), "the sixteenth descriptor")
        for visit in visits:
            await bench.drain(visit.beats)
        writes, _, _ = job.expected()
        got = await within(2000, bench.write.take(len(writes)), "the last write")
        assert [unpack_write(bench.config, item) for item in got] == writes


@cocotb.test()
async def no_room(dut: Any) -> None:
    """Results outside the scratchpad are reported, and all others written."""
    dut.drain.value = dut.take.value = 0
    await start(dut)
    bench = Bench(dut, 0.2)
    room, errors = bench.config.scratchpad_bytes, 0
    for target in OUTPUT_FORMATS:
        path = Path(Mode.INT8, target)
        size = Job(bench.config, bench.rng, path).size
        job = Job(bench.config, bench.rng, path, n_inner=4, out_inner_stride=size * 7)
        bad = [room - size, room - 5 * size, room, 0xFFFFFFF0, 0x80000000, 2 * room - size]
        for visit in job.visits:
            if bench.rng.random() < 0.6:
                visit.fields["address"] = int(bench.rng.choice(bad))
        errors += len(job.expected()[1])
        await bench.run(job)
    assert errors > 20
