"""What the vector unit runs: VECTOR, ROWS and REFORMAT."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

__all__ = [
    "ReformatBody",
    "ReformatOp",
    "RowsBody",
    "RowsFlag",
    "RowsOp",
    "VectorBody",
    "VectorOp",
]


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
