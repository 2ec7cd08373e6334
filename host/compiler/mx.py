"""MX formats of OCP: numbers of 4 or 8 bits, 32 of which share a scale that is a power of two.

The card multiplies them as BF16, which holds each number times its scale exactly (`isa.ReformatOp`
EXPAND), so a sum is exact too, and rounded once.
"""

import dataclasses

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ...rtl.isa import Format
from .reformat import SCALED

__all__ = ["MX_FORMATS", "MxArray", "quantize_mx"]

MX_FORMATS: dict[str, Format] = {
    "mxfp4": Format.E2M1,
    "mxfp8": Format.E4M3,
    "mxfp8e5m2": Format.E5M2,
    "mxint8": Format.INT8,
}
"""Formats of the elements, by the name of the MX format."""

_DTYPES: dict[Format, np.dtype] = {
    Format.E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
    Format.E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    Format.E5M2: np.dtype(ml_dtypes.float8_e5m2),
}

_LARGEST = {Format.E2M1: 6.0, Format.E4M3: 448.0, Format.E5M2: 57344.0, Format.INT8: 127 / 64}
"""Largest magnitude of an element; INT8 elements count in units of 1 / 64."""

_EXPONENTS = {Format.E2M1: 2, Format.E4M3: 8, Format.E5M2: 15, Format.INT8: 0}
"""Exponent of the largest element."""

_BIAS = 127


@dataclasses.dataclass(frozen=True, eq=False)
class MxArray:
    """Rows [rows, K] of an MX format.

    Parameters
    ----------
    elements : array [rows, K]
        int8 for INT8, else of the type of `ml_dtypes`.
    scales : uint8 array [rows, ceil(K / 32)]
        E8M0: 2^(scale - 127), NaN for 255.
    format : Format
        Of the elements: one of `MX_FORMATS`.
    """

    elements: npt.NDArray
    scales: npt.NDArray[np.uint8]
    format: Format

    def __post_init__(self) -> None:
        if self.format not in _LARGEST:
            known = ", ".join(format.name for format in _LARGEST)
            raise ValueError(f"format must be one of {known}, not {self.format!r}")
        dtype = _DTYPES.get(self.format, np.dtype(np.int8))
        if self.elements.dtype != dtype or self.elements.ndim != 2:
            raise ValueError(
                f"elements must be {dtype.name} [rows, K], not {self.elements.dtype.name} "
                f"{self.elements.shape!r}"
            )
        rows, k = self.elements.shape
        if self.scales.dtype != np.uint8 or self.scales.shape != (rows, -(-k // SCALED)):
            raise ValueError(
                f"scales must be uint8 {(rows, -(-k // SCALED))!r}, not {self.scales.dtype.name} "
                f"{self.scales.shape!r}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and K."""
        rows, k = self.elements.shape
        return rows, k

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return the elements' bytes [rows, bytes]: those of 4 bits two a byte, low half first."""
        codes: npt.NDArray[np.uint8] = self.elements.view(np.uint8)
        if self.format is not Format.E2M1:
            return codes
        codes = np.pad(codes, [(0, 0), (0, codes.shape[1] % 2)])
        return (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)

    def expanded(self) -> npt.NDArray:
        """Return the numbers as BF16 [rows, K]: what the card multiplies."""
        unit = 2.0**-6 if self.format is Format.INT8 else 1.0
        power = np.where(
            self.scales == 255, np.nan, np.exp2(self.scales.astype(np.float64) - _BIAS)
        )
        spread = np.repeat(power, SCALED, axis=1)[:, : self.shape[1]]
        with np.errstate(over="ignore"):
            return (self.elements.astype(np.float64) * unit * spread).astype(ml_dtypes.bfloat16)


def quantize_mx(x: npt.NDArray, format: Format) -> MxArray:
    """Return finite numbers [rows, K] in an MX format, as the OCP specification proposes.

    The scale of 32 numbers is the power of two that brings the largest of them below twice the
    largest power of two of the format; elements are rounded to nearest even, and saturate.
    """
    rows, k = x.shape
    groups = -(-k // SCALED)
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, groups * SCALED - k)])
    blocks = padded.reshape(rows, groups, SCALED)
    top = np.abs(blocks).max(axis=2)
    power = np.frexp(np.where(top == 0, 1, top))[1] - 1 - _EXPONENTS[format]
    power = np.clip(power, -_BIAS, _BIAS)
    scaled = np.ldexp(blocks, -power[:, :, np.newaxis]).reshape(rows, -1)[:, :k]
    scaled = np.clip(scaled, -_LARGEST[format], _LARGEST[format])
    if format is Format.INT8:
        elements = np.rint(scaled * 64).astype(np.int8)
    else:
        elements = scaled.astype(_DTYPES[format])
    return MxArray(elements, (power + _BIAS).astype(np.uint8), format)
