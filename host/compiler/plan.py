"""A planned GEMM: its operands as bytes for card memory, its commands, and its result."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...rtl.isa import Encoding, Format
from .formats import DTYPES, format_of, pack_rows, unpack_rows
from .schedule import Group, Schedule
from .streams import encode_blob
from .tiling import Problem, Tiling

__all__ = ["GemmPlan", "Matrix", "padded"]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """An operand whose numbers come later: sent dense.

    Parameters
    ----------
    shape : (int, int)
        [rows, K].
    format : Format
    """

    shape: tuple[int, int]
    format: Format


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmPlan:
    """A GEMM for one card configuration, with everything but the addresses decided.

    Parameters
    ----------
    m, n, k : int
    problem : Problem
        ``problem.stream`` says which operand is sent as streams.
    tiling : Tiling
        ``tiling.cycles`` is the estimate for the whole job.
    schedule : Schedule
    a_format, b_format : Format
    scale, bias : arrays [rows of the stream operand, slices] and [rows]
    """

    m: int
    n: int
    k: int
    problem: Problem
    tiling: Tiling
    schedule: Schedule
    a_format: Format
    b_format: Format
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray

    @property
    def config(self) -> CardConfig:
        """The card that the plan is for."""
        return self.problem.config

    @property
    def stream(self) -> str:
        """Operand that is sent as streams: "a" or "b"."""
        return self.problem.stream

    @property
    def encoding(self) -> Encoding:
        """Of the streams."""
        return self.problem.encoding

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""
        return self.tiling.cycles

    @property
    def a_bytes(self) -> int:
        """Bytes of A in card memory."""
        return self._stream_bytes if self.stream == "a" else self._resident_bytes

    @property
    def b_bytes(self) -> int:
        """Bytes of B in card memory."""
        return self._stream_bytes if self.stream == "b" else self._resident_bytes

    @property
    def c_bytes(self) -> int:
        """Bytes of C in card memory."""
        return self.c_rows * self.schedule.c_pitch

    @property
    def c_rows(self) -> int:
        """Rows of C in card memory: some behind the last one may be written."""
        tiling = self.tiling
        if self.stream == "b":
            return tiling.parts * tiling.part
        return max(self.m, tiling.tiles * tiling.tile if tiling.stay == "rows" else 0)

    @property
    def _stream_bytes(self) -> int:
        last = self.schedule.groups[-1]
        return last.offset + last.tiles * last.blob_bytes

    @property
    def _resident_bytes(self) -> int:
        return self.tiling.parts * self.schedule.part_bytes

    def pack_a(self, a: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of A for card memory from an array [M, K] of its format.

        Raises
        ------
        ValueError
            If shape or type are not the plan's; or, where A is sent compressed, if it has other
            zeros than the array that was planned with.
        """
        return self._pack("a", a, (self.m, self.k), self.a_format)

    def pack_b(self, x: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of B for card memory from an array [N, K]: see `pack_a`."""
        return self._pack("b", x, (self.n, self.k), self.b_format)

    def _pack(
        self, name: str, array: npt.NDArray, shape: tuple[int, int], fmt: Format
    ) -> npt.NDArray[np.uint8]:
        array = np.asarray(array)
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape {list(shape)}, not {array.shape!r}")
        format_of(name, array, fmt)
        array = padded(array, self.problem.k)
        if name == self.stream:
            return self._pack_streams(array)
        image = np.zeros(
            (self.tiling.parts * self.tiling.part, self.problem.column_bytes), np.uint8
        )
        image[: len(array)] = pack_rows(array, fmt, self.problem.column_bytes)
        parts = np.zeros((self.tiling.parts, self.schedule.part_bytes), np.uint8)
        image = image.reshape(self.tiling.parts, -1)
        parts[:, : image.shape[1]] = image
        return parts.reshape(-1)

    def _pack_streams(self, array: npt.NDArray) -> npt.NDArray[np.uint8]:
        problem, tiling, schedule = self.problem, self.tiling, self.schedule
        image = np.zeros(self._stream_bytes, np.uint8)
        blocks = -(-tiling.part // problem.block)
        pitch = schedule.c_pitch if tiling.gather else problem.out_bytes(tiling.part)
        step = pitch if self.stream == "a" else DTYPES[problem.out_format].itemsize
        for start, rows, offset, size in _tiles(schedule.groups, problem.rows):
            chosen = slice(start, start + rows)
            blob = encode_blob(
                problem.config,
                array[chosen],
                format=problem.stream_format,
                resident=problem.resident_format,
                encoding=problem.encoding,
                slice=problem.slice,
                block_scale=schedule.epilogue.block_scale,
                scale=self.scale[chosen]
                if schedule.epilogue.block_scale
                else self.scale[chosen, 0],
                bias=self.bias[chosen],
                out_offset=np.arange(rows) * step,
                blocks=blocks,
                entries=schedule.entries,
            )
            if len(blob.data) > size or blob.entries != schedule.entries:
                raise ValueError(f"{self.stream} must have the zeros that it was planned with")
            image[offset : offset + len(blob.data)] = blob.data
        return image

    def unpack_c(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return C as an array [M, N] of the output format from its bytes in card memory."""
        rows = np.asarray(raw, np.uint8)[: self.c_bytes].reshape(self.c_rows, -1)
        return unpack_rows(rows[: self.m], self.n, self.problem.out_format)

    def commands(self, a: int, b: int, c: int) -> list[bytes]:
        """Return the commands, without an END.

        They start with all semaphores at 0, and leave credits behind: between two plans of one
        job goes a `commands.barrier`. They use the whole scratchpad.

        Parameters
        ----------
        a, b, c : int
            Addresses in card memory of A, of B and of C: multiples of 16.
        """
        stream, resident = (a, b) if self.stream == "a" else (b, a)
        return self.schedule.commands(stream, resident, c)


def padded(array: npt.NDArray, k: int) -> npt.NDArray:
    """Return rows [R, K] with zeros behind them."""
    if array.shape[1] == k:
        return array
    padded = np.zeros((len(array), k), array.dtype)
    padded[:, : array.shape[1]] = array
    return padded


def _tiles(groups: tuple[Group, ...], rows: int) -> Iterable[tuple[int, int, int, int]]:
    """Yield first row, rows, offset in the image and bytes of each tile."""
    for group in groups:
        for tile in range(group.tiles):
            start = group.row + tile * group.rows
            size = min(group.rows, rows - start)
            yield start, size, group.offset + tile * group.blob_bytes, group.blob_bytes
