"""Commands, directory entries, completion records, status codes and the CSR map.

The single source for RTL, driver, simulators and ``docs/isa.md`` (`deepseek.rtl.isadoc` writes it).
Little-endian; the RTL views the bits that the driver packs; field order is byte order. From
opcodes, queues, units and statuses the file goes to formats, modes and encodings, the command and
its bodies, what the card writes and reads beside them, and registers.
"""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

__all__ = [
    "ABI_VERSION",
    "BITS",
    "COMMAND_BYTES",
    "ENTRIES",
    "INPUT_FORMATS",
    "LANES",
    "MAX_ANCHOR",
    "MIN_ANCHOR",
    "OUTPUT_FORMATS",
    "SEMAPHORES",
    "BarrierBody",
    "Command",
    "Completion",
    "Csr",
    "DirectoryEntry",
    "Encoding",
    "EndBody",
    "Flag",
    "Format",
    "Function",
    "MatmulBody",
    "MatmulFlag",
    "Mode",
    "Opcode",
    "Operand",
    "Queue",
    "ReformatBody",
    "ReformatOp",
    "RowsBody",
    "RowsFlag",
    "RowsOp",
    "SemaphoreBody",
    "SemaphoreRef",
    "Status",
    "TransferBody",
    "Unit",
    "VectorBody",
    "VectorOp",
    "array_mode",
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
    """The opcode is unknown, or not allowed in the queue that the command names."""
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
    """A compressed stream names an index that is not below K, or out of order."""
    WATCHDOG = 8
    """No unit made progress for `Csr.WATCHDOG` cycles."""
    ABORTED = 9
    """The host aborted the job."""
    MEMORY_FAULT = 10
    """The memory controller broke a rule of the DRAM: a fault of the card, not of the job."""
    BAD_SCALE = 11
    """A scale is zero, subnormal, infinite or not a number."""


class Format(enum.Enum, shape=unsigned(8)):
    """Number formats. Inputs of MATMUL: `INPUT_FORMATS`. Its outputs: all but E2M1."""

    INT8 = 0
    FP16 = 1
    INT32 = 2
    FP32 = 3
    INT4 = 4
    """Two numbers a byte, the low half first."""
    BF16 = 5
    E4M3 = 6
    """FP8 with 4 bits of exponent as OCP defines it: no infinity, largest number 448."""
    E5M2 = 7
    """FP8 with 5 bits of exponent: the upper half of an FP16 number."""
    E2M1 = 8
    """FP4 with 2 bits of exponent, two numbers a byte, the low half first. Only REFORMAT takes
    it."""


BITS: dict[Format, int] = {
    Format.INT8: 8,
    Format.FP16: 16,
    Format.INT32: 32,
    Format.FP32: 32,
    Format.INT4: 4,
    Format.BF16: 16,
    Format.E4M3: 8,
    Format.E5M2: 8,
    Format.E2M1: 4,
}
"""Bits of a number of each format."""

INPUT_FORMATS = (
    Format.INT8,
    Format.FP16,
    Format.INT4,
    Format.BF16,
    Format.E4M3,
    Format.E5M2,
)
"""Formats that MATMUL takes as inputs."""

OUTPUT_FORMATS = tuple(form for form in Format if form is not Format.E2M1)
"""Formats of MATMUL's results."""


class Mode(enum.Enum, shape=unsigned(2)):
    """How the array multiplies: what both inputs of a MATMUL are widened to (`array_mode`)."""

    INT8 = 0
    """Two products a PE and cycle, each summed in 48 bits."""
    FP16 = 1
    """One product a PE and cycle; sums of 96 bits in units of 2^-48."""
    INT4 = 2
    """Four products a PE and cycle, each summed in 24 bits."""
    BF16 = 3
    """One product a PE and cycle; sums of 96 bits in units of 2^anchor: a window."""


LANES: dict[Mode, int] = {Mode.INT8: 2, Mode.FP16: 1, Mode.INT4: 4, Mode.BF16: 1}
"""Columns of the resident operand that one PE holds."""


def array_mode(stream: Format, resident: Format) -> Mode | None:
    """Return the mode for a pair of input formats, or None where it has no path.

    The mode is the one with the most lanes that holds the numbers of both formats exactly. There
    is none for FP16 with BF16.
    """
    pair = {stream, resident}
    if not pair <= set(INPUT_FORMATS) or pair == {Format.FP16, Format.BF16}:
        return None
    if Format.BF16 in pair:
        return Mode.BF16
    if pair == {Format.INT4}:
        return Mode.INT4
    return Mode.INT8 if pair <= {Format.INT4, Format.INT8} else Mode.FP16


MIN_ANCHOR, MAX_ANCHOR = -126, 32
"""Range of `MatmulBody.anchor`: no sum in the window is subnormal in FP32, or too large for it."""


class Encoding(enum.Enum, shape=unsigned(8)):
    """How a stream names the k of its values (`DirectoryEntry`)."""

    DENSE = 0
    """Values only: k counts up."""
    DELTA = 1
    """Each value with the number of zeros before it."""
    SPARSE_2_4 = 2
    """Two values of every four, each with its place among the four."""
    SPARSE_1_4 = 3
    """One value of every four."""
    SPARSE_1_8 = 4
    """One value of every eight."""


ENTRIES: dict[Encoding, dict[int, int]] = {
    Encoding.DENSE: {4: 32, 8: 16, 16: 8},
    Encoding.DELTA: {4: 10, 8: 8, 16: 5},
    Encoding.SPARSE_2_4: {4: 20, 8: 12, 16: 7},
    Encoding.SPARSE_1_4: {4: 20, 8: 12, 16: 7},
    Encoding.SPARSE_1_8: {4: 18, 8: 11, 16: 6},
}
"""Entries of a stream granule, by encoding and bits of a value."""


class Function(enum.Enum, shape=unsigned(8)):
    """Function in the PLU slot of the epilogue."""

    NONE = 0
    RELU = 1


class MatmulFlag(enum.IntFlag):
    """Bits of `MatmulBody.flags`."""

    BLOCK_SCALE = 1
    """The sum of every slice of K is rounded to FP32 and multiplied by its own entry's scale; these
    are added in FP32, in ascending k, to the bias. Else slices are added exactly, before any
    rounding."""
    DEAL_ON = 2
    """Rows are dealt on from the MATMUL iteration before, of this or another command, and not anew
    to the first engine: small numbers of rows keep all engines busy."""


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
    its last.
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

    Operand 0 is the byte address in card memory, operand 1 in the scratchpad, operand 2 unused.
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


class MatmulBody(data.Struct):
    """MATMUL: for each of ``entries`` rows and each of ``n`` columns, an exact dot product.

    Operand 0 is the scratchpad address of the *stream blob*: the directory followed by the
    streams. Operand 1 is the address of the resident operand X, operand 2 of the output.

    K is worked through in *slices* of ``slice`` numbers; the last one may be shorter. The directory
    has ``slices * entries`` of `DirectoryEntry`: entry ``s * entries + i`` for slice s of row i.
    Columns are worked through in *blocks* of ``cols * LANES``. The rows of all blocks, one block
    after the other, are dealt to the engines in turn: engine ``(first + b * entries + i) % rows``
    has row i in block b, in all slices; ``first`` is 0, or with DEAL_ON the engine behind that of
    the last row of the iteration before.

    Element k of column j of X lies at ``x + (j // n_inner) * x_outer_stride
    + (j % n_inner) * x_inner_stride + (q // runs_inner) * x_run_outer_stride
    + (q % runs_inner) * x_run_stride`` plus ``k % run`` numbers, where ``run`` is how many numbers
    ``run_bytes`` hold and ``q = k // run``: a window of contiguous runs on two loops. The result of
    row i and column j goes to ``out + out_offset + (j // n_inner) * out_outer_stride
    + (j % n_inner) * out_inner_stride``, with the ``out_offset`` of the row's entry in the last
    slice. Columns j and j + 1, for even j, of INT4 results share the byte of column j, low half
    first; ``n_inner`` is then even or at least ``n``, and the stride of the odd columns does not
    matter. X is aligned to the size of its numbers, or 1; results to theirs, or 1; the blob to 16.
    """

    k: unsigned(16)
    """Length of the dot products: 1 to `MAX_K`; a whole number of runs."""
    n: unsigned(16)
    """Columns: 1 to 65535."""
    n_inner: unsigned(16)
    entries: unsigned(16)
    """Rows: directory entries of each slice. With more than one slice at most
    ``rows * CardConfig.partial_rows``; in `Mode.INT4` with BLOCK_SCALE ``partial_rows // 2``."""
    run_bytes: unsigned(16)
    slice: unsigned(16)
    """Numbers in a slice of K; if below ``k``, a multiple of `RELEASE_WORDS`. At most
    `CardConfig.operand_depth`, unless ``entries`` is at most ``rows``."""
    x_run_stride: signed(32)
    x_run_outer_stride: signed(32)
    x_inner_stride: signed(32)
    x_outer_stride: signed(32)
    out_inner_stride: signed(32)
    out_outer_stride: signed(32)
    runs_inner: unsigned(16)
    stream_format: unsigned(8)
    encoding: unsigned(8)
    """`Encoding` of the streams."""
    in_format: unsigned(8)
    """Format of X."""
    out_format: unsigned(8)
    flags: unsigned(8)
    """`MatmulFlag`."""
    function: unsigned(8)
    anchor: signed(16)
    """`Mode.BF16`: the lowest bit of a sum weighs 2^anchor, from `MIN_ANCHOR` to `MAX_ANCHOR`.
    Else 0."""
    zero_point: signed(16)
    """Added to INT8 and INT4 results after rounding."""
    clamp_low: signed(16)
    """These results are clamped to [clamp_low, clamp_high] after the zero point is added."""
    clamp_high: signed(16)
    parameter: data.ArrayLayout(unsigned(32), 3)
    """Parameters of the PLU function, latched with the command."""


class VectorOp(enum.Enum, shape=unsigned(8)):
    """What VECTOR computes (`VectorBody`)."""

    MAX = 0
    """Maximum over windows."""
    AVERAGE = 1
    """Scaled sum over windows: average and global pooling."""
    ADD = 2
    """Sum of two tensors."""
    MULTIPLY = 3
    """Product of two tensors, number by number."""


class VectorBody(data.Struct):
    """VECTOR: INT8 pooling and elementwise operations, 16 channels a granule.

    Output granule (y, x, c) goes to ``out + y * out_y_stride + x * out_x_stride + 16 * c``. For
    each of its bytes, with ``a`` and ``b`` the signed bytes at the same place of input granules:

    MAX: the largest ``a`` of the window. Its granules, over ``ky < kernel_y`` and
    ``kx < kernel_x``, lie at
    ``in + y * in_y_stride + x * in_x_stride + ky * in_ky_stride + kx * in_kx_stride + 16 * c``.

    AVERAGE: ``v = s * a_scale``, where ``s`` is the sum over the same window of ``a - a_zero``. It
    is exact, and ``a_scale`` holds 1 / (granules of the window) and the ratio of the scales.

    ADD: ``v = (a - a_zero) * a_scale + (b - b_zero) * b_scale``: two products, then their sum.

    MULTIPLY: ``v = (a - a_zero) * (b - b_zero) * a_scale``: the first product is exact.

    ADD and MULTIPLY have a kernel of 1 x 1. ``a`` lies as for MAX, and ``b`` at
    ``second + y * in_ky_stride + x * in_kx_stride + 16 * c``.

    Each FP32 product and sum is rounded to nearest even. The result is ``v`` rounded to nearest
    even (0 for NaN), plus ``zero_point``, raised to ``clamp_low`` if it is below, then lowered to
    ``clamp_high`` if it is above; its low 8 bits are stored. MAX ignores zeros, scales and clamps.
    No result raises a `Flag`.

    Operand 1 is the input, operand 2 the output; operand 0 is the second input of ADD and MULTIPLY,
    and otherwise unused. All addresses and strides are multiples of 16. The output overlaps neither
    an input nor an input of the next iteration, but for this: with a kernel of 1 x 1 an output
    granule may take the place of an input granule of its own (y, x, c), of either input, that no
    other output granule of this or the next iteration is made from.
    """

    granules: unsigned(16)
    out_y: unsigned(16)
    out_x: unsigned(16)
    kernel_y: unsigned(8)
    kernel_x: unsigned(8)
    in_y_stride: signed(32)
    in_x_stride: signed(32)
    in_ky_stride: signed(32)
    """ADD and MULTIPLY: the second input's y stride."""
    in_kx_stride: signed(32)
    """ADD and MULTIPLY: the second input's x stride."""
    out_y_stride: signed(32)
    out_x_stride: signed(32)
    a_scale: unsigned(32)
    """FP32. A normal number, except for MAX."""
    b_scale: unsigned(32)
    """FP32. A normal number for ADD, otherwise unused."""
    op: unsigned(8)
    """`VectorOp`."""
    in_format: unsigned(8)
    """INT8 only."""
    a_zero: signed(8)
    b_zero: signed(8)
    """Unused by MAX and AVERAGE."""
    zero_point: signed(16)
    clamp_low: signed(16)
    clamp_high: signed(16)
    reserved: unsigned(112)


class RowsOp(enum.Enum, shape=unsigned(8)):
    """What ROWS computes (`RowsBody`)."""

    AFFINE = 0
    """Scale and shift every number, by column if there is a table."""
    SOFTMAX = 1
    """Powers of a row's numbers less their maximum, divided by the sum of these powers."""
    NORMALIZE = 2
    """Layer norm: a row less its mean, divided by its standard deviation."""
    QUANTIZE = 3
    """A row divided by a scale that fits its largest magnitude."""


class RowsFlag(enum.IntFlag):
    """Bits of `RowsBody.flags`."""

    TABLE = 1
    """AFFINE, NORMALIZE: operand 0 is a table of columns, 8 bytes each: bias, then FP32 scale."""
    DEFER = 2
    """SOFTMAX: leave the division to whom takes the scale at operand 0."""
    RMS = 4
    """NORMALIZE: take the mean for 0."""


class RowsBody(data.Struct):
    """ROWS: ``z * y`` rows of ``length`` numbers, each turned into a row of as many numbers.

    Row (z, y) lies at ``in + z * in_z_stride + y * in_y_stride``, its numbers side by side; its
    results go to ``out + z * out_z_stride + y * out_y_stride``. The bytes of a row's last granule
    beyond its results are written as zeros. Operand 1 is the input, operand 2 the output, operand 0
    the table, or where the scales go: that of row (z, y) to
    ``scale + z * scale_z_stride + y * scale_y_stride``, so that it can be that of a
    `DirectoryEntry`. With neither, operand 0 is unused. Everything is aligned to 16 bytes, scales
    and their strides to 4.

    ``u`` is a number in FP32: of an integer ``x - in_zero``, rounded to nearest even; of a float
    itself. All operations below are on FP32 and rounded to nearest even; multiplications take
    subnormal operands for zeros. The result is ``v`` in ``out_format``: of INT8 and INT4 rounded to
    nearest even (0 for NaN), plus ``zero_point``, raised to ``clamp_low``, lowered to
    ``clamp_high``. No result raises a `Flag`.

    AFFINE: ``v = u * a_scale * b_scale + 0``. With a table ``v = u * a_scale * scale + bias``, with
    the bias in FP32; for integers the INT32 bias is added to ``x - in_zero`` instead, before its
    rounding, and 0 after it.

    SOFTMAX: ``e = EXP2((u - m) * a_scale)``, where ``m`` is the largest ``u`` that is a number.
    ``s`` is the sum of the row's ``e``, each cut to a multiple of 2^-32, in FP32, and
    ``r = 1 / s``. Then ``v = e * (r * b_scale) + 0``; with DEFER ``v = e * b_scale + 0``, and the
    scale ``r * c_scale`` is written. Of row (z, y) only the first ``valid + y * valid_step``
    numbers take part, the results of the others are those of ``e = 0``; all take part where
    ``valid`` is 0 or there are fewer. EXP2(t), for t of 0 or less: ``T = floor(t * 2^16)``,
    ``T = n * 2^16 + i * 2^8 + d`` with i and d of 8 bits each, ``p(i) = 2^(23 + i / 256)`` rounded
    to nearest, and the result ``(p(i) + floor((p(i + 1) - p(i)) * d / 2^8)) * 2^(n - 23)``; 0 where
    ``n < -126``. NaN for NaN, and then ``s`` and ``r`` are NaN as well.

    NORMALIZE: ``v = (u - mean) * r * b_scale + 0``, with a table
    ``v = (u - mean) * r * scale + bias`` (the bias FP32). With ``h`` the exponent of the largest
    magnitude of a row (``2^h <= m < 2^(h + 1)``; -111 if that is larger) and ``P = 2^(h - 15)``,
    ``q`` is ``u / P`` rounded to nearest, ties away from zero. ``S1`` and ``S2`` are the exact sums
    of ``q`` and ``q * q``; ``V = length * S2 - S1 * S1``, exactly, where RMS takes ``S1`` for 0.
    ``mean = FP32(S1) * c_scale * P``, ``w = FP32(V) * c_scale * c_scale * P * P + epsilon``, and
    ``r = 1 / sqrt(w)`` with both operations rounded; ``c_scale`` is 1 / length. A row that has a
    NaN or an infinity gives NaNs.

    QUANTIZE: ``v = u * r + 0`` with ``r = 1 / s``, and ``s = m * b_scale``, but at least 2^-126,
    where ``m`` is the largest magnitude of a row; ``b_scale`` is 1 / (the largest number of the
    output format). The scale ``s * c_scale`` is written. A row that has a NaN gives NaNs and a NaN.

    Factors are multiplied from the left to the right. The output overlaps no input, but for this:
    where rows of the output are no longer than those of the input, they may take their places.
    Neither it nor the scales overlap an input of the next iteration. An iteration that fails with
    BAD_ADDRESS may have written results of its first rows.
    """

    length: unsigned(16)
    y: unsigned(16)
    z: unsigned(16)
    op: unsigned(8)
    """`RowsOp`."""
    flags: unsigned(8)
    """`RowsFlag`."""
    in_format: unsigned(8)
    """INT8, INT32, FP16, BF16 or FP32."""
    out_format: unsigned(8)
    """INT8, INT4, FP16, BF16, E4M3, E5M2 or FP32."""
    in_zero: signed(8)
    """Of integers."""
    reserved_1: unsigned(8)
    in_y_stride: signed(32)
    in_z_stride: signed(32)
    out_y_stride: signed(32)
    out_z_stride: signed(32)
    scale_y_stride: signed(32)
    scale_z_stride: signed(32)
    a_scale: unsigned(32)
    """FP32, a normal number: AFFINE, SOFTMAX. For SOFTMAX positive: log2(e) times the scale of the
    input."""
    b_scale: unsigned(32)
    """FP32, a normal number, unless there is a table. Positive for QUANTIZE."""
    c_scale: unsigned(32)
    """FP32, a normal number: NORMALIZE, QUANTIZE, SOFTMAX with DEFER."""
    epsilon: unsigned(32)
    """FP32, a positive normal number: NORMALIZE."""
    valid: unsigned(16)
    valid_step: unsigned(16)
    zero_point: signed(16)
    clamp_low: signed(16)
    clamp_high: signed(16)
    reserved_2: unsigned(16)


class ReformatOp(enum.Enum, shape=unsigned(8)):
    """What REFORMAT does (`ReformatBody`)."""

    TRANSPOSE = 0
    """Rows become columns."""
    COMPRESS = 1
    """Dense rows become streams of `Encoding.DELTA`."""
    EXPAND = 2
    """Numbers with a scale for every 32 of them (the MX formats of OCP) become BF16."""


class ReformatBody(data.Struct):
    """REFORMAT: ``batch`` blocks of ``rows`` rows of ``length`` numbers.

    Row (z, y) lies at ``in + z * in_batch_stride + y * in_stride``, its numbers side by side.
    Operand 1 is the input, operand 2 the output, operand 0 what tells of rows (COMPRESS, EXPAND;
    else unused). The output overlaps neither input, nor one of the next iteration, and its rows do
    not overlap each other. All is aligned to 16 bytes, but for the counts of COMPRESS and their
    strides: to 2.

    TRANSPOSE: number x of row (z, y) becomes number y of a row at ``out + z * out_batch_stride +
    x * out_stride``. The bytes of a row's last granule beyond its ``rows`` numbers are written as
    zeros.

    COMPRESS: row (z, y) becomes a stream at ``out + z * out_batch_stride + y * out_stride``: its
    numbers other than zeros (of either sign), in order, bit by bit. Counted from the number or
    entry before, every 256 places without one, also behind the last number, have an entry of value
    0 and delta 255. A row without any entry gets one of value 0 and delta 0. The number of entries,
    16 bits, goes to ``operand 0 + z * index_batch_stride + y * index_stride``: to the ``count`` of
    a `DirectoryEntry`. The bytes of the last granule beyond its entries are written as zeros.

    EXPAND: row (z, y) becomes BF16 at ``out + z * out_batch_stride + y * out_stride``. The scale of
    numbers 32 g to 32 g + 31 is byte g of the row of scales at
    ``operand 0 + z * index_batch_stride + y * index_stride``: E8M0, 2^(byte - 127), NaN for 255. An
    INT8 number counts in units of 2^-6. The product is rounded to BF16, to nearest even; subnormal
    numbers are kept, what is too large becomes infinite, NaNs canonical. The bytes of the last
    granule beyond the row are written as zeros.

    An iteration that fails with BAD_ADDRESS may have written some of its results.
    """

    rows: unsigned(16)
    length: unsigned(16)
    batch: unsigned(16)
    op: unsigned(8)
    """`ReformatOp`."""
    in_format: unsigned(8)
    """TRANSPOSE: any of 8, 16 or 32 bits. COMPRESS: INT8, E4M3, E5M2, FP16 or BF16.
    EXPAND: E4M3, E5M2, INT8 or E2M1."""
    in_stride: signed(32)
    in_batch_stride: signed(32)
    out_stride: signed(32)
    out_batch_stride: signed(32)
    index_stride: signed(32)
    index_batch_stride: signed(32)
    reserved: unsigned(256)


class SemaphoreBody(data.Struct):
    """SEMAPHORE: add ``value`` to semaphore ``index``."""

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


class DirectoryEntry(data.Struct):
    """One visit of one engine: where its stream lies and what finishes its results.

    An entry with ``count`` 0 is empty: its row has no results, and it is empty in every slice. A
    stream has ``count`` values in granules that start ``stream`` granules after the blob; a granule
    holds as many as `ENTRIES` says, from the lowest bit on. What tells their k follows at the next
    byte; k counts from the start of the slice.

    `Encoding.DENSE`: nothing follows; ``count`` is the length of the slice.
    `Encoding.DELTA`: a byte for each value: ``k[i] = k[i-1] + delta[i] + 1`` with ``k[-1] = -1``. A
    value of zero adds nothing: with a delta of 255 it is the escape.
    N of M: 2 bits for each value (3 for 1 of 8), packed from the lowest on:
    ``k[i] = M * (i // N) + place[i]``. Two places of one group ascend.
    """

    stream: unsigned(16)
    count: unsigned(16)
    out_offset: unsigned(32)
    bias: unsigned(32)
    """INT32 added to the exact sum (both inputs integers, no `MatmulFlag.BLOCK_SCALE`), or else
    FP32, added after the scale. That of the last slice counts; with BLOCK_SCALE that of the
    first."""
    scale: unsigned(32)
    """FP32, a normal number. That of the last slice counts; with BLOCK_SCALE each."""


class Csr(enum.IntEnum):
    """Byte addresses of the 32-bit control and status registers."""

    ID = 0x00
    """Reads 0x4B535044 ("DPSK")."""
    ABI = 0x04
    BUILD_LOW = 0x08
    """Hash of the RTL text that this card was built from."""
    BUILD_HIGH = 0x0C
    GEOMETRY = 0x10
    """rows | cols << 8 | bus_bytes << 16 | hbm_channels << 24."""
    SCRATCHPAD_BYTES = 0x14
    MEMORY_BYTES = 0x18
    OPERAND_DEPTH = 0x1C
    CONTROL = 0x20
    """Write 1: reset the card; 2: abort the running job."""
    STATE = 0x24
    """Bit 0: a job runs. Bits 8-14: busy units, by `Unit`."""
    RING_BASE = 0x28
    """Byte address of the command ring, a multiple of 128."""
    RING_SIZE = 0x2C
    """Commands in the ring, a power of two."""
    RING_TAIL = 0x30
    """Doorbell: commands written so far, modulo 2^32. The card fetches up to here."""
    RING_HEAD = 0x34
    """Commands taken so far, modulo 2^32. The ring below it may be written again."""
    COMPLETED = 0x38
    """Jobs ended so far, modulo 2^32. The interrupt line is high while it differs from ACK."""
    ACK = 0x3C
    ERROR = 0x40
    """Of the newest job that failed: status | unit << 8. Cleared by reset."""
    ERROR_COMMAND = 0x44
    WATCHDOG = 0x48
    """Cycles without progress after which a job is ended; 0 is never. Reset: 100,000."""
    MEMORY_MODE = 0x4C
    """0: HBM; 1: ideal (fixed latency). Changed only while no job runs."""
    STALL = 0x50
    """What each queue waits for when the watchdog fired: 4 bits a queue; 0 nothing, 1 semaphore,
    2 unit."""
    STALL_SEMAPHORE = 0x54
    """Index of the semaphore that each queue waits for, 4 bits a queue."""

    CYCLES = 0x80
    """Counters, cleared when a job starts, two cycles after the doorbell. 64 bits: low word, then
    high."""
    MAC_ACTIVE = 0x88
    """Engine-cycles in which a row engine issued a weight."""
    STALL_STREAM = 0x90
    """Engine-cycles in which a row engine with work waited for its stream."""
    STALL_FILL = 0x98
    """... for its operands."""
    STALL_DRAIN = 0xA0
    """... for the drain or the epilogue."""
    IDLE_IMBALANCE = 0xA8
    """Engine-cycles without work while another engine had some."""
    BYTES_READ = 0xB0
    BYTES_WRITTEN = 0xB8
    HBM_ROW_HITS = 0xC0
    HBM_ACTIVATES = 0xC8
    HBM_REFRESHES = 0xD0
    IDLE_MEMORY = 0xD8
    """Engine-cycles in which no engine had work, and a load or store unit did. With MAC_ACTIVE, the
    three stalls and the other two idle counts these add up to ``rows * CYCLES``."""
    IDLE_OTHER = 0xE0
    """Engine-cycles in which neither engines nor load or store units had work."""
    COUNT_ENGINE = 0xE8
    """Whose cycles the engine counters count: an engine's index, or 0xFF for all (reset value)."""
