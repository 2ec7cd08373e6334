"""Bench of the row engine: decodes every stream form, and keeps every promise of its ports."""

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.array.ports import stream_layout, visit_layout
from ...rtl.array.row_engine import engine_start_layout
from ...rtl.isa import DirectoryEntry, Format, MatmulBody, Status
from .lib import StreamSink, StreamSource, bench_config, pack, rng, start, tick, unpack, within


def encode(values, deltas, fp16, sparse):
    """Return the granules (as numbers) of a stream, written from `DirectoryEntry`."""
    size = 2 if fp16 else 1
    per = {(0, 0): 16, (0, 1): 8, (1, 0): 8, (1, 1): 5}[int(fp16), int(sparse)]
    granules = []
    for at in range(0, len(values), per):
        granule = bytearray(16)
        for i, value in enumerate(values[at : at + per]):
            granule[size * i : size * (i + 1)] = int(value).to_bytes(size, "little")
        if sparse:
            for i, delta in enumerate(deltas[at : at + per]):
                granule[per * size + i] = int(delta)
        granules.append(int.from_bytes(granule, "little"))
    return granules


class Blob:
    """A random blob of one engine: a directory at granule 0, streams behind it.

    `visits` has for each entry its weights as (value, k), or none for an empty entry.
    """

    def __init__(self, config, r, fp16, sparse, k, visits, engine=1):
        self.memory = {}
        self.visits, self.entries = [], []
        at = visits * config.rows
        for v in range(visits):
            fields = {
                "out_offset": int(r.integers(1 << 16)) * 4,
                "bias": int(r.integers(1 << 32)),
                "scale": int(r.integers(1 << 32)),
            }
            weights = []
            if r.random() > 0.2:
                if sparse:
                    count = int(r.integers(1, k + 1))
                    ks = np.sort(r.choice(k, min(count, k), replace=False))
                else:
                    ks = np.arange(k)
                values = r.integers(0, 1 << (16 if fp16 else 8), len(ks))
                deltas = np.diff(ks, prepend=-1) - 1
                keep = deltas < 256
                assert keep.all()
                weights = list(zip(values.tolist(), ks.tolist(), strict=True))
                granules = encode(values, deltas, fp16, sparse)
                self.memory.update({at + i: g for i, g in enumerate(granules)})
                fields |= {"stream": at, "count": len(ks)}
                at += len(granules)
            self.memory[v * config.rows + engine] = pack(DirectoryEntry, **fields)
            self.visits.append(weights)
            self.entries.append(fields)


async def _fetches(dut, blob_base, memory, r, stall):
    """Answer fetches two to nine cycles later, in order, as a busy scratchpad does."""
    waiting = []
    now = 0
    while True:
        ready = int(r.random() >= stall)
        dut.fetch__ready.value = ready
        due = waiting and waiting[0][0] <= now
        entry, value = waiting.pop(0)[1:] if due else (0, int(r.integers(1 << 62)))
        dut.fetch__entry_valid.value = int(bool(due and entry))
        dut.fetch__granule_valid.value = int(bool(due and not entry))
        dut.fetch__data.value = value
        await FallingEdge(dut.clk)
        if ready and int(dut.fetch__valid.value):
            address = int(dut.fetch__address.value) - blob_base
            assert address in memory, f"fetch of granule {address}, which is not in the blob"
            last = waiting[-1][0] if waiting else 0
            when = max(now + 2, last + 1) + (int(r.integers(7)) if r.random() < stall else 0)
            waiting.append((when, int(dut.fetch__entry.value), memory[address]))
        await RisingEdge(dut.clk)
        now += 1


class Monitor:
    """Takes what the engine issues; checks operands, credits and the distance of visits."""

    def __init__(self, dut, config, k, blocks, ring, r, stall):
        self.dut, self.config, self.k, self.r, self.stall = dut, config, k, r, stall
        self.ring = ring
        self.weights, self.releases = [], 0
        self.filled, self.blocks = 0, blocks
        self.credits, self.cycle, self.last = 2, 0, -1000
        self.owed = []

    async def run(self):
        dut = self.dut
        while True:
            room = self.filled - self.releases * self.k < self.config.operand_depth
            fill = self.filled < self.k * self.blocks and room and self.r.random() >= self.stall
            credit = bool(self.owed) and self.r.random() >= self.stall
            if credit:
                self.owed.pop()
            dut.filled.value, dut.credit.value = int(fill), int(credit)
            await FallingEdge(dut.clk)
            weight = unpack(stream_layout(self.config), int(dut.stream.value))
            if weight["valid"]:
                self._check(weight)
            self.releases += weight["release"]
            await RisingEdge(dut.clk)
            self.filled += fill
            self.credits += credit
            self.cycle += 1

    def _check(self, weight):
        k = (weight["address"] - self.ring - self.releases * self.k) % self.config.operand_depth
        assert self.filled > self.releases * self.k + k, f"weight {k} before its operand"
        self.weights.append((weight["value"], k, weight["first"], weight["last"]))
        if weight["last"]:
            assert self.cycle - self.last >= self.config.min_visit, "visits end too close"
            assert self.credits > 0, "a visit without a credit"
            self.last = self.cycle
            self.credits -= 1
            self.owed.append(1)


async def _iteration(
    dut, config, r, source, visits_sink, *, fp16, sparse, k, visits, n, ring, stall
):
    lanes = 1 if fp16 else 2
    blocks = -(-n // (config.cols * lanes))
    blob = Blob(config, r, fp16, sparse, k, visits)
    base = int(r.integers(64)) * 4
    output = int(r.integers(1 << 12)) * 4
    dut.body.value = pack(
        MatmulBody,
        k=k,
        n=n,
        visits=visits,
        in_format=Format.FP16 if fp16 else Format.INT8,
        out_format=Format.FP32,
        flags=int(sparse),
    )
    fetches = cocotb.start_soon(_fetches(dut, base, blob.memory, r, stall))
    monitor = Monitor(dut, config, k, blocks, ring, r, stall)
    watcher = cocotb.start_soon(monitor.run())
    visits_sink.items.clear()
    source.put(pack(engine_start_layout(config), entry=base + 1, blob=base, output=output))

    expected = [
        (value, index, int(i == 0), int(i == len(weights) - 1))
        for _ in range(blocks)
        for weights in blob.visits
        for i, (value, index) in enumerate(weights)
    ]

    async def finish():
        while monitor.releases < blocks or monitor.filled < k * blocks:
            await tick(dut)

    await within(40 * len(expected) + 200 * blocks * visits + 2000, finish(), "the engine")
    await tick(dut, 3)
    assert monitor.weights == expected
    descriptors = [unpack(visit_layout(), item) for item in visits_sink.items]
    assert len(descriptors) == blocks * visits
    for i, descriptor in enumerate(descriptors):
        block, v = divmod(i, visits)
        fields = blob.entries[v]
        wanted = {
            "address": (output + fields["out_offset"]) % (1 << 32),
            "bias": fields["bias"],
            "scale": fields["scale"],
            "block_first": int(block == 0),
            "block_new": int(v == 0),
            "empty": int(not blob.visits[v]),
            "iteration_last": int(i == blocks * visits - 1),
        }
        assert descriptor == wanted
    watcher.cancel()
    fetches.cancel()
    dut.filled.value, dut.credit.value = 0, 0
    # Hand back the credits that the monitor still owed.
    for _ in monitor.owed:
        dut.credit.value = 1
        await tick(dut)
        dut.credit.value = 0
    return len(expected), ring + blocks * k


async def _reset(dut):
    for name in ("filled", "credit", "fetch__ready", "fetch__entry_valid", "fetch__granule_valid"):
        getattr(dut, name).value = 0
    dut.body.value = 0
    await start(dut)


@cocotb.test()
@cocotb.parametrize(fp16=[False, True], sparse=[False, True])
async def streams(dut, fp16, sparse):
    """Random blobs, with and without stalls."""
    config = bench_config()
    r = rng()
    await _reset(dut)
    source = StreamSource(dut, "start", rng=r)
    sink = StreamSink(dut, "visit", rng=r)
    issued, ring = 0, 0
    for stall in (0.0, 0.3, 0.6):
        sink.stall = stall
        for k in (1, 7, 40, int(r.integers(2, 200))):
            count, ring = await _iteration(
                dut, config, r, source, sink,
                fp16=fp16, sparse=sparse, k=k, ring=ring,
                visits=int(r.integers(1, 5)), n=int(r.integers(1, 30)), stall=stall,
            )  # fmt: skip
            issued += count
    assert issued > 0


def _wrong_blobs(rows):
    """Return the body's other fields, the blob's granules and the status of each case."""
    return {
        "dense stream that is not K long": (
            {},
            {1: pack(DirectoryEntry, stream=rows, count=3), rows: 0},
            Status.BAD_INDEX,
        ),
        "index that is not below K": (
            {"flags": 1},
            {
                1: pack(DirectoryEntry, stream=rows, count=1),
                rows: encode([1], [4], False, True)[0],
            },
            Status.BAD_INDEX,
        ),
        "stream outside the scratchpad": (
            {},
            {1: pack(DirectoryEntry, stream=0xFFFF, count=4)},
            Status.BAD_ADDRESS,
        ),
        "results that are not aligned": (
            {"out_format": Format.FP16},
            {1: pack(DirectoryEntry, stream=rows, count=4, out_offset=1), rows: 0},
            Status.BAD_ALIGNMENT,
        ),
    }


@cocotb.test()
@cocotb.parametrize(case=range(4))
async def wrong_blobs(dut, case):
    config = bench_config()
    r = rng()
    what, (fields, memory, expected) = list(_wrong_blobs(config.rows).items())[case]
    await _reset(dut)
    dut.visit__ready.value = 1
    dut.body.value = pack(MatmulBody, {"k": 4, "n": 1, "visits": 1} | fields)
    cocotb.start_soon(_fetches(dut, 0, memory, r, 0.0))
    source = StreamSource(dut, "start", rng=r)
    source.put(pack(engine_start_layout(config), entry=1, blob=0, output=0))
    dut.filled.value = 1

    async def failure():
        while True:
            await FallingEdge(dut.clk)
            if int(dut.error.value):
                return int(dut.status.value)

    assert await within(200, failure(), what) == expected.value
