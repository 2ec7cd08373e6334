"""Bench of the PE: exact sums of every mode, hops, and what passes on the drain."""

import cocotb
import numpy as np
from cocotb.utils import get_sim_time

from ...rtl.array.ports import drain_layout, fill_layout, operand_layout, stream_layout
from ...rtl.array.prepare import PrepareOperand
from ...rtl.array.product import offset_of
from ...rtl.isa import LANES, MAX_ANCHOR, MIN_ANCHOR, Mode
from .lib import CLOCK_NS, bench_config, pack, rng, sample, start, tick, unpack
from .sums import assert_sums, corners, operands, words


async def _start(dut):
    dut.stream.value = 0
    dut.fill.value = 0
    dut.drain_i.value = 0
    _set_mode(dut, Mode.INT8)
    await start(dut)


def _set_mode(dut, mode, anchor=0):
    dut.mode.value = mode.value
    dut.offset.value = offset_of(mode, anchor)


async def _fill(dut, config, column, addresses):
    """Write operand words, and check that each hops on a cycle later."""
    for word, address in zip(column, addresses, strict=True):
        value = pack(fill_layout(config), value=int(word), address=int(address), valid=1)
        dut.fill.value = value
        await tick(dut)
        dut.fill.value = 0
        await tick(dut, PrepareOperand.LATENCY - 1)
        await sample(dut)
        prepared = int(dut.prepared.value)
        seen = unpack(operand_layout(config), prepared)
        assert (seen["address"], seen["valid"]) == (int(address), 1)
        await tick(dut)
        await sample(dut)
        assert int(dut.fill_o.value) == prepared, "a fill word does not hop"
        await tick(dut)


def _cycle():
    """Return the number of the clock cycle."""
    return int(get_sim_time("ns") // CLOCK_NS)


def _bits(mode, weight, r):
    """Return the bits of a weight's value on the stream, noise above those of a small one."""
    width = 16 // LANES[mode]
    return int(weight) & ((1 << width) - 1) | int(r.integers(1 << 16)) >> width << width


async def _visits(dut, config, mode, visits, addresses, r, bubbles):
    """Send visits (rows of weights) with random bubbles, as close as they may follow each other.

    Return the drain's beats, and check that they come when the PE's contract says.
    """
    beats = []
    due: list[int] = []

    async def watch():
        while True:
            await sample(dut)
            beat = unpack(drain_layout(), int(dut.drain_o.value))
            assert beat["valid"] == any(_cycle() - cycle in (11, 12) for cycle in due)
            if beat["valid"]:
                beats.append(beat)
            await tick(dut)

    async def send(**fields):
        dut.stream.value = pack(stream_layout(config), **fields)
        await tick(dut)
        # What comes without `valid` is noise; much of it is NaN in both formats of floats.
        dut.stream.value = pack(
            stream_layout(config),
            value=0xFFFF if r.random() < 0.5 else int(r.integers(1 << 16)),
            first=int(r.integers(2)),
            last=int(r.integers(2)),
        )

    watcher = cocotb.start_soon(watch())
    for weights in visits:
        for i, (weight, address) in enumerate(zip(weights, addresses, strict=True)):
            last = i == len(weights) - 1
            while r.random() < bubbles or (last and due and _cycle() - due[-1] < config.min_visit):
                await send(
                    value=int(r.integers(1 << 16)),
                    address=int(r.integers(config.operand_depth)),
                    first=int(r.integers(2)),
                    last=int(r.integers(2)),
                    release=int(r.integers(2)),
                )
            if last:
                due.append(_cycle())
            await send(
                value=_bits(mode, weight, r), address=int(address), valid=1, first=i == 0, last=last
            )
    await tick(dut, 16)
    watcher.cancel()
    return beats


async def _round(dut, config, r, mode, anchor, w, x, bubbles, where):
    """Fill operands x[lane, k] and send visits w[visit, k]; check the sums."""
    _set_mode(dut, mode, anchor)
    await tick(dut)
    addresses = r.permutation(config.operand_depth)[: x.shape[1]]
    await _fill(dut, config, words(x, mode)[:, 0], addresses)
    beats = await _visits(dut, config, mode, w, addresses, r, bubbles)
    assert len(beats) == 2 * len(w), f"{where}: {len(beats)} beats"
    for i, weights in enumerate(w):
        assert_sums(beats[2 * i : 2 * i + 2], mode, anchor, weights, x, f"{where}, visit {i}")


async def _random_round(dut, config, r, turn, mode):
    k = int(r.choice([1, 2, 3, 17, 64]))
    count = int(r.integers(1, 5))
    anchor = int(r.integers(MIN_ANCHOR, MAX_ANCHOR + 1)) if mode is Mode.BF16 else 0
    # Few products, and no specials: else hardly a flag stays down.
    special = turn % 3 == 0
    x = operands(r, (LANES[mode], k), mode, anchor=anchor, special=special)
    w = operands(r, (count, k), mode, anchor=anchor, special=special)
    if turn == 1:  # the largest magnitudes, all of one sign
        extremes = {
            Mode.INT8: (-128, -128),
            Mode.INT4: (-8, -8),
            Mode.FP16: (0x7BFF, 0xFBFF),
            Mode.BF16: ((134 + 32 + anchor // 2) << 7 | 0x7F, (134 + 32 + anchor // 2) << 7 | 0x7F),
        }
        x[:], w[:] = extremes[mode]
    where = f"{mode.name}, anchor {anchor}, turn {turn}, k={k}"
    await _round(dut, config, r, mode, anchor, w, x, float(r.choice([0, 0.3])), where)


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def sums(dut, mode):
    config, r = bench_config(), rng()
    await _start(dut)
    for turn in range(60):
        await _random_round(dut, config, r, turn, mode)


@cocotb.test()
@cocotb.parametrize(mode=list(Mode))
async def corner_pairs(dut, mode):
    """Each corner case times each other, alone in its sum: zero times NaN, for one, is nothing."""
    config, r = bench_config(), rng()
    await _start(dut)
    values = corners(mode)
    for anchor in (0, MIN_ANCHOR, MAX_ANCHOR) if mode is Mode.BF16 else (0,):
        for i in range(len(values)):
            x = np.array([[values[i - lane]] for lane in range(LANES[mode])])
            where = f"{mode.name}, anchor {anchor}, value {i}"
            await _round(dut, config, r, mode, anchor, values[:, None], x, 0, where)


@cocotb.test()
async def mode_changes(dut):
    """Modes and anchors follow each other at random; nothing of the one is seen in the next."""
    config, r = bench_config(), rng()
    await _start(dut)
    for turn in range(60):
        await _random_round(dut, config, r, turn, list(Mode)[r.integers(len(Mode))])


def _pair_at(r, place):
    """Return two finite BF16 numbers other than zero whose product's lowest bit has this place:
    the sum of their exponent fields. A field of 1 may turn out as a subnormal's."""
    low = int(r.integers(max(1, place - 254), min(254, place - 1) + 1))
    result = []
    for exponent in (low, place - low):
        fraction = int(r.choice([0, 1, 0x7F, int(r.integers(1 << 7))]))
        if exponent == 1 and fraction and r.random() < 0.5:
            exponent = 0
        result.append(int(r.integers(2)) << 15 | exponent << 7 | fraction)
    return result


@cocotb.test()
async def window_edges(dut):
    """Products one by one at every place in the window, and around both of its ends."""
    config, r = bench_config(), rng()
    await _start(dut)
    shifts = [*range(-28, 68), -200, 130]
    for anchor in (MIN_ANCHOR, MAX_ANCHOR, int(r.integers(MIN_ANCHOR, MAX_ANCHOR))):
        for shift in shifts:
            place = shift + 268 + anchor
            if not 2 <= place <= 508:
                continue
            k = int(r.choice([1, 1, 1, 4]))
            pairs = np.array([_pair_at(r, place) for _ in range(k)], np.uint16)
            where = f"anchor {anchor}, shift {shift}"
            await _round(
                dut, config, r, Mode.BF16, anchor, pairs[:, :1].T, pairs[:, 1:].T, 0, where
            )


@cocotb.test()
async def drain_passes(dut):
    """What comes from the right leaves a cycle later, unchanged."""
    r = rng()
    await _start(dut)
    layout = drain_layout()
    valid = 1 << layout["valid"].offset
    seen = 0
    for _ in range(200):
        value = int.from_bytes(r.bytes(8), "little") & ((1 << layout.size) - 1)
        dut.drain_i.value = value
        await tick(dut)
        await sample(dut)
        passed = int(dut.drain_o.value)
        assert passed & valid == value & valid
        if value & valid:
            assert passed == value
            seen += 1
    assert seen > 50
