"""Operands as they lie in card memory, and what the card's vector unit makes of them on their way.

A source is an operand of a product, [rows, K]. It is loaded a few rows at a time. Where the array
could not take these as they are, the VECTOR queue makes *ready* rows of them: numbers side by side,
each row, or each of its streams, from a granule boundary on.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, ENTRIES, Encoding, Format
from . import commands
from .commands import Operand, Signal, Wait
from .formats import format_of, packed_bytes, raw_bits
from .mx import MxArray
from .reformat import SCALED
from .sparsity import slice_lengths
from .streams import DIRECTORY_ENTRY_BYTES, DIRECTORY_TYPE
from .tiling import align

__all__ = ["Columns", "Mx", "Place", "Quantized", "Rows", "Source", "Sparse", "Transfer"]

COUNT, SCALE = (DIRECTORY_TYPE.fields[name][1] for name in ("count", "scale"))  # type: ignore[index]
"""Where they lie in a directory entry."""

STEP_BYTES = 16
"""Bytes of numbers that the vector unit takes at once."""


Step = Callable[..., bytes]
"""Builds a command, with loops and semaphores by name."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """How some rows are loaded: the lines of a `commands.load`.

    ``step`` are the bytes in memory from these rows to the next ones.
    """

    x_bytes: int
    step: int
    y: int = 1
    memory_y_stride: int = 0
    scratchpad_y_stride: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are moved."""
        return self.x_bytes * self.y


@dataclasses.dataclass(frozen=True)
class Place:
    """Where rows lie in the scratchpad: as they were loaded, ready, and what tells of them.

    Parameters
    ----------
    raw, ready, directory : Operand
        The directory has an entry for each slice of each of the rows, slice by slice.
    items : int
        Rows.
    size : int
        Numbers in a slice of K.
    rows : range
        Those that are made ready now, where `Source.divisible`.
    """

    raw: Operand
    ready: Operand
    directory: Operand
    items: int
    size: int
    rows: range


class Source(abc.ABC):
    """An operand [rows, K] in card memory."""

    encoding = Encoding.DENSE
    """Of its ready rows."""
    vector_part: str | None = "reformat"
    """Which of `CardConfig.vector_parts` makes ready rows of what is loaded; None if it is left
    as it is."""
    row_unit = 1
    """Rows are loaded in multiples of this."""
    own_scales = False
    """Whether it brings scales for its rows, or for their slices."""
    block: int | None = None
    """Numbers of K with a scale of their own."""
    divisible = False
    """Whether rows that are loaded together can be made ready one by one."""

    def __init__(self, shape: tuple[int, int], format: Format) -> None:
        if 0 in shape:
            raise ValueError(f"an operand must not be empty, not {shape!r}")
        self.rows, self.k = shape
        self.format = format
        """As the array takes it."""

    @property
    def staged(self) -> bool:
        """Whether the vector unit makes ready rows of what is loaded."""
        return self.vector_part is not None

    def pitch(self, size: int) -> int:
        """Return the bytes from one ready row to the next, with slices of ``size`` numbers."""
        return align(packed_bytes(self.k, self.format), GRANULE)

    def slice_offset(self, number: int, size: int) -> int:
        """Return the bytes from a ready row to its slice ``number``."""
        return number * packed_bytes(size, self.format)

    @abc.abstractmethod
    def transfer(self, items: int) -> Transfer:
        """Return how ``items`` rows are loaded: to their ready place, if they are not staged."""

    @abc.abstractmethod
    def image(self, items: int) -> npt.NDArray[np.uint8]:
        """Return its bytes for card memory, in whole groups of ``items`` rows."""

    def prepare(
        self,
        place: Place,
        *,
        inner: int,
        wait: Sequence[Wait],
        signal: Sequence[Signal],
    ) -> list[bytes]:
        """Return the commands of the VECTOR queue that make ready rows."""
        steps = self._steps(place)
        last = len(steps) - 1
        return [
            step(
                inner=inner,
                wait=wait if number == 0 else (),
                signal=signal if number == last else (),
            )
            for number, step in enumerate(steps)
        ]

    @abc.abstractmethod
    def _steps(self, place: Place) -> list[Step]:
        """Return builders of these commands: all arguments but loops and semaphores are given."""

    def cycles(self, items: int, row_lanes: int) -> float:
        """Return about how many cycles the vector unit takes for ``items`` rows."""
        return 0.0


def _padded(array: npt.NDArray[np.uint8], rows: int, pitch: int) -> npt.NDArray[np.uint8]:
    """Return bytes [R, n] as [rows, pitch], with zeros behind them."""
    out = np.zeros((rows, pitch), np.uint8)
    out[: len(array), : array.shape[1]] = array
    return out


def _bytes(array: npt.NDArray, format: Format) -> npt.NDArray[np.uint8]:
    return raw_bits(array, format).view(np.uint8)


class _Lines(Source):
    """Rows that lie in memory one after the other, each from a granule boundary on."""

    def __init__(self, array: npt.NDArray, lying: Format, format: Format) -> None:
        super().__init__(array.shape, format)
        self._bytes = _bytes(array, lying)
        self._line = align(packed_bytes(self.k, lying), GRANULE)

    def transfer(self, items: int) -> Transfer:
        return Transfer(items * self._line, items * self._line)

    def image(self, items: int) -> npt.NDArray[np.uint8]:
        return _padded(self._bytes, align(self.rows, items), self._line).reshape(-1)


class Rows(_Lines):
    """An array [rows, K] of an input format of 8 or 16 bits, row by row: nothing is to be done."""

    vector_part = None

    def __init__(self, array: npt.NDArray) -> None:
        format = _whole(array)
        super().__init__(array, format, format)

    def _steps(self, place: Place) -> list[Step]:
        return []


class Columns(Source):
    """The transpose of an array [K, rows] of 8 or 16 bits that lies in memory row by row."""

    def __init__(self, array: npt.NDArray) -> None:
        super().__init__(array.shape[::-1], _whole(array))
        self._array = array
        self._size = array.itemsize
        self.row_unit = GRANULE // array.itemsize

    def transfer(self, items: int) -> Transfer:
        line = items * self._size
        return Transfer(line, line, self.k, align(self.rows, items) * self._size, line)

    def image(self, items: int) -> npt.NDArray[np.uint8]:
        pitch = align(self.rows, items) * self._size
        return _padded(_bytes(self._array, self.format), self.k, pitch).reshape(-1)

    def _steps(self, place: Place) -> list[Step]:
        return [
            partial(
                commands.transpose,
                place.raw,
                place.ready,
                rows=self.k,
                length=place.items,
                format=self.format,
                in_stride=place.items * self._size,
                out_stride=self.pitch(place.size),
            )
        ]

    def cycles(self, items: int, row_lanes: int) -> float:
        return align(self.k, self.row_unit) * items / self.row_unit


class Mx(Source):
    """An MX array: EXPAND makes BF16 of it.

    In memory the elements of each group of rows are followed by their scales.
    """

    def __init__(self, array: MxArray) -> None:
        super().__init__(array.shape, Format.BF16)
        self._array = array
        self._line = align(packed_bytes(self.k, array.format), GRANULE)
        self._scales = align(-(-self.k // SCALED), GRANULE)

    def transfer(self, items: int) -> Transfer:
        nbytes = items * (self._line + self._scales)
        return Transfer(nbytes, nbytes)

    def image(self, items: int) -> npt.NDArray[np.uint8]:
        rows = align(self.rows, items)
        elements = _padded(self._array.packed(), rows, self._line)
        scales = _padded(self._array.scales, rows, self._scales)
        groups = [part.reshape(rows // items, -1) for part in (elements, scales)]
        return np.concatenate(groups, axis=1).reshape(-1)

    def _steps(self, place: Place) -> list[Step]:
        return [
            partial(
                commands.expand,
                place.raw,
                _moved(place.raw, place.items * self._line),
                place.ready,
                rows=place.items,
                length=self.k,
                format=self._array.format,
                in_stride=self._line,
                scale_stride=self._scales,
                out_stride=self.pitch(place.size),
            )
        ]

    def cycles(self, items: int, row_lanes: int) -> float:
        return items * self.pitch(self.k) / STEP_BYTES


class Sparse(_Lines):
    """Rows with zeros, dense in memory: COMPRESS makes streams without zeros of them."""

    encoding = Encoding.DELTA

    def __init__(self, array: npt.NDArray) -> None:
        format = _whole(array)
        super().__init__(array, format, format)
        self.filled = np.asarray(raw_bits(array, self.format)) != 0

    def pitch(self, size: int) -> int:
        return sum(map(self._stream, slice_lengths(self.k, size)))

    def slice_offset(self, number: int, size: int) -> int:
        return number * self._stream(size)

    def _stream(self, length: int) -> int:
        """Return the bytes of a stream without zeros."""
        return GRANULE * -(-length // ENTRIES[self.encoding][BITS[self.format]])

    def _steps(self, place: Place) -> list[Step]:
        entries = place.items * DIRECTORY_ENTRY_BYTES
        slice_bytes = packed_bytes(place.size, self.format)
        return [
            partial(
                commands.compress,
                _moved(place.raw, first * slice_bytes),
                _moved(place.ready, self.slice_offset(first, place.size)),
                _moved(place.directory, first * entries + COUNT),
                rows=place.items,
                length=length,
                format=self.format,
                in_stride=self._line,
                out_stride=self.pitch(place.size),
                count_stride=DIRECTORY_ENTRY_BYTES,
                batch=batch,
                in_batch_stride=slice_bytes if batch > 1 else 0,
                out_batch_stride=self._stream(place.size),
                count_batch_stride=entries,
            )
            for first, batch, length in _groups(self.k, place.size)
        ]

    def cycles(self, items: int, row_lanes: int) -> float:
        return items * float(self.filled.sum()) / self.rows


class Quantized(_Lines):
    """FP16 or BF16 rows: QUANTIZE makes INT8 or E4M3 of them, with a scale for each row or block.

    Parameters
    ----------
    array : array [rows, K]
    format : Format
        INT8 or E4M3.
    block : int
        Numbers of K with a scale of their own, a multiple of 16; all of a row if not given.
    """

    vector_part = "rows"
    own_scales = True
    divisible = True

    def __init__(self, array: npt.NDArray, format: Format, block: int | None = None) -> None:
        if format not in (Format.INT8, Format.E4M3):
            raise ValueError(f"format must be INT8 or E4M3, not {format!r}")
        source = format_of("array", array)
        if source not in (Format.FP16, Format.BF16):
            raise ValueError(f"array must be FP16 or BF16, not {source.name}")
        super().__init__(array, source, format)
        self._source, self.block = source, block

    def _steps(self, place: Place) -> list[Step]:
        entries = place.items * DIRECTORY_ENTRY_BYTES
        size = self.k if self.block is None else place.size
        slice_bytes, pitch = packed_bytes(size, self._source), self.pitch(place.size)
        # The scale of a row is that of its last slice.
        last = 0 if self.block is not None else (-(-self.k // place.size) - 1) * entries
        start = place.rows.start
        scales = last + start * DIRECTORY_ENTRY_BYTES + SCALE
        return [
            partial(
                commands.quantize,
                _moved(place.raw, start * self._line + first * slice_bytes),
                _moved(place.ready, start * pitch + self.slice_offset(first, size)),
                commands.Rows(
                    length=length,
                    y=len(place.rows),
                    z=batch,
                    in_format=self._source,
                    out_format=self.format,
                    in_y_stride=self._line,
                    in_z_stride=slice_bytes if batch > 1 else 0,
                    out_y_stride=pitch,
                    out_z_stride=self.slice_offset(1, size) if batch > 1 else 0,
                ),
                scales=_moved(place.directory, first * entries + scales),
                scale_y_stride=DIRECTORY_ENTRY_BYTES,
                scale_z_stride=entries,
            )
            for first, batch, length in _groups(self.k, size)
        ]

    def cycles(self, items: int, row_lanes: int) -> float:
        return items * self.k / row_lanes


def _whole(array: npt.NDArray) -> Format:
    """Return the format of an array of 8 or 16 bits."""
    format = format_of("an operand", array)
    if BITS[format] < 8:
        raise ValueError(f"an operand must have 8 or 16 bits here, not {format.name}")
    return format


def _groups(k: int, size: int) -> list[tuple[int, int, int]]:
    """Return the first slice, the number and the length of slices of equal length."""
    full, rest = divmod(k, size)
    found = [(0, full, size)] if full else []
    return found + ([(full, 1, rest)] if rest else [])


def _moved(operand: Operand, offset: int) -> Operand:
    return dataclasses.replace(operand, base=operand.base + offset)
