"""Jobs command by command: the card takes one out of its ring each time that somebody says so."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..rtl.isa import Csr, Status, Unit
from .compiler.commands import describe
from .errors import CardError

if TYPE_CHECKING:
    from .card import Card
    from .job import Job

__all__ = ["Stepper"]

ENABLE = 1 << 31
"""Of `Csr.STEP`: commands wait for a step."""

TURN_CYCLES = 500
"""Between two looks at the card. Nothing has moved if they see the same."""

MOST_TURNS = 10_000
"""After so many the command counts as one that works on."""

_COUNT = 1 << 32
_WORK = (Csr.BYTES_READ, Csr.BYTES_WRITTEN, Csr.MAC_ACTIVE)


class Stepper:
    """Shows each command of a job before the card takes it, and what came of it.

    Give it to `Card.set_stepper`. What the command started goes on until the units it needs wait
    for commands that are still to come.

    Parameters
    ----------
    ask : callable
        Returns an answer: an empty line for one command, a number for so many, ``c`` for all
        that is left, of later jobs too.
    show : callable
        Takes a line of text.
    """

    def __init__(self, ask: Callable[[], str], show: Callable[[str], None]) -> None:
        self.active = True
        self._ask, self._show = ask, show
        self._pending = 0
        self._jobs: list[Job] = []
        self._count = 0

    def begin(self, card: "Card", job: "Job") -> None:
        """Hold the card before a job is written to its ring."""
        if not self.active:
            return
        self._jobs.append(job)
        card.transport.csr_write(Csr.STEP, ENABLE)
        if not card.transport.csr_read(Csr.STEP) & ENABLE:
            raise CardError(
                "the card cannot be stepped: it has no register for that; next: build its "
                "bitstream again, with: deepseek-host build"
            )

    def forget(self) -> None:
        """The card was reset: its jobs are lost."""
        self._jobs.clear()
        self._pending = 0

    def run(self, card: "Card", until: int) -> None:
        """Step through jobs until the card has taken so many commands since its reset (modulo
        2^32)."""
        while self.active and self._jobs:
            head = card.transport.csr_read(Csr.RING_HEAD)
            if not 0 < (until - head) % _COUNT < _COUNT // 2:
                return
            job = self._jobs[0]
            index = (head - job.first) % _COUNT
            if index >= _COUNT // 2:
                # Of a job from before the first that is held.
                card.transport.csr_write(Csr.STEP, ENABLE | 1)
                self._settle(card, "of an earlier job")
            elif index >= len(job.commands):
                self._jobs.pop(0)
            else:
                self._step(card, job, index)

    def _step(self, card: "Card", job: "Job", index: int) -> None:
        if index == 0:
            self._count += 1
            self._show(f"job {self._count}: {len(job.commands)} commands")
        label = job.labels.get(index)
        name = f"{label!r}, " if label is not None else ""
        self._show(f"[{index}] {name}{describe(job.commands[index])}")
        if not self._pending:
            self._pending = self._answer()
        if not self.active:
            card.transport.csr_write(Csr.STEP, 0)
            return
        self._pending -= 1
        before = card.transport.csr_read_many((Csr.ERROR, *_WORK))
        card.transport.csr_write(Csr.STEP, ENABLE | 1)
        self._settle(card, str(index))
        self._report(card, before)

    def _answer(self) -> int:
        """Return the number of commands to step through; 0 for no more stepping."""
        while True:
            words = self._ask().strip().lower()
            if not words:
                return 1
            if words in ("c", "continue"):
                self.active = False
                return 0
            if words.isdecimal() and int(words) > 0:
                return int(words)
            self._show("Enter: one command; a number: so many; c: all that is left")

    def _settle(self, card: "Card", command: str) -> None:
        """Let the card run until nothing moves."""
        read = card.transport.csr_read_many
        seen: list[int] = []
        for _ in range(MOST_TURNS):
            card.acknowledge()  # with the interrupt high the card would not run
            card.transport.run(TURN_CYCLES)
            now = read((Csr.STEP, Csr.STATE, *_WORK, Csr.COMPLETED))
            if now == seen and not now[0] & ~ENABLE:
                return
            seen = now
        if seen[0] & ~ENABLE:
            raise CardError(
                f"the card did not take command {command} within "
                f"{MOST_TURNS * TURN_CYCLES:,} cycles; next: reset it"
            )

    def _report(self, card: "Card", before: list[int]) -> None:
        state, *after = card.transport.csr_read_many((Csr.STATE, Csr.ERROR, *_WORK))
        error = after[0] if after[0] != before[0] else 0
        done = [
            f"{new - old:,} {what}"
            for what, old, new in zip(
                ("bytes read", "bytes written", "engine-cycles of work"),
                before[1:],
                after[1:],
                strict=True,
            )
            if new > old
        ]
        busy = [unit.name for unit in Unit if unit < Unit.SEQUENCER and state >> 8 + unit & 1]
        waits = f"{', '.join(busy)} not done" if busy else "all units idle"
        self._show("    " + "; ".join([*done, waits]))
        if error:
            names = {status.value: status.name for status in Status}
            name = names.get(error & 0xFF, str(error & 0xFF))
            self._show(f"    the job has failed ({name}): the card skips what is left of it")
            self._pending = 0
