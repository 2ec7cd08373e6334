"""Jobs that cannot end: through the driver, on both simulated cards, with a clear error."""

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand, Wait
from deepseek.host.compiler.matmul import matmul
from deepseek.host.errors import CardError, CardTimeoutError
from deepseek.rtl.isa import Csr, Queue, Status, Unit

NEVER = 11


@pytest.fixture(scope="module", params=["functional", "rtl"])
def opened(request, name):
    with Card.open(request.param, preset=name, memory="ideal") as card:
        yield card


@pytest.fixture
def card(opened):
    """A card that must still work when the test is over."""
    watchdog = opened.transport.csr_read(Csr.WATCHDOG)
    yield opened
    opened.set_watchdog(watchdog)
    source, target = opened.allocate(256), opened.allocate(256)
    opened.write(source, np.arange(256, dtype=np.uint8))
    opened.submit(copy(source.address, target.address)).wait(max_cycles=20_000)
    assert opened.read(target).tolist() == list(range(256))
    opened.free(source)
    opened.free(target)


def copy(source, target, nbytes=256):
    return [
        commands.load(Operand(source), Operand(0), x_bytes=nbytes),
        commands.barrier(),
        commands.store(Operand(target), Operand(0), x_bytes=nbytes),
    ]


def waiting(queue):
    """A command of a queue that waits for a semaphore which nobody signals."""
    wait = [Wait(NEVER)]
    if queue in (Queue.LOAD0, Queue.LOAD1):
        return commands.load(Operand(), Operand(), x_bytes=16, wait=wait, queue=queue)
    if queue is Queue.STORE:
        return commands.store(Operand(1 << 20), Operand(), x_bytes=16, wait=wait)
    if queue is Queue.COMPUTE:
        return matmul(
            Operand(), Operand(), Operand(4096), k=16, n=1, entries=1, x_inner_stride=16, wait=wait
        )
    strides = dict.fromkeys(("in_y_stride", "in_x_stride", "in_ky_stride", "in_kx_stride"), 0)
    strides |= dict.fromkeys(("out_y_stride", "out_x_stride"), 0)
    sizes = dict.fromkeys(("granules", "out_y", "out_x", "kernel_y", "kernel_x"), 1)
    return commands.pool(Operand(), Operand(4096), **sizes, **strides, wait=wait)


@pytest.mark.parametrize("queue", list(Queue), ids=lambda queue: queue.name)
def test_a_tiny_watchdog_names_the_waiting_queue(card, queue):
    card.set_watchdog(300)
    before = [commands.barrier()] * 3
    with pytest.raises(CardError) as caught:
        card.submit([*before, waiting(queue), commands.barrier()]).wait(max_cycles=50_000)
    error = caught.value
    assert (error.status, error.unit) == (Status.WATCHDOG, Unit(queue))
    assert error.command_index == len(before)
    assert f"{queue.name} waits for semaphore {NEVER}" in str(error)


@pytest.mark.parametrize("queue", list(Queue), ids=lambda queue: queue.name)
def test_a_deadline_names_the_waiting_queue(card, queue):
    job = card.submit([waiting(queue)])
    with pytest.raises(CardTimeoutError) as caught:
        job.wait(max_cycles=2000)
    assert f"it stalled: {queue.name} waits for semaphore {NEVER}" in str(caught.value)


def test_several_queues_wait(card):
    card.set_watchdog(300)
    with pytest.raises(CardError) as caught:
        card.submit([waiting(queue) for queue in reversed(Queue)]).wait(max_cycles=50_000)
    for queue in Queue:
        assert f"{queue.name} waits for semaphore {NEVER}" in str(caught.value)


def test_one_that_never_signals_blocks_the_one_after_it(card):
    """A full queue: its fifth command cannot be dispatched, and END not be reached."""
    card.set_watchdog(300)
    many = [waiting(Queue.STORE)] * (card.config.queue_depth + 5)
    with pytest.raises(CardError, match="STORE waits for semaphore 11"):
        card.submit(many).wait(max_cycles=50_000)


def test_without_end(card, monkeypatch):
    """The card waits for commands; the deadline ends that."""
    monkeypatch.setattr("deepseek.host.card.end", lambda *_: commands.barrier())
    job = card.submit([commands.barrier()])
    monkeypatch.undo()
    with pytest.raises(
        CardTimeoutError, match=r"the card waits for more commands: the job has no END"
    ):
        job.wait(max_cycles=3000)


@pytest.mark.parametrize("after", [0, 1, 5, 17, 60, 200, 1000])
def test_abort_at_any_time(card, after):
    long = commands.load(Operand(), Operand(), x_bytes=4096, inner=1000)
    job = card.submit([long, commands.barrier()])
    if after:
        card.transport.run(after)
    card.abort()
    with pytest.raises(CardError) as caught:
        job.wait(max_cycles=50_000)
    assert (caught.value.status, caught.value.unit) == (Status.ABORTED, Unit.SEQUENCER)
    assert "submit it again" in str(caught.value)


@pytest.mark.parametrize("after", [0, 1, 5, 17, 60, 200, 1000])
def test_reset_at_any_time(card, after):
    long = commands.store(Operand(1 << 20), Operand(), x_bytes=4096, inner=1000)
    job = card.submit([long])
    if after:
        card.transport.run(after)
    card.reset()
    with pytest.raises(CardError, match="lost in a reset; submit it again"):
        job.wait(max_cycles=50_000)


def test_errors_in_a_row(card):
    """A queue of bad jobs, each with an error of its own, and a good one among them."""
    card.set_watchdog(300)
    jobs = [
        card.submit([waiting(Queue.LOAD1)]),
        card.submit([bytes(128)]),
        card.submit([commands.barrier()]),
        card.submit([waiting(Queue.COMPUTE)]),
    ]
    for job, status in zip(jobs, ("WATCHDOG", "BAD_OPCODE", None, "WATCHDOG"), strict=True):
        if status is None:
            assert job.wait().cycles > 0
            continue
        with pytest.raises(CardError, match=status):
            job.wait(max_cycles=50_000)
