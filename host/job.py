"""A job on its way through a card, and how it ended."""

import dataclasses
from typing import TYPE_CHECKING

from .allocator import Buffer
from .counters import Counters
from .errors import CardError

if TYPE_CHECKING:
    from .card import Card

__all__ = ["Job", "JobResult"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobResult:
    """A job that ended well.

    Parameters
    ----------
    cycles : int
        From the doorbell to the completion record.
    counters : Counters
        Of this job, if it was the newest when it was waited for.
    """

    cycles: int
    counters: Counters


class Job:
    """Commands that were given to a card.

    Parameters
    ----------
    tag : int
        What its completion record carries.
    commands : list of bytes
        The commands, with the END that the driver added.
    record : Buffer
        Where the completion record goes.
    first : int
        Number of commands that the ring had seen before this job.
    """

    def __init__(
        self, card: "Card", tag: int, commands: list[bytes], record: Buffer, first: int
    ) -> None:
        self.card = card
        self.tag = tag
        self.commands = commands
        self.record = record
        self.first = first
        self._result: JobResult | CardError | None = None

    def wait(self, *, max_cycles: int | None = None, deadline_s: float | None = None) -> JobResult:
        """Run the card until the job has ended.

        Parameters
        ----------
        max_cycles : int
            Card cycles to wait at most.
        deadline_s : float
            Seconds on the wall to wait at most.

        Raises
        ------
        CardError
            If the job failed; every later call raises it again.
        CardTimeoutError
            If a deadline passed. The job was aborted.
        """
        if self._result is None:
            try:
                self._result = self.card.finish(self, max_cycles, deadline_s)
            except CardError as error:
                self._result = error
            self.card.free(self.record)
        if isinstance(self._result, CardError):
            raise self._result
        return self._result
