"""Small jobs for boards that are simulated."""

import contextlib

import numpy as np

from deepseek.boards import board
from deepseek.host.transport.serial import SerialTransport
from deepseek.rtl.isa import COMMAND_BYTES, Completion, Csr, Opcode
from deepseek.sim.functional.assemble import command
from deepseek.sim.functional.card import FunctionalCard
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.random_jobs import RandomJobs

RING, RING_COMMANDS = 0x1000, 256
RECORD, NOISE, NOISE_BYTES = 0x800, 0xC00, 256
DATA, DATA_BYTES = 0x20000, 0x20000
SHOWN_BYTES = 0x2400
VIRTUAL = board("virtual")
CONFIG = VIRTUAL.config("tiny")


@contextlib.contextmanager
def connected(virtual, manifest):
    """Open the board; at the end close it, also if it was hung up on."""
    transport = SerialTransport(virtual.port, manifest, simulated=True)
    try:
        yield transport
    finally:
        transport.close()


def begin(card):
    """Reset a card, and give it a ring."""
    card.csr_write(Csr.CONTROL, 1)
    card.csr_write(Csr.RING_BASE, RING)
    card.csr_write(Csr.RING_SIZE, RING_COMMANDS)
    card.write_memory(RECORD, np.zeros(16, np.uint8))


def ring_doorbell(card, commands):
    raw = np.frombuffer(b"".join(commands), np.uint8)
    assert raw.size <= RING_COMMANDS * COMMAND_BYTES
    card.write_memory(RING, raw)
    card.csr_write(Csr.RING_TAIL, len(commands))


def small_job(rng):
    """Return what a job needs in memory, and its commands."""
    job = RandomJobs(CONFIG, rng, base=DATA, nbytes=DATA_BYTES, largest=128).job(2)
    # Two cards are alike only if nothing is left of earlier jobs.
    fill = {"x_bytes": NOISE_BYTES, "y": CONFIG.scratchpad_bytes // NOISE_BYTES, "z": 1}
    fill |= {"scratchpad_y_stride": NOISE_BYTES}
    before = [command(Opcode.LOAD, fill, operands=[NOISE, 0]), command(Opcode.BARRIER)]
    end = command(Opcode.END, {"completion": RECORD, "tag": int(rng.integers(1 << 32))})
    return [(NOISE, rng.bytes(NOISE_BYTES)), *job.writes], [*before, *job.commands, end]


def start_job(card, writes, commands):
    begin(card)
    for address, content in writes:
        card.write_memory(address, np.frombuffer(content, np.uint8))
    ring_doorbell(card, commands)


def outcome(card):
    """Return memory, completion record (but for its cycles), and registers after a job."""
    memory = bytes(card.read_memory(DATA, SHOWN_BYTES))
    record = unpack(Completion, bytes(card.read_memory(RECORD, 12)) + bytes(4))
    assert record["valid"]
    names = (Csr.COMPLETED, Csr.ERROR, Csr.ERROR_COMMAND, Csr.RING_HEAD, Csr.STATE)
    return memory, record, [card.csr_read(name) for name in names]


def check_job(card, rng):
    """Run a job on a card and on the functional simulator."""
    writes, commands = small_job(rng)
    functional = FunctionalCard(CONFIG)
    blank = rng.integers(0, 256, SHOWN_BYTES, dtype=np.uint8)
    for each in (card, functional):
        each.write_memory(DATA, blank)
        start_job(each, writes, commands)
        each.run(2_000_000)
    assert outcome(card) == outcome(functional)


def check_memory_beside_a_job(card, rng):
    """The host and the card use memory at the same time."""
    writes, commands = small_job(rng)
    other = rng.integers(0, 256, 4096, dtype=np.uint8)
    functional = FunctionalCard(CONFIG)
    for each in (card, functional):
        each.write_memory(DATA, np.zeros(SHOWN_BYTES, np.uint8))
        start_job(each, writes, commands)
    card.write_memory(0x10000, other)
    assert np.array_equal(card.read_memory(0x10000, other.size), other)
    for each in (card, functional):
        each.run(2_000_000)
    assert outcome(card) == outcome(functional)
