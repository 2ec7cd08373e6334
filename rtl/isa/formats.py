"""Number formats, how the array widens them, and how streams are encoded."""

from amaranth.hdl import unsigned
from amaranth.lib import enum

__all__ = [
    "BITS",
    "ENTRIES",
    "INPUT_FORMATS",
    "LANES",
    "MAX_ANCHOR",
    "MIN_ANCHOR",
    "OUTPUT_FORMATS",
    "Encoding",
    "Format",
    "Mode",
    "array_mode",
]


class Format(enum.Enum, shape=unsigned(8)):
    """Number formats. Inputs of MATMUL: `INPUT_FORMATS`. Its outputs: all but E2M1."""

    INT8 = 0
    FP16 = 1
    INT32 = 2
    FP32 = 3
    INT4 = 4
    """Two numbers a byte, the low half first."""
    BF16 = 5
    E4M3 = 6
    """FP8 with 4 bits of exponent as OCP defines it: no infinity, largest number 448."""
    E5M2 = 7
    """FP8 with 5 bits of exponent: the upper half of an FP16 number."""
    E2M1 = 8
    """FP4 with 2 bits of exponent, two numbers a byte, the low half first. Only REFORMAT takes
    it."""


BITS: dict[Format, int] = {
    Format.INT8: 8,
    Format.FP16: 16,
    Format.INT32: 32,
    Format.FP32: 32,
    Format.INT4: 4,
    Format.BF16: 16,
    Format.E4M3: 8,
    Format.E5M2: 8,
    Format.E2M1: 4,
}
"""Bits of a number of each format."""


INPUT_FORMATS = (
    Format.INT8,
    Format.FP16,
    Format.INT4,
    Format.BF16,
    Format.E4M3,
    Format.E5M2,
)
"""Formats that MATMUL takes as inputs."""


OUTPUT_FORMATS = tuple(form for form in Format if form is not Format.E2M1)
"""Formats of MATMUL's results."""


class Mode(enum.Enum, shape=unsigned(2)):
    """How the array multiplies: what both inputs of a MATMUL are widened to (`array_mode`)."""

    INT8 = 0
    """Two products a PE and cycle, each summed in 48 bits."""
    FP16 = 1
    """One product a PE and cycle; sums of 96 bits in units of 2^-48."""
    INT4 = 2
    """Four products a PE and cycle, each summed in 24 bits."""
    BF16 = 3
    """One product a PE and cycle; sums of 96 bits in units of 2^anchor: a window."""


LANES: dict[Mode, int] = {Mode.INT8: 2, Mode.FP16: 1, Mode.INT4: 4, Mode.BF16: 1}
"""Columns of the resident operand that one PE holds."""


def array_mode(stream: Format, resident: Format) -> Mode | None:
    """Return the mode for a pair of input formats, or None where it has no path.

    The mode is the one with the most lanes that holds the numbers of both formats exactly. There
    is none for FP16 with BF16.
    """
    pair = {stream, resident}
    if not pair <= set(INPUT_FORMATS) or pair == {Format.FP16, Format.BF16}:
        return None
    if Format.BF16 in pair:
        return Mode.BF16
    if pair == {Format.INT4}:
        return Mode.INT4
    return Mode.INT8 if pair <= {Format.INT4, Format.INT8} else Mode.FP16


MIN_ANCHOR, MAX_ANCHOR = -126, 32
"""Range of `MatmulBody.anchor`: no sum in the window is subnormal in FP32, or too large for it."""


class Encoding(enum.Enum, shape=unsigned(8)):
    """How a stream names the k of its values (`DirectoryEntry`)."""

    DENSE = 0
    """Values only: k counts up."""
    DELTA = 1
    """Each value with the number of zeros before it."""
    SPARSE_2_4 = 2
    """Two values of every four, each with its place among the four."""
    SPARSE_1_4 = 3
    """One value of every four."""
    SPARSE_1_8 = 4
    """One value of every eight."""


ENTRIES: dict[Encoding, dict[int, int]] = {
    Encoding.DENSE: {4: 32, 8: 16, 16: 8},
    Encoding.DELTA: {4: 10, 8: 8, 16: 5},
    Encoding.SPARSE_2_4: {4: 20, 8: 12, 16: 7},
    Encoding.SPARSE_1_4: {4: 20, 8: 12, 16: 7},
    Encoding.SPARSE_1_8: {4: 18, 8: 11, 16: 6},
}
"""Entries of a stream granule, by encoding and bits of a value."""
