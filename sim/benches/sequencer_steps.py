"""Bench of `Sequencer`: commands step by step (`Csr.STEP`)."""

from typing import Any

import cocotb

from ...rtl.isa import Csr, Queue, Status, Unit
from .control import BARRIER, NOTHING, add, begin, end, image
from .queue_commands import reference

STEP_ENABLE = 1 << 31


@cocotb.test()
async def steps(dut: Any) -> None:
    """A job step by step, with one step and with several at a time, and then freely."""
    bench = await begin(dut)
    r = bench.rng
    await bench.set_up(watchdog=200)

    async def rest(steps_left: int = 0) -> int:
        await bench.step(400)
        assert await bench.read(Csr.STEP) == STEP_ENABLE | steps_left
        return await bench.read(Csr.RING_HEAD)

    await bench.write(Csr.STEP, 0x7FFF0005)
    assert await bench.read(Csr.STEP) == 5
    await bench.good_job()
    assert await bench.read(Csr.STEP) == 5, "steps were counted without being asked for"

    await bench.write(Csr.STEP, STEP_ENABLE)
    at, tag = bench.new_record()
    wait = [reference(3), *NOTHING[1:]]
    job = [
        bench.queue_command(0, on=Queue.LOAD1),
        bench.queue_command(1, on=Queue.STORE, inner=2, outer=1, wait=wait),
        add(3, 2),
        BARRIER,
        bench.queue_command(4, on=Queue.COMPUTE),
    ]
    head = bench.written
    await bench.send([*job, end(at, tag)], step=6)
    # Nothing runs before the first step, and what is taken then is one command.
    assert await rest() == head and all(not running for running in bench.running)
    assert len(bench.expected[Queue.STORE]) == 2
    for taken in range(1, 3):
        await bench.write(Csr.STEP, STEP_ENABLE | 1)
        assert await rest() == head + taken
        assert await bench.read(Csr.STATE) & 1
    # STORE starves for much longer than the watchdog allows, but a step is waited for.
    assert not bench.expected[Queue.LOAD1] and len(bench.expected[Queue.STORE]) == 2
    await bench.step(3000)
    assert await bench.read(Csr.ERROR) == 0
    await bench.write(Csr.STEP, STEP_ENABLE | 2)
    assert await rest() == head + 4
    assert not bench.expected[Queue.STORE] and bench.expected[Queue.COMPUTE]
    await bench.write(Csr.STEP, STEP_ENABLE | 1)
    assert await rest() == head + 5
    assert await bench.read(Csr.COMPLETED) == bench.completed
    await bench.write(Csr.STEP, STEP_ENABLE | 3)
    await bench.finish()
    bench.check_record(at, tag, 5)
    assert await rest(2) == bench.written

    # The next job has the two that are left; then all the rest.
    at, tag = bench.new_record()
    head = bench.written
    await bench.send([bench.queue_command(n) for n in range(4)], step=4)
    assert await rest() == head + 2
    await bench.write(Csr.STEP, int(r.integers(3)))
    await bench.send([end(at, tag)])
    await bench.finish()
    bench.check_record(at, tag, 4)
    assert not any(bench.expected)

    # At random, in mid-flight: never more are taken than were allowed.
    for _ in range(6):
        at, tag = bench.new_record()
        head = bench.written
        await bench.send([*(bench.queue_command(n) for n in range(6)), end(at, tag)], step=7)
        await bench.step(int(r.integers(40)))
        while True:
            before = await bench.read(Csr.RING_HEAD)
            count = int(r.integers(3))
            await bench.write(Csr.STEP, STEP_ENABLE | count)
            soon = await bench.read(Csr.RING_HEAD)
            await bench.step(int(r.integers(300)))
            later = await bench.read(Csr.RING_HEAD)
            left = await bench.read(Csr.STEP) & 0xFFFF
            after = await bench.read(Csr.RING_HEAD)
            assert later - soon <= count - left <= after - before
            assert after - soon <= count
            if after == bench.written:
                break
        assert after == head + 7
        await bench.finish()
        bench.check_record(at, tag, 6)
    await bench.write(Csr.STEP, 0)
    await bench.good_job()


@cocotb.test()
async def steps_cut_short(dut: Any) -> None:
    """An abort, a refused command and a reset of a job that waits for a step."""
    bench = await begin(dut)
    await bench.set_up(watchdog=200)
    for commands_taken in (0, 2):
        await bench.write(Csr.STEP, STEP_ENABLE | commands_taken)
        at, tag = bench.new_record()
        commands = [bench.queue_command(n) for n in range(4)]
        await bench.send([*commands, end(at, tag)], step=5)
        await bench.step(300)
        await bench.write(Csr.CONTROL, 2)
        await bench.step(600)
        await bench.check_error(Status.ABORTED, Unit.SEQUENCER, commands_taken)
        # What a failed job skips is stepped through, too.
        left = 5 - commands_taken
        await bench.write(Csr.STEP, STEP_ENABLE | left - 1)
        await bench.step(600)
        assert await bench.read(Csr.RING_HEAD) == bench.written - 1
        assert await bench.read(Csr.COMPLETED) == bench.completed
        await bench.write(Csr.STEP, STEP_ENABLE | 1 if commands_taken else 0)
        await bench.finish()
        bench.check_record(at, tag, commands_taken, Status.ABORTED, Unit.SEQUENCER)
        await bench.write(Csr.STEP, 0)
        await bench.good_job()

    # A command is refused in its own step.
    await bench.write(Csr.STEP, STEP_ENABLE | 1)
    at, tag = bench.new_record()
    await bench.send([bench.queue_command(0), image(77), end(at, tag)])
    await bench.step(600)
    await bench.check_error(Status.ABORTED, Unit.SEQUENCER, 2)
    await bench.write(Csr.STEP, STEP_ENABLE | 1)
    await bench.step(600)
    await bench.check_error(Status.BAD_OPCODE, Unit.SEQUENCER, 1)
    assert await bench.read(Csr.STEP) == STEP_ENABLE
    await bench.write(Csr.STEP, STEP_ENABLE | 1)
    await bench.finish()
    bench.check_record(at, tag, 1, Status.BAD_OPCODE, Unit.SEQUENCER)

    await bench.write(Csr.STEP, STEP_ENABLE | 1)
    await bench.send([bench.queue_command(n) for n in range(5)])
    await bench.step(400)
    await bench.write(Csr.CONTROL, 1)
    bench.completed = bench.written = 0
    await bench.set_up()
    assert await bench.read(Csr.STEP) == 0
    await bench.step(100)
    assert not any(bench.expected)
    await bench.good_job()
