"""Products whose operands the vector unit makes ready on their way to the array.

C[M, N] = A x B, with A's rows as streams and B's columns resident, each from a `sources.Source`.
Tiles of A stay while all parts of B pass by: iteration (t, p) multiplies tile t by part p
(`staged_commands`).
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import Encoding, Format, Mode, array_mode
from . import commands
from .checks import check_part
from .formats import unpack_rows
from .sources import Source
from .sparsity import count_entries, slice_lengths
from .staged_commands import StagedSchedule
from .staged_shapes import Shape, best_shape
from .streams import (
    DIRECTORY_TYPE,
    row_cost,
    stream_granules,
)
from .tiling import SPARSE_SLICE, MemorySpeed, Problem, align

__all__ = ["ColumnScales", "StagedPlan", "plan_staged"]


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnScales:
    """What ROWS does to FP32 sums: a factor and an addend for each column of C.

    Parameters
    ----------
    scale, bias : float32 arrays [N]
    """

    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedPlan:
    """A product with everything decided but the addresses.

    Parameters
    ----------
    schedule : StagedSchedule
        Operands, tiles and buffers.
    scale : float
        Of all results, where A brings none.
    columns : ColumnScales or None
    """

    schedule: StagedSchedule
    scale: float
    columns: ColumnScales | None

    @property
    def shape(self) -> Shape:
        """Sizes of tiles and numbers of buffers."""
        return self.schedule.shape

    @property
    def problem(self) -> Problem:
        """Formats, slices, and what rows cost."""
        return self.schedule.problem

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""
        return self.shape.cycles

    @property
    def scratchpad_bytes(self) -> int:
        """Bytes of scratchpad that the plan uses."""
        return self.schedule.scratchpad_bytes

    def commands(self, a: int, b: int, c: int) -> list[bytes]:
        """Return the commands, without an END, for operands at these addresses of card memory.

        They start with all semaphores at 0, leave credits behind, and use the whole scratchpad.
        """
        return self.schedule.commands(a, b, c)

    @property
    def c_rows(self) -> int:
        """Rows of C in card memory."""
        return self.shape.tiles * self.shape.tile

    @property
    def c_bytes(self) -> int:
        """Bytes of C in card memory."""
        return self.c_rows * self.schedule.c_pitch

    def image_a(self) -> npt.NDArray[np.uint8]:
        """Return A's bytes for card memory: the directory of any tile, then its tiles."""
        return np.concatenate([self._directory(), self.schedule.a.image(self.shape.tile)])

    def image_b(self) -> npt.NDArray[np.uint8]:
        """Return B's bytes for card memory: the table of columns, then its parts."""
        return np.concatenate([self._table(), self.schedule.b.image(self.shape.part)])

    def unpack_c(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return C as an array [M, N] of the output format from its bytes in card memory."""
        a, b = self.schedule.a, self.schedule.b
        rows = np.asarray(raw, np.uint8)[: self.c_bytes].reshape(self.c_rows, -1)
        return unpack_rows(rows[: a.rows], b.rows, self.schedule.out_format)

    def _directory(self) -> npt.NDArray[np.uint8]:
        """Return the directory of a tile: all are alike."""
        a, layout, size = self.schedule.a, self.schedule.layout, self.problem.slice
        lengths = np.array(slice_lengths(a.k, size))
        entries = np.zeros((len(lengths), self.shape.tile), DIRECTORY_TYPE)
        rows = np.arange(self.shape.tile)
        slices = np.array([a.slice_offset(number, size) for number in range(len(lengths))])
        streams = layout.directory + rows * a.pitch(size) + slices[:, np.newaxis]
        entries["stream"] = streams // GRANULE
        if a.encoding is Encoding.DENSE:  # others are counted when they are made
            entries["count"] = lengths[:, np.newaxis]
        entries["out_offset"] = rows * layout.result_pitch
        entries["scale"] = np.float32(self.scale).view(np.uint32)
        return entries.reshape(-1).view(np.uint8)

    def _table(self) -> npt.NDArray[np.uint8]:
        if self.columns is None:
            return np.zeros(0, np.uint8)
        missing = self.shape.parts * self.shape.part - self.schedule.b.rows
        return commands.columns(
            np.pad(self.columns.bias, (0, missing)),
            np.pad(self.columns.scale, (0, missing), constant_values=1),
        )


def plan_staged(
    config: CardConfig,
    a: Source,
    b: Source,
    *,
    out_format: Format,
    scale: float = 1.0,
    anchor: int = 0,
    columns: ColumnScales | None = None,
    memory: MemorySpeed | None = None,
) -> StagedPlan:
    """Choose tiles for C[M, N] = A[M, K] x B[K, N], with A's rows as streams.

    Parameters
    ----------
    a, b : Source
        [M, K] and [N, K].
    out_format : Format
        Of C: any but INT4, and INT32 only without ``columns``.
    scale : float
        Factor of all results; 1 where A brings scales of its own.
    anchor : int
        Of the window of BF16 sums.
    columns : ColumnScales
        Applied to FP32 sums, scales of A's rows included, before they become C.
    memory : MemorySpeed
        For the choice of tiles (`Card.memory_speed`); the width of the bus if not given.

    Raises
    ------
    ValueError
        If shapes or formats have no path, the card's vector unit is without a part that this takes,
        or no tile fits the scratchpad.
    """
    for name, source in (("a", a), ("b", b)):
        if source.vector_part is not None:
            check_part(config, source.vector_part, f"{name} ({type(source).__name__})")
    if columns is not None:
        check_part(config, "rows", "columns")
    if a.k != b.k:
        raise ValueError(f"b must have the shape [N, {a.k}], not {(b.rows, b.k)!r}")
    if a.k > MAX_K:
        raise ValueError(f"K must be at most {MAX_K}, not {a.k!r}; add the parts on the host")
    if b.own_scales or b.encoding is not Encoding.DENSE:
        raise ValueError(f"b must be dense, without scales, not {type(b).__name__}")
    if columns is not None and b.staged:
        raise ValueError("b must need no work of the vector unit where columns have scales")
    if out_format is Format.INT4 or (columns is not None and out_format is Format.INT32):
        raise ValueError(f"out_format must be another one than {out_format.name} here")
    mode = array_mode(a.format, b.format)
    if mode is None:
        raise ValueError(f"the card has no path for {a.format.name} with {b.format.name}")
    speed = memory or MemorySpeed(config.bus_bytes)
    speed = dataclasses.replace(speed, burst_bytes=max(speed.burst_bytes, config.bus_bytes))
    problem = _problem(config, a, b, mode, out_format if columns is None else Format.FP32, speed)
    shape = best_shape(a, b, problem, out_format, table=columns is not None)
    if shape is None:
        raise ValueError(
            f"no tile of a {a.rows} x {a.k} by {a.k} x {b.rows} product fits the "
            f"{config.scratchpad_bytes} bytes of scratchpad of preset {config.name}; use a larger "
            "preset or a shorter K"
        )
    schedule = StagedSchedule(
        a=a,
        b=b,
        problem=problem,
        out_format=out_format,
        anchor=anchor if mode is Mode.BF16 else 0,
        finished=columns is not None,
        shape=shape,
    )
    return StagedPlan(schedule=schedule, scale=scale, columns=columns)


def _problem(
    config: CardConfig, a: Source, b: Source, mode: Mode, out_format: Format, speed: MemorySpeed
) -> Problem:
    k = a.k
    most = config.operand_depth if a.encoding is Encoding.DENSE else SPARSE_SLICE
    size = a.block or align(-(-k // -(-k // most)), RELEASE_WORDS)
    size = min(size, k)
    if size > config.operand_depth or (size < k and size % RELEASE_WORDS):
        raise ValueError(
            f"block must be a multiple of {RELEASE_WORDS} and at most {config.operand_depth} "
            f"(operand_depth), not {size!r}"
        )
    filled = getattr(a, "filled", np.ones((a.rows, k), np.bool_))
    counts = count_entries(filled, size, a.encoding)
    return Problem(
        config=config,
        stream="a",
        rows=a.rows,
        columns=b.rows,
        k=k,
        mode=mode,
        stream_format=a.format,
        resident_format=b.format,
        out_format=out_format,
        encoding=a.encoding,
        slice=size,
        row_cycles=row_cost(config, mode, counts),
        row_granules=stream_granules(counts, a.format, a.encoding).sum(0),
        max_rows=config.rows * config.partial_rows if size < k else 0xFFFF,
        memory=speed,
    )
