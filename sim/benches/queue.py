"""Bench of `QueueBank`: random commands, stalls and latencies, and what a queue reports."""

from typing import Any

import cocotb
import numpy as np

from ...rtl.core.bank import UNITS
from ...rtl.core.queue import STALL_UNIT
from .lib import rng, start, tick
from .queue_commands import OVERLAP, random_command, reference
from .queue_model import Bench


async def _random(dut: Any, *, stall: float, latency: int, semaphores: int, commands: int) -> None:
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=stall, latency=latency)
    for _ in range(commands):
        queue = OVERLAP if r.random() < 0.2 else int(r.integers(len(UNITS)))
        bench.put(queue, random_command(r, semaphores=semaphores))
    await bench.run(limit=60_000)
    cocotb.log.info("%d commands began before the one before had ended", bench.overlaps)
    # What is left over must be exactly what the model says: take it all, and one more.
    left = list(bench.counts)
    for semaphore, count in enumerate(left):
        queue = semaphore % len(UNITS)
        drain = random_command(r, semaphores=1) | {"signal": [{}] * 4, "outer": 1}
        drain |= {"wait": [reference(semaphore)] + [{}] * 3, "inner": count + 1}
        bench.put(queue, drain)
        before = sum(map(len, bench.starts))
        await bench.run(limit=bench.cycle + 20_000, feed=False)
        assert sum(map(len, bench.starts)) == before + count
        bench.credits.append(semaphore)
        await bench.run(limit=bench.cycle + 2_000)
    assert not any(bench.counts)


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Few semaphores, slow units, stalls everywhere."""
    await _random(dut, stall=0.3, latency=30, semaphores=4, commands=60)


@cocotb.test()
async def fast_traffic(dut: Any) -> None:
    """Units that take a cycle or two, and no stalls: many takes and additions at once."""
    await _random(dut, stall=0.0, latency=2, semaphores=16, commands=100)


@cocotb.test()
async def contended_traffic(dut: Any) -> None:
    """One semaphore for all."""
    await _random(dut, stall=0.1, latency=4, semaphores=1, commands=40)


def _plain(r: np.random.Generator, **fields: Any) -> dict[str, Any]:
    nothing = [dict[str, int]()] * 4
    return random_command(r, semaphores=1) | {"wait": nothing, "signal": nothing} | fields


@cocotb.test()
async def latency(dut: Any) -> None:
    """From the commit to the start, from iteration to iteration, and from credit to start."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0, latency=1)
    for pong_outer, most in ((3, 3), (0, 5)):  # with no ping-pong, with that of two operands
        bench.put(0, _plain(r, inner=6, outer=1, pong_outer=pong_outer))
        await bench.run(limit=bench.cycle + 1000)
        starts = bench.starts[0][-6:]
        first = starts[0] - bench.commits[-1]
        steps = np.diff(starts)
        cocotb.log.info("commit to start %d cycles, steps %s", first, steps.tolist())
        assert first <= (3 if bench.config.bus_bytes == 64 else 2)
        assert steps.max() <= most

    bench.put(1, _plain(r, inner=2, outer=1, wait=[reference(3)] + [{}] * 3))
    for _ in range(60):
        await bench.step()
    assert not bench.starts[1]
    for _ in range(2):
        given = bench.cycle
        bench.credits.append(3)
        count = len(bench.starts[1])
        while len(bench.starts[1]) == count:
            await bench.step()
        delay = bench.starts[1][-1] - given
        cocotb.log.info("credit to start %d cycles", delay)
        assert delay <= 4


@cocotb.test()
async def next_command(dut: Any) -> None:
    """A queued command starts soon after the one before it has ended, or has been started."""
    await start(dut)
    r = rng()
    for queue, latency in ((0, 1), (OVERLAP, 1), (OVERLAP, 10)):
        bench = Bench(dut, r, stall=0.0, latency=1)
        bench.held_back[queue] = True
        for _ in range(3):
            bench.put(queue, _plain(r, inner=1, outer=1))
        for _ in range(100):
            await bench.step()
        bench.held_back[queue] = False
        bench.slow = latency
        await bench.run(limit=1000)
        gaps = np.diff(bench.starts[queue]).tolist()
        cocotb.log.info("start to start of one-iteration commands: %s cycles", gaps)
        wide = bench.config.bus_bytes == 64
        if queue != OVERLAP:
            assert max(gaps) <= 4
        elif latency == 1:
            assert max(gaps) <= 4
        else:
            # The third one's body is loaded when the first one has ended.
            assert gaps[0] <= 4 and sum(gaps) == latency + 3 - wide


@cocotb.test()
@cocotb.parametrize(semaphores=[1, 4])
async def overlapping_commands(dut: Any, semaphores: int) -> None:
    """Short commands of the queue that mixes them, with signals that take longer than they do."""
    await start(dut)
    r = rng()
    for stall, slow in ((0.0, 1), (0.0, 30), (0.4, 50)):
        bench = Bench(dut, r, stall=stall, latency=slow)
        bench.slow = slow
        for _ in range(40):
            fields = random_command(r, semaphores=semaphores)
            fields |= {"inner": int(r.integers(1, 3)), "outer": int(r.integers(1, 3))}
            if r.random() < 0.7:
                fields["wait"] = [{}] * 4
            bench.put(OVERLAP, fields)
        await bench.run(limit=60_000)
        assert bench.overlaps > 10 or slow == 1, f"only {bench.overlaps} commands overlapped"
        await _clear(dut)


async def _clear(dut: Any) -> None:
    """Clear all semaphores."""
    dut.clear.value = 1
    await tick(dut)
    dut.clear.value = 0


@cocotb.test()
async def depth_and_unit_stall(dut: Any) -> None:
    """A queue holds ``queue_depth`` commands, and blames a unit that takes none."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0, latency=1)
    bench.held_back[4] = True
    depth = bench.config.queue_depth
    for _ in range(depth + 2):
        bench.put(4, _plain(r, inner=1, outer=1))
    for _ in range(20 * (depth + 3)):
        await bench.step()
    assert bench.commands == depth + 1, "one is out of the store, the rest in it"
    assert bench.state[4]["stall"] == STALL_UNIT
    bench.held_back[4] = False
    await bench.run(limit=2000)


@cocotb.test()
async def saturation(dut: Any) -> None:
    """A semaphore stays at 255, and clearing empties it."""
    await start(dut)
    r = rng()
    bench = Bench(dut, r, stall=0.0, latency=1)
    for value in (200, 255):
        dut.add.value = 1
        dut.add_index.value = 9
        dut.add_value.value = value
        await tick(dut)
        dut.add.value = 0
        for _ in range(value + 20):
            await tick(dut)
        assert not int(dut.moving.value)
    bench.counts[9] = 255
    bench.put(3, _plain(r, inner=256, outer=1, wait=[reference(9)] + [{}] * 3))
    await bench.run(limit=5000, feed=False)
    assert len(bench.starts[3]) == 255
    bench.credits.append(9)
    await bench.run(limit=bench.cycle + 100)

    dut.add.value = 1
    await tick(dut)
    dut.add.value = 0
    for _ in range(20):
        await tick(dut)
    await _clear(dut)
    bench.put(3, _plain(r, inner=1, outer=1, wait=[reference(9)] + [{}] * 3))
    await bench.run(limit=bench.cycle + 500, feed=False)
    assert len(bench.starts[3]) == 256
