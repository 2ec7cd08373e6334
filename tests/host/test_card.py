"""The driver on both simulated cards: ring, completion records, and what its errors say."""

import warnings

import numpy as np
import pytest

from deepseek.host.allocator import OutOfMemoryError
from deepseek.host.card import Card
from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand, Wait
from deepseek.host.compiler.matmul import matmul
from deepseek.host.errors import (
    CardError,
    CardMismatchError,
    CardTimeoutError,
    ResultWarning,
    job_error,
    result_warning,
    stalls,
)
from deepseek.host.ring import RING_COMMANDS
from deepseek.host.transport import open_transport
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Csr, Encoding, Flag, Format, Opcode, Status, Unit


@pytest.fixture(params=["functional", "rtl"])
def card(request):
    with Card.open(request.param, preset="tiny") as opened:
        yield opened


def copy(source, target, nbytes):
    """Commands that copy card memory to card memory."""
    return [
        commands.load(Operand(source), Operand(0), x_bytes=nbytes),
        commands.barrier(),
        commands.store(Operand(target), Operand(0), x_bytes=nbytes),
    ]


def test_write_and_read(card):
    buffer = card.allocate(100)
    card.write(buffer, np.arange(20, dtype=np.float32))
    assert np.array_equal(card.read(buffer, nbytes=80).view(np.float32), np.arange(20))
    card.write(buffer, b"\x07\x08", offset=98)
    assert card.read(buffer, offset=98).tolist() == [7, 8]
    with pytest.raises(ValueError, match="cannot write 3 bytes at offset 98 of a buffer of 100"):
        card.write(buffer, bytes(3), offset=98)
    with pytest.raises(ValueError, match="cannot read 101 bytes at offset 0"):
        card.read(buffer, nbytes=101)


def test_jobs_in_a_row_and_waiting_out_of_order(card):
    source, *targets = (card.allocate(64) for _ in range(4))
    card.write(source, np.arange(64, dtype=np.uint8))
    jobs = [card.submit(copy(source.address, t.address, 64)) for t in targets]
    for job in reversed(jobs):
        result = job.wait()
        assert result.cycles > 0
        assert job.wait() is result
    for target in targets:
        assert np.array_equal(card.read(target), card.read(source))
    assert jobs[-1].wait().counters.bytes_read >= 64


def test_the_ring_wraps_and_takes_long_jobs(card):
    source, target = card.allocate(16), card.allocate(16)
    free = card.info().free_bytes
    for length in (5, RING_COMMANDS - 3, 2 * RING_COMMANDS + 7, 1):
        card.write(source, np.full(16, length % 251, np.uint8))
        fill = [commands.barrier()] * length
        card.submit(fill + copy(source.address, target.address, 16)).wait()
        assert (card.read(target) == length % 251).all()
    assert card.info().free_bytes == free


def bad_alignment():
    return commands.encode(
        Opcode.LOAD.value, {"x_bytes": 24, "y": 1, "z": 1}, operands=(Operand(), Operand())
    )


def bad_length():
    return commands.encode(Opcode.LOAD.value, {"y": 1, "z": 1}, operands=(Operand(), Operand()))


def product(card, values, encoding=Encoding.DENSE, **fields):
    """Commands that multiply a stream of FP16 numbers by a resident column of four ones.

    The MATMUL is command 2. What follows the numbers in their granule is 9s.
    """
    image = np.full(256, 9, np.uint8)
    image[:16].view(np.uint32)[:] = (1 | len(values) << 16, 0, 0, 0x3F800000)
    image[16 : 16 + 2 * len(values)] = np.array(values, np.float16).view(np.uint8)
    image[64:72] = np.ones(4, np.float16).view(np.uint8)
    source = card.allocate(256)
    card.write(source, image)
    return [
        commands.load(Operand(source.address), Operand(0), x_bytes=256),
        commands.barrier(),
        matmul(
            *(Operand(0), Operand(64), Operand(1024)),
            k=4,
            n=1,
            entries=1,
            x_inner_stride=8,
            stream_format=Format.FP16,
            encoding=encoding,
            **fields,
        ),
    ]


BAD = [
    (lambda: bytes(128), Status.BAD_OPCODE, Unit.SEQUENCER, "opcode 0"),
    (
        lambda: commands.encode(Opcode.BARRIER.value, {}, version=9),
        Status.BAD_VERSION,
        Unit.SEQUENCER,
        "version=9",
    ),
    (bad_length, Status.BAD_LENGTH, Unit.LOAD0, "LOAD("),
    (bad_alignment, Status.BAD_ALIGNMENT, Unit.LOAD0, "x_bytes=24"),
    (
        lambda: commands.load(Operand(1 << 26), Operand(), x_bytes=16),
        Status.BAD_ADDRESS,
        Unit.LOAD0,
        "operand[0].base=0x4000000",
    ),
    (
        lambda: commands.store(Operand(), Operand(1 << 16), x_bytes=16),
        Status.BAD_ADDRESS,
        Unit.STORE,
        "operand[1].base=0x10000",
    ),
    (
        lambda: commands.encode(
            Opcode.MATMUL.value,
            dict.fromkeys(("k", "n", "n_inner", "entries", "run_bytes", "slice", "runs_inner"), 1)
            | {"in_format": 9},
            queue=2,
        ),
        Status.BAD_FORMAT,
        Unit.COMPUTE,
        "in_format=9",
    ),
]


@pytest.mark.parametrize(("build", "status", "unit", "shown"), BAD, ids=lambda v: str(v)[:24])
def test_bad_commands_become_errors(card, build, status, unit, shown):
    job = card.submit([commands.barrier(), build(), commands.barrier()])
    with pytest.raises(CardError) as caught:
        job.wait(max_cycles=1_000_000)
    error = caught.value
    assert (error.status, error.unit, error.command_index) == (status, unit, 1)
    message = str(error)
    assert message.startswith(f"job failed: {status.name} in {unit.name} (")
    assert "command 1: " in message
    assert shown in message
    assert "; next: " in message
    assert "\n" not in message
    with pytest.raises(CardError, match=status.name):
        job.wait()
    # The card is good for the next job.
    source, target = card.allocate(16), card.allocate(16)
    card.write(source, np.full(16, 9, np.uint8))
    card.submit(copy(source.address, target.address, 16)).wait()
    assert (card.read(target) == 9).all()


def test_bad_index(card):
    with pytest.raises(CardError) as caught:
        card.submit(product(card, [0], Encoding.DELTA), labels={2: "conv1"}).wait()
    assert caught.value.status is Status.BAD_INDEX
    assert "an index that is not below the slice's length" in str(caught.value)
    assert "'conv1', command 2: MATMUL(" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "fields", "flags", "words"),
    [
        ([1, 2, 3, 4], {}, Flag(0), ""),
        ([60000] * 4, {}, Flag.OVERFLOW, "finite results were too large for FP32 or for their"),
        ([np.inf, -np.inf, 0, 0], {}, Flag.NAN, "results are not numbers (NAN), first in "),
    ],
)
@pytest.mark.parametrize("labels", [{}, {2: "logits"}])
def test_what_results_lost_becomes_a_warning(card, values, fields, flags, words, labels):
    job = card.submit([*product(card, values, **fields), commands.barrier()], labels=labels)
    if not flags:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = job.wait()
        assert (result.flags, result.flagged_command) == (Flag(0), None)
        return
    with pytest.warns(ResultWarning) as caught:
        result = job.wait()
    assert (result.flags, result.flagged_command) == (flags, 2)
    (warning,) = caught
    assert warning.filename == __file__
    message = str(warning.message)
    assert words in message
    label = labels.get(2)
    name = "first in command 2: MATMUL(" if label is None else "'logits', command 2: MATMUL("
    assert name in message
    assert "; next: " in message
    assert (warning.message.flags, warning.message.command_index) == (flags, 2)
    assert warning.message.label == label
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert job.wait() is result


@pytest.mark.parametrize("flag", list(Flag))
def test_every_flag_has_a_meaning_and_a_next_step(flag):
    warning = result_warning(flag | Flag.NAN, 0, [commands.barrier()])
    assert f"{flag.name}" in str(warning)
    assert "first in command 0: BARRIER(inner=1, outer=1); next: " in str(warning)


def starved():
    return commands.load(Operand(), Operand(), x_bytes=16, wait=[Wait(5)])


def test_watchdog_says_who_waits_for_what(card):
    card.set_watchdog(500)
    with pytest.raises(CardError) as caught:
        card.submit([starved()]).wait()
    assert caught.value.status is Status.WATCHDOG
    assert "LOAD0 waits for semaphore 5" in str(caught.value)
    assert "every wait of the commands has a signal" in str(caught.value)


def test_deadline_says_who_waits_for_what(card):
    with pytest.raises(CardTimeoutError) as caught:
        card.submit([starved()]).wait(max_cycles=2000)
    message = str(caught.value)
    assert "did not end within 2000 cycles" in message
    assert "it stalled: LOAD0 waits for semaphore 5" in message
    card.submit([commands.barrier()]).wait(max_cycles=10_000)
    assert card.transport.csr_read(Csr.WATCHDOG) == 100_000


def test_deadline_of_a_job_that_moves(card):
    long = commands.load(Operand(), Operand(), x_bytes=4096, inner=1000)
    with pytest.raises(CardTimeoutError, match=r"still moving, busy: .*next: raise the deadline"):
        card.submit([long]).wait(max_cycles=3000)
    with pytest.raises(CardTimeoutError, match="did not end within 0 cycles"):
        card.submit([long]).wait(deadline_s=-1)
    card.submit([commands.barrier()]).wait()


def test_deadline_of_a_job_without_end(card, monkeypatch):
    monkeypatch.setattr("deepseek.host.card.end", lambda *_: commands.barrier())
    job = card.submit([commands.barrier()])
    monkeypatch.undo()
    with pytest.raises(CardTimeoutError, match="waits for more commands: the job has no END; next"):
        job.wait(max_cycles=3000)
    card.submit([commands.barrier()]).wait()


def test_jobs_lost_in_a_reset(card):
    job = card.submit([commands.barrier()])
    card.reset()
    with pytest.raises(CardError, match="lost in a reset; submit it again"):
        job.wait()


def test_abort(card):
    job = card.submit([starved()])
    card.transport.run(100)
    card.abort()
    with pytest.raises(CardError) as caught:
        job.wait()
    assert caught.value.status is Status.ABORTED
    assert "submit it again" in str(caught.value)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_every_status_has_a_meaning_and_a_next_step(status):
    error = job_error(status.value, Unit.MEMORY, 0, [commands.barrier()])
    assert str(error).startswith(f"job failed: {status.name}")
    assert "; command 0: BARRIER(inner=1, outer=1); next: " in str(error)


def test_a_status_of_a_newer_card():
    assert "status 99 is unknown to this driver" in str(job_error(99, 0, 0, []))


def test_stalls():
    assert stalls(0x00021, 0x00007) == "LOAD0 waits for semaphore 7, LOAD1 waits for its unit"
    assert stalls(0, 0) == "no queue waits"


def test_out_of_memory_names_the_buffer(card):
    with pytest.raises(OutOfMemoryError, match="99999999 bytes requested for the weights"):
        card.allocate(99999999, "the weights")


def test_info(card):
    info = card.info()
    assert (info.rows, info.cols, info.preset) == (4, 4, "tiny")
    assert info.backend == card.transport.backend
    assert info.memory_bytes == 1 << 26
    assert info.free_bytes < info.memory_bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "fpga"}, "no backend 'fpga'; choose one of: rtl, functional"),
        ({"preset": "huge"}, "no preset 'huge'; choose one of: tiny, wide, ecp5, sim"),
        ({"memory": "ddr"}, "no memory 'ddr'; choose one of: hbm, ideal"),
        ({"waves": "x.vcd"}, "no waves; use --backend rtl"),
    ],
)
def test_opening_what_is_not_there(arguments, message):
    with pytest.raises(ValueError, match=message):
        Card.open(**{"backend": "functional", **arguments})


class Liar:
    """A transport whose card reports other registers than it should."""

    def __init__(self, registers):
        self._inner = open_transport("functional", preset("tiny"))
        self._registers = registers

    def csr_read(self, address):
        return self._registers.get(address, self._inner.csr_read(address))

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (Csr.ID, "no card answers: its identification reads 0x00001234, not 0x4b535044"),
        (Csr.ABI, "instruction set version is 4660, expected 3"),
        (Csr.BUILD_LOW, "build hash is 0000000000001234, expected 0000000000000000"),
        (Csr.GEOMETRY, "geometry is 0x00001234, expected 0x01080404"),
        (Csr.OPERAND_DEPTH, "operand depth is 4660, expected 1024"),
        (Csr.PARTS, r"vector unit is reformat \+ 0x1234, expected pool \+ rows \+ reformat"),
    ],
)
def test_a_card_that_is_not_the_one_expected(register, message):
    with pytest.raises(CardMismatchError, match=message):
        Card(Liar({register: 0x1234}))


def test_a_blocked_ring_is_given_up(card, monkeypatch):
    """Without a watchdog too; the card is as good as before."""
    monkeypatch.setattr("deepseek.host.waiting.STUCK_CYCLES", 300_000)
    free = card.info().free_bytes
    card.set_watchdog(0)
    blocked = commands.store(Operand(), Operand(), x_bytes=16, wait=[Wait(5)])
    with pytest.raises(CardError, match="the ring is full and the card takes no command, so it"):
        card.submit([blocked] * (RING_COMMANDS + 8))
    assert card.info().free_bytes == free
    assert card.transport.csr_read(Csr.WATCHDOG) == 0
    card.submit([commands.barrier()]).wait()


def test_a_long_command_is_waited_for_with_a_full_ring(card, monkeypatch):
    """What moves is not stuck, however long it takes."""
    monkeypatch.setattr("deepseek.host.waiting.STUCK_CYCLES", 3000)
    monkeypatch.setattr("deepseek.host.waiting.RUN_CYCLES", 1000)
    card.set_watchdog(0)
    long = commands.load(Operand(), Operand(), x_bytes=4096, inner=100)
    begin = card.transport.cycles
    job = card.submit([long, *[commands.barrier()] * (RING_COMMANDS + 8)])
    assert card.transport.cycles - begin > 10_000
    job.wait()


def test_a_submission_that_is_cut_short_leaves_nothing(card, monkeypatch):
    free = card.info().free_bytes
    earlier = card.submit([starved()])

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(card, "_make_room", interrupt)
    with pytest.raises(KeyboardInterrupt):
        card.submit([commands.barrier()] * 2 * RING_COMMANDS)
    monkeypatch.undo()
    with pytest.raises(CardError, match="lost in a reset; submit it again"):
        earlier.wait()
    assert card.info().free_bytes == free
    card.submit([commands.barrier()]).wait(max_cycles=10_000)


@pytest.mark.parametrize("cycles", [-1, 1 << 32])
def test_watchdogs_that_no_register_holds(card, cycles):
    with pytest.raises(ValueError, match=f"cycles must be from 0 to 4294967295, not {cycles}"):
        card.set_watchdog(cycles)
    card.reset()
    assert card.transport.csr_read(Csr.WATCHDOG) == 100_000


def test_command_of_the_wrong_size(card):
    with pytest.raises(ValueError, match="command 1 must have 128 bytes, not 127"):
        card.submit([commands.barrier(), bytes(127)])


def test_results_do_not_depend_on_memory_mode():
    cycles = {}
    for memory in ("hbm", "ideal"):
        with Card.open("functional", preset="tiny", memory=memory) as card:
            assert card.transport.csr_read(Csr.MEMORY_MODE) == (memory == "ideal")
            source, target = card.allocate(4096), card.allocate(4096)
            card.write(source, np.arange(1024, dtype=np.int32))
            cycles[memory] = card.submit(copy(source.address, target.address, 4096)).wait().cycles
            assert np.array_equal(card.read(source), card.read(target))
    assert all(cycles.values())
