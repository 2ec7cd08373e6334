"""Bench of `Sequencer`: latency of jobs, and what it records of them: flags of results, counts."""

from typing import Any

import cocotb

from ...rtl.hostport.csr import ALL_ENGINES
from ...rtl.isa import COMMAND_BYTES, Csr, Queue, Status, Unit
from .control import RING_BASE, TRANSFERS, Bench, begin, end


@cocotb.test()
async def latency(dut: Any) -> None:
    """From the doorbell to the first start, on an idle card with a memory of no delay."""
    bench = await begin(dut, stall=0.0, latency=1)
    at, tag = bench.new_record()
    command = bench.queue_command(0, on=Queue.LOAD0, inner=1, outer=1)
    place = RING_BASE
    bench.memory.bytes[place : place + COMMAND_BYTES] = command
    bench.memory.bytes[place + COMMAND_BYTES : place + 2 * COMMAND_BYTES] = end(at, tag)
    bench.written = 2
    rung = bench.cycle
    await bench.write(Csr.RING_TAIL, 2)
    await bench.step(100)
    beats = COMMAND_BYTES // bench.config.bus_bytes
    delay = bench.starts[0] - rung
    cocotb.log.info("doorbell to start: %d cycles, %d of them beats", delay, beats)
    assert delay <= beats + 20
    await bench.finish()
    bench.check_record(at, tag, 1)
    cycles = await bench.read(Csr.CYCLES)
    assert bench.record(at)["cycles"] <= cycles < bench.cycle - rung
    assert bench.record(at)["cycles"] >= bench.starts[0] - rung - 3


@cocotb.test()
async def flags(dut: Any) -> None:
    """What results lost goes into the record of a job that ended well, and names the first."""
    bench = await begin(dut)
    for marks in ({}, {2: 1}, {1: 8, 3: 6}, {0: 4, 1: 4, 3: 9}, {}):
        at, tag = bench.new_record()
        bench.flags_of = marks
        commands = [bench.queue_command(n, on=Queue.COMPUTE) for n in range(4)]
        await bench.send([*commands, end(at, tag)])
        await bench.finish()
        raised = 0
        for mark in marks.values():
            raised |= mark
        bench.check_record(at, tag, min(marks, default=4), flags=raised)
    # Not into that of one that did not.
    at, tag = bench.new_record()
    bench.flags_of, bench.fail_at = {0: 15, 1: 1}, {Queue.COMPUTE: (1, Status.BAD_INDEX)}
    await bench.send([bench.queue_command(n, on=Queue.COMPUTE) for n in range(2)])
    await bench.send([end(at, tag)])
    await bench.finish()
    bench.check_record(at, tag, 1, Status.BAD_INDEX, Unit.COMPUTE)
    bench.flags_of, bench.fail_at = {}, {}
    await bench.good_job()


@cocotb.test()
async def another_engine_while_a_job_runs(dut: Any) -> None:
    """Engines are counted from the same cycle on in which their events show them."""
    bench = await begin(dut, stall=0.0, latency=30)
    rows = bench.config.rows
    at, tag = bench.new_record()
    command = bench.queue_command(0, on=Queue.COMPUTE, inner=3, outer=2)
    await bench.send([command, end(at, tag)])
    chosen = [ALL_ENGINES] * 3  # in the last cycles
    for cycle in range(400):
        if cycle % 7 == 0:
            engine = bench.rng.choice([ALL_ENGINES, 0, rows - 1, rows])
            dut.host__address.value, dut.host__write_data.value = Csr.COUNT_ENGINE, int(engine)
        dut.host__write.value = int(cycle % 7 == 0)
        counted = rows if chosen[-3] == ALL_ENGINES else int(chosen[-3] < rows)
        dut.events__mac_active.value = counted  # all engines are active
        await bench.step()
        chosen.append(int(dut.count_engine.value))
    dut.host__write.value = 0
    await bench.finish()
    for register in (Csr.IDLE_IMBALANCE, Csr.IDLE_MEMORY, Csr.IDLE_OTHER):
        assert await bench.read(register) == 0, register.name


@cocotb.test()
async def counters(dut: Any) -> None:
    """Counters add what they are told while a job runs, and only then; a new job clears them."""
    bench = await begin(dut, stall=0.0, latency=1)
    amounts = {
        "read_beat": (Csr.BYTES_READ, 1, bench.config.bus_bytes),
        "write_beat": (Csr.BYTES_WRITTEN, 1, bench.config.bus_bytes),
        "row_hit": (Csr.HBM_ROW_HITS, 3, 1),
        "activate": (Csr.HBM_ACTIVATES, 2, 1),
        "refresh": (Csr.HBM_REFRESHES, 1, 1),
    }
    for name, (_, amount, _) in amounts.items():
        getattr(dut, f"events__{name}").value = amount
    for _ in range(2):
        cycles = await one_job(bench, Queue.COMPUTE)
        assert await bench.read(Csr.CYCLES) == cycles > 0, "counts without a job"
        for name, (register, amount, scale) in amounts.items():
            assert await bench.read(register) == cycles * amount * scale, name
            assert await bench.read(register + 4) == 0


async def one_job(bench: Bench, queue: Queue) -> int:
    """Run a job of one command, and return its cycles."""
    at, tag = bench.new_record()
    await bench.send([bench.queue_command(0, on=queue, inner=3, outer=2), end(at, tag)])
    await bench.finish()
    return await bench.read(Csr.CYCLES)


@cocotb.test()
async def engine_counters(dut: Any) -> None:
    """Every cycle of every engine that is counted has one cause, whatever the engines do."""
    bench = await begin(dut, stall=0.0, latency=30)
    rows = bench.config.rows
    work = ("mac_active", "stall_stream", "stall_fill", "stall_drain")
    idle = (Csr.IDLE_IMBALANCE, Csr.IDLE_MEMORY, Csr.IDLE_OTHER)
    for engine in (ALL_ENGINES, 0, rows - 1, rows, ALL_ENGINES):
        await bench.write(Csr.COUNT_ENGINE, engine)
        await bench.step()
        assert int(dut.count_engine.value) == engine
        counted = rows if engine == ALL_ENGINES else int(engine < rows)
        for working in (0, 1):
            split = bench.rng.multinomial(counted, [1 / 5] * 5)
            for name, amount in zip(work, split[:4], strict=True):
                getattr(dut, f"events__{name}").value = int(amount)
            dut.events__working.value = working
            for queue in Queue:
                before = bench.transferring
                cycles = await one_job(bench, queue)
                for name, amount in zip(work, split[:4], strict=True):
                    assert await bench.read(Csr[name.upper()]) == cycles * amount, name
                imbalance, memory, other = [await bench.read(register) for register in idle]
                resting = int(split[4])
                if working:
                    assert (imbalance, memory, other) == (cycles * resting, 0, 0)
                    continue
                assert memory == (bench.transferring - before) * resting
                assert (memory > 0) == (resting > 0 and queue in TRANSFERS)
                assert imbalance == 0 and memory + other == cycles * resting
