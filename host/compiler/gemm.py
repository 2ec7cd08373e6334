"""Plan a whole GEMM as a short list of commands with loops in hardware.

C[M, N] = A[M, K] x B[K, N]. The rows of A become row streams; B is given as X[N, K], so that K is
innermost for both. C is row-major. The loops over tiles run in the card: the outer one over tiles
of A, the inner one over tiles of B; loads and stores run beside the arithmetic, held together by
six semaphores (for each operand, buffers that are free and buffers that are ready).

>>> plan = plan_gemm(config, a, n, out_format=Format.INT8, scale=2**-8)
>>> card.write(a_buffer, plan.a_image)
>>> card.write(b_buffer, plan.pack_b(x))
>>> card.submit(plan.commands(a_buffer.address, b_buffer.address, c_buffer.address)).wait()
>>> c = plan.unpack_c(card.read(c_buffer))
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import Format, Function, Queue
from . import commands
from .commands import FORMAT_BYTES, Operand, Signal, Wait
from .streams import (
    DIRECTORY_ENTRY_BYTES,
    MAX_BLOB_BYTES,
    Blob,
    count_entries,
    deal,
    encode_blob,
    stream_bytes,
)
from .tiling import GemmShape, MemorySpeed, Tiling, align, tilings

__all__ = ["OUT_DTYPES", "GemmPlan", "check_k", "plan_gemm"]

A_FREE, A_READY, B_FREE, B_READY, C_FREE, C_READY = range(6)

OUT_DTYPES: dict[Format, np.dtype] = {
    Format.INT8: np.dtype("int8"),
    Format.FP16: np.dtype("float16"),
    Format.INT32: np.dtype("<i4"),
    Format.FP32: np.dtype("<f4"),
}


class _RowGroup(NamedTuple):
    """Tiles of A of one size: where they lie in the image, and their blobs' shape."""

    row: int
    rows: int
    tiles: int
    offset: int
    blob_bytes: int
    visits: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmPlan:
    """A GEMM for one card configuration, with everything but the addresses decided.

    Parameters
    ----------
    shape : GemmShape
    tiling : Tiling
        ``tiling.cycles`` is the estimate for the whole job.
    sparse : bool
    a_image : uint8 array
        Stream blobs of A, as they go to card memory.
    entries : int
        Entries of all streams: the weights that cost a cycle in each column block.
    """

    config: CardConfig
    shape: GemmShape
    tiling: Tiling
    sparse: bool
    a_image: npt.NDArray[np.uint8]
    entries: int
    groups: tuple[_RowGroup, ...]
    function: Function
    zero_point: int
    clamp: tuple[int, int]

    @property
    def b_bytes(self) -> int:
        """Bytes of B in card memory."""
        return self.shape.n * self.shape.b_pitch

    @property
    def c_bytes(self) -> int:
        """Bytes of C in card memory."""
        return self.shape.m * self.shape.c_pitch

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along M and N."""
        return (
            -(-self.shape.m // self.tiling.tile_m),
            -(-self.shape.n // self.tiling.tile_n),
        )

    def pack_b(self, x: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of B for card memory.

        Parameters
        ----------
        x : int8 or float16 array of shape [N, K]
        """
        dtype = OUT_DTYPES[self.shape.in_format]
        if x.shape != (self.shape.n, self.shape.k) or x.dtype != dtype:
            raise ValueError(
                f"x must be {dtype.name} of shape [{self.shape.n}, {self.shape.k}], "
                f"not {x.dtype.name} {x.shape!r}"
            )
        image = np.zeros((self.shape.n, self.shape.b_pitch), np.uint8)
        image[:, : self.shape.k * dtype.itemsize] = np.ascontiguousarray(x).view(np.uint8)
        return image.reshape(-1)

    def unpack_c(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return C as an array [M, N] of the output format from its bytes in card memory."""
        rows = np.asarray(raw, np.uint8)[: self.c_bytes].reshape(self.shape.m, self.shape.c_pitch)
        dtype = OUT_DTYPES[self.shape.out_format]
        return np.ascontiguousarray(rows[:, : self.shape.n * dtype.itemsize]).view(dtype)

    def commands(self, a: int, b: int, c: int) -> list[bytes]:
        """Return the commands, without an END.

        They start with all semaphores at 0, and leave credits behind: between two plans of one
        job goes a `commands.barrier`. They use the whole scratchpad.

        Parameters
        ----------
        a, b, c : int
            Addresses in card memory of ``a_image``, of B and of C: multiples of 16.
        """
        return _Emitter(self, a, b, c).emit()


class _Emitter:
    """Writes the commands of a plan; knows which of its two buffers each operand uses next."""

    def __init__(self, plan: GemmPlan, a: int, b: int, c: int) -> None:
        self.plan = plan
        self.memory = (a, b, c)
        shape, tiling = plan.shape, plan.tiling
        self.out_bytes = FORMAT_BYTES[shape.out_format]
        self.pitch = align(tiling.tile_n * self.out_bytes, GRANULE)
        self.a_at, self.b_at, self.c_at = _layout(plan.tiling, shape, plan.groups)[0]
        self.a_done = self.b_done = self.c_done = 0
        self.out: list[bytes] = []

    def emit(self) -> list[bytes]:
        plan, shape, tiling = self.plan, self.plan.shape, self.plan.tiling
        for index, buffers in (
            (A_FREE, tiling.a_buffers),
            (B_FREE, tiling.b_buffers),
            (C_FREE, tiling.c_buffers),
        ):
            if index != B_FREE or not tiling.b_resident:
                self.out.append(commands.semaphore(index, buffers))
        if tiling.b_resident:
            # Queues run in order: a tile of A that has arrived tells that B has.
            self.out.append(
                commands.load(Operand(self.memory[1]), Operand(self.b_at[0]), x_bytes=plan.b_bytes)
            )
        full_n, rest_n = divmod(shape.n, tiling.tile_n)
        for group in plan.groups:
            if full_n:
                self._tiles(group, 0, tiling.tile_n, full_n)
            if rest_n:
                self._tiles(group, full_n * tiling.tile_n, rest_n, 1)
        return self.out

    def _tiles(self, group: _RowGroup, column: int, columns: int, inner: int) -> None:
        """Commands for all tiles of a row group by ``inner`` tiles of ``columns`` columns."""
        plan, shape, tiling = self.plan, self.plan.shape, self.plan.tiling
        outer = group.tiles
        a_memory, b_memory, c_memory = self.memory
        a_pad = _pong(self.a_at, self.a_done)
        b_pad = _pong(self.b_at, self.b_done)
        c_pad = _pong(self.c_at, self.c_done)
        tile_bytes = columns * shape.b_pitch
        row_bytes = align(columns * self.out_bytes, GRANULE)
        # Rows that follow each other in both places are one long row.
        whole = row_bytes == self.pitch == shape.c_pitch
        self.out.append(
            commands.load(
                Operand(a_memory + group.offset, outer=group.blob_bytes),
                a_pad,
                x_bytes=group.blob_bytes,
                outer=outer,
                wait=[Wait(A_FREE)],
                signal=[Signal(A_READY)],
            )
        )
        wait = [Wait(A_READY, outer=True), Wait(C_FREE)]
        signal = [Signal(A_FREE, outer=True), Signal(C_READY)]
        if tiling.b_resident:
            b_operand = Operand(self.b_at[0] + column * shape.b_pitch, inner=tile_bytes)
        else:
            b_operand = b_pad
            self.out.append(
                commands.load(
                    Operand(b_memory + column * shape.b_pitch, inner=tile_bytes),
                    b_pad,
                    x_bytes=tile_bytes,
                    queue=Queue.LOAD1,
                    inner=inner,
                    outer=outer,
                    wait=[Wait(B_FREE)],
                    signal=[Signal(B_READY)],
                )
            )
            wait.append(Wait(B_READY))
            signal.append(Signal(B_FREE))
        self.out.append(
            commands.matmul(
                dataclasses.replace(a_pad, pong_outer=True),
                b_operand,
                c_pad,
                k=shape.k,
                n=columns,
                visits=group.visits,
                x_inner_stride=shape.b_pitch,
                in_format=shape.in_format,
                out_format=shape.out_format,
                sparse=plan.sparse,
                function=plan.function,
                zero_point=plan.zero_point,
                clamp=plan.clamp,
                inner=inner,
                outer=outer,
                wait=wait,
                signal=signal,
            )
        )
        self.out.append(
            commands.store(
                Operand(
                    c_memory + group.row * shape.c_pitch + column * self.out_bytes,
                    inner=columns * self.out_bytes if inner > 1 else 0,
                    outer=group.rows * shape.c_pitch,
                ),
                c_pad,
                x_bytes=group.rows * self.pitch if whole else row_bytes,
                y=1 if whole else group.rows,
                memory_y_stride=shape.c_pitch,
                scratchpad_y_stride=self.pitch,
                inner=inner,
                outer=outer,
                wait=[Wait(C_READY)],
                signal=[Signal(C_FREE)],
            )
        )
        self.a_done += outer
        self.b_done += outer * inner
        self.c_done += outer * inner


def check_k(config: CardConfig, k: int) -> None:
    """Raise `ValueError` if dot products of length ``k`` are too long for the card."""
    if k > config.operand_depth:
        raise ValueError(
            f"K = {k} is longer than the operand memory of preset {config.name}: at most "
            f"{config.operand_depth} (operand_depth); split K, and add the parts on the host"
        )


def plan_gemm(
    config: CardConfig,
    a: npt.NDArray,
    n: int,
    *,
    out_format: Format,
    scale: npt.ArrayLike = 1.0,
    bias: npt.ArrayLike = 0,
    function: Function = Function.NONE,
    zero_point: int = 0,
    clamp: tuple[int, int] = (-128, 127),
    sparse: bool = False,
    memory: MemorySpeed | None = None,
) -> GemmPlan:
    """Choose tiles for C[M, N] = A[M, K] x B[K, N] and encode A.

    Parameters
    ----------
    a : int8 or float16 array of shape [M, K]
    n : int
        Columns of B and C.
    scale, bias : a number or [M]
        Of each row of C (`streams.encode_blob`).
    sparse : bool
        Send only the non-zero values of A.
    memory : MemorySpeed
        For the choice of tiles (`Card.memory_speed`); the width of the bus if not given.

    Raises
    ------
    ValueError
        If K is longer than the card's operand memory, or another argument has no place.
    """
    a = np.asarray(a)
    if a.dtype not in (np.int8, np.float16):
        raise ValueError(f"a must be int8 or float16, not {a.dtype.name!r}")
    if a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"a must have the shape [M, K], not {a.shape!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n!r}")
    m, k = a.shape
    check_k(config, k)
    counts = count_entries(a, sparse=sparse)
    row_bytes = stream_bytes(counts, a.itemsize, sparse=sparse)
    shape = GemmShape(
        m=m,
        n=n,
        k=k,
        in_format=Format.INT8 if a.itemsize == 1 else Format.FP16,
        out_format=out_format,
        row_entries=float(np.mean(np.maximum(counts, config.min_visit))),
        row_bytes=float(row_bytes.mean()),
        memory=memory or MemorySpeed(config.bus_bytes),
    )
    for tiling in tilings(config, shape):
        groups = _groups(config, tiling, counts, row_bytes, sparse=sparse)
        if max(group.blob_bytes for group in groups) > MAX_BLOB_BYTES:
            continue
        if _layout(tiling, shape, groups)[1] <= config.scratchpad_bytes:
            break
    else:
        raise ValueError(
            f"no tile of a {m} x {k} by {k} x {n} product fits the {config.scratchpad_bytes} "
            f"bytes of scratchpad of preset {config.name}; use a larger preset or a shorter K"
        )
    rows = np.arange(m) % tiling.tile_m
    offsets = rows * align(tiling.tile_n * FORMAT_BYTES[out_format], GRANULE)
    scales, biases = (np.broadcast_to(np.asarray(value), (m,)) for value in (scale, bias))
    image = np.zeros(sum(group.tiles * group.blob_bytes for group in groups), np.uint8)
    for group in groups:
        for tile in range(group.tiles):
            chosen = slice(group.row + tile * group.rows, group.row + (tile + 1) * group.rows)
            blob: Blob = encode_blob(
                config,
                a[chosen],
                sparse=sparse,
                scale=scales[chosen],
                bias=biases[chosen],
                out_offset=offsets[chosen],
                visits=group.visits,
            )
            start = group.offset + tile * group.blob_bytes
            image[start : start + len(blob.data)] = blob.data
    return GemmPlan(
        config=config,
        shape=shape,
        tiling=tiling,
        sparse=sparse,
        a_image=image,
        entries=int(counts.sum()),
        groups=groups,
        function=function,
        zero_point=zero_point,
        clamp=clamp,
    )


def _groups(
    config: CardConfig,
    tiling: Tiling,
    counts: npt.NDArray[np.int64],
    row_bytes: npt.NDArray[np.int64],
    *,
    sparse: bool,
) -> tuple[_RowGroup, ...]:
    """The full tiles of A, and the last one if it is smaller."""
    full, rest = divmod(len(counts), tiling.tile_m)
    groups = []
    offset = row = 0
    for rows, tiles in ((tiling.tile_m, full), (rest, 1)):
        if not rows * tiles:
            continue
        visits = blob_streams = 0
        for start in range(row, row + rows * tiles, rows):
            tile = slice(start, start + rows)
            hands = deal(counts[tile], config.rows, min_visit=config.min_visit, sparse=sparse)
            visits = max(visits, *map(len, hands))
            blob_streams = max(blob_streams, int(row_bytes[tile].sum()))
        blob_bytes = visits * config.rows * DIRECTORY_ENTRY_BYTES + blob_streams
        groups.append(_RowGroup(row, rows, tiles, offset, blob_bytes, visits))
        offset += tiles * blob_bytes
        row += rows * tiles
    return tuple(groups)


def _layout(
    tiling: Tiling, shape: GemmShape, groups: tuple[_RowGroup, ...]
) -> tuple[list[list[int]], int]:
    """Scratchpad addresses of the buffers of A, B and C, and the bytes used."""
    columns = shape.n if tiling.b_resident else tiling.tile_n
    pitch = align(tiling.tile_n * FORMAT_BYTES[shape.out_format], GRANULE)
    sizes = (
        (tiling.a_buffers, max(group.blob_bytes for group in groups)),
        (tiling.b_buffers, columns * shape.b_pitch),
        (tiling.c_buffers, tiling.tile_m * pitch),
    )
    addresses = []
    used = 0
    for buffers, size in sizes:
        addresses.append([used + index * size for index in range(buffers)])
        used += buffers * size
    return addresses, used


def _pong(buffers: list[int], done: int) -> Operand:
    """An operand that takes the buffers in turn, from the one that iteration ``done`` uses."""
    first = buffers[done % len(buffers)]
    second = buffers[(done + 1) % len(buffers)]
    return Operand(first, pong=second - first)
