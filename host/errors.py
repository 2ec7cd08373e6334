"""What a card's status codes mean to whoever sent the command, and what to do next."""

from collections.abc import Mapping

from ..rtl.isa import ABI_VERSION, Flag, Queue, Status, Unit
from .compiler.commands import describe

__all__ = [
    "CardError",
    "CardMismatchError",
    "CardTimeoutError",
    "ResultWarning",
    "job_error",
    "result_warning",
    "stalls",
]

_MEANING = {
    Status.BAD_OPCODE: (
        "the opcode is unknown, or not allowed in the queue that the command names, or the card's "
        "vector unit is without the part that runs it",
        "build commands with deepseek.host.compiler.commands, for the card's vector_parts",
    ),
    Status.BAD_VERSION: (
        "the command was written for another version of the instruction set",
        f"rebuild the commands for version {ABI_VERSION}",
    ),
    Status.BAD_LENGTH: (
        "a count, a length or a loop bound is zero or longer than the unit takes",
        "check the counts below against docs/isa.md",
    ),
    Status.BAD_ADDRESS: (
        "an access outside card memory or outside the scratchpad",
        "check base, steps and lengths below against the sizes that `deepseek-host info` prints",
    ),
    Status.BAD_ALIGNMENT: (
        "an address, stride or length is not a multiple of what the unit needs",
        "align transfers, pooling and stream blobs to 16 bytes, other numbers to their size",
    ),
    Status.BAD_FORMAT: (
        "a number format, function or flag that the unit does not know, or a pair without a path",
        "check formats, function and flags below against docs/isa.md",
    ),
    Status.BAD_INDEX: (
        "a stream names an index that is not below the slice's length, or is out of order",
        "encode the weights again, and check that nothing wrote over the stream blob",
    ),
    Status.WATCHDOG: (
        "no unit made progress for as long as the watchdog allows",
        "check that every wait of the commands has a signal, or raise the watchdog's limit",
    ),
    Status.ABORTED: ("the host aborted the job", "submit it again"),
    Status.MEMORY_FAULT: (
        "the memory controller broke a rule of the DRAM",
        "reset the card, and report the job: this is a fault of the card",
    ),
    Status.BAD_SCALE: (
        "a scale is zero, subnormal, infinite or not a number",
        "give each row a scale whose magnitude is from 2^-126 to 2^127",
    ),
}

_LOSS = {
    Flag.BELOW: (
        "bits of products fell below the window and were cut off",
        "lower the anchor if they matter",
    ),
    Flag.ABOVE: (
        "products were too large for the window and count as infinite",
        "raise the anchor",
    ),
    Flag.OVERFLOW: (
        "finite results were too large for FP32 or for their format",
        "lower the scale, or choose a format with a larger range",
    ),
    Flag.NAN: (
        "results are not numbers",
        "look for infinities and NaNs in the inputs",
    ),
}


class CardError(RuntimeError):
    """A job failed. The message is one line: status, meaning, command, unit, next step.

    Parameters
    ----------
    message : str
    status : Status or int
        `Status`, or the number if it is unknown to this driver.
    unit : Unit or None
    command_index : int or None
        Index within the job of the command that failed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Status | int = Status.OK,
        unit: Unit | None = None,
        command_index: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.unit = unit
        self.command_index = command_index


class ResultWarning(UserWarning):
    """Results of a job that ended well are not what exact arithmetic gives.

    The message is one line: where, what happened, next step.

    Parameters
    ----------
    message : str
    flags : Flag
        Everything that happened in the job.
    command_index : int
        Index within the job of the first command to which something happened.
    label : str or None
        What the caller of `Card.submit` calls that command.
    """

    def __init__(
        self, message: str, *, flags: Flag, command_index: int, label: str | None = None
    ) -> None:
        super().__init__(message)
        self.flags = flags
        self.command_index = command_index
        self.label = label


class CardTimeoutError(CardError):
    """A job did not end before its deadline."""


class CardMismatchError(CardError):
    """The card is not what this driver drives: another ABI, geometry or build."""


def job_error(
    status: int,
    unit: int,
    command_index: int,
    commands: list[bytes],
    stall: str = "",
    labels: Mapping[int, str] | None = None,
) -> CardError:
    """Return the error of a job that ended with ``status``.

    Parameters
    ----------
    commands : list of bytes
        The job, to name the command at fault.
    stall : str
        `stalls`, if the watchdog ended the job.
    labels : mapping
        Names of commands, by their index.
    """
    try:
        known = Status(status)
    except ValueError:
        return CardError(
            f"job failed: status {status} is unknown to this driver; update the driver",
            status=status,
            command_index=command_index,
        )
    meaning, cure = _MEANING[known]
    blamed = Unit(unit) if unit in list(Unit) else None
    command = _command(command_index, commands, labels)
    where = f" in {blamed.name}" if blamed is not None else f" in unit {unit}"
    if known is Status.ABORTED:
        where = ""
    waiting = f"; {stall}" if stall else ""
    return CardError(
        f"job failed: {known.name}{where} ({meaning}){waiting}; {command}; next: {cure}",
        status=known,
        unit=blamed,
        command_index=command_index,
    )


def result_warning(
    flags: Flag,
    command_index: int,
    commands: list[bytes],
    labels: Mapping[int, str] | None = None,
) -> ResultWarning:
    """Return the warning for a job with ``flags``, the first of which a command has raised.

    Parameters
    ----------
    flags : Flag
        At least one.
    commands : list of bytes
        The job.
    labels : mapping
        Names of commands, by their index.
    """
    label = (labels or {}).get(command_index)
    what = "; ".join(_LOSS[flag][0] for flag in flags)
    cure = "; ".join(_LOSS[flag][1] for flag in flags)
    return ResultWarning(
        f"{what} ({'|'.join(flag.name or '' for flag in flags)}), first in "
        f"{_command(command_index, commands, labels)}; next: {cure}",
        flags=flags,
        command_index=command_index,
        label=label,
    )


def _command(index: int, commands: list[bytes], labels: Mapping[int, str] | None) -> str:
    """Name a command: index, label if it has one, fields."""
    label = (labels or {}).get(index)
    name = f"command {index}" if label is None else f"{label!r}, command {index}"
    return f"{name}: {describe(commands[index])}" if 0 <= index < len(commands) else name


def stalls(stall: int, semaphores: int) -> str:
    """Return what each queue waits for, from `Csr.STALL` and `Csr.STALL_SEMAPHORE`."""
    parts = []
    for queue in Queue:
        kind = stall >> 4 * queue & 0xF
        if kind == 1:
            parts.append(f"{queue.name} waits for semaphore {semaphores >> 4 * queue & 0xF}")
        elif kind == 2:
            parts.append(f"{queue.name} waits for its unit")
    return ", ".join(parts) if parts else "no queue waits"
