"""What the card refuses, and with which status.

Checks of the sequencer
-----------------------
Made for every command, in this order. `Unit.SEQUENCER` is blamed, when nothing that was dispatched
before the command can go on any further.

1. The opcode is unknown, or the queue is not one of the opcode's (control commands: 0): BAD_OPCODE.
2. The version is not `ABI_VERSION`: BAD_VERSION.
3. A bit of a field called ``reserved...`` is set, in the header (of every command, with the
   references that are not enabled) or in the opcode's body; ``pong_outer`` has a bit that stands
   for no operand; a SEMAPHORE command's index is not a semaphore's: BAD_FORMAT.
4. LOAD, STORE, MATMUL and POOL: ``inner`` or ``outer`` is zero: BAD_LENGTH.
5. END: ``completion`` is not a multiple of 16: BAD_ALIGNMENT; outside card memory: BAD_ADDRESS.

Operands that an opcode does not use are ignored. So are the bounds, waits, signals and operands of
control commands (SEMAPHORE, BARRIER, END).

Checks of the units
-------------------
Made for every iteration when it starts; the queue's unit is blamed. First the command's own fields,
in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT, BAD_ADDRESS; then, for MATMUL, the directory's
entries that are not empty, in the order BAD_ALIGNMENT, BAD_ADDRESS, BAD_INDEX. Addresses are
computed modulo 2^32. Strides are checked whether or not they are used.

LOAD, STORE
    BAD_LENGTH: ``x_bytes``, ``y`` or ``z`` is zero. BAD_ALIGNMENT: an address, a stride or
    ``x_bytes`` is not a multiple of 16. BAD_ADDRESS: a byte of a row is outside card memory or the
    scratchpad.
MATMUL
    BAD_LENGTH: ``k``, ``n``, ``n_inner``, ``visits`` or ``run_bytes`` is zero; ``k`` is above
    `CardConfig.operand_depth`; ``k * size`` is not a multiple of ``run_bytes`` (size 2 for FP16,
    otherwise 1). BAD_FORMAT: an unknown format, function or flag; inputs other than INT8 and FP16;
    FP16 to INT32. BAD_ALIGNMENT: the blob (16); with FP16 inputs the resident operand, its three
    strides and ``run_bytes`` (2); the output, its two strides and an entry's ``out_offset`` (the
    result's size), each by itself. BAD_ADDRESS: a byte of the directory, of the resident operand,
    of a stream's granules or of a result is outside the scratchpad. BAD_INDEX: a dense count that
    is not ``k``; a sparse entry, escapes included, whose index is not below ``k``.
POOL
    BAD_LENGTH: ``granules``, ``out_y``, ``out_x``, ``kernel_y`` or ``kernel_x`` is zero.
    BAD_FORMAT: other than INT8. BAD_ALIGNMENT: an address or stride that is not a multiple of 16.
    BAD_ADDRESS: a granule read or written is outside the scratchpad.

Where an iteration has several faults, or several units fail at a time, the RTL may report another
of them. What a failed job leaves in card memory and in the scratchpad, apart from its completion
record, is not specified.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import (
    ABI_VERSION,
    SEMAPHORES,
    BarrierBody,
    Command,
    EndBody,
    Format,
    Function,
    MatmulBody,
    MatmulFlag,
    Opcode,
    PoolBody,
    Queue,
    SemaphoreBody,
    Status,
    TransferBody,
)
from .decode import reserved_mask, unpack

__all__ = [
    "BODIES",
    "SIZES",
    "Fault",
    "check_command",
    "check_matmul",
    "check_pool",
    "check_span",
    "check_transfer",
    "columns_spans",
]

BODIES: dict[Opcode, Any] = {
    Opcode.LOAD: TransferBody,
    Opcode.STORE: TransferBody,
    Opcode.MATMUL: MatmulBody,
    Opcode.POOL: PoolBody,
    Opcode.SEMAPHORE: SemaphoreBody,
    Opcode.BARRIER: BarrierBody,
    Opcode.END: EndBody,
}
"""Layout of each opcode's body."""

QUEUES: dict[Opcode, tuple[Queue, ...]] = {
    Opcode.LOAD: (Queue.LOAD0, Queue.LOAD1),
    Opcode.STORE: (Queue.STORE,),
    Opcode.MATMUL: (Queue.COMPUTE,),
    Opcode.POOL: (Queue.VECTOR,),
}
"""The queues that each opcode may name."""

SIZES = {Format.INT8: 1, Format.FP16: 2, Format.INT32: 4, Format.FP32: 4}
"""Bytes of an element."""

Fields = Mapping[str, Any]


class Fault(Exception):
    """A command or an iteration is refused, with ``status``."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def _refuse(condition: bool, status: Status) -> None:
    if condition:
        raise Fault(status)


def _misaligned(values: Iterable[int], size: int) -> bool:
    return any(value % size for value in values)


def steps_span(*loops: tuple[int, int]) -> tuple[int, int]:
    """Return the lowest and the highest offset of nested loops, each given as (count, stride)."""
    offsets = [(count - 1) * stride for count, stride in loops]
    return sum(min(offset, 0) for offset in offsets), sum(max(offset, 0) for offset in offsets)


def check_span(base: int, span: tuple[int, int], length: int, size: int) -> None:
    """Refuse accesses of ``length`` bytes from ``base + span[0]`` to ``base + span[1]``.

    Offsets need not be taken modulo 2^32: with signed strides of 32 bits, a walk whose addresses
    are all inside ``size``, at most 2^31 bytes, never wraps.
    """
    low, high = span
    _refuse(base + low < 0 or base + high + length > size, Status.BAD_ADDRESS)


def check_command(raw: int, command: Fields, config: CardConfig) -> tuple[Opcode, Fields]:
    """Make the sequencer's checks; return the opcode and the body's fields.

    Parameters
    ----------
    raw : int
        The command's 128 bytes.
    command : dict
        The same as unpacked `Command`.

    Raises
    ------
    Fault
    """
    try:
        opcode = Opcode(command["opcode"])
    except ValueError:
        raise Fault(Status.BAD_OPCODE) from None
    _refuse(command["queue"] not in QUEUES.get(opcode, (0,)), Status.BAD_OPCODE)
    _refuse(command["version"] != ABI_VERSION, Status.BAD_VERSION)
    layout = BODIES[opcode]
    body = unpack(layout, command["body"])
    reserved = raw & reserved_mask(Command) or command["body"] & reserved_mask(layout)
    _refuse(bool(reserved) or command["pong_outer"] > 7, Status.BAD_FORMAT)
    if opcode is Opcode.SEMAPHORE:
        _refuse(body["index"] >= SEMAPHORES, Status.BAD_FORMAT)
    if opcode in QUEUES:
        _refuse(command["inner"] == 0 or command["outer"] == 0, Status.BAD_LENGTH)
    if opcode is Opcode.END:
        _refuse(_misaligned([body["completion"]], GRANULE), Status.BAD_ALIGNMENT)
        check_span(body["completion"], (0, 0), GRANULE, config.memory_bytes)
    return opcode, body


def check_transfer(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of LOAD or STORE; raise `Fault`."""
    _refuse(0 in (body["x_bytes"], body["y"], body["z"]), Status.BAD_LENGTH)
    memory = (body["memory_y_stride"], body["memory_z_stride"])
    scratchpad = (body["scratchpad_y_stride"], body["scratchpad_z_stride"])
    values = (body["x_bytes"], *operand[:2], *memory, *scratchpad)
    _refuse(_misaligned(values, GRANULE), Status.BAD_ALIGNMENT)
    sides = ((memory, config.memory_bytes), (scratchpad, config.scratchpad_bytes))
    for base, ((y_stride, z_stride), size) in zip(operand, sides, strict=False):
        span = steps_span((body["y"], y_stride), (body["z"], z_stride))
        check_span(base, span, body["x_bytes"], size)


def check_matmul(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of MATMUL that need nothing of the blob; raise `Fault`."""
    size = 2 if body["in_format"] == Format.FP16.value else 1
    lengths = [body[name] for name in ("k", "n", "n_inner", "visits", "run_bytes")]
    _refuse(0 in lengths or body["k"] > config.operand_depth, Status.BAD_LENGTH)
    _refuse(body["k"] * size % body["run_bytes"] != 0, Status.BAD_LENGTH)

    formats = [member.value for member in Format]
    known = body["in_format"] in (Format.INT8.value, Format.FP16.value)
    known &= body["out_format"] in formats
    known &= body["function"] in [member.value for member in Function]
    known &= not body["flags"] & ~MatmulFlag.SPARSE.value
    pair = (body["in_format"], body["out_format"])
    _refuse(not known or pair == (Format.FP16.value, Format.INT32.value), Status.BAD_FORMAT)

    blob, x, out = operand
    x_strides = [body[name] for name in ("x_run_stride", "x_inner_stride", "x_outer_stride")]
    out_strides = [body[name] for name in ("out_inner_stride", "out_outer_stride")]
    _refuse(_misaligned([blob], GRANULE), Status.BAD_ALIGNMENT)
    _refuse(_misaligned([x, body["run_bytes"], *x_strides], size), Status.BAD_ALIGNMENT)
    out_size = SIZES[Format(body["out_format"])]
    _refuse(_misaligned([out, *out_strides], out_size), Status.BAD_ALIGNMENT)

    directory = body["visits"] * config.rows * GRANULE
    check_span(blob, (0, 0), directory, config.scratchpad_bytes)
    runs = (body["k"] * size // body["run_bytes"], body["x_run_stride"])
    for low, high in columns_spans(body, "x"):
        run_low, run_high = steps_span(runs)
        span = (low + run_low, high + run_high)
        check_span(x, span, body["run_bytes"], config.scratchpad_bytes)


def columns_spans(body: Fields, operand: str) -> list[tuple[int, int]]:
    """Return spans of the columns' offsets: of the full outer steps, and of the one in part."""
    inner, outer = body[f"{operand}_inner_stride"], body[f"{operand}_outer_stride"]
    full, rest = divmod(body["n"], body["n_inner"])
    spans = [steps_span((full, outer), (body["n_inner"], inner))] if full else []
    if rest:
        low, high = steps_span((rest, inner))
        spans.append((low + full * outer, high + full * outer))
    return spans


def check_pool(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of POOL; raise `Fault`."""
    granules, out_y, out_x = body["granules"], body["out_y"], body["out_x"]
    kernel_y, kernel_x = body["kernel_y"], body["kernel_x"]
    _refuse(0 in (granules, out_y, out_x, kernel_y, kernel_x), Status.BAD_LENGTH)
    _refuse(body["in_format"] != Format.INT8.value, Status.BAD_FORMAT)
    strides = [value for name, value in body.items() if name.endswith("_stride")]
    _refuse(_misaligned([*operand[1:], *strides], GRANULE), Status.BAD_ALIGNMENT)
    span = steps_span(
        (out_y, body["in_y_stride"]),
        (out_x, body["in_x_stride"]),
        (kernel_y, body["in_ky_stride"]),
        (kernel_x, body["in_kx_stride"]),
    )
    length = granules * GRANULE
    check_span(operand[1], span, length, config.scratchpad_bytes)
    span = steps_span((out_y, body["out_y_stride"]), (out_x, body["out_x_stride"]))
    check_span(operand[2], span, length, config.scratchpad_bytes)
