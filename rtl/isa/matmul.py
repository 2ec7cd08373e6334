"""MATMUL: its body, and the directory that lies before its streams."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

__all__ = [
    "DirectoryEntry",
    "Function",
    "MatmulBody",
    "MatmulFlag",
]


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
    ``rows * partial_rows``; in `Mode.INT4` with BLOCK_SCALE ``rows * (partial_rows // 2)``.
    ``partial_rows`` is ``partial_beats // (2 * cols)``; no register has either: they are known from
    the preset or the manifest (`CardConfig`)."""
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
