"""Random tiles of MATMULs for `RandomJobs`: bodies, and what their operands are."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import DirectoryEntry, Format, array_mode
from .checks import SIZES
from .decode import dtype
from .random_operands import WORD, Product, RandomOperands

__all__ = ["RandomTiles", "Tile"]


@dataclasses.dataclass
class Tile:
    """A MATMUL of one tile: its body, and what its operands are.

    ``raws`` are stream blobs, of which rows ``used`` are not empty. ``x_start`` and ``out_start``
    are where operands begin in buffers of ``x_bytes`` and ``out_bytes``.
    """

    product: Product
    body: dict[str, Any]
    used: npt.NDArray[np.bool_]
    raws: list[npt.NDArray[np.uint8]]
    x_start: int
    x_bytes: int
    out_start: int
    out_bytes: int

    @property
    def blob_bytes(self) -> int:
        return max(len(raw) for raw in self.raws)

    @property
    def nbytes(self) -> int:
        """Bytes of one blob, X and the results."""
        return self.blob_bytes + self.x_bytes + self.out_bytes

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """Which entries of a blob's directory [slices, entries] are not empty."""
        return np.tile(self.used, (len(self.product.lengths), 1))


class RandomTiles(RandomOperands):
    """Draws whole tiles; parameters are those of `RandomOperands`."""

    def _tile(self, product: Product, blobs: int = 1) -> Tile | None:
        """Draw all else of a tile of a product, with so many blobs; None if that is too large."""
        rng = self.rng
        window = self._window(product)
        if window is None:
            return None
        strides, x_start, x_bytes = window
        fields = product.fields | strides
        used = self._entries(fields["entries"])
        raws = [self._blob(used, product) for _ in range(blobs)]
        columns = min(fields["n_inner"], fields["n"])
        counts = [int(used.sum()), columns, -(-fields["n"] // fields["n_inner"])]
        size = SIZES[product.target]
        if product.target is Format.INT4:  # pairs of columns
            counts[1], size = (columns + 1) // 2, 2
        steps, out_start, out_bytes = self._box(counts, size, size)
        if max(out_bytes, *map(len, raws)) > self.largest:
            return None
        shape = len(product.lengths), len(used)
        for raw in raws:
            offsets = np.zeros(len(used), np.int64)
            offsets[used] = rng.permutation(counts[0]) * steps[0]
            directory = raw[: shape[0] * shape[1] * GRANULE].view(dtype(DirectoryEntry))
            directory.reshape(shape)["out_offset"][-1] = offsets & WORD
        clamp = sorted(rng.integers(-128, 128, 2).tolist())
        body: dict[str, Any] = {
            **fields,
            "out_inner_stride": steps[1] // (2 if product.target is Format.INT4 else 1),
            "out_outer_stride": steps[2],
            "function": int(rng.integers(2)),
            "zero_point": int(rng.integers(-128, 128)),
            "clamp_low": clamp[0] if self._chance(0.5) else -128,
            "clamp_high": clamp[1] if self._chance(0.5) else 127,
            "parameter": rng.integers(0, 1 << 32, 3).tolist(),
        }
        return Tile(product, body, used, raws, x_start, x_bytes, out_start, out_bytes)

    def _tile_like(self, other: Tile | None) -> Tile:
        """Draw a tile with the mode and the anchor of another one, so that they may overlap."""
        while True:
            product = self._product()
            if other is not None:
                formats = other.product.stream, other.product.source
                if array_mode(product.stream, product.source) is not array_mode(*formats):
                    continue
                product.fields["anchor"] = other.body["anchor"]
            tile = self._tile(product)
            if tile is not None:
                return tile
