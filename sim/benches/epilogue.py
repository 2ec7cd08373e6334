"""Bench of `EpilogueLane`: whole commands against the golden model, write by write."""

from typing import Any

import cocotb

from ...rtl.array.ports import drain_layout, visit_layout
from ...rtl.config import GRANULE, CardConfig
from ...rtl.core.output import lane_write_layout
from ...rtl.isa import LANES, OUTPUT_FORMATS, Format, MatmulBody, Mode, Status
from .epilogue_jobs import PATHS, Job, Path
from .lib import StreamSink, StreamSource, bench_config, pack, rng, sample, start, tick, within

__all__ = [
    "all_paths",
    "full_rate",
    "latency",
    "no_room",
    "runs_ahead",
    "slices_back_to_back",
    "slow_writes",
]


class Bench:
    """The lane's surroundings: an engine with two credits, and a sink for the writes."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut = dut
        self.rng = rng()
        self.config = bench_config()
        self.stall = stall
        self.credits = 2
        self.errors: list[Status] = []
        self.flags: list[int] = []
        self.cycle = 0
        self.visit = StreamSource(dut, "visit", stall=stall, rng=self.rng)
        self.write = StreamSink(dut, "write", stall=stall, rng=self.rng)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            await sample(self.dut)
            self.cycle += 1
            self.credits += int(self.dut.credit.value)
            assert self.credits <= 2, "a credit too many"
            if self.dut.error.value:
                self.errors.append(Status(int(self.dut.status.value)))
            if self.dut.flags.value:
                self.flags.append(int(self.dut.flags.value))

    async def drain(self, beats: list[int]) -> None:
        """Drain beats, as soon as there is a credit."""
        while self.credits == 0 or self.rng.random() < self.stall:
            await tick(self.dut)
        self.credits -= 1
        for beat in beats:
            while self.rng.random() < self.stall:
                await tick(self.dut)
            self.dut.drain.value = beat
            await tick(self.dut)
            self.dut.drain.value = beat ^ pack(drain_layout(), valid=1)

    async def run(self, job: Job) -> int:
        """Run a command, check all that comes back, and return the cycles it took."""
        self.dut.command.value = pack(MatmulBody, job.command)
        await tick(self.dut, 2)
        begin = self.cycle
        accepted = [self.visit.put(pack(visit_layout(), visit.fields)) for visit in job.visits]
        for event, visit in zip(accepted, job.visits, strict=True):
            await within(5000, event.wait(), "a descriptor")
            if visit.beats:
                await within(5000, self.drain(visit.beats), "a credit")
        writes, errors, flags = job.expected()
        got = await within(5000, self.write.take(len(writes)), "the last write")
        cycles = self.cycle - begin
        for i, (item, right) in enumerate(zip(got, writes, strict=True)):
            fields = unpack_write(self.config, item)
            if right[2] == 0:
                right = (fields[0], *right[1:])
            assert fields == right, (
                f"write {i} of {job.path}, {job.slices} slices, {job.command}: "
                f"{[hex(x) for x in fields]}, not {[hex(x) for x in right]}"
            )
        assert self.flags == flags, f"{job.path}, {job.command}: flags {self.flags}, not {flags}"
        await tick(self.dut, 8)
        assert not self.write.items, "a write too many"
        assert self.errors == errors, f"{job.path}: {len(self.errors)} errors, not {len(errors)}"
        self.errors, self.flags = [], []
        assert self.credits == 2
        return cycles


def unpack_write(config: CardConfig, item: int) -> tuple[int, int, int, int]:
    """Return address, data, mask and done of a write."""
    fields = []
    for _, field in lane_write_layout(config):
        fields.append(item >> field.offset & ((1 << field.width) - 1))
    return (fields[0], fields[1], fields[2], fields[3])


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def all_paths(dut: Any, stall: float) -> None:
    """Every mode, output and function, with random geometries, slices and numbers."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, stall)
    # Wider lanes take longer, and differ in little else.
    for index in bench.rng.permutation(len(PATHS))[: 4 * len(PATHS) // bench.config.cols]:
        await bench.run(Job(bench.config, bench.rng, PATHS[index]))


@cocotb.test()
async def slow_writes(dut: Any) -> None:
    """Nothing is lost when the scratchpad is nearly always busy."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    bench.write.stall = 0.9
    for path in PATHS[::17]:
        await bench.run(Job(bench.config, bench.rng, path))


@cocotb.test()
async def slices_back_to_back(dut: Any) -> None:
    """Slices of one row follow each other at once: each finds what the one before has left."""
    dut.drain.value = 0
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
    dut.drain.value = 0
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
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    expected = {
        Path(Mode.INT8, Format.INT32): 7,
        Path(Mode.INT8, Format.FP32): 20,
        Path(Mode.INT8, Format.INT8): 24,
        Path(Mode.FP16, Format.FP32): 26,
        Path(Mode.FP16, Format.E4M3): 30,
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


@cocotb.test()
async def runs_ahead(dut: Any) -> None:
    """Sixteen descriptors are taken before anything is drained."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    for path in (PATHS[0], Path(Mode.FP16, Format.FP32, blocks=True)):
        job = Job(bench.config, bench.rng, path, iterations=4, slices=4, rows=1, empty=0, n=1)
        dut.command.value = pack(MatmulBody, job.command)
        await tick(dut, 2)
        events = [bench.visit.put(pack(visit_layout(), visit.fields)) for visit in job.visits]
        await within(60, events[-1].wait(), "the sixteenth descriptor")
        for visit in job.visits:
            await bench.drain(visit.beats)
        writes, _, _ = job.expected()
        got = await within(2000, bench.write.take(4), "the last write")
        assert [unpack_write(bench.config, item) for item in got] == writes


@cocotb.test()
async def no_room(dut: Any) -> None:
    """Results outside the scratchpad are reported, and all others written."""
    dut.drain.value = 0
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
