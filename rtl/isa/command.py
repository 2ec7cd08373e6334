"""Commands: opcodes, queues, the header, and the bodies that only move and order; their outcome."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

__all__ = [
    "ABI_VERSION",
    "COMMAND_BYTES",
    "SEMAPHORES",
    "BarrierBody",
    "Command",
    "Completion",
    "EndBody",
    "Flag",
    "Opcode",
    "Operand",
    "Queue",
    "SemaphoreBody",
    "SemaphoreRef",
    "Status",
    "TransferBody",
    "Unit",
]

ABI_VERSION = 3
COMMAND_BYTES = 128
SEMAPHORES = 16


class Opcode(enum.Enum, shape=unsigned(8)):
    """What a command does. Zero is not an opcode, so that cleared memory is refused."""

    LOAD = 1
    """Copy from card memory to the scratchpad (`TransferBody`)."""
    STORE = 2
    """Copy from the scratchpad to card memory (`TransferBody`)."""
    MATMUL = 3
    """Multiply row streams by resident columns, and finish the results (`MatmulBody`)."""
    VECTOR = 4
    """Pool windows, or combine two tensors, in the vector unit (`VectorBody`)."""
    ROWS = 5
    """Scale, normalize or quantize rows, or take their softmax (`RowsBody`)."""
    REFORMAT = 6
    """Transpose, compress or expand what the array takes as input (`ReformatBody`)."""
    SEMAPHORE = 16
    """Add to a semaphore (`SemaphoreBody`)."""
    BARRIER = 17
    """Wait until every queue is empty and every unit idle, then clear all semaphores."""
    END = 18
    """A barrier that also ends the job: writes its `Completion` (`EndBody`)."""


class Queue(enum.IntEnum):
    """The decoupled queues. Commands of one queue start, and their iterations end, in order; queues
    run side by side.

    Iterations of MATMUL overlap, also of commands that follow each other: one that needs what an
    earlier one writes, or writes where an earlier one reads or writes, waits for a semaphore that
    the earlier one signals. Other queues start a command when the one before has ended.
    """

    LOAD0 = 0
    LOAD1 = 1
    COMPUTE = 2
    VECTOR = 3
    STORE = 4


class Unit(enum.IntEnum):
    """Who an error or a stall is blamed on, in `Completion.unit` and `Csr.ERROR`."""

    LOAD0 = 0
    LOAD1 = 1
    COMPUTE = 2
    VECTOR = 3
    STORE = 4
    SEQUENCER = 5
    MEMORY = 6


class Status(enum.Enum, shape=unsigned(8)):
    """How a job ended."""

    OK = 0
    BAD_OPCODE = 1
    """The opcode is unknown, or not allowed in the queue that the command names; or the card's
    vector unit is without the part that runs it (`Csr.PARTS`)."""
    BAD_VERSION = 2
    """The command's version is not `ABI_VERSION`."""
    BAD_LENGTH = 3
    """A count, a length or a loop bound is zero, or longer than the unit takes."""
    BAD_ADDRESS = 4
    """An access outside card memory or outside the scratchpad."""
    BAD_ALIGNMENT = 5
    """An address, stride or length that is not a multiple of what the unit needs."""
    BAD_FORMAT = 6
    """A format, function or flag that the unit does not know, or a pair that has no path."""
    BAD_INDEX = 7
    """An entry's k is not below the length of its slice, or two places of a group do not ascend;
    or a DENSE ``count`` is not the length of the slice."""
    WATCHDOG = 8
    """No unit made progress for `Csr.WATCHDOG` cycles."""
    ABORTED = 9
    """The host aborted the job."""
    MEMORY_FAULT = 10
    """The memory controller broke a rule of the DRAM: a fault of the card, not of the job. Only
    where the RTL is simulated: no device has the model of the DRAM that tells."""
    BAD_SCALE = 11
    """A scale is zero, subnormal, infinite or not a number."""


class Flag(enum.IntFlag):
    """Bits of `Completion.flags`: what a result may have lost without being an error."""

    BELOW = 1
    """A product had bits below the window (`Mode.BF16`); they were cut off."""
    ABOVE = 2
    """A product was too large for the window; it counts as an infinity of its sign."""
    OVERFLOW = 4
    """A finite number was too large for a float output, or for INT32."""
    NAN = 8
    """A result is not a number."""


class SemaphoreRef(data.Struct):
    """One wait or signal of a command: nothing if ``enable`` is 0.

    A wait takes 1 from the semaphore before an iteration starts; a signal adds 1 after one has
    ended. With ``outer`` it happens once an outer iteration: before its first inner one, after
    its last. A semaphore stops at 255: what is added beyond is lost.
    """

    index: unsigned(4)
    reserved: unsigned(2)
    outer: unsigned(1)
    enable: unsigned(1)


class Operand(data.Struct):
    """An address that steps with a command's two loops.

    In iteration (o, i), counted from 0, the address is
    ``base + o * outer + i * inner + parity * pong``. ``parity`` is the low bit of the number of
    iterations done so far in this command, or of ``o`` where the command's ``pong_outer`` has
    this operand's bit. Bytes, modulo 2^32.
    """

    base: unsigned(32)
    inner: signed(32)
    outer: signed(32)
    pong: unsigned(32)


class Command(data.Struct):
    """A command: 128 bytes. It runs ``outer * inner`` iterations, the inner loop fastest."""

    opcode: unsigned(8)
    version: unsigned(8)
    queue: unsigned(8)
    """`Queue`. LOAD: LOAD0 or LOAD1. STORE: STORE. MATMUL: COMPUTE. VECTOR, ROWS and REFORMAT:
    VECTOR. Else 0."""
    pong_outer: unsigned(8)
    wait: data.ArrayLayout(SemaphoreRef, 4)
    signal: data.ArrayLayout(SemaphoreRef, 4)
    inner: unsigned(16)
    outer: unsigned(16)
    operand: data.ArrayLayout(Operand, 3)
    body: unsigned(512)


class TransferBody(data.Struct):
    """LOAD and STORE: a copy of ``z * y`` rows of ``x_bytes`` bytes.

    Operand 0 is the byte address in card memory, operand 1 in the scratchpad, operand 2 unused. Row
    (z, y) lies at ``operand + z * z_stride + y * y_stride``, on each side with its own strides.
    Every address, stride and length is a multiple of 16.
    """

    x_bytes: unsigned(32)
    y: unsigned(16)
    z: unsigned(16)
    memory_y_stride: signed(32)
    memory_z_stride: signed(32)
    scratchpad_y_stride: signed(32)
    scratchpad_z_stride: signed(32)
    reserved: unsigned(320)


class SemaphoreBody(data.Struct):
    """SEMAPHORE: add ``value`` to semaphore ``index``, which stops at 255."""

    index: unsigned(8)
    value: unsigned(8)
    reserved: unsigned(496)


class BarrierBody(data.Struct):
    """BARRIER: no fields."""

    reserved: unsigned(512)


class EndBody(data.Struct):
    """END: where the job's `Completion` goes (16-byte aligned), and the tag that it carries."""

    completion: unsigned(32)
    tag: unsigned(32)
    reserved: unsigned(448)


class Completion(data.Struct):
    """The 16 bytes that a job's END writes to card memory."""

    tag: unsigned(32)
    status: unsigned(8)
    unit: unsigned(8)
    """`Unit` that failed, or 0."""
    flags: unsigned(8)
    """`Flag`: what any result of a job that ended well has lost."""
    valid: unsigned(8)
    """1. Clear it before the doorbell to see the record arrive."""
    command: unsigned(32)
    """Index within the job of the command that failed; else of the first that raised a flag; else
    of END."""
    cycles: unsigned(32)
    """From the job's first command fetch, two cycles after the doorbell, to this record; modulo
    2^32."""
