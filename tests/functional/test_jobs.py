"""Whole jobs: ring, queues, loops, semaphores."""

import time

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import (
    Completion,
    Csr,
    Flag,
    Format,
    MatmulFlag,
    Opcode,
    Queue,
    Status,
    Unit,
)
from deepseek.sim.functional.assemble import blob, command, operand, semaphore
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.testing import (
    MANY,
    OK,
    RECORD,
    Host,
    add,
    copy,
    end,
    gemm_commands,
    outcome,
)


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_tiled_gemm(name):
    host = Host(name)
    rng = np.random.default_rng(1)
    a, x = (rng.integers(-128, 128, (m, 48), dtype=np.int8) for m in (10, 40))
    raw, commands = gemm_commands(a, x, 0x80000, tile=8, config=host.card.config)
    host.card.write_memory(0, raw)
    host.card.write_memory(0x40000, x.tobytes())
    record = host.run(*commands)
    assert outcome(record) == (*OK, len(commands))
    assert record["tag"] == 7
    assert record["cycles"] == host.card.csr_read(Csr.CYCLES) > 0
    got = np.frombuffer(host.card.read_memory(0x80000, 1600), np.int32).reshape(10, 40)
    np.testing.assert_array_equal(got, a.astype(np.int32) @ x.astype(np.int32).T)
    blocks = 5 * -(-8 // (2 * host.card.config.cols))
    assert host.card.csr_read(Csr.MAC_ACTIVE) == 10 * 48 * blocks
    if name == "tiny":
        assert host.card.csr_read(Csr.BYTES_READ) == 7 * 128 + len(raw) + x.nbytes
        assert host.card.csr_read(Csr.BYTES_WRITTEN) == 1600 + 16


def test_256_cubed_is_fast():
    host = Host("sim")
    rng = np.random.default_rng(2)
    a, x = (rng.integers(-128, 128, (256, 256), dtype=np.int8) for _ in range(2))
    raw, commands = gemm_commands(a, x, 0x80000, tile=64, config=host.card.config)
    host.card.write_memory(0, raw)
    host.card.write_memory(0x40000, x.tobytes())
    begin = time.process_time()
    record = host.run(*commands)
    assert time.process_time() - begin < 1
    assert outcome(record)[:2] == OK
    got = np.frombuffer(host.card.read_memory(0x80000, 1 << 18), np.int32).reshape(256, 256)
    np.testing.assert_array_equal(got, a.astype(np.int32) @ x.astype(np.int32).T)


def test_loops_step_and_alternate():
    """Addresses of a 3 x 3 loop, with ping-pong by iteration and by outer iteration."""
    host = Host()
    data = np.arange(0, 1 << 12, 16, dtype=np.uint16).astype(np.uint32)
    host.card.write_memory(0, np.repeat(data, 4).astype("<u4").tobytes())
    host.run(copy(Opcode.LOAD, 0, 0, 4096))
    for pong_outer in (0, 1, 2, 3):
        load = command(
            Opcode.STORE,
            {"x_bytes": 16, "y": 1, "z": 1},
            operands=[
                operand(0x1000, inner=32, outer=0x200, pong=0x2000),
                operand(0x800, inner=-16, outer=-0x100, pong=0x400),
            ],
            inner=3,
            outer=3,
            pong_outer=pong_outer,
        )
        host.card.write_memory(0x1000, bytes(0x3000))
        assert outcome(host.run(load))[:2] == OK
        want = np.zeros(0x4000 // 16, np.uint32)
        for done in range(9):
            o, i = divmod(done, 3)
            parity = [(o if pong_outer >> bit & 1 else done) % 2 for bit in range(2)]
            target = 0x1000 + 0x200 * o + 32 * i + 0x2000 * parity[0]
            want[target // 16] = 0x800 - 0x100 * o - 16 * i + 0x400 * parity[1]
        got = np.frombuffer(host.card.read_memory(0x1000, 0x3000), "<u4")[::4]
        np.testing.assert_array_equal(got, want[0x100:])


def test_outer_references_and_twofold_waits():
    """Two credits a start from the same semaphore; outer ones once each outer iteration."""
    host = Host()
    store = copy(
        Opcode.STORE,
        operand(0x1000, inner=16, outer=64),
        0,
        inner=2,
        outer=3,
        wait=[semaphore(3), semaphore(3), semaphore(4, outer=True)],
        signal=[semaphore(5), semaphore(6, outer=True)],
    )

    def waits_for(index, value):
        return copy(Opcode.LOAD, 0, 0, wait=[semaphore(index)], inner=value)

    enough = [add(3, 12), add(4, 3)]
    assert outcome(host.run(*enough, store, waits_for(5, 6)))[:2] == OK
    assert outcome(host.run(*enough, store, waits_for(6, 3)))[:2] == OK
    for lacking in ([add(3, 11), add(4, 3)], [add(3, 12), add(4, 2)]):
        assert outcome(host.run(*lacking, store)) == (Status.WATCHDOG, Unit.STORE, 2)
    assert outcome(host.run(*enough, store, waits_for(5, 7)))[0] is Status.WATCHDOG
    assert outcome(host.run(*enough, store, waits_for(6, 4)))[0] is Status.WATCHDOG


def test_semaphores_stay_at_255():
    host = Host()
    wait = copy(Opcode.LOAD, 0, 0, wait=[semaphore(1)], inner=255)
    assert outcome(host.run(add(1, 255), add(1, 255), wait))[:2] == OK
    wait = copy(Opcode.LOAD, 0, 0, wait=[semaphore(1)], inner=256)
    assert outcome(host.run(add(1, 255), add(1, 255), wait))[0] is Status.WATCHDOG


def test_barrier_orders_queues_and_clears_semaphores():
    host = Host()
    host.card.write_memory(0, bytes(range(16)))
    barrier = command(Opcode.BARRIER)
    load, store = copy(Opcode.LOAD, 0, 64), copy(Opcode.STORE, 0x1000, 64)
    assert outcome(host.run(load, barrier, store)) == (*OK, 3)
    assert host.card.read_memory(0x1000, 16) == bytes(range(16))
    waiting = copy(Opcode.LOAD, 0, 0, wait=[semaphore(2)])
    assert outcome(host.run(add(2), waiting))[:2] == OK
    assert outcome(host.run(add(2), barrier, waiting))[0] is Status.WATCHDOG
    assert outcome(host.run(add(2)))[:2] == OK
    assert outcome(host.run(waiting))[0] is Status.WATCHDOG


def test_watchdog_names_the_first_blocked_queue():
    host = Host()
    host.card.csr_write(Csr.WATCHDOG, 500)
    record = host.run(
        copy(Opcode.STORE, 0x1000, 0, wait=[semaphore(9)]),
        copy(Opcode.LOAD, 0, 0),
        copy(Opcode.LOAD, 0, 0, queue=Queue.LOAD1, wait=[semaphore(3), semaphore(2)]),
    )
    assert outcome(record) == (Status.WATCHDOG, Unit.LOAD1, 2)
    assert 500 <= record["cycles"] < 2000
    assert host.card.csr_read(Csr.STALL) == 0x10010
    assert host.card.csr_read(Csr.STALL_SEMAPHORE) == 0x90020
    assert host.card.csr_read(Csr.ERROR) == Status.WATCHDOG.value | Unit.LOAD1 << 8
    assert host.card.csr_read(Csr.ERROR_COMMAND) == 2


def test_watchdog_of_zero_never_fires():
    host = Host()
    host.card.csr_write(Csr.WATCHDOG, 0)
    host.ring(copy(Opcode.LOAD, 0, 0, wait=[semaphore(9)]), end())
    assert host.card.run(MANY) == MANY
    assert host.card.csr_read(Csr.COMPLETED) == 0
    assert host.card.csr_read(Csr.STATE) & 1


def test_full_queue_holds_back_what_follows():
    """A queue takes its depth and one more; then even the command that would free it waits."""
    depth = preset("tiny").queue_depth
    for more, status in ((1, Status.OK), (2, Status.WATCHDOG)):
        host = Host()
        loads = [copy(Opcode.LOAD, 0, 0, wait=[semaphore(0)]) for _ in range(depth + more)]
        assert outcome(host.run(*loads, add(0, 99)))[0] is status


def test_job_waits_for_more_commands():
    host = Host()
    host.card.write_memory(0, bytes(range(16)))
    host.ring(copy(Opcode.LOAD, 0, 0))
    host.card.run(MANY)
    assert host.card.csr_read(Csr.STATE) & 1
    assert host.card.csr_read(Csr.COMPLETED) == 0
    host.ring(copy(Opcode.STORE, 0x1000, 0), end())
    host.card.run(MANY)
    assert outcome(host.record()) == (*OK, 2)
    assert host.card.read_memory(0x1000, 16) == bytes(range(16))
    assert host.card.csr_read(Csr.STATE) == 0


def test_ring_wraps_and_jobs_queue_up():
    host = Host(ring_size=4)
    for job in range(7):
        host.card.write_memory(0, bytes([job] * 16))
        address = 0x1000 + 16 * job
        record = host.run(
            copy(Opcode.LOAD, 0, 0), command(Opcode.BARRIER), copy(Opcode.STORE, address, 0)
        )
        assert outcome(record) == (*OK, 3)
    assert host.card.read_memory(0x1000, 112) == bytes(np.repeat(np.arange(7, dtype=np.uint8), 16))
    assert host.card.csr_read(Csr.COMPLETED) == 7
    assert host.card.csr_read(Csr.RING_HEAD) == 28
    host.ring(end(tag=1), end(tag=2, completion=RECORD + 16))
    host.card.run(MANY)
    assert host.card.csr_read(Csr.COMPLETED) == 8
    assert host.card.run(MANY) == 0  # the interrupt line is high
    assert host.record()["tag"] == 1
    host.card.run(MANY)
    assert host.card.csr_read(Csr.COMPLETED) == 9
    assert unpack(Completion, host.card.read_memory(RECORD + 16, 16))["tag"] == 2


def small_matmul(place, out_format, scale):
    """A blob, and a MATMUL of it at ``place`` with X behind it: FP16, 2 x 16 by 16 x 1."""
    weights = np.full((2, 16), 0x7800, np.uint16)  # 32768 in FP16
    raw = blob(
        weights, fmt=Format.FP16, out_offset=[0, 16], scale=np.float32(scale).view(np.uint32)
    )
    body = {"k": 16, "n": 1, "n_inner": 1, "entries": 2, "run_bytes": 32, "runs_inner": 1}
    body |= {"slice": 16, "stream_format": Format.FP16, "in_format": Format.FP16}
    body |= {"out_format": out_format}
    return raw, command(Opcode.MATMUL, body, operands=[place, place + len(raw), place + 0x400])


def test_record_names_the_first_command_that_raised_a_flag():
    host = Host()
    good, multiply = small_matmul(0, Format.FP32, 1)
    _, overflow = small_matmul(0, Format.FP16, 1)
    _, above = small_matmul(0, Format.E4M3, 1)
    host.card.write_memory(0, good + np.full(16, 0x3C00, np.uint16).tobytes())
    load = copy(Opcode.LOAD, 0, 0, len(good) + 32)
    record = host.run(load, command(Opcode.BARRIER), multiply)
    assert (outcome(record), record["flags"]) == ((*OK, 3), 0)
    record = host.run(load, command(Opcode.BARRIER), multiply, overflow, multiply, above)
    assert outcome(record) == (*OK, 3)
    assert record["flags"] == Flag.OVERFLOW | Flag.NAN
    record = host.run(load, command(Opcode.BARRIER), above, multiply)
    assert (outcome(record), record["flags"]) == ((*OK, 2), Flag.OVERFLOW | Flag.NAN)
    # A job that fails says what failed, and nothing of flags; the next one begins without any.
    record = host.run(load, command(Opcode.BARRIER), overflow, bytes(128))
    assert outcome(record) == (Status.BAD_OPCODE, Unit.SEQUENCER, 3)
    assert record["flags"] == 0
    record = host.run(load, command(Opcode.BARRIER), multiply)
    assert (outcome(record), record["flags"]) == ((*OK, 3), 0)


def test_counters_of_one_engine():
    """10 rows in 3 blocks: row i of block b is engine (10 b + i) % 4's."""
    counts = []
    for engine in (0xFF, 0, 1, 2, 3, 4):
        host = Host()
        host.card.csr_write(Csr.COUNT_ENGINE, engine)
        assert host.card.csr_read(Csr.COUNT_ENGINE) == engine
        a, x = np.ones((10, 32), np.int8), np.ones((24, 32), np.int8)
        raw, commands = gemm_commands(a, x, 0x80000, tile=24, config=host.card.config)
        host.card.write_memory(0, raw)
        host.card.write_memory(0x40000, x.tobytes())
        assert outcome(host.run(*commands))[:2] == OK
        counts.append(host.card.csr_read(Csr.MAC_ACTIVE) // 32)
    dealt = np.bincount((np.arange(3)[:, np.newaxis] * 10 + np.arange(10)).ravel() % 4)
    assert counts == [30, *dealt.tolist(), 0]


def test_rows_are_dealt_on():
    """5 rows an iteration: from command to command, and anew after an error."""
    raw = blob(np.ones((5, 16), np.int8), out_offset=np.arange(5) * 16)
    body = {"k": 16, "n": 1, "n_inner": 1, "entries": 5, "run_bytes": 16, "runs_inner": 1}
    body |= {"slice": 16, "out_format": Format.INT32}
    operands = [0, len(raw), 0x400]
    anew = command(Opcode.MATMUL, body, operands=operands)
    on = command(Opcode.MATMUL, body | {"flags": MatmulFlag.DEAL_ON}, operands=operands, inner=2)
    job = [copy(Opcode.LOAD, 0, 0, 512), command(Opcode.BARRIER)]
    counts = []
    for engine in range(4):
        host = Host()
        host.card.csr_write(Csr.COUNT_ENGINE, engine)
        host.card.write_memory(0, raw + bytes([1]) * 16)
        found = []
        for commands in ([on], [on], [anew, on], [bytes(128)], [on]):
            host.run(*job, *commands)
            found.append(host.card.csr_read(Csr.MAC_ACTIVE) // 16)
        counts.append(found)
    # The first engine has the eleventh, the first after four rounds, and so on.
    rounds = np.array(counts).T.tolist()
    assert rounds == [[3, 3, 2, 2], [2, 2, 3, 3], [4, 4, 4, 3], [0, 0, 0, 0], [3, 3, 2, 2]]
