"""Bench of `Sequencer`: whole jobs, refused commands, errors, watchdog, abort, reset, counters."""

import collections
from typing import Any

import cocotb

from ...rtl.core.bank import UNITS
from ...rtl.hostport.csr import ALL_ENGINES, geometry
from ...rtl.isa import ABI_VERSION, COMMAND_BYTES, SEMAPHORES, Csr, Opcode, Queue, Status, Unit
from .control import BARRIER, NOTHING, add, begin, end, image
from .queue_commands import reference

ABORTED = 9


@cocotb.test()
async def registers(dut: Any) -> None:
    """What the card tells of itself, and which registers can be written."""
    bench = await begin(dut)
    config = bench.config
    assert (await bench.read(Csr.ID)).to_bytes(4, "little") == b"DPSK"
    assert await bench.read(Csr.ABI) == ABI_VERSION
    assert await bench.read(Csr.GEOMETRY) == geometry(config)
    assert await bench.read(Csr.MEMORY_BYTES) == config.memory_bytes
    assert await bench.read(Csr.SCRATCHPAD_BYTES) == config.scratchpad_bytes
    assert await bench.read(Csr.OPERAND_DEPTH) == config.operand_depth
    assert await bench.read(Csr.PARTS) == config.parts_mask
    assert await bench.read(Csr.BUILD_LOW) == 0x89ABCDEF
    assert await bench.read(Csr.BUILD_HIGH) == 0x01234567
    for register, value, seen in (
        (Csr.RING_BASE, 0x12345678, 0x12345600),
        (Csr.RING_SIZE, 0x89ABCDEF, 0x89ABCDEF),
        (Csr.WATCHDOG, 0xFFFFFFFF, 0xFFFFFFFF),
        (Csr.ACK, 5, 5),
        (Csr.MEMORY_MODE, 3, 1),
        (Csr.COUNT_ENGINE, 0x1203, 3),
        (Csr.ID, 0, int.from_bytes(b"DPSK", "little")),
        (Csr.COMPLETED, 7, 0),
    ):
        await bench.write(register, value)
        assert await bench.read(register) == seen, hex(register)
    assert int(dut.ideal.value) == 1
    assert int(dut.irq.value) == 1, "ACK differs from COMPLETED"
    await bench.write(Csr.CONTROL, 1)
    await bench.step(40)
    assert await bench.read(Csr.WATCHDOG) == 100_000
    assert await bench.read(Csr.COUNT_ENGINE) == ALL_ENGINES
    for register in (Csr.RING_BASE, Csr.RING_SIZE, Csr.ACK, Csr.MEMORY_MODE, Csr.ERROR):
        assert await bench.read(register) == 0
    assert await bench.read(0xF8) == 0


@cocotb.test()
async def random_jobs(dut: Any) -> None:
    """Jobs of random length in a small ring, several of them queued at a time."""
    bench = await begin(dut)
    r = bench.rng
    for _ in range(3):
        waiting = []
        commands: list[bytes] = []
        for _ in range(int(r.integers(1, 4))):
            count = int(r.integers(0, 9))
            for index in range(count):
                kind = r.random()
                if kind < 0.1:
                    commands.append(BARRIER)
                elif kind < 0.2:
                    commands.append(add(int(r.integers(SEMAPHORES)), int(r.integers(256))))
                else:
                    commands.append(bench.queue_command(index))
            at, tag = bench.new_record()
            commands.append(end(at, tag))
            waiting.append((at, tag, count))
        await bench.send(commands, step=int(r.integers(1, 5)))
        target = bench.completed + len(waiting)
        for _ in range(20_000):
            if await bench.read(Csr.COMPLETED) == target:
                break
        bench.completed = target - 1
        await bench.finish()
        assert not any(bench.expected)
        for at, tag, count in waiting:
            bench.check_record(at, tag, count)
    assert await bench.read(Csr.RING_HEAD) == bench.written
    assert await bench.read(Csr.ERROR) == 0
    assert bench.resets == 0


@cocotb.test()
async def order(dut: Any) -> None:
    """A barrier waits for all units and clears semaphores; SEMAPHORE lets a queue go on."""
    bench = await begin(dut, latency=60)
    at, tag = bench.new_record()
    wait = [reference(5), *NOTHING[1:]]
    slow = bench.queue_command(0, on=Queue.STORE, inner=2, outer=1)
    await bench.send([slow, add(5, 9), BARRIER])
    while await bench.read(Csr.RING_HEAD) != 3:
        assert await bench.read(Csr.STATE) & 1
    assert not any(bench.running) and not any(bench.expected), "the barrier did not wait"
    needy = bench.queue_command(3, on=Queue.LOAD1, inner=3, outer=1, wait=wait)
    await bench.send([needy, end(at, tag)])
    await bench.step(400)
    assert len(bench.expected[Queue.LOAD1]) == 3, "the barrier left credits"
    assert await bench.read(Csr.STATE) >> 8 & 0x1F == 1 << Queue.LOAD1
    await bench.write(Csr.CONTROL, 2)
    await bench.finish()
    bench.check_record(at, tag, 4, Status.ABORTED, Unit.SEQUENCER)

    at, tag = bench.new_record()
    needy = bench.queue_command(0, on=Queue.LOAD1, inner=3, outer=1, wait=wait)
    await bench.send([needy, add(5, 1)])
    await bench.step(300)
    assert len(bench.expected[Queue.LOAD1]) == 2
    await bench.send([add(5, 2), end(at, tag)])
    await bench.finish()
    bench.check_record(at, tag, 3)
    assert not any(bench.expected)
    await bench.good_job()


REFUSED: dict[str, tuple[Any, bytes]] = {
    "opcode_zero": (Status.BAD_OPCODE, bytes(COMMAND_BYTES)),
    "opcode_unknown": (Status.BAD_OPCODE, image(77)),
    "queue_of_load": (Status.BAD_OPCODE, image(Opcode.LOAD, queue=2)),
    "queue_of_store": (Status.BAD_OPCODE, image(Opcode.STORE, queue=0)),
    "queue_of_matmul": (Status.BAD_OPCODE, image(Opcode.MATMUL, queue=3, version=9)),
    "queue_of_pool": (Status.BAD_OPCODE, image(Opcode.VECTOR, queue=11)),
    "queue_of_barrier": (Status.BAD_OPCODE, image(Opcode.BARRIER, queue=1)),
    "version": (Status.BAD_VERSION, image(Opcode.LOAD, version=0, pong_outer=8)),
    "version_of_barrier": (Status.BAD_VERSION, image(Opcode.BARRIER, version=1)),
    "pong_outer": (Status.BAD_FORMAT, image(Opcode.LOAD, pong_outer=8, inner=0)),
    "wait": (Status.BAD_FORMAT, image(Opcode.LOAD, wait=[{}, {}, {}, {"reserved": 1}])),
    "signal": (Status.BAD_FORMAT, image(Opcode.LOAD, signal=[{"reserved": 2}, {}, {}, {}])),
    "body_of_load": (Status.BAD_FORMAT, image(Opcode.LOAD, 1 << 511, queue=1)),
    "body_of_store": (Status.BAD_FORMAT, image(Opcode.STORE, 1 << 192, queue=4)),
    "body_of_pool": (Status.BAD_FORMAT, image(Opcode.VECTOR, 1 << 400, queue=3)),
    "body_of_barrier": (Status.BAD_FORMAT, image(Opcode.BARRIER, 1)),
    "semaphore_index": (Status.BAD_FORMAT, image(Opcode.SEMAPHORE, 16)),
    "inner": (Status.BAD_LENGTH, image(Opcode.STORE, queue=4, inner=0)),
    "outer": (Status.BAD_LENGTH, image(Opcode.VECTOR, queue=3, outer=0)),
}


@cocotb.test()
async def refused_commands(dut: Any) -> None:
    """Every check: the job fails at that command when all before it has run, and ends in order."""
    bench = await begin(dut)
    for name, (status, command) in REFUSED.items():
        at, tag = bench.new_record()
        before = [bench.queue_command(0), bench.queue_command(1)]
        junk = [bytes(COMMAND_BYTES), image(99), image(Opcode.STORE, queue=4), BARRIER]
        resets = bench.resets
        await bench.send([*before, command])
        while bench.resets == resets:
            left = any(bench.expected) or any(bench.running)
            await bench.step()
        assert not left, f"{name}: an earlier command was cut short"
        await bench.send([*junk, end(at, tag)])
        await bench.finish()
        bench.check_record(at, tag, 2, status, Unit.SEQUENCER)
        await bench.check_error(status, Unit.SEQUENCER, 2)
    await bench.good_job()


@cocotb.test()
async def refused_end(dut: Any) -> None:
    """An END that is wrong itself ends its job; its record is written where it has a place."""
    bench = await begin(dut)
    for status, has_place, fields in (
        (Status.BAD_OPCODE, True, {"queue": 1}),
        (Status.BAD_VERSION, True, {"version": 7}),
        (Status.BAD_FORMAT, True, {"pong_outer": 16}),
        (Status.BAD_ALIGNMENT, False, {}),
        (Status.BAD_ADDRESS, False, {}),
    ):
        at, tag = bench.new_record()
        place = at
        if not has_place:
            place = at + 8 if status is Status.BAD_ALIGNMENT else bench.config.memory_bytes
        await bench.send([bench.queue_command(0), end(place, tag, **fields)])
        await bench.finish()
        await bench.check_error(status, Unit.SEQUENCER, 1)
        if has_place:
            bench.check_record(at, tag, 1, status, Unit.SEQUENCER)
        else:
            assert not any(bench.memory.bytes[at : at + 16])
    await bench.good_job()


@cocotb.test()
async def unit_errors(dut: Any) -> None:
    """Each unit fails once; the core is reset, the command is named, and the card goes on."""
    bench = await begin(dut)
    for queue in range(len(UNITS)):
        status: Any = bench.rng.choice([Status.BAD_LENGTH, Status.BAD_ADDRESS, Status.BAD_INDEX])
        at, tag = bench.new_record()
        commands = [bench.queue_command(n) for n in range(3)]
        commands.append(bench.queue_command(3, on=queue))
        commands += [bench.queue_command(n) for n in range(4, 7)]
        bench.fail_at = {queue: (3, status)}
        resets = bench.resets
        await bench.send([*commands, end(at, tag)])
        await bench.finish()
        bench.fail_at = {}
        assert bench.resets == resets + 1
        bench.check_record(at, tag, 3, status, queue)
        await bench.check_error(status, queue, 3)
        await bench.good_job()
        await bench.check_error(status, queue, 3)


@cocotb.test()
async def watchdog(dut: Any) -> None:
    """A unit that hangs, a semaphore that nobody gives, a memory that does not answer."""
    bench = await begin(dut, latency=5)
    await bench.set_up(watchdog=300)
    at, tag = bench.new_record()
    starved = [reference(12), reference(7), *NOTHING[2:]]
    bench.hung = {Queue.VECTOR}
    await bench.send(
        [
            bench.queue_command(0, on=Queue.LOAD0, wait=starved),
            bench.queue_command(1, on=Queue.VECTOR),
            end(at, tag),
        ]
    )
    await bench.finish()
    bench.check_record(at, tag, 1, Status.WATCHDOG, Unit.VECTOR)
    assert await bench.read(Csr.STALL) == 0x02001
    assert await bench.read(Csr.STALL_SEMAPHORE) == 0x00007
    bench.hung = set()
    await bench.good_job()

    at, tag = bench.new_record()
    commands = [bench.queue_command(0, on=Queue.STORE, inner=2, outer=1)]
    commands.append(bench.queue_command(1, on=Queue.COMPUTE, wait=[reference(15), *NOTHING[1:]]))
    bench.expected[Queue.COMPUTE].clear()
    await bench.send([*commands, BARRIER])
    await bench.step(600)
    await bench.check_error(Status.WATCHDOG, Unit.COMPUTE, 1)
    assert await bench.read(Csr.STATE) & 1, "the job waits for its END"
    assert await bench.read(Csr.STALL) == 0x00100
    assert await bench.read(Csr.STALL_SEMAPHORE) == 0x00F00
    await bench.send([end(at, tag)])
    await bench.finish()
    bench.check_record(at, tag, 1, Status.WATCHDOG, Unit.COMPUTE)

    # Progress, and a job that only waits for the host, keep it quiet.
    at, tag = bench.new_record()
    bench.hung = {Queue.STORE}
    await bench.send([bench.queue_command(0, on=Queue.STORE, inner=1, outer=1)])
    for _ in range(20):
        await bench.step(50)
        dut.progress.value = 1
        await bench.step()
        dut.progress.value = 0
    bench.hung = set()
    await bench.step(1000)
    await bench.send([end(at, tag)])
    await bench.finish()
    bench.check_record(at, tag, 1)

    # Memory: the ring cannot be read, so the job has neither an END nor a record.
    for way in ("hung", "shut"):
        setattr(bench.memory, way, True)
        await bench.send([BARRIER, end(at, tag)])
        await bench.finish(limit=12_000)
        await bench.check_error(Status.WATCHDOG, Unit.MEMORY, 0)
        setattr(bench.memory, way, False)
        await bench.good_job()

    # The record cannot be written.
    at, tag = bench.new_record()
    bench.hung = {Queue.STORE}
    await bench.send([bench.queue_command(0, on=Queue.STORE, inner=1, outer=1), end(at, tag)])
    while await bench.read(Csr.RING_HEAD) != bench.written - 1:
        pass
    await bench.step(100)
    bench.memory.hung = True
    bench.hung = set()
    await bench.finish(limit=12_000)
    await bench.check_error(Status.WATCHDOG, Unit.MEMORY, 2)
    assert not any(bench.memory.bytes[at : at + 16])
    bench.memory.hung = False
    await bench.good_job()


@cocotb.test()
async def no_watchdog(dut: Any) -> None:
    """A watchdog of 0 never fires."""
    bench = await begin(dut, latency=5)
    await bench.set_up(watchdog=0)
    at, tag = bench.new_record()
    bench.hung = {Queue.LOAD1}
    await bench.send([bench.queue_command(0, on=Queue.LOAD1), end(at, tag)])
    await bench.step(2000)
    bench.hung = set()
    await bench.finish()
    bench.check_record(at, tag, 1)


@cocotb.test()
async def abort(dut: Any) -> None:
    """Abort: of a running job; of none; and once more where the END does not come."""
    bench = await begin(dut)
    await bench.write(Csr.CONTROL, 2)
    await bench.step(50)
    assert bench.resets == 0 and await bench.read(Csr.ERROR) == 0
    await bench.good_job()

    for _ in range(6):
        at, tag = bench.new_record()
        commands = [bench.queue_command(n) for n in range(6)]
        await bench.send(commands)
        await bench.step(int(bench.rng.integers(60)))
        before = await bench.read(Csr.RING_HEAD)
        taken = before - (bench.written - len(commands))
        await bench.write(Csr.CONTROL, 2)
        await bench.send([end(at, tag)])
        await bench.finish()
        got = bench.record(at)
        assert got["status"] == ABORTED and got["unit"] == Unit.SEQUENCER
        assert taken <= got["command"] <= taken + 2
        await bench.good_job()

    await bench.send([bench.queue_command(0), bench.queue_command(1)])
    await bench.write(Csr.CONTROL, 2)
    await bench.step(400)
    assert await bench.read(Csr.STATE) & 1
    assert await bench.read(Csr.COMPLETED) == bench.completed
    await bench.write(Csr.CONTROL, 2)
    await bench.finish()
    await bench.good_job()


@cocotb.test()
async def reset(dut: Any) -> None:
    """Reset at any time: all pointers are zero, and a new ring works at once."""
    bench = await begin(dut)
    for _ in range(6):
        await bench.send([bench.queue_command(n) for n in range(5)])
        await bench.step(int(bench.rng.integers(80)))
        await bench.write(Csr.CONTROL, 1)
        bench.completed = bench.written = 0
        await bench.set_up()
        assert await bench.read(Csr.COMPLETED) == 0
        assert await bench.read(Csr.RING_HEAD) == 0
        # Told before the reset is over; what was expected then is not from this job.
        resets = bench.resets
        while int(dut.core_reset.value) or (bench.resets == resets and int(dut.halt.value)):
            await bench.step()
        for expected in bench.expected:
            expected.clear()
        await bench.good_job()


@cocotb.test()
async def early_doorbell(dut: Any) -> None:
    """A doorbell while a reset is still under way is not lost."""
    bench = await begin(dut)
    await bench.good_job()
    bench.memory.hung = True
    await bench.send([bench.queue_command(0)])
    bench.expected = [collections.deque() for _ in UNITS]
    await bench.step(60)
    await bench.write(Csr.CONTROL, 1)
    bench.completed = bench.written = 0
    await bench.set_up(watchdog=0)
    at, tag = bench.new_record()
    await bench.send([BARRIER, BARRIER, end(at, tag)])
    assert int(dut.halt.value)
    await bench.step(5000)
    bench.memory.hung = False
    await bench.finish()
    bench.check_record(at, tag, 2)


@cocotb.test()
async def ring_outside(dut: Any) -> None:
    """A ring beyond the end of memory ends the job, and drops what it holds."""
    bench = await begin(dut)
    for base in (bench.config.memory_bytes, 0xFFFFFF80):
        await bench.set_up(base=base)
        await bench.send([BARRIER] * 4, step=4)
        await bench.finish()
        await bench.check_error(Status.BAD_ADDRESS, Unit.SEQUENCER, 0)
        assert await bench.read(Csr.RING_HEAD) == bench.written
        await bench.set_up()
        await bench.good_job()


@cocotb.test()
async def illegal_memory(dut: Any) -> None:
    """The memory system reports an illegal command sequence."""
    bench = await begin(dut)
    at, tag = bench.new_record()
    bench.hung = {Queue.STORE}
    await bench.send([bench.queue_command(0, on=Queue.STORE)])
    await bench.step(100)
    dut.memory_illegal.value = 1
    await bench.step()
    dut.memory_illegal.value = 0
    await bench.send([end(at, tag)])
    await bench.finish()
    bench.check_record(at, tag, 1, Status.MEMORY_FAULT, Unit.MEMORY)
    bench.hung = set()
    await bench.good_job()
