"""Bench of the row engine: decodes every stream form, and keeps every promise of its ports."""

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from ...rtl.array.row_engine import engine_start_layout
from ...rtl.core.ports import READ_LATENCY
from ...rtl.isa import (
    INPUT_FORMATS,
    LANES,
    DirectoryEntry,
    Encoding,
    Format,
    MatmulBody,
    Mode,
    Status,
    array_mode,
)
from .engine import EngineBench
from .lib import pack, tick, within
from .streams import encode


@cocotb.test()
@cocotb.parametrize(encoding=list(Encoding), stream_format=list(INPUT_FORMATS))
async def streams(dut, encoding, stream_format):
    """Random commands of every form, with and without stalls."""
    bench = EngineBench(dut)
    await bench.begin()
    r, rows = bench.r, bench.config.rows
    for stall in (0.0, 0.4):
        bench.stall(stall)
        for k in (int(r.integers(1, 17)), int(r.integers(17, 150))):
            pair = bench.pair(stream_format)
            block = bench.config.cols * LANES[array_mode(*pair)]
            await bench.command(
                pair, encoding, k=k, n=int(r.integers(1, 4 * block)),
                entries=int(r.integers(1, 3 * rows)), slice=int(r.choice([16, 32, k, 2000])),
                iterations=int(r.integers(1, 4)),
            )  # fmt: skip
    assert bench.array.at


@cocotb.test()
async def mixture(dut):
    """Random commands of all forms after each other, without a reset."""
    bench = EngineBench(dut)
    await bench.begin()
    r, rows = bench.r, bench.config.rows
    for _ in range(10):
        bench.stall(float(r.choice([0.0, 0.1, 0.5])))
        bench.array.lane_stall = float(r.choice([0.0, 0.99]))
        k = int(r.integers(1, 300))
        await bench.command(
            bench.pair(), list(Encoding)[r.integers(len(Encoding))], k=k, n=int(r.integers(1, 60)),
            entries=int(r.integers(1, 2 * rows)), slice=int(r.choice([16, 48, 128, k, 400])),
            iterations=int(r.integers(1, 4)), empty=float(r.choice([0.1, 0.7])),
            early=float(r.choice([0.0, 0.7])),
        )  # fmt: skip


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def rotation(dut, mode):
    """Rows run on from block to block, for every engine, with rows to spare and without."""
    bench = EngineBench(dut)
    await bench.begin()
    rows = bench.config.rows
    for index in range(rows):
        for entries in (1, rows - 1, rows, rows + 1, 2 * rows + 3):
            bench.stall(float(bench.r.choice([0.0, 0.3])))
            columns = bench.config.cols * LANES[mode]
            await bench.command(
                bench.pair(mode=mode), Encoding.DENSE, k=17, n=columns * (rows + 2) - 1,
                entries=entries, slice=16, index=index, empty=0.1,
            )  # fmt: skip


@cocotb.test()
async def dealing_on(dut):
    """Rows run on from iteration to iteration, of one command and of several, for every engine."""
    bench = EngineBench(dut)
    await bench.begin()
    rows = bench.config.rows
    for index in range(rows):
        bench.stall(float(bench.r.choice([0.0, 0.3])))
        drawn = []
        for entries in (rows + 1, 1, rows, rows - 1, 2 * rows + 3):
            for deal_on in (True, bool(bench.r.integers(2))):
                base = max(drawn[-1][1].memory, default=drawn[-1][1].base) + 1 if drawn else 0
                drawn += bench.draw(
                    bench.pair(mode=Mode.INT8), Encoding.DENSE, k=17, n=bench.config.cols,
                    entries=entries, slice=16, iterations=3, index=index, base=base,
                    deal_on=deal_on, empty=0.1,
                )  # fmt: skip
        await bench.run(drawn, index)


def _draw_several(bench, mode, index, count, **more):
    """Return iterations of random commands with one mode, none like the one before it."""
    r, drawn = bench.r, []
    rows, columns = bench.config.rows, bench.config.cols * LANES[mode]
    for _ in range(count):
        base = max(drawn[-1][1].memory, default=drawn[-1][1].base) + 1 if drawn else 0
        k = int(r.choice([int(r.integers(1, 20)), int(r.integers(20, 90))]))
        fields = {
            "k": k,
            "n": int(r.integers(1, 3 * columns)),
            "entries": int(r.choice([1, 2, rows, int(r.integers(1, 2 * rows))])),
            "slice": int(r.choice([16, 32, k])),
            "iterations": int(r.integers(1, 3)),
            "deal_on": bool(r.integers(2)),
        }
        encoding = list(Encoding)[r.integers(len(Encoding))]
        fields |= more
        drawn += bench.draw(bench.pair(mode=mode), encoding, index=index, base=base, **fields)
    return drawn


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def commands_follow(dut, mode):
    """Commands with different bodies follow each other while the ones before still run."""
    bench = EngineBench(dut)
    await bench.begin()
    for stall in (0.0, 0.0, 0.1, 0.4):
        bench.stall(stall)
        index = int(bench.r.integers(bench.config.rows))
        empty = float(bench.r.choice([0.0, 0.2, 0.8]))
        await bench.run(_draw_several(bench, mode, index, 8, empty=empty), index)


@cocotb.test()
async def commands_without_gap(dut):
    """Where all is ready in time, the next command's weights follow at once."""
    bench = EngineBench(dut)
    await bench.begin()
    rows, k = bench.config.rows, 4 * bench.config.cols
    for mode in (Mode.FP16, Mode.INT8):
        drawn = []
        for encoding in (Encoding.DENSE, Encoding.SPARSE_2_4, Encoding.DENSE):
            base = max(drawn[-1][1].memory) + 1 if drawn else 0
            k += 16
            drawn += bench.draw(
                bench.pair(mode=mode), encoding, k=k, n=1, entries=4 * rows, index=1, base=base,
                empty=0.0, early=0.0,
            )  # fmt: skip
        await bench.run(drawn, 1, fill_first=True)
        counts = bench.array.counts
        dut._log.info("latency %d, %s", bench.latency, counts)
        assert counts["stall_stream"] <= 12 + 2 * READ_LATENCY and not counts["stall_drain"], counts


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def long_k(dut, stall):
    """One visit streams K through the ring, longer than it; so do slices."""
    bench = EngineBench(dut)
    await bench.begin()
    bench.stall(stall)
    rows = bench.config.rows
    for encoding in Encoding:
        pair = bench.pair()
        columns = bench.config.cols * LANES[array_mode(*pair)]
        for slice in (3000, 1008):
            await bench.command(
                pair, encoding, k=3000, n=columns, entries=int(bench.r.integers(1, rows + 1)),
                slice=slice, density=float(bench.r.choice([0.5, 0.05, 0.005])),
            )  # fmt: skip


@cocotb.test()
async def longest_k(dut):
    """The longest K, in engines with a row and without, and rows that end early."""
    bench = EngineBench(dut)
    await bench.begin()
    for k, index in ((32768, 1), (4000, 2)):
        await bench.command(
            (Format.INT8, Format.INT8), Encoding.SPARSE_1_8, k=k, n=1, entries=2, index=index,
            slice=32768, empty=0.0,
        )  # fmt: skip
    # The last one has no row: it has no work but to find that out.
    counts = bench.array.counts
    assert not counts["active"] and counts["stall_stream"] < 16, counts
    assert not counts["stall_fill"] and not counts["stall_drain"], counts


@cocotb.test()
async def latency(dut):
    """A start is answered at once, and what is ready is issued without a bubble."""
    bench = EngineBench(dut)
    await bench.begin()
    config = bench.config
    k, entries = 4 * config.cols, 3 * config.rows
    for encoding in (Encoding.DENSE, Encoding.SPARSE_2_4):
        for iterations in (1, 3):
            await bench.command(
                (Format.FP16, Format.FP16), encoding, k=k, n=5 * config.cols, entries=entries,
                iterations=iterations, empty=0.0, early=0.0, fill_first=True, index=1,
            )  # fmt: skip
            counts = bench.array.counts
            most = 16 + 2 * READ_LATENCY
            assert bench.latency < most, f"{bench.latency} cycles from start to first weight"
            assert counts["stall_stream"] <= most and not counts["stall_drain"], counts
            dut._log.info("latency %d, %s", bench.latency, counts)


CASES = 20
"""Faults in `_wrong_blobs`."""


def _wrong_blobs(config):
    """Return the body's other fields, the blob's granules and the status of each case.

    The engine is the second one of its rows; K is 4.
    """
    delta = {"encoding": Encoding.DELTA}
    good = 127 << 23
    entry = {"stream": 2, "count": 4, "scale": good}

    def dense(**fields):
        return {1: pack(DirectoryEntry, entry | fields), 2: 0}

    def sparse(ks, encoding, source=Format.INT8):
        granules = encode([1] * len(ks), np.array(ks), source, encoding)
        fields = entry | {"count": len(ks)}
        return {1: pack(DirectoryEntry, fields)} | {2 + i: g for i, g in enumerate(granules)}

    outside = (1 << config.granule_addr_width) - 2
    cases = {
        "dense stream that is too short": ({}, dense(count=3), Status.BAD_INDEX),
        "dense stream that is too long": ({}, dense(count=5), Status.BAD_INDEX),
        "dense stream longer than its slice": ({"k": 20, "slice": 16}, dense(count=20)),
        "index that is not below K": (delta, sparse([4], Encoding.DELTA)),
        "index beyond its slice": (delta | {"k": 40, "slice": 16}, sparse([16], Encoding.DELTA)),
        "escape that is not below K": (delta | {"k": 255}, sparse([0, 255], Encoding.DELTA)),
        "place beyond K": (
            {"k": 3, "encoding": Encoding.SPARSE_1_4}, sparse([3], Encoding.SPARSE_1_4)
        ),
        "two values in one place": (
            {"encoding": Encoding.SPARSE_2_4}, sparse([2, 2], Encoding.SPARSE_2_4)
        ),
        "places that descend in FP16's second granule": (
            {"k": 32, "encoding": Encoding.SPARSE_2_4, "stream_format": Format.FP16,
             "in_format": Format.FP16},
            sparse([0, 1, 4, 5, 8, 9, 14, 13], Encoding.SPARSE_2_4, Format.FP16),
        ),
        "stream outside": ({}, dense(stream=0xFFFF), Status.BAD_ADDRESS),
        "stream that leaves": ({"k": 40}, dense(count=40, stream=outside), Status.BAD_ADDRESS),
        "directory outside": ({"blob": outside + 2}, {}, Status.BAD_ADDRESS),
        "directory far outside": ({"blob": (1 << 28) - 1}, {}, Status.BAD_ADDRESS),
        "results that are not aligned": (
            {"out_format": Format.BF16}, dense(out_offset=1), Status.BAD_ALIGNMENT
        ),
        "words that are not aligned": (
            {"out_format": Format.INT32}, dense(out_offset=2), Status.BAD_ALIGNMENT
        ),
    }  # fmt: skip
    for scale in (0, 1, 0x80000000, 0xFF << 23, 0xFF << 23 | 1):
        cases[f"scale {scale:#x}"] = ({}, dense(scale=scale), Status.BAD_SCALE)
    return {what: (*case, Status.BAD_INDEX)[:3] for what, case in cases.items()}


@cocotb.test()
@cocotb.parametrize(case=range(CASES))
async def wrong_blobs(dut, case):
    """Every fault has its status."""
    bench = EngineBench(dut)
    cases = _wrong_blobs(bench.config)
    assert len(cases) == CASES
    what, (fields, memory, expected) = list(cases.items())[case]
    await bench.begin()
    fields = {"k": 4, "n": 1, "entries": 2} | fields
    blob = fields.pop("blob", 0)
    wrong = pack(MatmulBody, {"slice": fields["k"]} | fields)
    dut.body__0.value = dut.body__1.value = wrong
    dut.index.value = 1
    # What is not given is an empty entry.
    bench.scratchpad.memory, bench.scratchpad.open = memory, True
    await tick(dut)
    bench.array.blocks = [fields["k"]]
    bench.array._check = lambda weight: None
    bench.source.put(pack(engine_start_layout(bench.config), blob=blob, output=0))

    async def failure():
        while True:
            await FallingEdge(dut.clk)
            error = int(dut.error.value)
            if error:
                assert error == 1, "an error in the other iteration"
                return int(dut.status__0.value)

    assert await within(400, failure(), what) == expected.value, what
