"""A job on its way through a card, and how it ended."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..rtl.isa import Flag
from .allocator import Buffer
from .counters import Counters
from .errors import CardError, result_warning

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
    flags : Flag
        What any of its results lost.
    flagged_command : int or None
        Index of the first command that lost something.
    """

    cycles: int
    counters: Counters
    flags: Flag
    flagged_command: int | None


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
    labels : mapping
        Names of commands, by their index, for errors and warnings.
    """

    def __init__(
        self,
        card: "Card",
        tag: int,
        commands: list[bytes],
        record: Buffer,
        first: int,
        labels: Mapping[int, str] | None = None,
    ) -> None:
        self.card = card
        self.tag = tag
        self.commands = commands
        self.record = record
        self.first = first
        self.labels = dict(labels or {})
        self._result: JobResult | CardError | None = None

    def wait(self, *, max_cycles: int | None = None, deadline_s: float | None = None) -> JobResult:
        """Run the card until the job has ended; a `ResultWarning` tells what its results lost.

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
            self._warn()
        if isinstance(self._result, CardError):
            raise self._result
        return self._result

    def _warn(self) -> None:
        result = self._result
        if isinstance(result, JobResult) and result.flagged_command is not None:
            warning = result_warning(
                result.flags, result.flagged_command, self.commands, self.labels
            )
            warnings.warn(warning, stacklevel=3)
