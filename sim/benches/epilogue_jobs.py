"""Random commands for the bench of `EpilogueLane`: what comes in, and what must come out."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, cast

import numpy as np

from ...rtl.array.ports import SEGMENT, drain_layout
from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import (
    BITS,
    INPUT_FORMATS,
    LANES,
    MAX_ANCHOR,
    MIN_ANCHOR,
    OUTPUT_FORMATS,
    Format,
    Function,
    MatmulFlag,
    Mode,
    Status,
    array_mode,
)
from ..golden.epilogue import OutFormat, finish
from ..golden.exact import ExactSums, FixedSums, IntSums, add
from .lib import pack

__all__ = ["INPUTS", "PATHS", "Job", "Path", "Visit", "Write"]

INPUTS: dict[Mode, list[tuple[Format, Format]]] = {}
"""Pairs of input formats, by the array's mode."""
for _pair in ((stream, resident) for stream in INPUT_FORMATS for resident in INPUT_FORMATS):
    if (_mode := array_mode(*_pair)) is not None:
        INPUTS.setdefault(_mode, []).append(_pair)

FLAGS = ("nan", "inf_pos", "inf_neg", "below", "above")
SUM_BITS = {Mode.INT8: 30, Mode.INT4: 22}
SCALES = (0x00800000, 0x80800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000)
BIASES = (0, 1 << 31, 1, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345)
# Exponents of results at which something happens in a format.
EDGES = {
    Format.FP16: (15, 16, -14, -24),
    Format.BF16: (126, 127, -126, -133),
    Format.E4M3: (8, 9, -6, -9),
    Format.E5M2: (15, 16, -14, -16),
    Format.FP32: (126, 127, -126, -149),
    Format.INT8: (6, 7, 8),
    Format.INT4: (2, 3, 4),
    Format.INT32: (0,),
}


@dataclasses.dataclass(frozen=True)
class Path:
    """A way through the lane."""

    mode: Mode
    target: Format
    function: Function = Function.NONE
    blocks: bool = False


PATHS = [
    Path(mode, target, function, blocks)
    for mode in Mode
    for target in OUTPUT_FORMATS
    for function in Function
    for blocks in (False, True)
    if target != Format.INT32 or (mode in SUM_BITS and not blocks)
]
"""All of them."""


Write = tuple[int, int, int, int]
"""Address, data, mask and done of a write."""


@dataclasses.dataclass
class Visit:
    """A descriptor, and the beats that its engine drains."""

    fields: dict[str, int]
    beats: list[int]
    columns: int = 0
    """Index of its first column."""
    results: list[int] = dataclasses.field(default_factory=list)
    """Bits of the results of all of its columns, also those that are dropped."""
    flags: list[int] = dataclasses.field(default_factory=list)


class Job:
    """A command with random geometry and numbers; what it sends and what must come back.

    Parameters
    ----------
    config : CardConfig
    r : numpy.random.Generator
    path : Path
    iterations : int
    slices : int, optional
        Of K; drawn if absent.
    rows : int, optional
        Rows that the engine has in each block; drawn for each block if absent, none being possible.
    empty : float
        Probability that a row is empty.
    **parameters
        Override fields of the command.
    """

    def __init__(
        self,
        config: CardConfig,
        r: np.random.Generator,
        path: Path,
        *,
        iterations: int = 2,
        slices: int | None = None,
        rows: int | None = None,
        empty: float = 0.2,
        **parameters: int,
    ) -> None:
        self.config, self.rng, self.path = config, r, path
        self.size = max(BITS[path.target] // 8, 1)
        self.nibbles = path.target == Format.INT4
        self.width = config.cols * LANES[path.mode]
        self.slices = int(r.integers(1, 5)) if slices is None else slices
        self.rows, self.empty = rows, empty
        n = int(r.integers(1, 4 * self.width))
        near = int(r.integers(1, 6))
        inner = int(r.choice([1, near, n, n + 1, 65535]))
        if self.nibbles and inner < n:
            inner += inner % 2
        stream, resident = INPUTS[path.mode][int(r.integers(len(INPUTS[path.mode])))]
        self.command: dict[str, Any] = {
            "n": n,
            "n_inner": inner,
            "out_inner_stride": self.size * int(r.choice([1, 2, near, -1, GRANULE])),
            "out_outer_stride": self.size * int(r.choice([GRANULE, 1, -near, 5 * GRANULE])),
            "stream_format": stream,
            "in_format": resident,
            "out_format": path.target,
            "function": path.function,
            "flags": MatmulFlag.BLOCK_SCALE if path.blocks else 0,
            "parameter": r.integers(1 << 32, size=3).tolist(),
            "anchor": 0,
            "zero_point": int(r.choice([0, int(r.integers(-128, 128)), -32768, 32767])),
            "clamp_low": int(r.choice([-128, -8, -10, -32768, 3])),
            "clamp_high": int(r.choice([127, 7, 20, 32767, 0])),
        }
        if path.mode == Mode.BF16:
            drawn = int(r.integers(MIN_ANCHOR, MAX_ANCHOR + 1))
            self.command["anchor"] = int(r.choice([MIN_ANCHOR, MAX_ANCHOR, drawn, -60]))
        self.command.update(parameters)
        self.offsets = self._offsets()
        self.iterations = [self._iteration() for _ in range(iterations)]

    @property
    def visits(self) -> Iterator[Visit]:
        """All visits, in order."""
        return (visit for visits in self.iterations for visit in visits)

    def _offsets(self) -> list[int]:
        c = self.command
        columns = range(0, c["n"], 2) if self.nibbles else range(c["n"])
        offsets = [
            j // c["n_inner"] * c["out_outer_stride"] + j % c["n_inner"] * c["out_inner_stride"]
            for j in columns
        ]
        return [offsets[j // 2] for j in range(c["n"])] if self.nibbles else offsets

    def _iteration(self) -> list[Visit]:
        blocks = -(-self.command["n"] // self.width)
        per_row = self.width if self.path.blocks else 2 * self.config.cols
        most = self.config.partial_beats // max(per_row, 2 * self.config.cols)
        visits: list[Visit] = []
        for block in range(blocks):
            rows = min(int(self.rng.integers(4)), most) if self.rows is None else self.rows
            slots = sorted(self.rng.choice(most, rows, replace=False).tolist())
            empties = (self.rng.random(rows) < self.empty).tolist()
            rows_visits = [
                self._row(block * self.width, is_empty, slot)
                for slot, is_empty in zip(slots, empties, strict=True)
            ]
            marks = {"slice_first": 1, "slice_last": 1, "empty": 1}
            of_block = [visit for part in zip(*rows_visits, strict=True) for visit in part]
            of_block = of_block or [Visit(marks, [])]
            for index, visit in enumerate(of_block):
                visit.fields |= {"block_first": block == 0, "block_new": index == 0}
            visits += of_block
        visits[-1].fields["iteration_last"] = 1
        return visits

    def _row(self, columns: int, empty: bool, slot: int) -> list[Visit]:
        """Return a row's visits, one for each slice."""
        r = self.rng
        target = int(r.choice([0, 3, *EDGES[self.path.target]]))
        visits, parts = [], []
        integer_bias = self.path.mode in SUM_BITS and not self.path.blocks
        for index in range(self.slices):
            anchor = {Mode.BF16: self.command["anchor"], Mode.FP16: -48}.get(self.path.mode, 0)
            bits = int(r.integers(1, SUM_BITS.get(self.path.mode, 90)))
            exponent = min(max(127 + target - bits - anchor, 1), 254)
            scale = int(r.integers(2)) << 31 | exponent << 23 | int(r.integers(1 << 23))
            if r.random() < 0.15:
                scale = int(r.choice(SCALES))
            if integer_bias:
                bound = int(r.choice([1, 1000, 1 << 31]))
                bias = int(r.integers(-bound, bound)) & 0xFFFFFFFF
            else:
                near = (127 + target + int(r.integers(-3, 3))) % 256 << 23
                near |= int(r.integers(1 << 23)) | int(r.integers(2)) << 31
                bias = int(r.choice([0, near, near, near, int(r.choice(BIASES))]))
            fields = {
                "address": self._address(),
                "bias": bias,
                "scale": scale,
                "slot": slot,
                "slice_first": index == 0,
                "slice_last": index == self.slices - 1,
                "empty": int(empty),
            }
            visits.append(Visit(fields, [], columns))
            if not empty:
                fixed = self.path.mode not in SUM_BITS
                beats, sums = (self._fixed if fixed else self._integers)(bits)
                visits[-1].beats = beats
                parts.append(sums)
        if not empty:
            self._finish(visits, parts)
        return visits

    def _address(self) -> int:
        room = self.config.scratchpad_bytes
        low, high = -min(self.offsets), room - self.size - max(self.offsets)
        return int(self.rng.integers(low // self.size, high // self.size + 1)) * self.size

    def _finish(self, visits: list[Visit], parts: list[ExactSums]) -> None:
        """Work out the results, which are those of the last visit."""
        last = visits[-1]
        scales = [[visit.fields["scale"]] for visit in visits]
        biases = [[visit.fields["bias"]] for visit in visits]
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part)
        finished = finish(
            parts if self.path.blocks else total,
            bias=np.array(biases[0] if self.path.blocks else biases[-1], np.uint32),
            scale=np.array(scales if self.path.blocks else scales[-1], np.uint32),
            function=cast("Literal['none', 'relu']", self.path.function.name.lower()),
            out_format=cast("OutFormat", self.path.target.name.lower()),
            zero_point=self.command["zero_point"],
            clamp_low=self.command["clamp_low"],
            clamp_high=self.command["clamp_high"],
        )
        mask = (1 << BITS[self.path.target]) - 1
        last.results = [int(x) & mask for x in finished.values[0]]
        last.flags = [int(x) for x in finished.flags[0]]

    def _integers(self, bits: int) -> tuple[list[int], IntSums]:
        r, limit = self.rng, 1 << SUM_BITS[self.path.mode] - 2
        ends = np.array([limit - 1, -limit, 0, 1, -1])
        small = r.integers(-(1 << bits), 1 << bits, self.width).clip(-limit, limit - 1)
        sums = np.where(r.random(self.width) < 0.1, r.choice(ends, self.width), small)
        beats = []
        if self.path.mode == Mode.INT4:
            for low, high in zip(sums[::2].tolist(), sums[1::2].tolist(), strict=True):
                segments = low % (1 << SEGMENT) | high % (1 << SEGMENT) << SEGMENT
                beats.append(self._beat(segments, int(r.integers(4)), 0))
        else:
            for value in sums.tolist():
                carry = int(r.integers(4))  # of which the upper is void
                beats.append(self._beat(value - ((carry & 1) << SEGMENT), carry, 0))
        return beats, IntSums(sums[np.newaxis, :])

    def _fixed(self, bits: int) -> tuple[list[int], FixedSums]:
        r = self.rng
        sums, flags, beats = [], [], []
        for _ in range(self.width):
            value = int.from_bytes(r.bytes(12), "little") % (1 << bits + 1)
            kind = int(r.integers(10))
            if kind == 0:
                value = 0
            elif kind < 4:  # few significant bits: ties
                top = max(value.bit_length() - 1, 0)
                value = 1 << top | 1 << max(top - 24, 0)
                value |= int(r.integers(2)) << max(top - 23, 0)
                value += int(r.choice([0, 0, 1, -1]))
            elif kind == 4:
                value = (1 << 93) - int(r.integers(2))
            value = min(value, (1 << 93) - 1) * int(r.choice([1, -1]))
            flag = int(r.integers(1 << len(FLAGS))) if r.random() < 0.1 else 0
            carry = int(r.integers(16))
            rest = value - sum((carry >> i & 1) << SEGMENT * (i + 1) for i in range(3))
            beats += [self._beat(rest >> 48 * i, carry >> 2 * i & 3, flag) for i in range(2)]
            sums.append(value)
            flags.append(flag)
        named = {
            name: np.array([[flag >> i & 1 for flag in flags]], np.bool_)
            for i, name in enumerate(FLAGS)
        }
        return beats, FixedSums(
            high=np.array([[value >> 64 for value in sums]], np.int64),
            low=np.array([[value & ((1 << 64) - 1) for value in sums]], np.uint64),
            unit=self.command["anchor"] if self.path.mode == Mode.BF16 else -48,
            **named,
        )

    @staticmethod
    def _beat(value: int, carry: int, flags: int) -> int:
        segments = [(value >> SEGMENT * i) & ((1 << SEGMENT) - 1) for i in range(2)]
        fields: dict[str, Any] = {name: flags >> i & 1 for i, name in enumerate(FLAGS)}
        fields |= {"segment": segments, "carry": [carry & 1, carry >> 1], "valid": 1}
        return pack(drain_layout(), fields)

    def expected(self) -> tuple[list[Write], list[Status], list[int]]:
        """Return the writes, the errors, and the flags raised."""
        writes: list[Write] = []
        errors: list[Status] = []
        flags: list[int] = []
        for visits in self.iterations:
            more_writes, more_errors, more_flags = self.expected_of(visits)
            writes += more_writes
            errors += more_errors
            flags += more_flags
        return writes, errors, flags

    def expected_of(self, visits: list[Visit]) -> tuple[list[Write], list[Status], list[int]]:
        """Return what `expected` does, of one iteration."""
        writes: list[Write] = []
        errors: list[Status] = []
        flags: list[int] = []
        for visit in visits:
            granules: list[list[int]] = []
            results = visit.results[: max(self.command["n"] - visit.columns, 0)]
            flags += [flag for flag in visit.flags[: len(results)] if flag]
            step = 1 + self.nibbles
            for j in range(0, len(results), step):
                result = results[j]
                if self.nibbles and j + 1 < len(results):
                    result |= results[j + 1] << 4
                address = visit.fields["address"] + self.offsets[visit.columns + j]
                address %= 1 << 32
                if address >= self.config.scratchpad_bytes:
                    errors.append(Status.BAD_ADDRESS)
                    continue
                granule, byte = divmod(address, GRANULE)
                if not granules or granules[-1][0] != granule:
                    granules.append([granule, 0, 0])
                cover = (1 << 8 * self.size) - 1 << 8 * byte
                granules[-1][1] = granules[-1][1] & ~cover | result << 8 * byte
                granules[-1][2] |= (1 << self.size) - 1 << byte
            done = visit.fields.get("iteration_last", 0)
            if done and not granules:
                granules.append([0, 0, 0])
            for i, (granule, data, mask) in enumerate(granules):
                writes.append((granule, data, mask, int(done and i == len(granules) - 1)))
        return writes, errors, flags
