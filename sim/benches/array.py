"""Bench of the array: rows with streams of their own, operands filled while they run."""

import cocotb
import numpy as np

from ...rtl.array.ports import drain_layout, fill_layout, stream_layout
from ..golden import exact
from .lib import bench_config, pack, rng, sample, start, tick, unpack, within
from .sums import assert_sums, operands


async def _fill(dut, config, words, r, stall):
    """Fill all columns in step; words[k, column]."""
    for k, row in enumerate(words):
        while r.random() < stall:
            await tick(dut)
        for c, word in enumerate(row):
            getattr(dut, f"fill__{c}").value = pack(
                fill_layout(config), value=int(word), address=k, valid=1
            )
        await tick(dut)
        for c in range(config.cols):
            getattr(dut, f"fill__{c}").value = 0


async def _row(dut, config, row, visits, k, r, stall):
    """Stream a row's visits as fast as fill and drain allow, with random bubbles."""
    port, filled = getattr(dut, f"stream__{row}"), getattr(dut, f"filled__{row}")
    arrived = 0
    since_last = config.min_visit
    for weights in visits:
        i = 0
        while i < k:
            await sample(dut)
            here = int(filled.value)
            await tick(dut)
            arrived += here
            since_last += 1
            is_last = i == k - 1
            ready = i < arrived and (not is_last or since_last >= config.min_visit)
            if not ready or r.random() < stall:
                port.value = 0
                continue
            port.value = pack(
                stream_layout(config),
                value=int(weights[i]) & 0xFFFF,
                address=i,
                valid=1,
                first=i == 0,
                last=is_last,
            )
            if is_last:
                since_last = 0
            i += 1
    await tick(dut)
    port.value = 0


async def _watch(dut, row, beats, count):
    port = getattr(dut, f"drain__{row}")
    while len(beats) < count:
        await sample(dut)
        beat = unpack(drain_layout(), int(port.value))
        if beat["valid"]:
            beats.append(beat)
        await tick(dut)


async def _run(dut, fp16):
    config = bench_config()
    r = rng()
    for c in range(config.cols):
        getattr(dut, f"fill__{c}").value = 0
    for row in range(config.rows):
        getattr(dut, f"stream__{row}").value = 0
    dut.fp16.value = int(fp16)
    await start(dut)
    lanes = 1 if fp16 else 2
    for k, stall in ((5, 0.0), (40, 0.2), (17, 0.5)):
        count = 3
        x = operands(r, (config.cols * lanes, k), fp16)
        w = operands(r, (config.rows, count, k), fp16)
        if fp16:
            words = x.T
        else:
            low, high = x[0::2].view(np.uint8), x[1::2].view(np.uint8).astype(np.uint16)
            words = (low | high << 8).T
        beats: list[list] = [[] for _ in range(config.rows)]
        tasks = [cocotb.start_soon(_fill(dut, config, words, r, stall))]
        for row in range(config.rows):
            tasks.append(cocotb.start_soon(_row(dut, config, row, w[row], k, r, stall)))
            tasks.append(cocotb.start_soon(_watch(dut, row, beats[row], 2 * config.cols * count)))
        for task in tasks:
            await within(5000, task, "the array")
        for row in range(config.rows):
            sums = exact.gemm(w[row], x, "fp16" if fp16 else "int8")
            for i in range(count):
                visit = beats[row][2 * config.cols * i : 2 * config.cols * (i + 1)]
                where = f"k={k}, row {row}, visit {i}"
                assert_sums(visit, sums, i, config.cols * lanes, where)


@cocotb.test()
async def fp16_sums(dut):
    await _run(dut, True)


@cocotb.test()
async def int8_sums(dut):
    await _run(dut, False)
