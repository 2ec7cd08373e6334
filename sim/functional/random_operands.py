"""Random numbers, streams and layouts for `RandomJobs`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import DirectoryEntry, Format
from .checks import SIZES, columns_spans, steps_span
from .decode import dtype

__all__ = ["WORD", "RandomOperands", "aligned"]

WORD = 0xFFFFFFFF

FP16_SPECIALS = np.array(
    [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF],
    np.uint16,
)
FP32_SPECIALS = np.array(
    [0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001],
    np.uint32,
)


def aligned(nbytes: int) -> int:
    """Return ``nbytes`` in whole granules."""
    return -(-nbytes // GRANULE) * GRANULE


class RandomOperands:
    """What the operations of random jobs work on.

    Parameters
    ----------
    config : CardConfig
    rng : numpy.random.Generator
    largest : int
        About how many bytes a buffer of an operation has at most.

    Attributes
    ----------
    tame : bool
        Make small numbers, and scales that are powers of two: results are small then, and often in
        the middle between two numbers of the output's format.
    """

    def __init__(self, config: CardConfig, rng: np.random.Generator, largest: int) -> None:
        self.config = config
        self.rng = rng
        self.largest = largest
        self.tame = False

    def _int(self, low: int, high: int) -> int:
        """Draw from low to high, both included; small ones are more likely."""
        return low + int((high - low + 1) * self.rng.random() ** 1.5)

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _box(self, counts: Sequence[int], item: int, unit: int) -> tuple[list[int], int, int]:
        """Return strides by which no two items of nested loops overlap.

        And the place of the first item, and the bytes of all, in granules.
        """
        strides = [0] * len(counts)
        pitch = item + unit * self._int(0, 2)
        for axis in self.rng.permutation(len(counts)).tolist():
            strides[axis] = -pitch if self._chance(0.3) else pitch
            pitch = pitch * counts[axis] + unit * self._int(0, 2)
        low, high = steps_span(*zip(counts, strides, strict=True))
        return strides, -low, aligned(high - low + item)

    def _values(self, count: int, source: Format, specials: float) -> npt.NDArray:
        if source is Format.INT8:
            bound = 3 if self.tame else 128
            return self.rng.integers(-bound, bound, count, np.int8)
        if self.tame:
            number = self.rng.integers(-9, 10, count) / 2
        else:
            spread = self.rng.choice([0.0, 2.0, 8.0])
            number = self.rng.normal(size=count) * np.exp2(self.rng.normal(size=count) * spread)
        values = number.clip(-60000, 60000).astype(np.float16).view(np.uint16)
        return np.where(
            self.rng.random(count) < specials, self.rng.choice(FP16_SPECIALS, count), values
        )

    def _stream(self, weights: npt.NDArray, sparse: bool) -> tuple[npt.NDArray, int]:
        """Return one stream in granules, and its count; sparse with zeros and escapes at will."""
        size, k = weights.itemsize, len(weights)
        if not sparse:
            raw = np.zeros(aligned(weights.nbytes), np.uint8)
            raw[: weights.nbytes] = weights.view(np.uint8)
            return raw, k
        keep = (weights != 0) | (self.rng.random(k) < 0.02)
        if not keep.any():
            keep[self.rng.integers(0, min(k, 256))] = True
        values, deltas, last = [], [], -1
        for index in np.flatnonzero(keep).tolist():
            while index - last > 256:
                values.append(0)
                deltas.append(255)
                last += 256
            values.append(int(weights[index]))
            deltas.append(index - last - 1)
            last = index
        if k - last > 256 and self._chance(0.5):
            values.append(0)
            deltas.append(255)
        split = 8 if size == 1 else 5
        granules = -(-len(values) // split)
        raw = self.rng.integers(0, 256, (granules, GRANULE), np.uint8)
        places = np.arange(len(values))
        field = raw[:, : split * size].copy().view(weights.dtype)
        field[places // split, places % split] = values
        raw[:, : split * size] = field.view(np.uint8)
        raw[places // split, split * size + places % split] = deltas
        return raw.reshape(-1), len(values)

    def _entries(self, visits: int) -> npt.NDArray[np.bool_]:
        """Return which entries of a directory are not empty."""
        used = self.rng.random(visits * self.config.rows) < self.rng.choice([1.0, 0.8, 0.3])
        used[self.rng.integers(0, len(used))] = True
        return used

    def _blob(
        self, used: npt.NDArray[np.bool_], k: int, source: Format, sparse: bool, specials: float
    ) -> npt.NDArray:
        """Return the directory and the streams, as bytes, without where results go."""
        rng, directory = self.rng, np.zeros(len(used), dtype(DirectoryEntry))
        rare = rng.random((2, len(used))) < rng.choice([0, 0.3])
        density = rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.1, 0.3, 0.3, 0.3])
        place = len(used)
        streams: list[npt.NDArray] = []
        for entry in rng.permutation(np.flatnonzero(used)).tolist():
            if streams and self._chance(0.1):
                other = directory[directory["count"] != 0][0]
                directory[entry]["stream"] = other["stream"]
                directory[entry]["count"] = other["count"]
                continue
            weights = self._values(k, source, specials)
            weights[rng.random(k) >= density] = 0
            if rare[0, entry] and self._chance(0.5):
                weights[:] = 0  # infinite scales of zero
            raw, count = self._stream(weights, sparse)
            gap = self._int(0, 1)
            directory[entry]["stream"] = place + gap
            directory[entry]["count"] = count
            streams.append(rng.integers(0, 256, gap * GRANULE, np.uint8))
            streams.append(raw)
            place += gap + len(raw) // GRANULE
        middle = -rng.integers(0, 5 if self.tame or source is Format.FP16 else 13)
        exponent = rng.normal(size=len(used)) + middle
        exponent = np.round(exponent) if self.tame or self._chance(0.3) else exponent
        scale = np.exp2(exponent).astype(np.float32)
        scale *= rng.choice([-1, 1], len(used))
        words = scale.view(np.uint32)
        odd = rng.choice(FP32_SPECIALS, len(used)) | rng.choice([0, 1 << 31], len(used))
        directory["scale"] = np.where(rare[0], odd, words)
        if source is Format.INT8:
            bound = 9 if self.tame else int(rng.choice([1, 1 << 12, 1 << 31], p=[0.4, 0.5, 0.1]))
            directory["bias"] = rng.integers(-bound, bound, len(used)) & WORD
        else:
            number = (rng.normal(size=len(used)) * rng.integers(2)).astype(np.float32)
            bias = number.view(np.uint32)
            directory["bias"] = np.where(rare[1], odd, bias)
        return np.concatenate([directory.view(np.uint8), *streams])

    def _window(self, source: Format) -> tuple[dict[str, int], int, int]:
        """Return the fields of a resident operand, where it begins, and how many bytes it has."""
        size = SIZES[source]
        while True:
            run = self._int(1, 40)
            runs = self._int(1, 12) if self._chance(0.8) else self._int(1, 1024 // run)
            n, n_inner = self._int(1, 40), self._int(1, 44)
            fields = {"k": run * runs, "n": n, "n_inner": n_inner, "run_bytes": run * size}
            natural = (run, run * runs, run * runs * n_inner)
            window = (self._int(1, 60), self._int(1, 8), self._int(1, 60))
            for name, whole, step in zip(("run", "inner", "outer"), natural, window, strict=True):
                stride = size * (whole if self._chance(0.3) else step)
                fields[f"x_{name}_stride"] = -stride if self._chance(0.25) else stride
            low, high = steps_span((runs, fields["x_run_stride"]))
            spans = columns_spans(fields, "x")
            low, high = low + min(s[0] for s in spans), high + max(s[1] for s in spans)
            nbytes = high - low + run * size
            if nbytes <= self.largest:
                start = size * self._int(0, 9)
                return fields, start - low, aligned(start + nbytes)
