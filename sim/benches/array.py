"""Bench of the array: rows with streams of their own, operands filled while they run."""

import cocotb

from ...rtl.array.ports import drain_layout, fill_layout, stream_layout
from ...rtl.array.product import offset_of
from ...rtl.isa import LANES, Mode
from .lib import bench_config, pack, rng, sample, start, tick, unpack, within
from .sums import assert_sums, operands, words


async def _fill(dut, config, rows, r, stall):
    """Fill all columns in step; rows[k, column]."""
    for k, row in enumerate(rows):
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
    """Stream a row's visits as fast as fill and drain allow, with random bubbles; check what comes
    of the release marks, which are at random on weights and on bubbles."""
    port, filled = getattr(dut, f"stream__{row}"), getattr(dut, f"filled__{row}")
    release = getattr(dut, f"release__{row}")
    arrived = 0
    since_last = config.min_visit
    marks = [0] * (config.cols + 1)  # of the cycles before this one, the newest last

    async def step():
        """End a cycle, whose mark is the last one of the list."""
        await sample(dut)
        assert int(release.value) == marks[-1 - config.cols], f"row {row}: release"
        here = int(filled.value)
        await tick(dut)
        port.value = 0
        marks.append(0)
        return here

    for weights in visits:
        i = 0
        while i < k:
            arrived += await step()
            since_last += 1
            is_last = i == k - 1
            ready = i < arrived and (not is_last or since_last >= config.min_visit)
            first_step = len(marks) == config.cols + 2
            marks[-1] = int(first_step or r.random() < 0.1)
            if not ready or r.random() < stall:
                port.value = pack(stream_layout(config), release=marks[-1])
                continue
            port.value = pack(
                stream_layout(config),
                value=int(weights[i]) & 0xFFFF,
                address=i,
                valid=1,
                first=i == 0,
                last=is_last,
                release=marks[-1],
            )
            if is_last:
                since_last = 0
            i += 1
    for _ in range(config.cols + 1):
        await step()


async def _watch(dut, row, beats, count):
    port = getattr(dut, f"drain__{row}")
    while len(beats) < count:
        await sample(dut)
        beat = unpack(drain_layout(), int(port.value))
        if beat["valid"]:
            beats.append(beat)
        await tick(dut)


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def sums(dut, mode):
    config = bench_config()
    r = rng()
    for c in range(config.cols):
        getattr(dut, f"fill__{c}").value = 0
    for row in range(config.rows):
        getattr(dut, f"stream__{row}").value = 0
    anchor = int(r.integers(-100, 20)) if mode is Mode.BF16 else 0
    dut.mode.value = mode.value
    dut.offset.value = offset_of(mode, anchor)
    await start(dut)
    await tick(dut, 2)  # the mode is there two cycles before what is in it
    lanes = LANES[mode]
    for k, stall in ((5, 0.0), (40, 0.2), (17, 0.5)):
        count = 3
        x = operands(r, (config.cols * lanes, k), mode, anchor=anchor, special=k == 5)
        w = operands(r, (config.rows, count, k), mode, anchor=anchor, special=k == 5)
        beats: list[list] = [[] for _ in range(config.rows)]
        tasks = [cocotb.start_soon(_fill(dut, config, words(x, mode), r, stall))]
        for row in range(config.rows):
            tasks.append(cocotb.start_soon(_row(dut, config, row, w[row], k, r, stall)))
            tasks.append(cocotb.start_soon(_watch(dut, row, beats[row], 2 * config.cols * count)))
        for task in tasks:
            await within(5000, task, "the array")
        for row in range(config.rows):
            for i in range(count):
                visit = beats[row][2 * config.cols * i : 2 * config.cols * (i + 1)]
                where = f"k={k}, row {row}, visit {i}"
                assert_sums(visit, mode, anchor, w[row, i], x, where)
