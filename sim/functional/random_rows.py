"""Random ROWS operations for `RandomJobs`."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, Format, Opcode, RowsFlag, RowsOp
from ..golden.formats import round_fp32
from .assemble import command, operand, semaphore
from .random_operands import FP32_SPECIALS, NAMES, WORD, aligned
from .random_reformat import RandomReformats
from .rows import COLUMN_BYTES, FLAGS, IN_FORMATS, OUT_FORMATS, SCALE_BYTES, scales_of, writes_scale

__all__ = ["RandomRows"]

INTEGERS = (Format.INT8, Format.INT32)


class RandomRows(RandomReformats):
    """Makes operations that scale, normalize and quantize rows, and take their softmax."""

    def _rows(self) -> None:
        """Work on rows, perhaps in their places, in some iterations of one command."""
        while True:
            body = self._rows_body()
            source, target = (
                aligned(-(-body["length"] * BITS[body[name]] // 8))
                for name in ("in_format", "out_format")
            )
            inner = self._int(1, 3)
            counts = [inner, body["z"], body["y"]]
            boxes = {"in": self._box(counts, source, GRANULE)}
            boxes["out"] = self._box(counts, target, GRANULE)
            in_place = target <= source and self._chance(0.3)
            if in_place:
                boxes["out"] = (*boxes["in"][:2], 0)
            if writes_scale(body):
                boxes["scale"] = self._box(counts, SCALE_BYTES, SCALE_BYTES)
            elif body["flags"] & RowsFlag.TABLE:
                boxes["scale"] = ([0, 0, 0], 0, aligned(COLUMN_BYTES * body["length"]))
            if max(nbytes for _, _, nbytes in boxes.values()) <= self.largest:
                break
        for name, (strides, _, _) in boxes.items():
            body |= {f"{name}_z_stride": strides[1], f"{name}_y_stride": strides[2]}

        sizes = [nbytes for _, _, nbytes in boxes.values()]
        place = self._room(sum(sizes), 2)
        ends = np.cumsum([0, *sizes]).tolist()
        bases = dict(zip(boxes, (place + end for end in ends), strict=False))
        if in_place:
            bases["out"] = bases["in"]
        unused = operand(int(self.rng.integers(1 << 32)))
        operands = [
            operand(bases[name] + boxes[name][1], inner=boxes[name][0][0])
            if name in boxes
            else unused
            for name in ("scale", "in", "out")
        ]
        content = self.rng.integers(0, 256, sum(sizes), np.uint8)
        content[: sizes[0]] = self._numbers_of(body["in_format"], sizes[0])
        if body["flags"] & RowsFlag.TABLE:
            content[-sizes[-1] :] = self._columns(body, sizes[-1] // COLUMN_BYTES)
        wait = self._blank(place, sum(sizes), 1, self._data(content))
        done = self._semaphore()
        self._job.commands += [
            command(
                Opcode.ROWS,
                body,
                operands=operands,
                inner=inner,
                wait=[wait],
                signal=[semaphore(done, outer=True)],
            ),
            self._store(place, sum(sizes), 1, wait=[semaphore(done)]),
        ]

    def _rows_body(self) -> dict[str, Any]:
        """Draw a body but for its strides; what is not used may be anything."""
        draw = self.rng.integers
        op = self._one(list(RowsOp))
        length = self._int(1, self._one([20, 150, 600]))
        body: dict[str, Any] = {
            "op": op.value,
            "flags": int(draw(256)) & FLAGS[op],
            "length": length,
        }
        body |= {"y": self._int(1, 6), "z": self._int(1, 3)}
        body |= {"in_format": self._one(IN_FORMATS), "out_format": self._one(OUT_FORMATS)}
        body["in_zero"] = int(draw(-128, 128))
        for name in ("scale_y_stride", "scale_z_stride"):
            body[name] = int(draw(-(1 << 31), 1 << 31))
        for name in ("a_scale", "b_scale", "c_scale", "epsilon"):
            body[name] = int(draw(1 << 32))
        middle = {Format.INT8: -4, Format.INT32: -12}.get(body["in_format"], 0)
        for name, positive in scales_of(body):
            spread = 120 if self._chance(0.05) else 4
            value = np.exp2(self.rng.uniform(-spread, spread) + (name == "a_scale") * middle)
            value *= 1 if positive or self._chance(0.8) else -1
            body[name] = int(np.float32(value).view(np.uint32))
        if op is RowsOp.NORMALIZE:
            body["c_scale"] = int(np.float32(1 / length).view(np.uint32))
        if self._chance(0.6):
            body |= {"valid": self._int(1, length), "valid_step": self._int(0, 3)}
            if self._chance(0.1):
                body["valid_step"] = int(draw(1 << 16))
        limits = (1 << 15) if self._chance(0.2) else 128
        names = ("zero_point", "clamp_low", "clamp_high")
        body |= {name: int(draw(-limits, limits)) for name in names}
        if self._chance(0.6):
            body |= {"clamp_low": -128, "clamp_high": 127}
        return body

    def _numbers_of(self, fmt: Format, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of numbers of a format: seldom infinities and NaNs, but some."""
        count = nbytes * 8 // BITS[fmt]
        if fmt in INTEGERS:
            whole = self.rng.integers(-(1 << 31), 1 << 31, count) >> self._int(0, 24)
            return whole.astype(np.int8 if fmt is Format.INT8 else np.int32).view(np.uint8)
        words = self._fp32(count, 3 if fmt is Format.FP16 else self._one([3, 20, 110]))
        if fmt is Format.FP32:
            return words.view(np.uint8)
        return round_fp32(words, NAMES[fmt]).view(np.uint8)

    def _fp32(self, count: int, spread: int) -> npt.NDArray[np.uint32]:
        """Return FP32 numbers about some power of two, and perhaps some that are special."""
        values = self.rng.standard_normal(count) * np.exp2(self.rng.uniform(-spread, spread))
        words = values.astype(np.float32).view(np.uint32)
        special = self.rng.random(count) < self._one([0, 0, 0.002, 0.1])
        words = np.where(special, self.rng.choice(FP32_SPECIALS, count), words)
        return words ^ (special & self._chance(0.5)).astype(np.uint32) << np.uint32(31)

    def _columns(self, body: dict[str, Any], count: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of a table."""
        bias: npt.NDArray[Any] = self._fp32(count, 8)
        if body["op"] == RowsOp.AFFINE.value and body["in_format"] in INTEGERS:
            bias = (self.rng.integers(-(1 << 31), 1 << 31, count) >> self._int(0, 24)) & WORD
        table = np.stack([bias.astype(np.uint32), self._fp32(count, 8)], axis=1)
        return table.reshape(-1).view(np.uint8)
