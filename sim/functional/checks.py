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
4. All but control commands: ``inner`` or ``outer`` is zero: BAD_LENGTH.
5. END: ``completion`` is not a multiple of 16: BAD_ALIGNMENT; outside card memory: BAD_ADDRESS.

Operands that an opcode does not use are ignored. So are the bounds, waits, signals and operands of
control commands (SEMAPHORE, BARRIER, END).

Checks of the units
-------------------
Made for every iteration when it starts; the queue's unit is blamed. First the command's own fields,
in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT, BAD_SCALE, BAD_ADDRESS; then, for MATMUL, the
directory's entries that are not empty, in the order BAD_ALIGNMENT, BAD_ADDRESS, BAD_SCALE,
BAD_INDEX. Addresses are computed modulo 2^32. Strides are checked whether or not they are used.

LOAD, STORE
    BAD_LENGTH: ``x_bytes``, ``y`` or ``z`` is zero. BAD_ALIGNMENT: an address, a stride or
    ``x_bytes`` is not a multiple of 16. BAD_ADDRESS: a byte of a row is outside card memory or the
    scratchpad.
MATMUL
    BAD_LENGTH: ``k``, ``n``, ``n_inner``, ``entries``, ``run_bytes``, ``runs_inner`` or ``slice``
    is zero; ``k`` is above `MAX_K`; ``k`` numbers, of a format of inputs, are not a whole number of
    runs. With s the smaller of ``slice`` and ``k``: s is above `CardConfig.operand_depth` and
    ``entries`` above ``rows``; s is below ``k`` and not a multiple of `RELEASE_WORDS`, or there are
    more ``entries`` than ``rows * CardConfig.partial_rows`` (half of these rows of an engine,
    rounded down, in mode INT4 with BLOCK_SCALE).
    BAD_FORMAT: an unknown format, encoding, flag or function; a pair of inputs without a mode;
    INT32 results of other than exact sums of integers; an anchor that is not from `MIN_ANCHOR` to
    `MAX_ANCHOR` in mode BF16, or not 0 in another; INT4 results with an odd ``n_inner`` that is
    below ``n``.
    BAD_ALIGNMENT: the blob (16); with 16-bit numbers the resident operand, its four strides and
    ``run_bytes`` (2); the output, its two strides and an entry's ``out_offset`` (the result's
    size), each by itself.
    BAD_ADDRESS: a byte of the directory, of the resident operand, of a stream's granules or of a
    result is outside the scratchpad.
    BAD_SCALE: a scale, used or not, that is zero, subnormal, infinite or NaN.
    BAD_INDEX: a dense count that is not the slice's length; an entry, escapes included, whose index
    is not below that; two places of one group that do not ascend.
VECTOR
    BAD_LENGTH: ``granules``, ``out_y``, ``out_x``, ``kernel_y`` or ``kernel_x`` is zero; ADD or
    MULTIPLY with a kernel other than 1 x 1. BAD_FORMAT: an unknown operation; other than INT8.
    BAD_ALIGNMENT: an address that is used, or a stride, that is not a multiple of 16. BAD_SCALE: a
    scale that is used and zero, subnormal, infinite or NaN. BAD_ADDRESS: a granule read or written
    is outside the scratchpad.
ROWS, REFORMAT
    BAD_OPCODE, before any other check: the part is not among `CardConfig.vector_parts`. Else see
    `rows` and `reformat`.

Where an iteration has several faults, or several units fail at a time, the RTL may report another
of them. What a failed job leaves in card memory and in the scratchpad, apart from its completion
record, is not specified.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import (
    ABI_VERSION,
    BITS,
    INPUT_FORMATS,
    MAX_ANCHOR,
    MIN_ANCHOR,
    OUTPUT_FORMATS,
    SEMAPHORES,
    BarrierBody,
    Command,
    Encoding,
    EndBody,
    Format,
    Function,
    MatmulBody,
    MatmulFlag,
    Mode,
    Opcode,
    Queue,
    ReformatBody,
    RowsBody,
    SemaphoreBody,
    Status,
    TransferBody,
    VectorBody,
    VectorOp,
    array_mode,
)
from .decode import reserved_mask, unpack

__all__ = [
    "BODIES",
    "PAIRS",
    "SIZES",
    "Fault",
    "check_command",
    "check_matmul",
    "check_span",
    "check_transfer",
    "check_vector",
    "columns_spans",
    "is_normal",
    "matmul_mode",
    "misaligned",
    "nested_spans",
    "refuse",
    "steps_span",
]

BODIES: dict[Opcode, Any] = {
    Opcode.LOAD: TransferBody,
    Opcode.STORE: TransferBody,
    Opcode.MATMUL: MatmulBody,
    Opcode.VECTOR: VectorBody,
    Opcode.ROWS: RowsBody,
    Opcode.REFORMAT: ReformatBody,
    Opcode.SEMAPHORE: SemaphoreBody,
    Opcode.BARRIER: BarrierBody,
    Opcode.END: EndBody,
}
"""Layout of each opcode's body."""

QUEUES: dict[Opcode, tuple[Queue, ...]] = {
    Opcode.LOAD: (Queue.LOAD0, Queue.LOAD1),
    Opcode.STORE: (Queue.STORE,),
    Opcode.MATMUL: (Queue.COMPUTE,),
    Opcode.VECTOR: (Queue.VECTOR,),
    Opcode.ROWS: (Queue.VECTOR,),
    Opcode.REFORMAT: (Queue.VECTOR,),
}
"""The queues that each opcode may name."""

SIZES = {fmt: max(1, bits // 8) for fmt, bits in BITS.items()}
"""Bytes of a number; two INT4 numbers share one."""

INTEGERS = {Format.INT4, Format.INT8}

MATMUL_FLAGS = sum(flag.value for flag in MatmulFlag)

PAIRS = (VectorOp.ADD.value, VectorOp.MULTIPLY.value)
"""Operations of VECTOR with two inputs."""

Fields = Mapping[str, Any]


class Fault(Exception):
    """A command or an iteration is refused, with ``status``."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def refuse(condition: bool, status: Status) -> None:
    """Raise `Fault` if a condition holds."""
    if condition:
        raise Fault(status)


def misaligned(values: Iterable[int], size: int) -> bool:
    """Return whether any value is not a multiple of ``size``."""
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
    refuse(base + low < 0 or base + high + length > size, Status.BAD_ADDRESS)


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
    refuse(command["queue"] not in QUEUES.get(opcode, (0,)), Status.BAD_OPCODE)
    refuse(command["version"] != ABI_VERSION, Status.BAD_VERSION)
    layout = BODIES[opcode]
    body = unpack(layout, command["body"])
    reserved = raw & reserved_mask(Command) or command["body"] & reserved_mask(layout)
    refuse(bool(reserved) or command["pong_outer"] > 7, Status.BAD_FORMAT)
    if opcode is Opcode.SEMAPHORE:
        refuse(body["index"] >= SEMAPHORES, Status.BAD_FORMAT)
    if opcode in QUEUES:
        refuse(command["inner"] == 0 or command["outer"] == 0, Status.BAD_LENGTH)
    if opcode is Opcode.END:
        refuse(misaligned([body["completion"]], GRANULE), Status.BAD_ALIGNMENT)
        check_span(body["completion"], (0, 0), GRANULE, config.memory_bytes)
    return opcode, body


def check_transfer(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of LOAD or STORE; raise `Fault`."""
    refuse(0 in (body["x_bytes"], body["y"], body["z"]), Status.BAD_LENGTH)
    memory = (body["memory_y_stride"], body["memory_z_stride"])
    scratchpad = (body["scratchpad_y_stride"], body["scratchpad_z_stride"])
    values = (body["x_bytes"], *operand[:2], *memory, *scratchpad)
    refuse(misaligned(values, GRANULE), Status.BAD_ALIGNMENT)
    sides = ((memory, config.memory_bytes), (scratchpad, config.scratchpad_bytes))
    for base, ((y_stride, z_stride), size) in zip(operand, sides, strict=False):
        span = steps_span((body["y"], y_stride), (body["z"], z_stride))
        check_span(base, span, body["x_bytes"], size)


def matmul_mode(body: Fields) -> Mode | None:
    """Return the mode of a MATMUL, or None if its inputs have none."""
    try:
        return array_mode(Format(body["stream_format"]), Format(body["in_format"]))
    except ValueError:
        return None


def check_matmul(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of MATMUL that need nothing of the blob; raise `Fault`."""
    mode = matmul_mode(body)
    scaled = bool(body["flags"] & MatmulFlag.BLOCK_SCALE.value)
    refuse(_bad_length(body, config, wide=scaled and mode is Mode.INT4), Status.BAD_LENGTH)

    known = mode is not None
    for name, kind in (
        ("out_format", OUTPUT_FORMATS),
        ("encoding", Encoding),
        ("function", Function),
    ):
        known &= body[name] in [member.value for member in kind]
    known &= not body["flags"] & ~MATMUL_FLAGS
    refuse(not known, Status.BAD_FORMAT)
    in_format, out_format = Format(body["in_format"]), Format(body["out_format"])
    integers = {in_format, Format(body["stream_format"])} <= INTEGERS
    refuse(out_format is Format.INT32 and (scaled or not integers), Status.BAD_FORMAT)
    anchors = range(MIN_ANCHOR, MAX_ANCHOR + 1) if mode is Mode.BF16 else range(1)
    refuse(body["anchor"] not in anchors, Status.BAD_FORMAT)
    odd = body["n_inner"] % 2 and body["n_inner"] < body["n"]
    refuse(out_format is Format.INT4 and bool(odd), Status.BAD_FORMAT)

    blob, x, out = operand
    x_steps = [body[f"x_{name}_stride"] for name in ("run", "run_outer", "inner", "outer")]
    out_steps = [body[f"out_{name}_stride"] for name in ("inner", "outer")]
    refuse(misaligned([blob], GRANULE), Status.BAD_ALIGNMENT)
    refuse(misaligned([x, body["run_bytes"], *x_steps], SIZES[in_format]), Status.BAD_ALIGNMENT)
    refuse(misaligned([out, *out_steps], SIZES[out_format]), Status.BAD_ALIGNMENT)

    slices = -(-body["k"] // body["slice"])
    check_span(blob, (0, 0), slices * body["entries"] * GRANULE, config.scratchpad_bytes)
    runs = body["k"] * BITS[in_format] // (8 * body["run_bytes"])
    steps = (body["x_run_stride"], body["x_run_outer_stride"])
    for run_low, run_high in nested_spans(runs, body["runs_inner"], *steps):
        for low, high in columns_spans(body, "x"):
            span = (low + run_low, high + run_high)
            check_span(x, span, body["run_bytes"], config.scratchpad_bytes)


def _bad_length(body: Fields, config: CardConfig, *, wide: bool) -> bool:
    """Return whether a MATMUL is refused with BAD_LENGTH; ``wide``: a partial sum takes double."""
    k, entries = body["k"], body["entries"]
    names = ("n", "n_inner", "run_bytes", "runs_inner", "slice")
    if 0 in (k, entries, *(body[name] for name in names)) or k > MAX_K:
        return True
    inputs = [fmt.value for fmt in INPUT_FORMATS]
    if body["in_format"] in inputs:
        bits = BITS[Format(body["in_format"])]
        if k * bits % (8 * body["run_bytes"]):
            return True
    length = min(body["slice"], k)
    if length > config.operand_depth and entries > config.rows:
        return True
    rows = config.partial_rows // 2 if wide else config.partial_rows
    return length < k and (length % RELEASE_WORDS != 0 or entries > config.rows * rows)


def nested_spans(count: int, inner: int, step: int, outer_step: int) -> list[tuple[int, int]]:
    """Return spans of the offsets of ``count`` items on two loops, ``inner`` items long inside.

    One is of the full outer steps, one of that in part.
    """
    full, rest = divmod(count, inner)
    spans = [steps_span((full, outer_step), (inner, step))] if full else []
    if rest:
        low, high = steps_span((rest, step))
        spans.append((low + full * outer_step, high + full * outer_step))
    return spans


def columns_spans(body: Fields, operand: str) -> list[tuple[int, int]]:
    """Return spans of the offsets of the columns that have an address (`nested_spans`).

    All have, but every other one of INT4 results.
    """
    n, inner = body["n"], body["n_inner"]
    steps = body[f"{operand}_inner_stride"], body[f"{operand}_outer_stride"]
    if operand == "out" and body["out_format"] == Format.INT4.value:
        return nested_spans((n + 1) // 2, (inner + 1) // 2, 2 * steps[0], steps[1])
    return nested_spans(n, inner, *steps)


def check_vector(body: Fields, operand: Sequence[int], config: CardConfig) -> None:
    """Make the checks of one iteration of VECTOR; raise `Fault`."""
    granules, out_y, out_x = body["granules"], body["out_y"], body["out_x"]
    kernel_y, kernel_x, op = body["kernel_y"], body["kernel_x"], body["op"]
    pair = op in PAIRS
    refuse(0 in (granules, out_y, out_x, kernel_y, kernel_x), Status.BAD_LENGTH)
    refuse(pair and (kernel_y, kernel_x) != (1, 1), Status.BAD_LENGTH)
    known = op in [member.value for member in VectorOp]
    refuse(not known or body["in_format"] != Format.INT8.value, Status.BAD_FORMAT)
    strides = [value for name, value in body.items() if name.endswith("_stride")]
    used = operand if pair else operand[1:]
    refuse(misaligned([*used, *strides], GRANULE), Status.BAD_ALIGNMENT)
    refuse(op != VectorOp.MAX.value and not is_normal(body["a_scale"]), Status.BAD_SCALE)
    refuse(op == VectorOp.ADD.value and not is_normal(body["b_scale"]), Status.BAD_SCALE)

    y, x = (out_y, body["in_y_stride"]), (out_x, body["in_x_stride"])
    kernel = (kernel_y, body["in_ky_stride"]), (kernel_x, body["in_kx_stride"])
    second = (out_y, body["in_ky_stride"]), (out_x, body["in_kx_stride"])
    out = (out_y, body["out_y_stride"]), (out_x, body["out_x_stride"])
    length = granules * GRANULE
    check_span(operand[2], steps_span(*out), length, config.scratchpad_bytes)
    # The window of a pair is one granule, whatever its strides.
    check_span(operand[1], steps_span(y, x, *kernel), length, config.scratchpad_bytes)
    if pair:
        check_span(operand[0], steps_span(*second), length, config.scratchpad_bytes)


def is_normal(scale: int) -> bool:
    """Return whether FP32 bits are those of a normal number."""
    return 0 < (scale >> 23 & 0xFF) < 0xFF
