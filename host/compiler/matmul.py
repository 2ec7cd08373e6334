"""The builder of MATMUL commands (`isa.MatmulBody`)."""

from collections.abc import Sequence

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS
from ...rtl.isa import (
    BITS,
    MAX_ANCHOR,
    MIN_ANCHOR,
    Encoding,
    Format,
    Function,
    MatmulFlag,
    Mode,
    Opcode,
    Queue,
    array_mode,
)
from .checks import aligned, looped, multiple, positive
from .encoding import Operand, Signal, Wait

__all__ = ["INTEGER_RANGES", "alignment", "matmul"]

INTEGER_RANGES = {Format.INT8: (-128, 127), Format.INT4: (-8, 7)}
"""Results of integer formats that are clamped."""

_PARAMETERS = 3


def alignment(fmt: Format) -> int:
    """Return the bytes to which numbers of a format are aligned: their size, or 1."""
    return max(1, BITS[fmt] // 8)


def matmul(
    blob: Operand,
    x: Operand,
    out: Operand,
    *,
    k: int,
    n: int,
    entries: int,
    x_inner_stride: int,
    slice: int | None = None,
    stream_format: Format = Format.INT8,
    encoding: Encoding = Encoding.DENSE,
    in_format: Format | None = None,
    out_format: Format | None = None,
    n_inner: int | None = None,
    run_bytes: int | None = None,
    runs_inner: int | None = None,
    x_run_stride: int = 0,
    x_run_outer_stride: int = 0,
    x_outer_stride: int = 0,
    out_inner_stride: int | None = None,
    out_outer_stride: int = 0,
    block_scale: bool = False,
    deal_on: bool = False,
    function: Function = Function.NONE,
    anchor: int = 0,
    zero_point: int = 0,
    clamp: tuple[int, int] | None = None,
    parameters: Sequence[int] = (),
    inner: int = 1,
    outer: int = 1,
    wait: Sequence[Wait] = (),
    signal: Sequence[Signal] = (),
) -> bytes:
    """Multiply the row streams of a blob (`streams.encode_blob`) by ``n`` resident columns.

    All three operands are scratchpad addresses. Where column j's element k lies, and where the
    result of a row goes, is in `isa.MatmulBody`.

    Parameters
    ----------
    entries : int
        Directory entries of each slice (`streams.Blob.entries`).
    slice : int
        Numbers in a slice of K; all of K if not given.
    stream_format, in_format, out_format : Format
        Of the streams, of X and of the results; X's is the streams', and the results' X's, if not
        given.
    n_inner : int
        Columns of the inner of the two column loops; ``n`` if not given.
    run_bytes : int
        Contiguous bytes of a column; all of it (``k`` numbers) if not given.
    runs_inner : int
        Runs of the inner of the two loops over runs; all of them if not given.
    out_inner_stride : int
        One number of ``out_format`` if not given. Packed INT4 results have an ``n_inner`` of 2 and
        an ``out_outer_stride`` of 1.
    block_scale : bool
        Each slice has its own scale.
    deal_on : bool
        Rows are dealt on from the iteration before, of this or another MATMUL: not to be asked of
        the first one of a job, which another job may have come before.
    anchor : int
        In BF16 mode: the lowest bit of a sum weighs 2^anchor.
    zero_point, clamp
        For INT8 and INT4 results. The clamp is the format's range if not given.

    Raises
    ------
    ValueError
        If an argument is one that every card refuses. What depends on the card's size
        (``operand_depth``, ``partial_rows``) is checked by the card.
    """
    in_format = in_format or stream_format
    out_format = out_format or in_format
    mode = array_mode(stream_format, in_format)
    if mode is None:
        raise ValueError(
            f"in_format must have a path with {stream_format.name} streams, not {in_format!r}"
        )
    _check_results(mode, out_format, block_scale, anchor)
    size, out_size = alignment(in_format), alignment(out_format)
    bits = BITS[in_format]
    positive("k", k, MAX_K)
    slice = k if slice is None else slice
    for name, value in (("n", n), ("entries", entries), ("slice", slice)):
        positive(name, value, 0xFFFF)
    if slice < k:
        multiple("slice", slice, RELEASE_WORDS)
    n_inner = n if n_inner is None else n_inner
    positive("n_inner", n_inner, 0xFFFF)
    if run_bytes is None:
        if k * bits % 8:
            raise ValueError(f"k must be whole bytes of {in_format.name}, not {k!r}")
        run_bytes = k * bits // 8
    if run_bytes < size or run_bytes % size or k * bits % (8 * run_bytes):
        raise ValueError(
            f"run_bytes must be whole numbers that divide the {k * bits // 8} bytes of K, "
            f"not {run_bytes!r}"
        )
    positive("run_bytes", run_bytes, 0xFFFF)
    runs = k * bits // (8 * run_bytes)
    runs_inner = runs if runs_inner is None else runs_inner
    positive("runs_inner", runs_inner, 0xFFFF)
    if out_inner_stride is None:
        out_inner_stride = out_size
    aligned("blob", blob, GRANULE)
    aligned("x", x, size)
    aligned("out", out, out_size)
    strides = {
        "x_run_stride": x_run_stride,
        "x_run_outer_stride": x_run_outer_stride,
        "x_inner_stride": x_inner_stride,
        "x_outer_stride": x_outer_stride,
    }
    for name, value in strides.items():
        multiple(name, value, size)
    out_strides = {"out_inner_stride": out_inner_stride, "out_outer_stride": out_outer_stride}
    for name, value in out_strides.items():
        multiple(name, value, out_size)
    if out_format is Format.INT4 and n_inner % 2 and n_inner < n:
        raise ValueError(f"n_inner must be even or n for INT4 results, not {n_inner!r}")
    low, high = _clamp(out_format, zero_point, clamp)
    if len(parameters) > _PARAMETERS:
        raise ValueError(f"parameters must be at most {_PARAMETERS}, not {len(parameters)!r}")
    body = {
        "k": k,
        "n": n,
        "n_inner": n_inner,
        "entries": entries,
        "run_bytes": run_bytes,
        "slice": slice,
        "runs_inner": runs_inner,
        "stream_format": stream_format.value,
        "encoding": encoding.value,
        "in_format": in_format.value,
        "out_format": out_format.value,
        "flags": (MatmulFlag.BLOCK_SCALE.value if block_scale else 0)
        | (MatmulFlag.DEAL_ON.value if deal_on else 0),
        "function": function.value,
        "anchor": anchor,
        "zero_point": zero_point,
        "clamp_low": low,
        "clamp_high": high,
    }
    for number, parameter in enumerate(parameters):
        body[f"parameter[{number}]"] = parameter
    return looped(
        Opcode.MATMUL,
        body | strides | out_strides,
        Queue.COMPUTE,
        (blob, x, out),
        inner=inner,
        outer=outer,
        wait=wait,
        signal=signal,
    )


def _check_results(mode: Mode, out_format: Format, block_scale: bool, anchor: int) -> None:
    integer = mode in (Mode.INT8, Mode.INT4)
    if out_format is Format.INT32 and (not integer or block_scale):
        raise ValueError(
            "out_format must not be INT32 unless both inputs are integers without block scales"
        )
    if mode is Mode.BF16:
        if not MIN_ANCHOR <= anchor <= MAX_ANCHOR:
            raise ValueError(f"anchor must be from {MIN_ANCHOR} to {MAX_ANCHOR}, not {anchor!r}")
    elif anchor:
        raise ValueError(f"anchor must be 0 without BF16 inputs, not {anchor!r}")


def _clamp(out_format: Format, zero_point: int, clamp: tuple[int, int] | None) -> tuple[int, int]:
    if out_format not in INTEGER_RANGES:
        if zero_point:
            raise ValueError(
                f"zero_point must be 0 for {out_format.name} results, not {zero_point!r}"
            )
        return clamp or (0, 0)
    lowest, highest = INTEGER_RANGES[out_format]
    low, high = clamp or (lowest, highest)
    if not lowest <= zero_point <= highest:
        raise ValueError(f"zero_point must be from {lowest} to {highest}, not {zero_point!r}")
    if not lowest <= low <= high <= highest:
        raise ValueError(f"clamp must be ordered and from {lowest} to {highest}, not {clamp!r}")
    return low, high
