"""What the card refuses, and how a job ends then."""

import numpy as np
import pytest

from deepseek.rtl.isa import Csr, Opcode, Queue, Status, Unit
from deepseek.sim.functional.assemble import command, operand, semaphore
from deepseek.sim.functional.testing import (
    MANY,
    OK,
    RECORD,
    RING,
    Host,
    add,
    copy,
    end,
    gemm_commands,
    outcome,
    patched,
)

LOAD = copy(Opcode.LOAD, 0, 0)
ADD = add(1)

REFUSED = [
    (bytes(128), Status.BAD_OPCODE),
    (patched(LOAD, 0, 7), Status.BAD_OPCODE),
    (patched(patched(LOAD, 0, 7), 1, 1), Status.BAD_OPCODE),
    (patched(LOAD, 1, 1), Status.BAD_VERSION),
    (patched(LOAD, 2, 2), Status.BAD_OPCODE),
    (patched(patched(LOAD, 1, 0), 2, 9), Status.BAD_OPCODE),
    (patched(ADD, 2, 1), Status.BAD_OPCODE),
    (patched(LOAD, 3, 8), Status.BAD_FORMAT),
    (patched(LOAD, 5, 0x10), Status.BAD_FORMAT),
    (patched(ADD, 11, 0x20), Status.BAD_FORMAT),
    (patched(LOAD, 127, 1), Status.BAD_FORMAT),
    (patched(ADD, 66, 1), Status.BAD_FORMAT),
    (add(16), Status.BAD_FORMAT),
    (command(Opcode.VECTOR, {"reserved": 1}), Status.BAD_FORMAT),
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
    commands.append(command(Opcode.VECTOR, strides | shape, operands=[0, 0x2000, 0x3000]))
    good = b"".join([*commands, end()])
    statuses = set()
    for _ in range(600):
        directory = np.frombuffer(raw[: 16 * len(a)], np.uint8).copy()
        if rng.random() < 0.5:
            directory[rng.integers(directory.size)] = rng.choice([0, 255])
        card.write_memory(0, directory.tobytes() + raw[directory.size :])
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
    assert statuses >= set(Status) - {Status.ABORTED, Status.MEMORY_FAULT}
    card.write_memory(0, raw)
    card.write_memory(0x40000, x.tobytes())
    assert outcome(host.run(*commands))[:2] == OK
    got = np.frombuffer(card.read_memory(0x80000, 384), np.int32).reshape(6, 16)
    np.testing.assert_array_equal(got, a.astype(np.int32) @ x.astype(np.int32).T)
