"""Random numbers, streams and layouts for `RandomJobs`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import (
    BITS,
    INPUT_FORMATS,
    MAX_ANCHOR,
    MIN_ANCHOR,
    OUTPUT_FORMATS,
    DirectoryEntry,
    Encoding,
    Format,
    MatmulFlag,
    Mode,
    array_mode,
)
from ..golden.formats import FLOATS, NarrowFloat, round_fp32, to_float
from .checks import INTEGERS, SIZES, columns_spans, nested_spans, steps_span
from .decode import dtype
from .streams import DTYPES, GROUPS, entries_of, pack_entries

__all__ = ["WORD", "Product", "RandomOperands", "aligned"]

WORD = 0xFFFFFFFF

FP32_SPECIALS = np.array(
    [0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001],
    np.uint32,
)

NAMES: dict[Format, NarrowFloat] = {
    Format.FP16: "fp16",
    Format.BF16: "bf16",
    Format.E4M3: "e4m3",
    Format.E5M2: "e5m2",
}


def aligned(nbytes: int) -> int:
    """Return ``nbytes`` in whole granules."""
    return -(-nbytes // GRANULE) * GRANULE


@dataclasses.dataclass
class Product:
    """What a MATMUL multiplies, and how.

    ``fields`` are those of its body but for where results go. ``middles`` are exponents about which
    the stream's and X's numbers are, ``specials`` how often there is one that is special.
    """

    stream: Format
    source: Format
    target: Format
    encoding: Encoding
    fields: dict[str, Any]
    middles: tuple[int, int]
    specials: float
    spread: float

    @property
    def block_scale(self) -> bool:
        return bool(self.fields["flags"] & MatmulFlag.BLOCK_SCALE)

    @property
    def lengths(self) -> list[int]:
        """Lengths of the slices."""
        k, length = self.fields["k"], self.fields["slice"]
        return [min(length, k - start) for start in range(0, k, length)]


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

    def _one(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

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

    def _product(self) -> Product:
        """Draw formats, lengths and the layout of X."""
        rng = self.rng
        self.tame = self._chance(0.5)
        modes = (Mode.INT8, Mode.INT4, Mode.FP16, Mode.BF16)
        mode = modes[rng.choice(4, p=[0.25, 0.1, 0.3, 0.35])]
        pairs = [(w, x) for w in INPUT_FORMATS for x in INPUT_FORMATS if array_mode(w, x) is mode]
        stream, source = self._one(pairs)
        if self._chance(0.3):
            stream = source = Format[mode.name]
        integers = mode in (Mode.INT8, Mode.INT4)
        block_scale = self._chance(0.3)
        targets = [
            f for f in OUTPUT_FORMATS if f is not Format.INT32 or (integers and not block_scale)
        ]
        long = self._chance(0.12)
        entries = self._int(1, self.config.rows if long else 3 * self.config.rows + 1)
        middles, anchor = [0, 0], 0
        if mode is Mode.BF16:
            reach = 3 if self.tame else int(rng.choice([10, 60]))
            for i, fmt in enumerate((stream, source)):
                middles[i] = int(rng.integers(-reach, reach + 1)) if fmt is Format.BF16 else 0
            # How far the products' lowest bits are above the window's.
            low, high = self._one([(-16, 2), (0, 40), (50, 68)])
            anchor = sum(middles) - 14 - int(rng.integers(low, high))
        fields = self._lengths(source, long)
        fields |= {
            "entries": entries,
            "stream_format": stream,
            "in_format": source,
            "out_format": self._one(targets),
            "encoding": self._one(list(Encoding)),
            "flags": (MatmulFlag.BLOCK_SCALE if block_scale else 0)
            | (MatmulFlag.DEAL_ON if self._chance(0.5) else 0),
            "anchor": min(max(anchor, MIN_ANCHOR), MAX_ANCHOR) if mode is Mode.BF16 else 0,
        }
        if fields["out_format"] is Format.INT4 and fields["n_inner"] < fields["n"]:
            fields["n_inner"] += fields["n_inner"] % 2
        return Product(
            stream=stream,
            source=source,
            target=fields["out_format"],
            encoding=fields["encoding"],
            fields=fields,
            middles=(middles[0], middles[1]),
            specials=float(rng.choice([0, 0.01])),
            spread=float(rng.choice([0.0, 2.0, 8.0])),
        )

    def _lengths(self, source: Format, long: bool) -> dict[str, int]:
        """Return K, its runs and its slices, and the columns."""
        depth = self.config.operand_depth
        unit = 2 if source is Format.INT4 else 1
        run = unit * self._int(1, 40 // unit)
        runs = self._int(1, 12) if self._chance(0.8) else self._int(1, depth // run)
        if long:
            most = MAX_K if self._chance(0.03) else 3 * depth
            run = unit * self._int(1, 256 // unit)
            runs = self._int(depth // run + 1, most // run)
        k, n = run * runs, self._int(1, 40)
        length = min(k + self._int(0, 99), 65535)
        if k > RELEASE_WORDS and self._chance(0.5):
            # A few slices, or short ones.
            pieces = -(-k // RELEASE_WORDS)
            length = RELEASE_WORDS * self._int(max(1, pieces // 6), pieces - 1)
        return {
            "k": k,
            "n": n,
            "n_inner": self._int(1, 44),
            "run_bytes": run * BITS[source] // 8,
            "runs_inner": self._int(1, runs + 2),
            "slice": length,
        }

    def _window(self, product: Product) -> tuple[dict[str, int], int, int] | None:
        """Draw X's strides; return them, where X begins, and how many bytes it has.

        None if these are too many.
        """
        fields, size = product.fields, SIZES[product.source]
        run, runs = fields["run_bytes"], fields["k"] * BITS[product.source] // 8
        runs //= run
        natural = {"run": run, "run_outer": run * fields["runs_inner"]}
        natural |= {"inner": run * runs, "outer": run * runs * fields["n_inner"]}
        wide = self.largest // (4 * max(runs, fields["n"])) if self._chance(0.5) else 60
        strides: dict[str, int] = {}
        for name, whole in natural.items():
            step = self._int(0, max(1, min(60, wide)))
            stride = whole if self._chance(0.3) else size * step
            strides[f"x_{name}_stride"] = -stride if self._chance(0.25) else stride
        steps = strides["x_run_stride"], strides["x_run_outer_stride"]
        spans = [
            nested_spans(runs, fields["runs_inner"], *steps),
            columns_spans(fields | strides, "x"),
        ]
        low, high = (
            sum(pick(span[end] for span in part) for part in spans)
            for end, pick in ((0, min), (1, max))
        )
        nbytes = high - low + run
        if nbytes > self.largest:
            return None
        start = size * self._int(0, 9)
        return strides, start - low, aligned(start + nbytes)

    def _values(self, count: int, fmt: Format, product: Product, middle: int = 0) -> npt.NDArray:
        """Return raw numbers."""
        rng = self.rng
        if fmt in INTEGERS:
            bound = 3 if self.tame else 8 if fmt is Format.INT4 else 128
            return rng.integers(-bound, bound, count, np.int8)
        name, kind = NAMES[fmt], FLOATS[NAMES[fmt]]
        if self.tame:
            number = rng.integers(-9, 10, count) / 2
        else:
            spread = rng.normal(size=count) * product.spread
            number = rng.normal(size=count) * np.exp2(spread)
        largest = float(to_float(np.array(kind.largest), name))
        number = (number * 2.0**middle).clip(-largest, largest).astype(np.float32)
        values = round_fp32(number.view(np.uint32), name)
        hidden = 1 << kind.digits - 1
        odd = np.array([0, 1, hidden - 1, hidden, kind.largest, kind.too_large, kind.nan])
        odd = np.concatenate([odd, odd | 1 << kind.bits - 1, [kind.too_large + 1]])
        special = rng.random(count) < product.specials
        return np.where(special, rng.choice(odd, count), values).astype(DTYPES[fmt])

    def _resident(self, nbytes: int, product: Product) -> npt.NDArray[np.uint8]:
        """Return so many bytes of X's numbers."""
        if product.source is Format.INT4:
            return self.rng.integers(0, 256, nbytes, np.uint8)
        values = self._values(
            nbytes // SIZES[product.source], product.source, product, product.middles[1]
        )
        return values.view(np.uint8)

    def _stream(self, weights: npt.NDArray, product: Product) -> tuple[npt.NDArray, int]:
        """Return one stream in granules, and its count; with zeros and escapes at will."""
        rng, encoding, length = self.rng, product.encoding, len(weights)
        keep = (weights != 0) | (rng.random(length) < 0.02)
        if encoding is Encoding.DELTA and not keep.any():
            keep[rng.integers(0, length)] = True
        if encoding in GROUPS:
            most, size, _ = GROUPS[encoding]
            groups = -(-length // size)
            order = rng.permuted(np.broadcast_to(np.arange(size), (groups, size)), axis=1)
            keep = (order < most).reshape(-1)[:length]
        values, places = entries_of(weights, keep, encoding)
        if encoding is Encoding.DELTA:
            left = length - int(np.sum(places + 1))
            if left >= 256 and self._chance(0.5):
                values, places = np.append(values, values[:1] * 0), np.append(places, 255)
        if encoding is not Encoding.DENSE and self._chance(0.2):
            count = int(rng.integers(1, len(values) + 1))
            values, places = values[:count], places[:count]
        return pack_entries(values, places, product.stream, encoding, rng), len(values)

    def _entries(self, count: int) -> npt.NDArray[np.bool_]:
        """Return which rows are not empty."""
        used = self.rng.random(count) < self.rng.choice([1.0, 0.8, 0.3])
        used[self.rng.integers(0, count)] = True
        return used

    def _blob(self, used: npt.NDArray[np.bool_], product: Product) -> npt.NDArray:
        """Return the directory and the streams, as bytes, without where results go."""
        rng, lengths = self.rng, product.lengths
        directory = np.zeros((len(lengths), len(used)), dtype(DirectoryEntry))
        density = rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.1, 0.3, 0.3, 0.3])
        place = directory.size
        streams: list[npt.NDArray] = []
        for s, length in enumerate(lengths):
            known = None
            for i in rng.permutation(np.flatnonzero(used)).tolist():
                entry = directory[s, i]
                if known is not None and self._chance(0.1):
                    entry["stream"], entry["count"] = known
                    continue
                weights = self._values(length, product.stream, product, product.middles[0])
                weights[rng.random(length) >= density] = 0
                raw, count = self._stream(weights, product)
                gap = self._int(0, 1)
                known = place + gap, count
                entry["stream"], entry["count"] = known
                streams.append(rng.integers(0, 256, gap * GRANULE, np.uint8))
                streams.append(raw)
                place += gap + len(raw) // GRANULE
        directory["scale"] = self._scales(directory.shape, product)
        directory["bias"] = self._biases(directory.shape, product)
        size = SIZES[product.target]
        directory["out_offset"] = rng.integers(0, 1 << 32, directory.shape) // size * size
        return np.concatenate([directory.view(np.uint8).reshape(-1), *streams])

    def _scales(self, shape: tuple[int, ...], product: Product) -> npt.NDArray[np.uint32]:
        rng = self.rng
        integers = {product.stream, product.source} <= INTEGERS
        middle = -int(rng.integers(0, 13 if integers and not self.tame else 5))
        middle -= sum(product.middles)
        exponent = rng.normal(size=shape) + middle
        exponent = np.round(exponent) if self.tame or self._chance(0.3) else exponent
        if self._chance(0.2):  # now and then so large or small that it matters
            far = rng.random(shape) < 0.3
            exponent = np.where(far, rng.uniform(-126, 127.9, shape), exponent)
        scale = np.exp2(exponent.clip(-126, 127.9)).astype(np.float32)
        return (scale * rng.choice(np.array([-1, 1], np.float32), shape)).view(np.uint32)

    def _biases(self, shape: tuple[int, ...], product: Product) -> npt.NDArray[np.int64]:
        rng = self.rng
        if {product.stream, product.source} <= INTEGERS and not product.block_scale:
            bound = 9 if self.tame else int(rng.choice([1, 1 << 12, 1 << 31], p=[0.4, 0.5, 0.1]))
            return rng.integers(-bound, bound, shape) & WORD
        number = (rng.normal(size=shape) * rng.integers(2)).astype(np.float32)
        odd = rng.choice(FP32_SPECIALS, shape) | rng.choice([0, 1 << 31], shape)
        rare = rng.random(shape) < rng.choice([0, 0.3])
        return np.where(rare, odd, number.view(np.uint32)).astype(np.int64)
