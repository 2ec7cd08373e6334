"""What a card's status codes mean to whoever sent the command, and what to do next."""

from ..rtl.isa import ABI_VERSION, Queue, Status, Unit
from .compiler.commands import describe

__all__ = ["CardError", "CardMismatchError", "CardTimeoutError", "job_error", "stalls"]

_MEANING = {
    Status.BAD_OPCODE: (
        "the opcode is unknown, or not allowed in the queue that the command names",
        "build commands with deepseek.host.compiler.commands",
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
        "check base, steps and lengths below against the sizes that `host info` prints",
    ),
    Status.BAD_ALIGNMENT: (
        "an address, stride or length is not a multiple of what the unit needs",
        "align transfers and pooling to 16 bytes, results to their size",
    ),
    Status.BAD_FORMAT: (
        "a number format, function or flag that the unit does not know, or a pair without a path",
        "check formats, function and flags below against docs/isa.md",
    ),
    Status.BAD_INDEX: (
        "a compressed stream names an index that is not below K",
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
) -> CardError:
    """Return the error of a job that ended with ``status``.

    Parameters
    ----------
    commands : list of bytes
        The job, to name the command at fault.
    stall : str
        `stalls`, if the watchdog ended the job.
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
    if 0 <= command_index < len(commands):
        command = f"command {command_index}: {describe(commands[command_index])}"
    else:
        command = f"command {command_index}"
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
