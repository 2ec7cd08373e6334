"""What attention computes, how it is cut into blocks, and where these lie in the scratchpad."""

import dataclasses

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, LANES, Format, array_mode
from .streams import DIRECTORY_ENTRY_BYTES
from .tiling import align

__all__ = [
    "FORMATS",
    "OUT_BUFFERS",
    "QUERY_BUFFERS",
    "VALUE_BUFFERS",
    "AttentionLayout",
    "AttentionShape",
]

FORMATS = (Format.INT8, Format.FP16, Format.BF16)

QUERY_BUFFERS = OUT_BUFFERS = VALUE_BUFFERS = 2
"""Of a block of Q, of O, and of a chunk of V."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """What is computed.

    Parameters
    ----------
    heads, seq, dim : int
        Heads, rows of Q, K and V of each, and numbers in a row.
    format : Format
        Of Q, K, V, scores, powers and O: one of `FORMATS`. Scores of BF16 are FP16.
    causal : bool
        Row i sees only the first i + 1 rows of K and V.
    """

    heads: int
    seq: int
    dim: int
    format: Format = Format.INT8
    causal: bool = False

    def __post_init__(self) -> None:
        for name in ("heads", "seq", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if self.format not in FORMATS:
            known = ", ".join(fmt.name for fmt in FORMATS)
            raise ValueError(f"format must be one of {known}, not {self.format!r}")

    @property
    def score_format(self) -> Format:
        return Format.FP16 if self.format is Format.BF16 else self.format

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return BITS[self.format] // 8

    @property
    def lanes(self) -> int:
        """Multiplications that a PE does in a cycle."""
        mode = array_mode(self.format, self.format)
        assert mode is not None  # each of FORMATS has a path with itself
        return LANES[mode]

    @property
    def pitch(self) -> int:
        """Bytes from row to row of Q, K, V and O."""
        return align(self.dim * self.size, GRANULE)

    @property
    def score_pitch(self) -> int:
        """Bytes from row to row of scores and of transposed values."""
        return align(self.seq * self.size, GRANULE)

    @property
    def largest(self) -> float:
        """What the largest power of a row is in ``format``."""
        return 127.0 if self.format is Format.INT8 else 1.0

    @property
    def macs(self) -> int:
        """Multiplications of both products that count: pairs of rows that see each other."""
        pairs = self.seq * (self.seq + 1) // 2 if self.causal else self.seq**2
        return 2 * self.heads * self.dim * pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """How a shape is cut, and where its parts lie in the scratchpad.

    Parameters
    ----------
    rows : int
        Of a block of queries.
    lag : int
        Blocks whose scores are made before the first one's powers are multiplied.
    copies : int
        Heads that have room for K and transposed V: 2 to load and transpose ahead.
    chunk : int
        Rows of V that are loaded and transposed at once.
    """

    shape: AttentionShape
    rows: int
    lag: int
    copies: int
    chunk: int

    @property
    def blocks(self) -> int:
        """Of each head."""
        return -(-self.shape.seq // self.rows)

    @property
    def score_buffers(self) -> int:
        """Blocks of scores that are made, wait or are used at a time."""
        return self.lag + 2

    @property
    def directory(self) -> int:
        """Bytes before the rows of a block."""
        return self.rows * DIRECTORY_ENTRY_BYTES

    @property
    def _parts(self) -> dict[str, tuple[int, int]]:
        """Bytes of each kind of buffer, and how many there are."""
        shape = self.shape
        return {
            "q": (self.directory + self.rows * shape.pitch, QUERY_BUFFERS),
            "s": (self.directory + self.rows * shape.score_pitch, self.score_buffers),
            "o": (self.rows * shape.pitch, OUT_BUFFERS),
            "v": (self.chunk * shape.pitch, VALUE_BUFFERS),
            "k": (shape.seq * shape.pitch, self.copies),
            "t": (shape.dim * shape.score_pitch, self.copies),
        }

    @property
    def nbytes(self) -> int:
        """Of the scratchpad."""
        return sum(size * count for size, count in self._parts.values())

    def buffer(self, kind: str, index: int = 0) -> int:
        """Return the address of the buffer that the ``index``-th user of a kind has.

        Kinds are ``"q"``, ``"s"`` (both: directory, then rows), ``"o"``, ``"v"`` (a chunk of V),
        ``"k"`` and ``"t"`` (transposed V).
        """
        at = 0
        for name, (size, count) in self._parts.items():
            if name == kind:
                return at + size * (index % count)
            at += size * count
        raise ValueError(f"kind must be one of {', '.join(self._parts)}, not {kind!r}")

    def pitch(self, kind: str) -> int:
        """Return the bytes from one buffer of a kind to the next."""
        return self._parts[kind][0]

    def seen(self, block: int) -> int:
        """Return how many rows of K and V a block of queries is multiplied with."""
        return min(self.shape.seq, (block + 1) * self.rows) if self.shape.causal else self.shape.seq

    def describe(self) -> str:
        """Say how a shape is cut, for people."""
        return (
            f"{self.blocks} blocks of {self.rows} rows a head, {self.score_buffers} in the "
            f"scratchpad; K and V for {self.copies}"
        )
