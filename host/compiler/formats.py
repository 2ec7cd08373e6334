"""Arrays of every number format: their NumPy types, their bits, and how rows of them are packed.

The types that NumPy lacks are those of `ml_dtypes`: ``int4``, ``bfloat16``, ``float8_e4m3fn`` and
``float8_e5m2``. INT4 may also come as int8 arrays with values from -8 to 7.
"""

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ...rtl.isa import BITS, INPUT_FORMATS, Format

__all__ = ["DTYPES", "format_of", "pack_rows", "packed_bytes", "raw_bits", "unpack_rows"]

DTYPES: dict[Format, np.dtype] = {
    Format.INT8: np.dtype("int8"),
    Format.FP16: np.dtype("float16"),
    Format.INT32: np.dtype("<i4"),
    Format.FP32: np.dtype("<f4"),
    Format.INT4: np.dtype(ml_dtypes.int4),
    Format.BF16: np.dtype(ml_dtypes.bfloat16),
    Format.E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    Format.E5M2: np.dtype(ml_dtypes.float8_e5m2),
}
"""Type of an array of each format."""

_INPUTS = {DTYPES[fmt]: fmt for fmt in INPUT_FORMATS}


def format_of(name: str, array: npt.NDArray, given: Format | None = None) -> Format:
    """Return the input format of an array: that of its type, or the one given if they agree.

    Parameters
    ----------
    name : str
        For the error.
    given : Format
        INT4 for int8 arrays of INT4 numbers.

    Raises
    ------
    ValueError
        If MATMUL has no such input, or the array is of another format.
    """
    found = _INPUTS.get(array.dtype)
    if found is None:
        known = ", ".join(dtype.name for dtype in _INPUTS)
        raise ValueError(f"{name} must be one of {known}, not {array.dtype.name!r}")
    if given is None or given is found:
        return found
    if given is Format.INT4 and found is Format.INT8:
        if array.size and (array.min() < -8 or array.max() > 7):
            raise ValueError(f"{name} must be from -8 to 7 for INT4, not {array.min()!r} or above")
        return given
    raise ValueError(f"{name} must be {given.name}, not {array.dtype.name!r}")


def raw_bits(array: npt.NDArray, fmt: Format) -> npt.NDArray:
    """Return numbers of a format as unsigned bits: a byte each (INT4: its low half), or 2 or 4."""
    if fmt is Format.INT4:
        return array.astype(np.int8).view(np.uint8) & 0xF
    array = np.ascontiguousarray(array)
    return array.view(np.dtype(f"u{array.itemsize}"))


def packed_bytes(count: int, fmt: Format) -> int:
    """Return the bytes that ``count`` numbers take side by side."""
    return -(-count * BITS[fmt] // 8)


def pack_rows(array: npt.NDArray, fmt: Format, pitch: int) -> npt.NDArray[np.uint8]:
    """Return the rows [R, K] of an array as bytes [R, pitch], zeros behind each row."""
    rows, count = array.shape
    bits = raw_bits(array, fmt)
    if fmt is Format.INT4:
        padded = np.zeros((rows, 2 * packed_bytes(count, fmt)), np.uint8)
        padded[:, :count] = bits
        bits = padded[:, ::2] | padded[:, 1::2] << 4
    image = np.zeros((rows, pitch), np.uint8)
    image[:, : packed_bytes(count, fmt)] = np.ascontiguousarray(bits).view(np.uint8)
    return image


def unpack_rows(image: npt.NDArray[np.uint8], count: int, fmt: Format) -> npt.NDArray:
    """Return the array [R, count] in bytes [R, pitch]: the inverse of `pack_rows`."""
    raw = np.ascontiguousarray(image[:, : packed_bytes(count, fmt)])
    if fmt is not Format.INT4:
        return raw.view(DTYPES[fmt])
    nibbles = np.stack([raw & 0xF, raw >> 4], axis=2).reshape(len(raw), -1)[:, :count]
    return ((nibbles ^ 8).astype(np.int8) - 8).astype(DTYPES[fmt])
