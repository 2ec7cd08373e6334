"""Bench of the fill path: windows of every shape, as operand words in the ring."""

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.array.ports import fill_layout
from ...rtl.isa import Format, MatmulBody, Status
from .lib import StreamSource, bench_config, pack, rng, start, tick, unpack, within


def _window(r, fp16):
    """Return the fields of a random window, a small one so that all fits."""
    size = 2 if fp16 else 1
    runs, run = int(r.integers(1, 5)), int(r.choice([1, 3, 8, 16, 21, 40]))
    return {
        "k": runs * run,
        "n": int(r.integers(1, 45)),
        "n_inner": int(r.integers(1, 12)),
        "run_bytes": run * size,
        "x_run_stride": int(r.integers(-40, 300)) * size,
        "x_inner_stride": int(r.integers(-10, 60)) * size,
        "x_outer_stride": int(r.integers(-100, 500)) * size,
        "in_format": int((Format.FP16 if fp16 else Format.INT8).value),
    }


def _expected(memory, x, fields, fp16, config):
    """Return the words[block, k, column] that `MatmulBody` asks for; -1 beyond the last column."""
    size = 2 if fp16 else 1
    j = np.arange(fields["n"])[:, None]
    k = np.arange(fields["k"])[None, :]
    run = fields["run_bytes"] // size
    address = (
        x
        + (j // fields["n_inner"]) * fields["x_outer_stride"]
        + (j % fields["n_inner"]) * fields["x_inner_stride"]
        + (k // run) * fields["x_run_stride"]
        + (k % run) * size
    )
    if fp16:
        value = memory[address].astype(int) | memory[address + 1].astype(int) << 8
    else:
        value = memory[address].astype(int)
    lanes = 1 if fp16 else 2
    blocks = -(-fields["n"] // (config.cols * lanes))
    padded = np.full((blocks * config.cols * lanes, fields["k"]), -1)
    padded[: fields["n"]] = value
    lanes_of = padded.reshape(blocks, config.cols, lanes, fields["k"])
    return lanes_of.transpose(0, 3, 1, 2)


async def _scratchpad(dut, memory, config, r, state):
    """Answer reads of two chunks' width two cycles after they were accepted."""
    pipeline = [None, None]
    width = 2 * config.fill_bytes // 16
    granules = config.scratchpad_bytes // 16
    while True:
        due = pipeline.pop()
        dut.read__data_valid.value = int(due is not None)
        dut.read__data.value = due if due is not None else int(r.integers(1 << 62))
        ready = int(r.random() >= state["stall"])
        dut.read__ready.value = ready
        await FallingEdge(dut.clk)
        answer = None
        if ready and int(dut.read__valid.value):
            at = int(dut.read__address.value)
            span = [memory[16 * (g % granules) :][:16].tobytes() for g in range(at, at + width)]
            answer = int.from_bytes(b"".join(span), "little")
        pipeline.insert(0, answer)
        await RisingEdge(dut.clk)


async def _writes(dut, config, words, state):
    """Collect the words of all columns; they must come in step and at rising ring addresses."""
    while True:
        await FallingEdge(dut.clk)
        columns = [
            unpack(fill_layout(config), int(getattr(dut, f"fill__{c}").value))
            for c in range(config.cols)
        ]
        if columns[0]["valid"]:
            assert all(column["valid"] for column in columns), "columns are not in step"
            addresses = {column["address"] for column in columns}
            assert addresses == {state["ring"] % config.operand_depth}
            words.append([column["value"] for column in columns])
            state["ring"] += 1
            held = state["ring"] - state["released"]
            assert held <= config.operand_depth, "a word that is still needed was overwritten"
        await RisingEdge(dut.clk)


async def _prepare(dut):
    for name in ("release", "read__ready", "read__data_valid", "start__valid"):
        getattr(dut, name).value = 0
    dut.body.value = 0
    await start(dut)


@cocotb.test()
@cocotb.parametrize(fp16=[False, True])
async def windows(dut, fp16):
    config = bench_config()
    r = rng()
    memory = r.integers(0, 256, config.scratchpad_bytes, np.uint8)
    await _prepare(dut)
    state = {"stall": 0.0, "ring": 0, "released": 0}
    words: list = []
    cocotb.start_soon(_scratchpad(dut, memory, config, r, state))
    cocotb.start_soon(_writes(dut, config, words, state))
    source = StreamSource(dut, "start", rng=r)
    checked = 0
    for turn in range(16):
        state["stall"] = float(r.choice([0.0, 0.4]))
        fields = _window(r, fp16)
        x = config.scratchpad_bytes // 2 + int(r.integers(256)) * 2
        if turn == 0:
            x = x | 1 if not fp16 else x
        expected = _expected(memory, x, fields, fp16, config)
        blocks, k = expected.shape[:2]
        dut.body.value = pack(MatmulBody, fields)
        words.clear()
        source.put(x)

        async def consume(blocks=blocks, k=k):
            """Release each block some time after it was filled."""
            for block in range(blocks):
                while len(words) < (block + 1) * k:
                    await tick(dut)
                await tick(dut, int(r.integers(1, 4)) * int(r.choice([1, 100])))
                dut.release.value = 1
                await tick(dut)
                dut.release.value = 0
                state["released"] += k

        await within(200 * blocks * k + 2000 * blocks, consume(), "the fill")
        await tick(dut, 3)
        assert len(words) == blocks * k
        got = np.array(words).reshape(blocks, k, config.cols)
        for lane in range(expected.shape[3]):
            wanted = expected[..., lane]
            part = got if fp16 else (got >> 8 * lane) & 0xFF
            real = wanted >= 0
            assert (part[real] == wanted[real]).all(), f"turn {turn}, lane {lane}: {fields}"
            checked += int(real.sum())
    assert checked > 0


@cocotb.test()
async def speed(dut):
    """A contiguous operand fills nearly a word a cycle."""
    config = bench_config()
    r = rng()
    await _prepare(dut)
    k = config.operand_depth // 2
    state = {"stall": 0.0, "ring": 0, "released": 0}
    words: list = []
    cocotb.start_soon(
        _scratchpad(dut, np.zeros(config.scratchpad_bytes, np.uint8), config, r, state)
    )
    cocotb.start_soon(_writes(dut, config, words, state))
    dut.body.value = pack(
        MatmulBody, k=k, n=2 * config.cols, n_inner=2 * config.cols, run_bytes=k, x_inner_stride=k
    )
    source = StreamSource(dut, "start", rng=r)
    source.put(0)
    cycles = 0
    while len(words) < k:
        await tick(dut)
        cycles += 1
        assert cycles < 1.25 * k + 40, f"{len(words)} of {k} words in {cycles} cycles"


@cocotb.test()
@cocotb.parametrize(x=["end", "far", "before"])
async def outside(dut, x):
    """A window that leaves the scratchpad is an error, and is not read."""
    config = bench_config()
    r = rng()
    await _prepare(dut)
    state = {"stall": 0.0}
    memory = np.zeros(config.scratchpad_bytes, np.uint8)
    cocotb.start_soon(_scratchpad(dut, memory, config, r, state))
    address = {"end": config.scratchpad_bytes - 3, "far": 1 << 31, "before": 0xFFFFFFFE}[x]
    dut.body.value = pack(MatmulBody, k=4, n=1, n_inner=1, run_bytes=4)
    StreamSource(dut, "start", rng=r).put(address)

    async def failure():
        while True:
            await FallingEdge(dut.clk)
            if int(dut.error.value):
                return int(dut.status.value)

    assert await within(100, failure(), "the error") == Status.BAD_ADDRESS.value
