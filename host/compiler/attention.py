"""Plan attention: O = softmax(Q K^T) V for some heads, on the card from loads to stores.

Every head's queries are cut into blocks of rows. A block goes through three steps:

1. COMPUTE multiplies its rows of Q by the head's K: a block of scores in the scratchpad.
2. VECTOR takes their softmax, in their place. It leaves the division out: 1 / sum goes to the
   directory that lies before the rows.
3. COMPUTE sends these rows past the head's V, whose columns VECTOR transposed before; the epilogue
   divides. A store takes the block of O away.

The steps of different blocks, and heads, run side by side: the second step of a block has the time
of the next `lag` blocks' first steps, and loads, transposes and stores hide behind products.
Semaphores order them.

>>> plan = plan_attention(config, shape, AttentionScales(score=1 / 8))
>>> card.write(tables, plan.tables)
>>> card.write(q, plan.pack(queries))  # likewise k and v: [heads, seq, dim]
>>> card.submit(plan.commands(Addresses(tables=tables.address, ...))).wait()
>>> plan.unpack(card.read(o))
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from .attention_commands import PIECES, Addresses, AttentionCommands, AttentionScales
from .attention_layout import FORMATS, AttentionLayout, AttentionShape
from .checks import check_part
from .formats import DTYPES, pack_rows, unpack_rows
from .streams import DIRECTORY_TYPE
from .tiling import align

__all__ = [
    "FORMATS",
    "Addresses",
    "AttentionPlan",
    "AttentionScales",
    "AttentionShape",
    "plan_attention",
]

BLOCK_ROWS = (32, 16, 8, 4)
"""Rows of a block: the first that fits is taken. Causal blocks have at most two for each row
engine, since all rows of a block are multiplied with what its last one sees."""

BLOCK_CYCLES = 200
"""What a block costs besides, about; and more at the start and the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """A shape's layout, and the factors of its numbers (`plan_attention`)."""

    config: CardConfig
    layout: AttentionLayout
    scales: AttentionScales

    @property
    def shape(self) -> AttentionShape:
        return self.layout.shape

    @property
    def cycles(self) -> int:
        """About how many cycles the job takes."""
        shape, config = self.shape, self.config
        units = config.rows * config.cols * shape.lanes
        products = 2 * shape.heads * shape.dim * shape.seq**2 // units
        softmax = shape.heads * shape.seq**2 // config.row_lanes
        return max(products, softmax) + (shape.heads * self.layout.blocks + 4) * BLOCK_CYCLES

    @property
    def nbytes(self) -> int:
        """Bytes of each of Q, K, V and O in card memory."""
        return self.shape.heads * self.shape.seq * self.shape.pitch

    @property
    def tables(self) -> npt.NDArray[np.uint8]:
        """Directories: that of scores, then those of powers, one of each block if causal."""
        layout, shape = self.layout, self.shape
        first = layout.directory // GRANULE
        row = np.arange(layout.rows)
        counts = [layout.seen(block) for block in range(layout.blocks)]
        entries = np.zeros((1 + (len(counts) if shape.causal else 1), layout.rows), DIRECTORY_TYPE)
        entries["scale"] = np.float32(1).view(np.uint32)  # that of powers is written by VECTOR
        entries["stream"] = first + row * (shape.score_pitch // GRANULE)
        entries["out_offset"] = row * shape.pitch
        entries["count"][1:] = np.array(counts if shape.causal else counts[-1:])[:, np.newaxis]
        entries["stream"][0] = first + row * (shape.pitch // GRANULE)
        entries["count"][0] = shape.dim
        entries["out_offset"][0] = row * shape.score_pitch
        entries["scale"][0] = np.float32(self.scales.score).view(np.uint32)
        return entries.reshape(-1).view(np.uint8)

    def pack(self, array: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of Q, K or V [heads, seq, dim] for card memory."""
        shape = self.shape
        want = (shape.heads, shape.seq, shape.dim)
        if array.shape != want or array.dtype != DTYPES[shape.format]:
            raise ValueError(
                f"array must be {DTYPES[shape.format].name} {want}, not {array.dtype} {array.shape}"
            )
        return pack_rows(array.reshape(-1, shape.dim), shape.format, shape.pitch).reshape(-1)

    def unpack(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return O [heads, seq, dim] in bytes of card memory."""
        shape = self.shape
        rows = unpack_rows(raw.reshape(-1, shape.pitch), shape.dim, shape.format)
        return rows.reshape(shape.heads, shape.seq, shape.dim)

    def commands(self, at: Addresses) -> list[bytes]:
        """Return the job."""
        return list(AttentionCommands(self.config, self.layout, self.scales, at).all())


def plan_attention(
    config: CardConfig,
    shape: AttentionShape,
    scales: AttentionScales,
    *,
    rows: int | None = None,
) -> AttentionPlan:
    """Cut a shape so that it fits into the scratchpad.

    Parameters
    ----------
    rows : int
        Of a block; chosen if not given.

    Raises
    ------
    ValueError
        If the shape does not fit into the card; says what is too large. If the card's vector unit
        is without a part that attention takes.
    """
    for part in ("rows", "reformat"):
        check_part(config, part, "attention")
    for name in ("seq", "dim"):
        if getattr(shape, name) > config.operand_depth:
            raise ValueError(
                f"{name} must be at most {config.operand_depth} on preset {config.name}, "
                f"not {getattr(shape, name)!r}"
            )
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows!r}")
    # Whole granules of transposed rows.
    chunk = align(-(-shape.seq // PIECES), GRANULE)
    layout = None
    most = 2 * config.rows if shape.causal else BLOCK_ROWS[0]
    counts = [count for count in BLOCK_ROWS if count <= most] if rows is None else [rows]
    for count in counts:
        for lag, copies in ((2, 2), (2, 1), (1, 1)):
            layout = AttentionLayout(
                shape=shape, rows=min(count, shape.seq), lag=lag, copies=copies, chunk=chunk
            )
            if layout.nbytes <= config.scratchpad_bytes:
                return AttentionPlan(config=config, layout=layout, scales=scales)
    assert layout is not None
    raise ValueError(
        f"a head of {shape.seq} rows of {shape.dim} {shape.format.name} numbers takes "
        f"{layout.nbytes} bytes of scratchpad, preset {config.name} has "
        f"{config.scratchpad_bytes}; choose a smaller --seq or --dim"
    )
