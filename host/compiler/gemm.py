"""Plan a whole GEMM as a short list of commands with loops in hardware.

C[M, N] = A[M, K] x B[K, N]. B is given as X[N, K], so that K is innermost for both. C is row-major.
Either operand may be the one whose rows are sent as streams, dense or compressed; the other one is
resident in the array while they pass by.

>>> plan = plan_gemm(config, a, x, out_format=Format.INT8, scale=2**-8)
>>> card.write(a_buffer, plan.pack_a(a))
>>> card.write(b_buffer, plan.pack_b(x))
>>> card.submit(plan.commands(a_buffer.address, b_buffer.address, c_buffer.address)).wait()
>>> c = plan.unpack_c(card.read(c_buffer))
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import Encoding, Format, Function, Mode, array_mode
from .estimate import tilings
from .formats import format_of, raw_bits
from .plan import GemmPlan, Matrix, padded
from .schedule import Epilogue, Group, Schedule
from .sparsity import PATTERNS, count_entries, fits_pattern, nonzero
from .streams import (
    MAX_BLOB_BYTES,
    best_encoding,
    deal,
    row_cost,
    stream_granules,
)
from .tiling import SPARSE_SLICE, MemorySpeed, Problem, Tiling, align, buffer_bytes, fit, tile_sizes
from .window import window_anchor

__all__ = ["GemmPlan", "Matrix", "plan_gemm"]


def plan_gemm(
    config: CardConfig,
    a: npt.NDArray | Matrix,
    b: npt.NDArray | Matrix,
    *,
    out_format: Format,
    a_format: Format | None = None,
    b_format: Format | None = None,
    scale: npt.ArrayLike = 1.0,
    bias: npt.ArrayLike = 0,
    scale_axis: int | None = None,
    block: int | None = None,
    function: Function = Function.NONE,
    zero_point: int = 0,
    clamp: tuple[int, int] | None = None,
    anchor: int | None = None,
    encoding: Encoding | None = None,
    stream: str | None = None,
    memory: MemorySpeed | None = None,
) -> GemmPlan:
    """Choose roles, encoding and tiles for C[M, N] = A[M, K] x B[K, N].

    Parameters
    ----------
    a, b : arrays [M, K] and [N, K], or Matrix
        Of input formats (`formats.DTYPES`); a `Matrix` where the numbers come later.
    a_format, b_format : Format
        INT4 for int8 arrays of numbers from -8 to 7.
    scale, bias : a number, [M], [M, 1] or [1, N]
        Of each row or column of C (`streams.encode_blob`). With ``block``, scale may be
        [M, blocks], or [N, blocks] with a ``scale_axis`` of 1.
    scale_axis : int
        0: scale and bias belong to rows of C, so A is the stream operand; 1: to columns, and B is.
        From the shapes if not given.
    block : int
        Numbers of K with a scale of their own: a multiple of 16, and at most
        ``config.operand_depth`` unless the stream operand has no more rows than the card has
        engines.
    anchor : int
        Of the window of BF16 sums; `window.window_anchor` of the operands if not given.
    encoding : Encoding
        Of the streams; the fastest if not given.
    stream : str
        "a" or "b": the operand that is sent as streams; the faster one if not given. Results in
        INT4 need "a".
    memory : MemorySpeed
        For the choice of tiles (`Card.memory_speed`); the width of the bus if not given.

    Raises
    ------
    ValueError
        If K is too long, formats have no path, or another argument has no place.
    """
    a, b = (v if isinstance(v, Matrix) else np.asarray(v) for v in (a, b))
    formats = (_format("a", a, a_format), _format("b", b, b_format))
    for name, operand in (("a", a), ("b", b)):
        if len(operand.shape) != 2 or 0 in operand.shape:
            raise ValueError(f"{name} must have the shape [rows, K], not {operand.shape!r}")
    (m, k), (n, b_k) = a.shape, b.shape
    if b_k != k:
        raise ValueError(f"b must have the shape [N, {k}], not {b.shape!r}")
    if k > MAX_K:
        raise ValueError(f"K must be at most {MAX_K}, not {k!r}; add the parts on the host")
    mode = array_mode(*formats)
    if mode is None:
        raise ValueError(f"the card has no path for {formats[0].name} with {formats[1].name}")
    if anchor is None and mode is Mode.BF16:
        if isinstance(a, Matrix) or isinstance(b, Matrix):
            raise ValueError("anchor must be given where the numbers come later")
        anchor = window_anchor(a, b)
    if block is not None and (block < 1 or (block < k and block % RELEASE_WORDS)):
        raise ValueError(f"block must be a multiple of {RELEASE_WORDS}, not {block!r}")
    epilogue = Epilogue(
        function=function,
        zero_point=zero_point,
        clamp=clamp,
        anchor=anchor or 0,
        block_scale=block is not None,
    )
    scale, bias = np.asarray(scale), np.asarray(bias)
    choices = _choices(stream, scale_axis, scale, bias, block, out_format)
    found: list[tuple[int, GemmPlan]] = []
    wrong = ""
    for choice in choices:
        operands = (a, b) if choice == "a" else (b, a)
        order = formats if choice == "a" else formats[::-1]
        if isinstance(operands[0], Matrix) and encoding not in (None, Encoding.DENSE):
            wrong = f"{choice} must be given as an array to be sent compressed"
            continue
        # Where compression is not asked for, it has to prove its worth by the estimate.
        for sent in (encoding,) if encoding is not None else (None, Encoding.DENSE):
            problem = _problem(
                config,
                choice,
                operands,
                order,
                mode,
                out_format,
                sent,
                block,
                _speed(config, memory),
            )
            if not _has_pattern(problem, operands[0]):
                wrong = f"{choice} must have the pattern of {problem.encoding.name}, and has not"
                continue
            scales = _rows_of("scale", scale, problem.rows, problem.slices if block else 1)
            plan = _best(
                problem,
                epilogue,
                m=m,
                n=n,
                k=k,
                a_format=formats[0],
                b_format=formats[1],
                scale=scales.astype(np.float32),
                bias=_rows_of("bias", bias, problem.rows, 1)[:, 0],
            )
            if plan is not None:
                found.append((plan.tiling.cycles, plan))
            if problem.encoding is Encoding.DENSE:
                break
    if not found and wrong:
        raise ValueError(wrong)
    if not found:
        raise ValueError(
            f"no tile of a {m} x {k} by {k} x {n} product fits the {config.scratchpad_bytes} "
            f"bytes of scratchpad of preset {config.name}; use a larger preset or a shorter K"
        )
    return min(found, key=lambda pair: pair[0])[1]


def _speed(config: CardConfig, memory: MemorySpeed | None) -> MemorySpeed:
    """Return the speed of card memory: a row takes at least a beat of the bus."""
    speed = memory or MemorySpeed(config.bus_bytes)
    return dataclasses.replace(speed, burst_bytes=max(speed.burst_bytes, config.bus_bytes))


def _format(name: str, operand: npt.NDArray | Matrix, given: Format | None) -> Format:
    if isinstance(operand, Matrix):
        if given not in (None, operand.format):
            raise ValueError(f"{name}_format must be {operand.format.name}, not {given!r}")
        return operand.format
    return format_of(name, operand, given)


def _choices(
    stream: str | None,
    axis: int | None,
    scale: npt.NDArray,
    bias: npt.NDArray,
    block: int | None,
    out_format: Format,
) -> list[str]:
    """Return the operands that may be the stream."""
    if stream not in (None, "a", "b"):
        raise ValueError(f"stream must be 'a', 'b' or None, not {stream!r}")
    if axis not in (None, 0, 1):
        raise ValueError(f"scale_axis must be 0, 1 or None, not {axis!r}")
    allowed = {"a", "b"}
    for array, blocks in ((scale, block is not None), (bias, False)):
        if axis is not None:
            allowed &= {"ab"[axis]}
        elif array.ndim == 1 or (array.ndim == 2 and (blocks or array.shape[1] == 1)):
            allowed &= {"a"}
        elif array.ndim == 2:
            allowed &= {"b"}
    if out_format is Format.INT4:
        allowed &= {"a"}
    if stream is not None:
        allowed &= {stream}
    if not allowed:
        raise ValueError(
            "scale, bias, out_format and stream must agree: values for each row of C and INT4 "
            f"results need 'a', values for each column need 'b', not {stream!r}"
        )
    return sorted(allowed)


def _rows_of(name: str, value: npt.NDArray, rows: int, slices: int) -> npt.NDArray:
    """Return a number, [rows], [rows, 1], [1, rows] or [rows, slices] as [rows, slices]."""
    if value.ndim == 2 and value.shape == (1, rows) and rows > 1:
        value = value[0]
    if value.ndim == 1:
        value = value[:, None]
    if value.ndim > 2 or (value.ndim == 2 and value.shape not in ((rows, 1), (rows, slices))):
        raise ValueError(
            f"{name} must be a number or have {rows} rows"
            + (f" of {slices} blocks" if slices > 1 else "")
            + f", not the shape {value.shape!r}"
        )
    return np.ascontiguousarray(np.broadcast_to(value, (rows, slices)))


def _problem(
    config: CardConfig,
    stream: str,
    operands: tuple[npt.NDArray | Matrix, npt.NDArray | Matrix],
    formats: tuple[Format, Format],
    mode: Mode,
    out_format: Format,
    encoding: Encoding | None,
    block: int | None,
    memory: MemorySpeed,
) -> Problem:
    """Return the problem with one operand as the stream."""
    (rows, k), columns = operands[0].shape, operands[1].shape[0]
    # INT4 columns are whole bytes.
    k = align(k, 2) if formats[1] is Format.INT4 else k
    few = rows <= config.rows
    size = k if few else align(-(-k // -(-k // config.operand_depth)), RELEASE_WORDS)
    size = min(block or size, k)
    if size > config.operand_depth and not few:
        raise ValueError(
            f"block must be at most {config.operand_depth} (operand_depth) with more rows than "
            f"the {config.rows} engines, not {block!r}"
        )
    sparse_size = size if block or few else min(size, SPARSE_SLICE)
    filled = np.ones((rows, k), np.bool_)
    if isinstance(operands[0], Matrix):
        encoding = Encoding.DENSE
    else:
        array = padded(operands[0], k)
        if encoding is None:
            encoding = best_encoding(
                config,
                array,
                format=formats[0],
                resident=formats[1],
                slice=sparse_size,
                n=columns,
                bytes_per_cycle=memory.bytes_per_cycle,
            )
        filled = nonzero(raw_bits(array, formats[0]), formats[0])
    if encoding is not Encoding.DENSE:
        size = sparse_size
    counts = count_entries(filled, size, encoding)
    partial = config.rows * config.partial_rows
    if block and mode is Mode.INT4:
        partial //= 2
    return Problem(
        config=config,
        stream=stream,
        rows=rows,
        columns=columns,
        k=k,
        mode=mode,
        stream_format=formats[0],
        resident_format=formats[1],
        out_format=out_format,
        encoding=encoding,
        slice=size,
        row_cycles=row_cost(config, mode, counts),
        row_granules=stream_granules(counts, formats[0], encoding).sum(0),
        max_rows=partial if size < k else 1 << 16,
        memory=memory,
    )


def _has_pattern(problem: Problem, operand: npt.NDArray | Matrix) -> bool:
    if isinstance(operand, Matrix) or problem.encoding not in PATTERNS:
        return True
    bits = raw_bits(padded(operand, problem.k), problem.stream_format)
    return fits_pattern(nonzero(bits, problem.stream_format), problem.slice, problem.encoding)


def _best(problem: Problem, epilogue: Epilogue, **fields: object) -> GemmPlan | None:
    """Return the plan with the best tiling whose blobs do fit."""
    for candidate in tilings(problem):
        entries, groups = _groups(problem, candidate)
        blob = max(group.blob_bytes for group in groups)
        tiling = fit(problem, candidate, blob)
        if tiling is None or blob > MAX_BLOB_BYTES:
            continue
        part_bytes = buffer_bytes(problem, tiling, blob)[1]
        schedule = Schedule(
            problem=problem,
            tiling=tiling,
            entries=entries,
            groups=groups,
            part_bytes=part_bytes,
            c_pitch=_c_pitch(problem, tiling),
            epilogue=epilogue,
        )
        return GemmPlan(problem=problem, tiling=tiling, schedule=schedule, **fields)  # type: ignore[arg-type]
    return None


def _c_pitch(problem: Problem, tiling: Tiling) -> int:
    if problem.stream == "a":
        return problem.out_bytes(max(problem.columns, tiling.parts * tiling.part))
    rows = tiling.tiles * tiling.tile if tiling.stay == "rows" else problem.rows
    return problem.out_bytes(max(rows, problem.rows))


def _groups(problem: Problem, tiling: Tiling) -> tuple[int, tuple[Group, ...]]:
    """Return the directory entries of a slice, and the groups of tiles of one size."""
    sizes = tile_sizes(problem.rows, tiling.tile, tiling.first, tiling.tiles)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    blocks = -(-tiling.part // problem.block)
    entries = tiling.tile
    if problem.encoding is not Encoding.DENSE:
        lengths = [
            len(deal(problem.row_cycles[low:high], problem.config.rows, blocks=blocks).order)
            for low, high in itertools.pairwise(starts)
        ]
        entries = max(lengths)
        if len(sizes) > 1:
            entries = align(entries, problem.config.rows)
    directory = problem.slices * entries
    streams = np.add.reduceat(problem.row_granules, starts[:-1])
    pieces = tiling.inner if tiling.stay == "columns" and tiling.passes > 1 else 1
    groups: list[Group] = []
    offset = 0
    for first, rows, count in _runs(sizes, together=tiling.stay == "rows"):
        size = GRANULE * (directory + int(streams[first : first + count].max()))
        size = pieces * align(-(-size // pieces), GRANULE)
        groups.append(Group(first, int(starts[first]), rows, count, offset, size))
        offset += count * size
    return entries, tuple(groups)


def _runs(sizes: list[int], *, together: bool) -> Iterable[tuple[int, int, int]]:
    """Yield number of the first tile, rows and count of each run of tiles of equal size."""
    if together:
        yield 0, sizes[0], len(sizes)
        return
    first = 0
    for index, rows in enumerate(sizes):
        if index + 1 == len(sizes) or sizes[index + 1] != rows:
            yield first, rows, index + 1 - first
            first = index + 1
