"""Jobs command by command, on a card that is functional but takes its commands in steps."""

import numpy as np
import pytest

from deepseek.host.card import Card
from deepseek.host.compiler import commands
from deepseek.host.compiler.commands import Operand
from deepseek.host.errors import CardError
from deepseek.host.step import Stepper
from deepseek.host.transport.functional import FunctionalTransport
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Csr, Opcode

TINY = preset("tiny")


class SteppedTransport(FunctionalTransport):
    """Rings the card's doorbell for as many commands as `Csr.STEP` allows."""

    cycles_modelled = False

    def __init__(self, config):
        super().__init__(config)
        self.enabled, self.left, self.tail = False, 0, 0

    def csr_read(self, address):
        if address == Csr.STEP:
            return self.enabled << 31 | self.left
        return super().csr_read(address)

    def csr_read_many(self, addresses):
        return [self.csr_read(address) for address in addresses]

    def csr_write(self, address, value):
        if address == Csr.STEP:
            self.enabled, self.left = bool(value >> 31), value & 0xFFFF
        elif address == Csr.RING_TAIL:
            self.tail = value
        else:
            if address == Csr.CONTROL and value & 1:
                self.enabled, self.left = False, 0
            super().csr_write(address, value)
        if address in (Csr.STEP, Csr.RING_TAIL):
            head = super().csr_read(Csr.RING_HEAD)
            count = (self.tail - head) % (1 << 32)
            taken = min(count, self.left) if self.enabled else count
            if taken:
                super().csr_write(Csr.RING_TAIL, (head + taken) % (1 << 32))
                self.left -= taken if self.enabled else 0


class Person:
    """Answers, and what was shown before each."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.shown = []

    def ask(self):
        self.shown.append("?")
        return self.answers.pop(0)

    @property
    def stepper(self):
        return Stepper(self.ask, self.shown.append)


@pytest.fixture
def card():
    with Card(SteppedTransport(TINY)) as opened:
        yield opened


def copies(card, count):
    """Return source, target and commands that copy ``count`` rows, one by one."""
    source, target = card.allocate(16 * count), card.allocate(16 * count)
    card.write(source, np.arange(16 * count, dtype=np.uint8))
    job = []
    for row in range(count):
        job += [
            commands.load(Operand(source.address + 16 * row), Operand(0), x_bytes=16),
            commands.barrier(),
            commands.store(Operand(target.address + 16 * row), Operand(0), x_bytes=16),
            commands.barrier(),
        ]
    return source, target, job


def test_each_command_is_asked_for(card):
    source, target, job = copies(card, 1)
    person = Person("\n", "\n", "\n", "\n", "\n")
    card.set_stepper(person.stepper)
    job = card.submit(job, labels={2: "the row"})
    assert not card.read(target).any()
    job.wait()
    assert (card.read(target) == card.read(source)).all()
    lines = [line for line in person.shown if line.startswith("[")]
    assert [line.split("(")[0] for line in lines] == [
        "[0] LOAD",
        "[1] BARRIER",
        "[2] 'the row', STORE",
        "[3] BARRIER",
        "[4] END",
    ]
    assert person.shown[0] == "job 1: 5 commands"
    assert person.shown.count("?") == 5
    for index, line in enumerate(person.shown):
        if line == "?":
            assert person.shown[index - 1].startswith("[")
            assert "idle" in person.shown[index + 1] or "not done" in person.shown[index + 1]
    assert "144 bytes read" in person.shown[3]  # with the command itself


def test_numbers_and_all_the_rest(card):
    _, _, job = copies(card, 4)
    person = Person("3\n", "what\n", "0\n", "2\n", "c\n")
    card.set_stepper(person.stepper)
    card.submit(job).wait()
    asked = [
        person.shown[index - 1].split(" ")[0]
        for index, line in enumerate(person.shown)
        if line == "?"
    ]
    help_text = "Enter:"
    assert asked == ["[0]", "[3]", help_text, help_text, "[5]"]
    # No questions any more, and no lines.
    before = list(person.shown)
    source, target, job = copies(card, 1)
    card.submit(job).wait()
    assert person.shown == before
    assert (card.read(target) == card.read(source)).all()


def test_more_commands_than_the_ring_holds(card):
    source, target, job = copies(card, 300)
    person = Person("10000\n")
    card.set_stepper(person.stepper)
    card.submit(job).wait()
    assert (card.read(target) == card.read(source)).all()
    assert sum(line.startswith("[") for line in person.shown) == 1201


def test_two_jobs_in_the_ring(card):
    _, _, job = copies(card, 1)
    person = Person(*["\n"] * 10)
    card.set_stepper(person.stepper)
    first, second = card.submit(job), card.submit(job)
    second.wait()
    first.wait()
    heads = [line for line in person.shown if line.startswith("job")]
    assert heads == ["job 1: 5 commands", "job 2: 5 commands"]
    assert not person.answers


def test_a_job_that_fails(card):
    _, _, job = copies(card, 1)
    bad = commands.encode(
        Opcode.LOAD.value, {"x_bytes": 3, "y": 1, "z": 1}, operands=[Operand(0), Operand(0)]
    )
    person = Person("9\n")
    card.set_stepper(person.stepper)
    with pytest.raises(CardError, match="BAD_ALIGNMENT"):
        card.submit([bad, *job]).wait()
    assert any("the job has failed (BAD_ALIGNMENT)" in line for line in person.shown)


def test_after_a_reset(card):
    _, _, job = copies(card, 1)
    person = Person("\n", "c\n")
    card.set_stepper(person.stepper)
    card.submit(job, labels={0: "lost"})
    card.reset()
    card.submit(job, labels={0: "first"}).wait()
    assert [line.split(",")[0] for line in person.shown if line.startswith("[")] == [
        "[0] 'first'",
        "[1] BARRIER(inner=1",
    ]


def test_jobs_from_before_are_not_asked_for(card):
    """Neither while they are waited for, nor on the way to those that are."""
    source, target, job = copies(card, 1)
    earlier = card.submit(job)
    person = Person(*["\n"] * 10)
    card.set_stepper(person.stepper)
    earlier.wait()
    assert not person.shown
    card.set_stepper(None)

    card.transport.csr_write(Csr.STEP, 1 << 31 | 2)  # the next job is under way
    earlier = card.submit(job)
    head = card.transport.csr_read(Csr.RING_HEAD)
    card._stepper = person.stepper
    later = card.submit(job, labels={0: "the first"})
    assert card.transport.csr_read(Csr.RING_HEAD) == head < later.first
    later.wait()
    earlier.wait()
    first = next(line for line in person.shown if line.startswith("["))
    assert first.startswith("[0] 'the first'")
    assert len(person.answers) == 5
    assert (card.read(target) == card.read(source)).all()


def test_another_person_steps_on(card):
    """What the first one held goes on by itself."""
    _, _, job = copies(card, 1)
    card.set_stepper(Person("\n").stepper)
    held = card.submit(job)
    person = Person()
    card.set_stepper(person.stepper)
    held.wait(max_cycles=100_000)
    assert not person.shown


def test_without_steps_again(card):
    card.set_stepper(Person().stepper)
    card.set_stepper(None)
    source, target, job = copies(card, 1)
    card.submit(job).wait()
    assert (card.read(target) == card.read(source)).all()


def test_cards_that_have_no_steps():
    with (
        Card.open("functional", preset="tiny") as card,
        pytest.raises(ValueError, match="runs whole jobs, and has no single steps; next: use"),
    ):
        card.set_stepper(Person().stepper)
    old = SteppedTransport(TINY)
    old.csr_write = lambda address, value: FunctionalTransport.csr_write(old, address, value)
    with Card(old) as card:
        card.set_stepper(Person().stepper)
        with pytest.raises(CardError, match="cannot be stepped: it has no register"):
            card.submit([commands.barrier()])
