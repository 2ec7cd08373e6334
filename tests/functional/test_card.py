"""Whole jobs: ring, queues, loops, semaphores, errors, registers."""

import time

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import Completion, Csr, Format, Opcode, Queue, Status, Unit
from deepseek.sim.functional.assemble import blob, command, operand, semaphore
from deepseek.sim.functional.card import FunctionalCard
from deepseek.sim.functional.decode import unpack

RING, RING_SIZE, RECORD = 0x100000, 16, 0x200000
MANY = 10**7


class Host:
    """A card, and a ring that jobs are written to."""

    def __init__(self, name="tiny", ring_size=RING_SIZE):
        self.card = FunctionalCard(preset(name))
        self.size = ring_size
        self.open()

    def open(self):
        """Begin with an empty ring, after a reset."""
        self.tail = 0
        self.card.csr_write(Csr.RING_BASE, RING)
        self.card.csr_write(Csr.RING_SIZE, self.size)

    def ring(self, *commands):
        """Write commands and ring the doorbell."""
        for raw in commands:
            self.card.write_memory(RING + self.tail % self.size * 128, raw)
            self.tail += 1
        self.card.csr_write(Csr.RING_TAIL, self.tail)

    def run(self, *commands):
        """Run one job; return its completion record."""
        self.card.write_memory(RECORD, bytes(16))
        self.ring(*commands, end())
        self.card.run(MANY)
        return self.record()

    def record(self):
        """Return the completion record and acknowledge it."""
        self.card.csr_write(Csr.ACK, self.card.csr_read(Csr.COMPLETED))
        return unpack(Completion, self.card.read_memory(RECORD, 16))


def end(tag=7, completion=RECORD):
    return command(Opcode.END, {"completion": completion, "tag": tag})


def copy(opcode, memory, scratchpad, x_bytes=16, **header):
    """A LOAD or STORE of one row an iteration."""
    return command(
        opcode, {"x_bytes": x_bytes, "y": 1, "z": 1}, operands=[memory, scratchpad], **header
    )


def add(index, value=1):
    return command(Opcode.SEMAPHORE, {"index": index, "value": value})


def outcome(record):
    assert record["valid"] == 1
    return Status(record["status"]), Unit(record["unit"]), record["command"]


OK = (Status.OK, Unit(0))


def gemm_commands(a, x, out_address, *, tile, config):
    """C = A x X^T in tiles of X's columns: two buffers for X and for C, five semaphores."""
    m, k = a.shape
    n = len(x)
    raw, visits = blob(a, rows=config.rows, out_offset=np.arange(m) * 4 * tile)
    x_at = -(-len(raw) // 16) * 16
    x_bytes, out_bytes = tile * k, m * tile * 4
    out_at = x_at + 2 * x_bytes
    tiles = n // tile
    body = {"k": k, "n": tile, "n_inner": tile, "visits": visits, "run_bytes": k}
    body |= {"x_inner_stride": k, "out_inner_stride": 4, "out_format": Format.INT32}
    x_free, x_full, out_free, out_full, weights = range(5)
    commands = [
        add(x_free, 2),
        add(out_free, 2),
        copy(Opcode.LOAD, 0, 0, len(raw), queue=Queue.LOAD1, signal=[semaphore(weights)]),
        command(
            Opcode.LOAD,
            {"x_bytes": x_bytes, "y": 1, "z": 1},
            operands=[operand(0x40000, inner=x_bytes), operand(x_at, pong=x_bytes)],
            inner=tiles,
            wait=[semaphore(x_free)],
            signal=[semaphore(x_full)],
        ),
        command(
            Opcode.MATMUL,
            body,
            operands=[0, operand(x_at, pong=x_bytes), operand(out_at, pong=out_bytes)],
            inner=tiles,
            wait=[semaphore(weights, outer=True), semaphore(x_full), semaphore(out_free)],
            signal=[semaphore(x_free), semaphore(out_full)],
        ),
        command(
            Opcode.STORE,
            {"x_bytes": tile * 4, "y": m, "z": 1}
            | {"memory_y_stride": n * 4, "scratchpad_y_stride": tile * 4},
            operands=[operand(out_address, inner=tile * 4), operand(out_at, pong=out_bytes)],
            inner=tiles,
            wait=[semaphore(out_full)],
            signal=[semaphore(out_free)],
        ),
    ]
    assert out_at + 2 * out_bytes <= config.scratchpad_bytes
    return raw, commands


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


def patched(raw, position, value):
    return raw[:position] + bytes([value]) + raw[position + 1 :]


LOAD = copy(Opcode.LOAD, 0, 0)
ADD = add(1)

REFUSED = [
    (bytes(128), Status.BAD_OPCODE),
    (patched(LOAD, 0, 5), Status.BAD_OPCODE),
    (patched(patched(LOAD, 0, 5), 1, 2), Status.BAD_OPCODE),
    (patched(LOAD, 1, 2), Status.BAD_VERSION),
    (patched(LOAD, 2, 2), Status.BAD_OPCODE),
    (patched(patched(LOAD, 1, 0), 2, 9), Status.BAD_OPCODE),
    (patched(ADD, 2, 1), Status.BAD_OPCODE),
    (patched(LOAD, 3, 8), Status.BAD_FORMAT),
    (patched(LOAD, 5, 0x10), Status.BAD_FORMAT),
    (patched(ADD, 11, 0x20), Status.BAD_FORMAT),
    (patched(LOAD, 127, 1), Status.BAD_FORMAT),
    (patched(ADD, 66, 1), Status.BAD_FORMAT),
    (add(16), Status.BAD_FORMAT),
    (command(Opcode.MATMUL, {"reserved0": 1}), Status.BAD_FORMAT),
    (command(Opcode.MATMUL, {"reserved2": 1}), Status.BAD_FORMAT),
    (command(Opcode.BARRIER, {"reserved": 1}), Status.BAD_FORMAT),
    (copy(Opcode.LOAD, 0, 0, inner=0), Status.BAD_LENGTH),
    (copy(Opcode.LOAD, 0, 0, outer=0), Status.BAD_LENGTH),
]


@pytest.mark.parametrize("raw, status", REFUSED)
def test_sequencer_refuses(raw, status):
    host = Host()
    host.card.write_memory(0, bytes(range(16)))
    record = host.run(LOAD, copy(Opcode.STORE, 0x1000, 0), raw, LOAD)
    assert outcome(record) == (status, Unit.SEQUENCER, 2)
    # What came before is done; what follows runs as if nothing had been.
    assert host.card.read_memory(0x1000, 16) in (bytes(range(16)), bytes(16))
    assert outcome(host.run(LOAD)) == (*OK, 1)
    assert host.card.csr_read(Csr.ERROR) == status.value | Unit.SEQUENCER << 8


def test_control_commands_ignore_what_they_do_not_use():
    host = Host()
    unused = {"operands": [1, 2, 3], "wait": [semaphore(1)], "signal": [semaphore(2)]}
    unused |= {"inner": 0, "outer": 0}
    assert outcome(host.run(command(Opcode.BARRIER, **unused), ADD)) == (*OK, 2)
    body = {"x_bytes": 16, "y": 1, "z": 1}
    assert outcome(host.run(command(Opcode.LOAD, body, operands=[0, 0, 3]))) == (*OK, 1)


def test_unit_error_ends_the_job():
    host = Host()
    bad = copy(Opcode.LOAD, 0, operand(0, inner=0x8000), inner=4, queue=Queue.LOAD1)
    never = copy(Opcode.STORE, 0x1000, 0, wait=[semaphore(1)])
    unseen = patched(LOAD, 0, 99)
    record = host.run(LOAD, never, bad, unseen, LOAD)
    assert outcome(record) == (Status.BAD_ADDRESS, Unit.LOAD1, 2)
    assert record["tag"] == 7
    assert outcome(host.run(copy(Opcode.LOAD, 0, 0, wait=[semaphore(1)])))[0] is Status.WATCHDOG


def test_an_earlier_unit_error_wins_over_a_refused_command():
    host = Host()
    record = host.run(LOAD, copy(Opcode.LOAD, 8, 0), bytes(128))
    assert outcome(record) == (Status.BAD_ALIGNMENT, Unit.LOAD0, 1)


@pytest.mark.parametrize(
    "last, status, written",
    [
        (end(completion=RECORD + 8), Status.BAD_ALIGNMENT, False),
        (end(completion=1 << 26), Status.BAD_ADDRESS, False),
        (end(completion=0xFFFFFFF0), Status.BAD_ADDRESS, False),
        (patched(end(), 1, 9), Status.BAD_VERSION, True),
        (patched(end(), 2, 1), Status.BAD_OPCODE, True),
        (patched(end(), 80, 1), Status.BAD_FORMAT, True),
    ],
)
def test_refused_end_still_ends_the_job(last, status, written):
    host = Host()
    host.ring(LOAD, last)
    host.card.run(MANY)
    assert host.card.csr_read(Csr.COMPLETED) == 1
    assert host.card.csr_read(Csr.ERROR) == status.value | Unit.SEQUENCER << 8
    assert host.card.csr_read(Csr.ERROR_COMMAND) == 1
    record = host.record()
    assert record["valid"] == written
    if written:
        assert outcome(record) == (status, Unit.SEQUENCER, 1)
    assert outcome(host.run(LOAD)) == (*OK, 1)


def test_ring_outside_memory_ends_the_job():
    host = Host()
    host.card.csr_write(Csr.RING_BASE, host.card.config.memory_bytes - 128)
    host.card.write_memory(host.card.config.memory_bytes - 128, LOAD)
    host.card.csr_write(Csr.RING_TAIL, 3)
    host.card.run(MANY)
    assert host.card.csr_read(Csr.COMPLETED) == 1
    assert host.card.csr_read(Csr.ERROR) == Status.BAD_ADDRESS.value | Unit.SEQUENCER << 8
    assert host.card.csr_read(Csr.ERROR_COMMAND) == 1
    assert host.card.csr_read(Csr.RING_HEAD) == 3
    host.record()
    host.card.csr_write(Csr.RING_BASE, RING + 100)  # the low bits are ignored
    host.tail = 3
    assert outcome(host.run(LOAD)) == (*OK, 1)


def test_abort():
    host = Host()
    host.ring(LOAD, copy(Opcode.LOAD, 0, 0, wait=[semaphore(1)]))
    host.card.run(1000)
    host.card.csr_write(Csr.CONTROL, 2)
    host.ring(LOAD, end())
    host.card.run(MANY)
    assert outcome(host.record()) == (Status.ABORTED, Unit.SEQUENCER, 2)
    host.ring(LOAD)
    host.card.run(1000)
    host.card.csr_write(Csr.CONTROL, 2)
    host.card.csr_write(Csr.CONTROL, 2)  # there will be no END
    assert host.card.csr_read(Csr.COMPLETED) == 2
    assert host.card.csr_read(Csr.STATE) == 0
    assert host.card.csr_read(Csr.ERROR) == Status.ABORTED.value | Unit.SEQUENCER << 8


def test_reset_clears_all_but_memory():
    host = Host()
    host.run(bytes(128))
    host.card.csr_write(Csr.WATCHDOG, 5)
    host.card.csr_write(Csr.CONTROL, 1)
    for csr in (Csr.RING_BASE, Csr.RING_TAIL, Csr.RING_HEAD, Csr.COMPLETED, Csr.ERROR, Csr.ACK):
        assert host.card.csr_read(csr) == 0
    assert host.card.csr_read(Csr.WATCHDOG) == 100_000
    assert host.card.read_memory(RING + 128, 128) == end()


def test_fixed_registers():
    card = FunctionalCard(preset("ecp5"))
    assert card.csr_read(Csr.ID).to_bytes(4, "little") == b"DPSK"
    assert card.csr_read(Csr.ABI) == 1
    assert card.csr_read(Csr.GEOMETRY) == 0x01100808
    assert card.csr_read(Csr.SCRATCHPAD_BYTES) == 128 << 10
    assert card.csr_read(Csr.MEMORY_BYTES) == 64 << 20
    assert card.csr_read(Csr.OPERAND_DEPTH) == 1024
    card.csr_write(Csr.ID, 0)
    assert card.csr_read(Csr.ID) != 0
    assert card.csr_read(0xFC) == 0
    card.csr_write(0xFC, 1)
    card.csr_write(Csr.MEMORY_MODE, 1)
    assert card.csr_read(Csr.MEMORY_MODE) == 1
    assert card.csr_read(Csr.CYCLES) == 0


def test_memory_access_is_checked():
    with FunctionalCard(preset("tiny")) as card:
        for addr, n in ((-1, 4), (card.config.memory_bytes - 3, 4)):
            with pytest.raises(ValueError, match="inside card memory"):
                card.read_memory(addr, n)
            with pytest.raises(ValueError, match="inside card memory"):
                card.write_memory(addr, bytes(n))


def test_run_stops_at_max_cycles():
    host = Host()
    host.ring(copy(Opcode.LOAD, 0, 0, 4096, inner=50), end())
    total = 0
    while host.card.csr_read(Csr.COMPLETED) == 0:
        passed = host.card.run(100)
        assert 0 < passed < 1000
        total += passed
    assert total == host.card.cycles > 50 * 4096 // 16
    assert outcome(host.record())[:2] == OK


def test_flipped_bits_end_in_a_status():
    """Whatever the bits of a job say, the card answers and the next job is not affected."""
    host = Host()
    card = host.card
    rng = np.random.default_rng(9)
    a, x = (rng.integers(-128, 128, (m, 32), dtype=np.int8) for m in (6, 16))
    raw, commands = gemm_commands(a, x, 0x80000, tile=4, config=card.config)
    strides = dict.fromkeys(("in_y_stride", "in_ky_stride", "out_y_stride"), 64)
    strides |= dict.fromkeys(("in_x_stride", "in_kx_stride", "out_x_stride"), 16)
    shape = {"granules": 1, "out_y": 2, "out_x": 2, "kernel_y": 2, "kernel_x": 2}
    commands.append(command(Opcode.POOL, strides | shape, operands=[0, 0x2000, 0x3000]))
    good = b"".join([*commands, end()])
    statuses = set()
    for _ in range(300):
        card.write_memory(0, raw)
        bits = np.frombuffer(good, np.uint8).copy()
        for position in rng.integers(0, bits.size - 128, rng.integers(1, 4)):
            bits[position] ^= 1 << rng.integers(8)
        card.write_memory(RECORD, bytes(16))
        job = bits.tobytes()
        host.ring(*(job[at : at + 128] for at in range(0, len(job), 128)))
        card.csr_write(Csr.WATCHDOG, 1000)
        card.run(30_000)
        if card.csr_read(Csr.COMPLETED) == card.csr_read(Csr.ACK):
            card.csr_write(Csr.CONTROL, 2)
            card.run(30_000)
        assert card.csr_read(Csr.COMPLETED) != card.csr_read(Csr.ACK)
        if card.csr_read(Csr.RING_HEAD) != host.tail:  # a flipped opcode made two jobs of it
            card.csr_write(Csr.CONTROL, 1)
            host.open()
            continue
        record = host.record()
        statuses.add(Status(record["status"]))
        if record["status"]:
            want = record["status"] | record["unit"] << 8
            assert (card.csr_read(Csr.ERROR), record["valid"]) == (want, 1)
    assert statuses >= set(Status) - {Status.BAD_INDEX, Status.ABORTED, Status.MEMORY_FAULT}
    card.write_memory(0, raw)
    card.write_memory(0x40000, x.tobytes())
    assert outcome(host.run(*commands))[:2] == OK
    got = np.frombuffer(card.read_memory(0x80000, 384), np.int32).reshape(6, 16)
    np.testing.assert_array_equal(got, a.astype(np.int32) @ x.astype(np.int32).T)
