"""Bench of the PE: exact sums of every format, hops, and what passes on the drain."""

import cocotb
import numpy as np

from ...rtl.array.ports import drain_layout, fill_layout, stream_layout
from ..golden import exact
from .lib import bench_config, pack, rng, sample, start, tick, unpack
from .sums import assert_sums, operands


async def _quiet(dut):
    dut.stream_i.value = 0
    dut.fill_i.value = 0
    dut.drain_i.value = 0


async def _fill(dut, config, words, addresses):
    """Write operand words, and check that each hops on a cycle later."""
    for word, address in zip(words, addresses, strict=True):
        value = pack(fill_layout(config), value=int(word), address=int(address), valid=1)
        dut.fill_i.value = value
        await tick(dut)
        dut.fill_i.value = 0
        await sample(dut)
        assert int(dut.fill_o.value) == value, "a fill word does not hop"
        await tick(dut)


async def _visits(dut, config, visits, addresses, r, bubbles):
    """Send visits (rows of weights) with random bubbles; return the drain's beats."""
    beats = []

    async def watch():
        while True:
            await sample(dut)
            beat = unpack(drain_layout(), int(dut.drain_o.value))
            if beat["valid"]:
                beats.append(beat)
            await tick(dut)

    watcher = cocotb.start_soon(watch())
    since = config.min_visit
    for weights in visits:
        # `last` may follow the one before only after min_visit cycles.
        await tick(dut, max(0, config.min_visit - since - len(weights)))
        since = 0
        for i, (weight, address) in enumerate(zip(weights, addresses, strict=True)):
            while r.random() < bubbles:
                dut.stream_i.value = pack(
                    stream_layout(config),
                    value=int(r.integers(1 << 16)),
                    address=int(r.integers(config.operand_depth)),
                    first=int(r.integers(2)),
                    last=int(r.integers(2)),
                )
                await tick(dut)
            value = pack(
                stream_layout(config),
                value=int(weight) & 0xFFFF,
                address=int(address),
                valid=1,
                first=i == 0,
                last=i == len(weights) - 1,
            )
            dut.stream_i.value = value
            await tick(dut)
            dut.stream_i.value = 0
            await sample(dut)
            assert int(dut.stream_o.value) == value, "a weight does not hop"
    await tick(dut, 16)
    watcher.cancel()
    return beats


async def _format(dut, fp16, rounds=100):
    config = bench_config()
    r = rng()
    await _quiet(dut)
    dut.fp16.value = int(fp16)
    await start(dut)
    lanes = 1 if fp16 else 2
    for turn in range(rounds):
        k = int(r.choice([1, 2, 3, 17, 64]))
        count = int(r.integers(1, 5))
        x = operands(r, (lanes, k), fp16, special=turn % 3 == 0)
        w = operands(r, (count, k), fp16, special=turn % 3 == 0)
        if turn == 1:  # the largest magnitudes, all of one sign
            x[:], w[:] = (0x7BFF, 0xFBFF) if fp16 else (-128, 127)
        addresses = r.permutation(config.operand_depth)[:k]
        words = x[0] if fp16 else x[0].view(np.uint8) | x[1].view(np.uint8).astype(np.uint16) << 8
        await _fill(dut, config, words, addresses)
        beats = await _visits(dut, config, w, addresses, r, float(r.choice([0, 0.3])))
        sums = exact.gemm(w, x, "fp16" if fp16 else "int8")
        assert len(beats) == 2 * count
        for i in range(count):
            assert_sums(beats[2 * i : 2 * i + 2], sums, i, lanes, f"k={k}, visit {i}")


@cocotb.test()
async def fp16_sums(dut):
    await _format(dut, True)


@cocotb.test()
async def int8_sums(dut):
    await _format(dut, False)


@cocotb.test()
async def drain_passes(dut):
    """What comes from the right leaves a cycle later, unchanged."""
    r = rng()
    await _quiet(dut)
    dut.fp16.value = 0
    await start(dut)
    width = drain_layout().size
    sent = 0
    for _ in range(200):
        value = int.from_bytes(r.bytes(8), "little") & ((1 << width) - 1)
        dut.drain_i.value = value
        await tick(dut)
        await sample(dut)
        assert int(dut.drain_o.value) == value
        sent += 1
    assert sent == 200
