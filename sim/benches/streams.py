"""Stream blobs for the row engine's benches, written from `MatmulBody` and `DirectoryEntry`."""

import dataclasses
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ...rtl.config import RELEASE_WORDS, CardConfig
from ...rtl.isa import BITS, ENTRIES, LANES, DirectoryEntry, Encoding, Format, Mode, array_mode
from .lib import pack

__all__ = ["Blob", "Visit", "Weight", "encode", "number", "visits_of", "widened"]

_FLOATS: dict[Format, Any] = {
    Format.FP16: np.float16,
    Format.BF16: ml_dtypes.bfloat16,
    Format.E4M3: ml_dtypes.float8_e4m3fn,
    Format.E5M2: ml_dtypes.float8_e5m2,
}


def number(raw: int, source: Format) -> float:
    """Return what the bits of a number stand for."""
    if source in _FLOATS:
        kind = np.dtype(_FLOATS[source])
        return float(np.array([raw], f"u{kind.itemsize}").view(kind)[0])
    bits = BITS[source]
    return float(raw - (raw >> (bits - 1) << bits))


def widened(raw: int, source: Format, mode: Mode) -> tuple[int, int]:
    """Return a number's bits as the array takes them, and a mask of those that count."""
    value = number(raw, source)
    if mode in (Mode.INT8, Mode.INT4):
        mask = 0xFF if mode is Mode.INT8 else 0xF
        return int(value) & mask, mask
    kind = _FLOATS[Format.FP16 if mode is Mode.FP16 else Format.BF16]
    with np.errstate(all="ignore"):
        result = np.array([value], np.float32).astype(kind)
    # A NaN is one whatever its fraction: here, sign and quiet bit alone are not looked at.
    if np.isnan(value):
        return (0x7C00, 0x7C00) if mode is Mode.FP16 else (0x7F80, 0x7F80)
    assert float(result[0]) == value
    return int(result.view(np.uint16)[0]), 0xFFFF


def encode(values, ks, source: Format, encoding: Encoding) -> list[int]:
    """Return the granules of a stream as numbers."""
    bits = BITS[source]
    per = ENTRIES[encoding][bits]
    steps = np.diff(ks, prepend=-1) - 1
    group = {Encoding.SPARSE_1_8: 8}.get(encoding, 4)
    place_bits = {Encoding.DENSE: 0, Encoding.DELTA: 8, Encoding.SPARSE_1_8: 3}.get(encoding, 2)
    granules = []
    for at in range(0, len(values), per):
        granule = 0
        for i, value in enumerate(values[at : at + per]):
            granule |= int(value) << bits * i
        start = -(-per * bits // 8) * 8
        for i in range(min(per, len(values) - at)):
            place = steps[at + i] if encoding is Encoding.DELTA else ks[at + i] % group
            if place_bits:
                granule |= int(place) << start + place_bits * i
        assert granule < 1 << 128
        granules.append(granule)
    return granules


def random_ks(
    r: np.random.Generator, encoding: Encoding, length: int, density: float, early: float
) -> np.ndarray:
    """Return the k of a random row's entries, in a slice of ``length``.

    Parameters
    ----------
    r, encoding, length
    density : float
        How many numbers are entries; `Encoding.DELTA` only.
    early : float
        Probability of a row that ends early, as its other numbers are zero.
    """
    if encoding is Encoding.DENSE:
        return np.arange(length)
    if encoding is Encoding.DELTA:
        ks = [int(r.integers(min(length, 256)))]
        end = length if r.random() >= early else int(r.integers(1, length + 1))
        while ks[-1] < end:
            ks.append(ks[-1] + min(int(r.geometric(density)), 256))
        return np.array([k for k in ks if k < length])
    group, chosen = {
        Encoding.SPARSE_2_4: (4, 2),
        Encoding.SPARSE_1_4: (4, 1),
        Encoding.SPARSE_1_8: (8, 1),
    }[encoding]
    ks = []
    for start in range(0, length, group):
        places = np.sort(r.choice(group, chosen, replace=False)) + start
        inside = places[places < length]
        ks += inside.tolist()
        if len(inside) < chosen:
            break
    if not ks:
        ks = [0]
    return np.array(ks[: int(r.integers(1, len(ks) + 1)) if r.random() < early else None])


class Weight(NamedTuple):
    """A weight that has to be issued; ``position`` is its operand's word, from the iteration's
    first one on."""

    value: int
    mask: int
    position: int
    first: bool
    last: bool


class Visit(NamedTuple):
    """A visit of an engine; ``entry`` is an index into the directory, or none."""

    block: int
    slice: int
    slot: int
    entry: int | None
    new: bool
    last: bool


def visits_of(
    index: int, rows: int, entries: int, blocks: int, slices: int, first: int = 0
) -> list[Visit]:
    """Return what engine ``index`` of ``rows`` does where engine ``first`` has the first row."""
    visits = []
    for b in range(blocks):
        mine = [i for i in range(entries) if (first + b * entries + i) % rows == index]
        steps = [(s, v, s * entries + i) for s in range(slices) for v, i in enumerate(mine)]
        for at, (s, v, entry) in enumerate(steps or [(0, 0, None)]):
            last = b == blocks - 1 and at == max(len(steps) - 1, 0)
            visits.append(Visit(b, s, v, entry, at == 0, last))
    return visits


@dataclasses.dataclass(kw_only=True)
class Blob:
    """A random blob as one engine sees it, at granule ``base``: what it reads, and what it does.

    Attributes
    ----------
    memory : dict of int
        Granules by address: no other may be read.
    weights : list of Weight
        Of all blocks, in order.
    descriptors : list of dict
        Fields of `visit_layout`, without those that do not matter.
    """

    config: CardConfig
    r: np.random.Generator
    index: int
    base: int
    output: int
    k: int
    n: int
    entries: int
    slice: int
    stream_format: Format
    in_format: Format
    encoding: Encoding
    empty: float = 0.2
    density: float = 0.2
    early: float = 0.2
    alignment: int = 4
    first: int = 0

    def __post_init__(self) -> None:
        mode = array_mode(self.stream_format, self.in_format)
        assert mode is not None
        self.mode = mode
        self.memory: dict[int, int] = {}
        self.slices = -(-self.k // self.slice)
        self.blocks = -(-self.n // (self.config.cols * LANES[mode]))
        self.units = -(-self.k // RELEASE_WORDS)
        """Units of the ring that a block takes."""
        self._rows: dict[int, tuple[dict[str, int], list[tuple[int, int, int]]]] = {}
        self._free = self.slices * self.entries
        self._empty = self.r.random(self.entries) < self.empty
        self.weights: list[Weight] = []
        self.descriptors: list[dict[str, int]] = []
        for visit in visits_of(
            self.index, self.config.rows, self.entries, self.blocks, self.slices, self.first
        ):
            self._visit(visit)

    def _row(self, entry: int) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
        """Return a directory entry's fields, and its values and masks with their k."""
        if entry in self._rows:
            return self._rows[entry]
        r = self.r
        fields = {
            "stream": int(r.integers(1 << 16)),
            "out_offset": int(r.integers(1 << 16)) * self.alignment,
            "bias": int(r.integers(1 << 32)),
            "scale": int(r.integers(1, 255)) << 23 | int(r.integers(1 << 23)),
        }
        fields["scale"] |= int(r.integers(2)) << 31
        weights = []
        if self._empty[entry % self.entries]:
            # What an empty entry holds does not matter.
            fields["out_offset"] += 1
            fields["scale"] = int(r.choice([0, 0xFF << 23]))
        else:
            start = entry // self.entries * self.slice
            ks = random_ks(
                r, self.encoding, min(self.slice, self.k - start), self.density, self.early
            )
            values = r.integers(0, 1 << BITS[self.stream_format], len(ks)).tolist()
            granules = encode(values, ks, self.stream_format, self.encoding)
            fields |= {"stream": self._free, "count": len(ks)}
            for granule in granules:
                self.memory[self.base + self._free] = granule
                self._free += 1
            for value, k in zip(values, ks.tolist(), strict=True):
                weights.append((*widened(value, self.stream_format, self.mode), start + k))
        self.memory[self.base + entry] = pack(DirectoryEntry, fields)
        self._rows[entry] = fields, weights
        return fields, weights

    def _visit(self, visit: Visit) -> None:
        descriptor = {
            "slice_first": int(visit.slice == 0 or visit.entry is None),
            "slice_last": int(visit.slice == self.slices - 1 or visit.entry is None),
            "block_first": int(visit.block == 0),
            "block_new": int(visit.new),
            "empty": 1,
            "iteration_last": int(visit.last),
        }
        if visit.entry is not None:
            fields, weights = self._row(visit.entry)
            descriptor |= {"slot": visit.slot % 256, "empty": int(not weights)}
            if weights:
                descriptor |= {
                    "address": (self.output + fields["out_offset"]) % (1 << 32),
                    "bias": fields["bias"],
                    "scale": fields["scale"],
                }
            start = visit.block * self.units * RELEASE_WORDS
            for i, (value, mask, k) in enumerate(weights):
                self.weights.append(Weight(value, mask, start + k, i == 0, i == len(weights) - 1))
        self.descriptors.append(descriptor)
