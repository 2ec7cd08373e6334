"""What a capture on the chip records (`rtl.hostport.capture`)."""

import dataclasses

import numpy as np
import numpy.typing as npt

__all__ = ["LONGEST", "Recording", "record"]

LONGEST = 0xFFFF
"""Cycles after which a value that stays is recorded again."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """Samples that a capture keeps, oldest first.

    Parameters
    ----------
    values : uint64 array
    ages : int array
        Cycles since the sample before.
    trigger : int or None
        Which of all samples since the capture was armed has triggered.
    ended : bool
        All samples that were to follow the trigger are there.
    """

    values: npt.NDArray[np.uint64]
    ages: npt.NDArray[np.int64]
    trigger: int | None
    ended: bool


def record(
    probe: npt.NDArray[np.uint64],
    *,
    mask: int,
    value: int,
    after: int,
    depth: int,
    force: int | None = None,
) -> Recording:
    """Record a probe from the cycle on in which the capture is armed.

    Parameters
    ----------
    probe : uint64 array
        A value for each cycle.
    mask, value : int
        The trigger is the first cycle with ``probe & mask == value``,
    force : int
        ... or this cycle.
    after : int
        Samples after it.
    depth : int
        Samples that are kept.
    """
    probe = np.asarray(probe, np.uint64)
    hits = np.flatnonzero((probe & np.uint64(mask)) == np.uint64(value))
    first = min([*hits[:1].tolist(), *([] if force is None else [force])], default=len(probe))
    changes = np.concatenate([[0], 1 + np.flatnonzero(probe[1:] != probe[:-1]), [first]])
    stored: list[int] = []
    for cycle in np.unique(changes[changes < len(probe)]).tolist():
        while stored and cycle - stored[-1] > LONGEST:
            stored.append(stored[-1] + LONGEST)
        stored.append(cycle)
    while stored and len(probe) - 1 - stored[-1] >= LONGEST:
        stored.append(stored[-1] + LONGEST)
    trigger = stored.index(first) if first < len(probe) else None
    ended = trigger is not None and len(stored) > trigger + after
    if trigger is not None:
        stored = stored[: trigger + after + 1]
    cycles = np.array(stored, np.int64)
    ages = np.diff(cycles, prepend=0)
    return Recording(probe[cycles][-depth:], ages[-depth:], trigger, ended)
