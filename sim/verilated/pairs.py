"""Which pairs of numbers run through the PE's multiplier (`exhaustive`)."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...rtl.isa import BITS, MAX_ANCHOR, MIN_ANCHOR, Format, Mode, array_mode

__all__ = ["Campaign", "campaigns"]

ANCHORS = (MIN_ANCHOR, -64, -30, 0, MAX_ANCHOR)
"""Windows in which BF16 pairs run."""

SPECIALS = {
    Format.FP16: (
        *(0x0000, 0x0001, 0x0002, 0x0003, 0x01FF, 0x0200, 0x03FE, 0x03FF),
        *(0x0400, 0x0401, 0x07FF, 0x0800, 0x3555, 0x3BFF, 0x3C00, 0x3C01),
        *(0x5555, 0x7BFE, 0x7BFF, 0x7C00, 0x7C01, 0x7DFF, 0x7E00, 0x7FFF),
    ),
    Format.BF16: (
        *(0x0000, 0x0001, 0x0002, 0x0003, 0x003F, 0x0040, 0x007E, 0x007F),
        *(0x0080, 0x0081, 0x00FF, 0x0100, 0x1FFF, 0x2000, 0x3EAB, 0x3F7F),
        *(0x3F80, 0x3F81, 0x4CFF, 0x5F80, 0x7F7E, 0x7F7F, 0x7F80, 0x7F81),
        *(0x7FBF, 0x7FC0, 0x7FFF),
    ),
}
"""Zeros, subnormal numbers, ends of binades, infinities, NaNs; each also runs negative."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Campaign:
    """Pairs that belong together: every one of ``w`` with every one of ``x``.

    Parameters
    ----------
    name : str
    mode : Mode
    stream_format, in_format : Format
    w, x : uint16 array
        Bits of the weights and of the operands (words, in the modes of integers).
    anchor : int
        In `Mode.BF16`.
    sampled : int or None
        Draw so many pairs instead of taking all in turn.
    """

    name: str
    mode: Mode
    stream_format: Format
    in_format: Format
    w: npt.NDArray[np.uint16]
    x: npt.NDArray[np.uint16]
    anchor: int = 0
    sampled: int | None = None

    @property
    def pairs(self) -> int:
        """How many pairs run."""
        return len(self.w) * len(self.x) if self.sampled is None else self.sampled


def campaigns(pairs: int | None) -> Iterator[Campaign]:
    """Yield all that runs.

    Parameters
    ----------
    pairs : int or None
        Draw so many of FP16, and of BF16 over all windows; None: all of FP16, and 2^24 of BF16.
    """
    every = np.arange(1 << 16, dtype=np.uint16)
    yield _same("FP16", Mode.FP16, Format.FP16, every, sampled=pairs)
    for format, anchors in ((Format.FP16, (0,)), (Format.BF16, ANCHORS)):
        special = np.array(SPECIALS[format], np.uint16)
        special = np.concatenate([special, special | 0x8000])
        for anchor in anchors:
            mode = Mode.FP16 if format is Format.FP16 else Mode.BF16
            name = f"{format.name} specials"
            yield _same(name, mode, format, special, anchor=anchor)
    drawn = (1 << 24 if pairs is None else pairs) // len(ANCHORS)
    for anchor in ANCHORS:
        yield _same("BF16", Mode.BF16, Format.BF16, every, anchor=anchor, sampled=drawn)
    for mode, format in ((Mode.INT8, Format.INT8), (Mode.INT4, Format.INT4)):
        yield Campaign(
            name=format.name,
            mode=mode,
            stream_format=format,
            in_format=format,
            w=_values(format),
            x=every,
        )
    narrow = (Format.INT8, Format.INT4, Format.E4M3, Format.E5M2)
    wide = (Format.FP16, Format.BF16) if pairs is None else ()
    for stream, resident in itertools.product((*narrow, *wide), repeat=2):
        mode = array_mode(stream, resident)
        if mode in (Mode.FP16, Mode.BF16) and (stream in narrow or resident in narrow):
            yield Campaign(
                name=f"{stream.name} by {resident.name}",
                mode=mode,
                stream_format=stream,
                in_format=resident,
                w=_values(stream),
                x=_values(resident),
                anchor=-64 if mode is Mode.BF16 else 0,
            )


def _same(
    name: str,
    mode: Mode,
    format: Format,
    values: npt.NDArray[np.uint16],
    *,
    anchor: int = 0,
    sampled: int | None = None,
) -> Campaign:
    """All pairs of some numbers of one format."""
    return Campaign(
        name=name + (f", window from 2^{anchor}" if mode is Mode.BF16 else ""),
        mode=mode,
        stream_format=format,
        in_format=format,
        w=values,
        x=values,
        anchor=anchor,
        sampled=sampled,
    )


def _values(format: Format) -> npt.NDArray[np.uint16]:
    """All bit patterns of a format."""
    return np.arange(1 << BITS[format], dtype=np.uint16)
