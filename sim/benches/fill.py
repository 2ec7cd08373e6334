"""Bench of the fill path: windows of every shape and format, as operand words in the ring."""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from ...rtl.array.serializer import SETS
from ...rtl.config import MAX_K, RELEASE_WORDS
from ...rtl.core.ports import READ_LATENCY
from ...rtl.isa import BITS, LANES, Format, MatmulBody, Mode, Status, array_mode
from .fill_bench import Command, follow, prepare, run
from .fill_cases import PAIRS, body_of, random_places, random_window
from .lib import StreamSource, pack, tick, within


@cocotb.test()
async def windows(dut: Any) -> None:
    """Random windows in every format and mode, a few iterations each, with all kinds of stalls."""
    config, r, _, env = await prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    for turn in range(4 * len(PAIRS)):
        resident, mode = PAIRS[turn % len(PAIRS)]
        env.stall = float(r.choice([0.0, 0.0, 0.4, 0.8]))
        env.pause = float(r.choice([0.0, 0.5, 0.95]))
        env.keep = int(r.choice([0, 3, config.operand_depth // RELEASE_WORDS]))
        source.stall = float(r.choice([0.0, 0.5]))
        addresses: list[int] = []
        while not addresses:
            fields = random_window(r, config, resident, mode)
            addresses = random_places(r, config, fields, resident, int(r.integers(1, 4)))
        await run(dut, env, source, fields, resident, mode, addresses)


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def commands_follow(dut: Any, mode: Any) -> None:
    """Commands with different windows and formats of one mode follow each other at once."""
    config, r, _, env = await prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    formats = [resident for resident, its_mode in PAIRS if its_mode is mode]
    for stall in (0.0, 0.0, 0.5):
        env.stall, env.pause, env.keep = stall, stall, int(r.choice([0, 3]))
        commands: list[Command] = []
        while len(commands) < 8:
            resident = formats[int(r.integers(len(formats)))]
            fields = random_window(r, config, resident, mode, k_most=60)
            addresses = random_places(r, config, fields, resident, int(r.integers(1, 3)))
            if addresses:
                commands.append((fields, resident, addresses))
        await follow(dut, env, source, mode, commands)


@cocotb.test()
async def every_number(dut: Any) -> None:
    """Every number of up to 8 bits in every lane and mode, and some of 16 bits."""
    config, r, memory, env = await prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    memory[:256] = np.arange(256)
    for resident, mode in PAIRS:
        k, n = 256 * 8 // BITS[resident], config.cols * LANES[mode]
        fields = body_of(r, resident, mode, k=k, n=n, n_inner=n, run_bytes=256)
        await run(dut, env, source, fields, resident, mode, [0])


@cocotb.test()
async def longest(dut: Any) -> None:
    """A long K goes round and round the ring, the longest where there are few columns."""
    config, r, _, env = await prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    resident = Format.INT4 if config.cols > 4 else Format.FP16
    mode = array_mode(resident, resident)
    run_bytes = 1024
    fields = body_of(
        r,
        resident,
        mode,
        k=MAX_K if config.cols == 4 else 5 * config.operand_depth,
        n=3,
        n_inner=2,
        run_bytes=run_bytes,
        runs_inner=5,
        x_run_stride=run_bytes,
        x_run_outer_stride=-300,
        x_inner_stride=2,
        x_outer_stride=18,
    )
    env.pause, env.keep = 0.2, config.operand_depth // RELEASE_WORDS - 5
    await run(dut, env, source, fields, resident, mode, [8000])


@cocotb.test()
async def read_ahead(dut: Any) -> None:
    """With nothing released the ring is filled, all sets of the columns are, and that is all."""
    config, r, _, env = await prepare(dut)
    n, k = config.cols * LANES[Mode.INT8], 3 * config.operand_depth
    fields = body_of(r, Format.INT8, Mode.INT8, k=k, n=n, n_inner=n, run_bytes=k, x_inner_stride=1)
    dut.body.value = pack(MatmulBody, fields)
    env.blocks.append(k)
    env.pause = 1.0
    StreamSource(dut, "start", rng=r).put(0)
    await within(3 * config.operand_depth, env.wait(config.operand_depth), "a full ring")
    await tick(dut, SETS * n)
    assert len(env.words) == config.operand_depth
    assert env.reads == (config.operand_depth // config.fill_bytes + SETS) * n


@cocotb.test()
async def first_word(dut: Any) -> None:
    """The first word comes when one chunk of each block column could be read."""
    config, r, _, env = await prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    for resident, mode in PAIRS:
        width = config.cols * LANES[mode]
        for n in (1, 2, width, width + 1):
            run_bytes = 6
            k = run_bytes * 8 // BITS[resident]
            fields = body_of(
                r, resident, mode, k=k, n=n, n_inner=50, run_bytes=run_bytes, x_inner_stride=16
            )
            await run(dut, env, source, fields, resident, mode, [0])
            latency = env.first - env.started[0]
            what = f"{resident}, {mode}, {n} columns: {latency}"
            assert latency == min(n, width) + READ_LATENCY + 10, what


@cocotb.test()
async def speed(dut: Any) -> None:
    """Where reads can keep up there is no bubble between words, else none between reads."""
    config, r, _, env = await prepare(dut)
    source = StreamSource(dut, "start", rng=r)
    for resident, mode in PAIRS:
        width = config.cols * LANES[mode]
        strides = {"x_run_stride": 1000, "x_run_outer_stride": 3000, "x_inner_stride": 128}
        run_bytes = 5 * config.fill_bytes
        k, n = run_bytes * 8 // BITS[resident], 2 * width - int(r.integers(width))
        fields = body_of(r, resident, mode, k=k, n=n, n_inner=8, run_bytes=run_bytes, **strides)
        await run(dut, env, source, fields, resident, mode, [4096, 64, 6])
        spent = env.last - env.first + 1
        assert spent == len(env.words), f"{spent} cycles for {len(env.words)} words"
        # In every chunk more reads than words.
        runs, run_bytes = 9, min(config.fill_bytes, width * BITS[resident] // 8) // 2
        k = runs * run_bytes * 8 // BITS[resident]
        fields |= {"k": k, "n": 2 * width, "run_bytes": run_bytes, "runs_inner": 4}
        await run(dut, env, source, fields, resident, mode, [4096, 64, 6])
        spent = env.last_read - env.first_read + 1
        assert env.reads == 3 * runs * 2 * width
        assert spent <= env.reads + 2 * 5, f"{spent} cycles for {env.reads} reads"
        rest = len(env.words) // (3 * 2 * runs) + READ_LATENCY + 4
        assert env.last - env.last_read <= rest, f"{env.last - env.last_read} cycles for the rest"


@cocotb.test()
@cocotb.parametrize(x=["end", "far", "before", "column"])
async def outside(dut: Any, x: str) -> None:
    """A window that leaves the scratchpad is an error, and is not read."""
    config, r, _, env = await prepare(dut)
    address = {"end": config.scratchpad_bytes - 3, "far": 1 << 31, "before": 0xFFFFFFFE}.get(x, 0)
    fields = {"k": 4, "n": 2, "n_inner": 2, "run_bytes": 4, "runs_inner": 1}
    fields["x_inner_stride"] = -2 if x == "column" else 0
    dut.body.value = pack(MatmulBody, fields)
    StreamSource(dut, "start", rng=r).put(address)

    async def failure() -> int:
        while True:
            await FallingEdge(dut.clk)
            if int(dut.error.value):
                return int(dut.status.value)

    assert await within(100, failure(), "the error") == Status.BAD_ADDRESS.value
    await tick(dut, 30)
    assert env.reads == (1 if x == "column" else 0)
    assert not env.words
