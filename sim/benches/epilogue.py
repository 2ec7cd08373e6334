"""Bench of `EpilogueLane`: whole commands against the golden model, write by write."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np

from ...rtl.array.ports import SEGMENT, drain_layout, visit_layout
from ...rtl.config import GRANULE, CardConfig
from ...rtl.core.output import lane_write_layout
from ...rtl.isa import Format, Function, MatmulBody, Status
from ..golden.epilogue import OutFormat, finish
from ..golden.exact import FixedSums, IntSums
from .lib import StreamSink, StreamSource, bench_config, pack, rng, sample, start, tick, within

__all__ = ["all_formats", "full_rate", "latency", "no_room", "runs_ahead", "slow_writes"]

OUT_NAMES: dict[Format, OutFormat] = {
    Format.INT8: "int8",
    Format.FP16: "fp16",
    Format.INT32: "int32",
    Format.FP32: "fp32",
}
SIZES = {Format.INT8: 1, Format.FP16: 2, Format.INT32: 4, Format.FP32: 4}
PATHS = [
    (source, target, function)
    for source in (Format.INT8, Format.FP16)
    for target in Format
    for function in Function
    if not (source == Format.FP16 and target == Format.INT32)
]


@dataclasses.dataclass
class Visit:
    """A descriptor, and the beats that its engine drains."""

    fields: dict[str, int]
    beats: list[int]
    columns: int
    """Index of its first column."""
    results: list[int]
    """Bits of the results of all of its columns, also those that are dropped."""


class Job:
    """A command with random geometry and numbers; what it sends and what must come back.

    ``parameters`` overrides fields of the command.
    """

    def __init__(
        self,
        config: CardConfig,
        r: np.random.Generator,
        path: tuple[Format, Format, Function],
        *,
        iterations: int = 2,
        empty: float = 0.25,
        **parameters: int,
    ) -> None:
        self.config = config
        self.rng = r
        self.source, self.target, self.function = path
        self.size = SIZES[self.target]
        self.width = config.cols * (2 if self.source == Format.INT8 else 1)
        n = int(r.integers(1, 4 * self.width))
        near = int(r.integers(1, 6))
        self.command: dict[str, Any] = {
            "n": n,
            "n_inner": int(r.choice([1, near, n, n + 1, 65535])),
            "out_inner_stride": self.size * int(r.choice([1, 2, near, -1, GRANULE])),
            "out_outer_stride": self.size * int(r.choice([GRANULE, 1, -near, 5 * GRANULE])),
            "in_format": self.source,
            "out_format": self.target,
            "function": self.function,
            "parameter": r.integers(1 << 32, size=4).tolist(),
            "zero_point": int(r.integers(-128, 128)) if self.target == Format.INT8 else 0,
            "clamp_low": int(r.choice([-128, -10])),
            "clamp_high": int(r.choice([127, 20])),
        }
        self.command.update(parameters)
        self.offsets = self._offsets()
        self.iterations = [self._iteration(empty) for _ in range(iterations)]

    @property
    def visits(self) -> Iterator[Visit]:
        """All visits, in order."""
        return (visit for visits in self.iterations for visit in visits)

    def _offsets(self) -> list[int]:
        c = self.command
        return [
            j // c["n_inner"] * c["out_outer_stride"] + j % c["n_inner"] * c["out_inner_stride"]
            for j in range(c["n"])
        ]

    def _iteration(self, empty: float) -> list[Visit]:
        blocks = -(-self.command["n"] // self.width)
        count = int(self.rng.integers(1, 4))
        empties = self.rng.random(count) < empty
        visits = []
        for block in range(blocks):
            for index, is_empty in enumerate(empties.tolist()):
                visit = self._visit(block * self.width, is_empty)
                visit.fields |= {
                    "block_first": block == 0,
                    "block_new": index == 0,
                    "iteration_last": block == blocks - 1 and index == count - 1,
                }
                visits.append(visit)
        return visits

    def _visit(self, columns: int, empty: bool) -> Visit:
        r = self.rng
        room = self.config.scratchpad_bytes
        low, high = -min(self.offsets), room - self.size - max(self.offsets)
        address = int(r.integers(low // self.size, high // self.size + 1)) * self.size
        # Results around 1 to 2^8 reach every case of the formats, others their ends.
        magnitude = int(r.integers(1, 25) if self.source == Format.INT8 else r.integers(-48, 42))
        result = int(
            r.choice([0, 3, 6, 8, 15, -14, -24, -140, 126], p=[0.2] * 3 + [0.1, *[0.06] * 5])
        )
        exponent = min(max(127 + result - magnitude, 1), 254)
        scale = int(r.integers(2)) << 31 | exponent << 23 | int(r.integers(1 << 23))
        if self.source == Format.INT8:
            bound = int(r.choice([1, 1000, 1 << 31]))
            bias = int(r.integers(-bound, bound))
        else:
            near = (127 + result + int(r.integers(-3, 3))) % 256 << 23 | int(r.integers(1 << 23))
            bias = int(r.choice([0, 1 << 31, near, near | 1 << 31, int(r.integers(1 << 32))]))
        bias &= 0xFFFFFFFF
        fields = {"address": address, "bias": bias, "scale": scale, "empty": int(empty)}
        if empty:
            return Visit(fields, [], columns, [])
        beats, sums = (self._integers if self.source == Format.INT8 else self._fixed)(magnitude)
        results = finish(
            sums,
            bias=np.array([bias], np.uint32),
            scale=np.array([scale], np.uint32),
            function="relu" if self.function == Function.RELU else "none",
            out_format=OUT_NAMES[self.target],
            zero_point=self.command["zero_point"],
            clamp_low=self.command["clamp_low"],
            clamp_high=self.command["clamp_high"],
        )
        mask = (1 << 8 * self.size) - 1
        return Visit(fields, beats, columns, [int(x) & mask for x in results[0]])

    def _integers(self, magnitude: int) -> tuple[list[int], IntSums]:
        r = self.rng
        ends = np.array([(1 << 47) - 1, -(1 << 47), (1 << 31) - 1, -(1 << 31), 0])
        small = r.integers(-(1 << magnitude), 1 << magnitude, self.width)
        sums = np.where(r.random(self.width) < 0.1, r.choice(ends, self.width), small)
        beats = []
        for value in sums.tolist():
            carry = int(r.integers(4))
            rest = value - ((carry & 1) << SEGMENT)
            beats.append(self._beat(rest, carry, 0))
        return beats, IntSums(sums[np.newaxis, :])

    def _fixed(self, magnitude: int) -> tuple[list[int], FixedSums]:
        r = self.rng
        sums, flags, beats = [], [], []
        for _ in range(self.width):
            value = int.from_bytes(r.bytes(12), "little") % (1 << (magnitude + 49))
            kind = int(r.integers(10))
            if kind == 0:
                value = 0
            elif kind < 4:  # few significant bits
                value = 1 << (value.bit_length() // 2) | 1 << max(value.bit_length() - 1, 0)
            elif kind == 4:
                value = (1 << 95) - int(r.integers(2))
            value = min(value, (1 << 95) - 1) if r.random() < 0.5 else -value
            flag = int(r.integers(8)) if r.random() < 0.1 else 0
            carry = int(r.integers(16))
            rest = value - sum((carry >> i & 1) << SEGMENT * (i + 1) for i in range(3))
            beats += [self._beat(rest >> 48 * i, carry >> 2 * i & 3, flag) for i in range(2)]
            sums.append(value)
            flags.append(flag)
        nan, inf_pos, inf_neg = (
            np.array([[flag >> i & 1 for flag in flags]], np.bool_) for i in range(3)
        )
        high = np.array([[value >> 64 for value in sums]], np.int64)
        low = np.array([[value & ((1 << 64) - 1) for value in sums]], np.uint64)
        return beats, FixedSums(high, low, nan, inf_pos, inf_neg)

    @staticmethod
    def _beat(value: int, carry: int, flags: int) -> int:
        segments = [(value >> SEGMENT * i) & ((1 << SEGMENT) - 1) for i in range(2)]
        return pack(
            drain_layout(),
            segment=segments,
            carry=[carry & 1, carry >> 1],
            nan=flags & 1,
            inf_pos=flags >> 1 & 1,
            inf_neg=flags >> 2,
            valid=1,
        )

    def expected(self) -> tuple[list[tuple[int, int, int, int]], list[Status]]:
        """Return the writes (address, data, mask, done) and the errors."""
        writes: list[tuple[int, int, int, int]] = []
        errors: list[Status] = []
        for visit in self.visits:
            granules: list[list[int]] = []
            for j, result in enumerate(visit.results, visit.columns):
                if j >= self.command["n"]:
                    break
                address = (visit.fields["address"] + self.offsets[j]) % (1 << 32)
                if address >= self.config.scratchpad_bytes:
                    errors.append(Status.BAD_ADDRESS)
                    continue
                granule, byte = divmod(address, GRANULE)
                if not granules or granules[-1][0] != granule:
                    granules.append([granule, 0, 0])
                cover = (1 << 8 * self.size) - 1 << 8 * byte
                granules[-1][1] = granules[-1][1] & ~cover | result << 8 * byte
                granules[-1][2] |= (1 << self.size) - 1 << byte
            done = visit.fields["iteration_last"]
            if done and not granules:
                granules.append([0, 0, 0])
            for i, (granule, data, mask) in enumerate(granules):
                writes.append((granule, data, mask, int(done and i == len(granules) - 1)))
        return writes, errors


class Bench:
    """The lane's surroundings: an engine with two credits, and a sink for the writes."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut = dut
        self.rng = rng()
        self.config = bench_config()
        self.stall = stall
        self.credits = 2
        self.errors: list[Status] = []
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
            await event.wait()
            if visit.beats:
                await self.drain(visit.beats)
        writes, errors = job.expected()
        got = await within(5000, self.write.take(len(writes)), "the last write")
        cycles = self.cycle - begin
        for i, (item, right) in enumerate(zip(got, writes, strict=True)):
            fields = unpack_write(self.config, item)
            if right[2] == 0:
                right = (fields[0], *right[1:])
            assert fields == right, (
                f"write {i} of {job.command}: {[hex(x) for x in fields]}, "
                f"not {[hex(x) for x in right]}"
            )
        await tick(self.dut, 8)
        assert not self.write.items, "a write too many"
        assert self.errors == errors
        self.errors = []
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
async def all_formats(dut: Any, stall: float) -> None:
    """Every pair of formats and every function, with random geometries and numbers."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, stall)
    for _ in range(4 if stall else 6):
        for index in bench.rng.permutation(len(PATHS)):
            await bench.run(Job(bench.config, bench.rng, PATHS[index]))


@cocotb.test()
async def slow_writes(dut: Any) -> None:
    """Nothing is lost when the scratchpad is nearly always busy."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    bench.write.stall = 0.9
    for path in PATHS[::3]:
        await bench.run(Job(bench.config, bench.rng, path))


@cocotb.test()
@cocotb.parametrize(stride=[1, GRANULE // 4])
async def full_rate(dut: Any, stride: int) -> None:
    """Without stalls the lane takes a beat a cycle, whether granules are shared or not."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    for source, target in ((Format.INT8, Format.FP32), (Format.FP16, Format.FP32)):
        job = Job(
            bench.config,
            bench.rng,
            (source, target, Function.NONE),
            empty=0,
            n=40 * bench.config.cols,
            n_inner=65535,
            out_inner_stride=4 * stride,
            out_outer_stride=0,
        )
        beats = sum(len(visit.beats) for visit in job.visits)
        cycles = await bench.run(job)
        dut._log.info("%s: %d beats in %d cycles", source.name, beats, cycles)
        assert cycles <= beats + 60


@cocotb.test()
async def latency(dut: Any) -> None:
    """The latency of each path is what the lane's documentation says."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    expected = {
        (Format.INT8, Format.INT32): 7,
        (Format.INT8, Format.FP32): 20,
        (Format.INT8, Format.INT8): 25,
        (Format.FP16, Format.FP32): 27,
        (Format.FP16, Format.FP16): 32,
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
    for (source, target), cycles in expected.items():
        job = Job(
            bench.config, bench.rng, (source, target, Function.NONE), iterations=1, empty=0, n=1
        )
        await bench.run(job)
        assert seen["write"] - seen["drain"] == cycles, (source, target, seen)


@cocotb.test()
async def runs_ahead(dut: Any) -> None:
    """Sixteen descriptors are taken before anything is drained."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.0)
    job = Job(bench.config, bench.rng, PATHS[0], iterations=16, empty=0, n=1)
    for visits in job.iterations:
        del visits[:-1]
        visits[0].fields |= {"block_first": 1, "block_new": 1}
    dut.command.value = pack(MatmulBody, job.command)
    await tick(dut, 2)
    events = [bench.visit.put(pack(visit_layout(), visit.fields)) for visit in job.visits]
    await within(60, events[-1].wait(), "the sixteenth descriptor")
    for visit in job.visits:
        await bench.drain(visit.beats)
    writes, _ = job.expected()
    got = await within(2000, bench.write.take(16), "the last write")
    assert [unpack_write(bench.config, item) for item in got] == writes


@cocotb.test()
async def no_room(dut: Any) -> None:
    """Results outside the scratchpad are reported, and all others written."""
    dut.drain.value = 0
    await start(dut)
    bench = Bench(dut, 0.2)
    room, errors = bench.config.scratchpad_bytes, 0
    for path in PATHS:
        size = SIZES[path[1]]
        job = Job(bench.config, bench.rng, path, n_inner=3, out_inner_stride=size * 7)
        bad = [room - size, room - 5 * size, room, 0xFFFFFFF0, 0x80000000, 2 * room - size]
        for visit in job.visits:
            if bench.rng.random() < 0.6:
                visit.fields["address"] = int(bench.rng.choice(bad))
        errors += len(job.expected()[1])
        await bench.run(job)
    assert errors > 20
