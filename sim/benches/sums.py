"""What the array's benches share: operands with corners in them, and sums out of drain beats.

The expected sums are added up product by product in Python's numbers, from the specification; the
products of two 16-bit floats are exact in Python's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.isa import LANES, Mode

__all__ = ["assert_sums", "corners", "operands", "words"]

FLAGS = ("nan", "inf_pos", "inf_neg", "below", "above")

_CORNERS: dict[Mode, tuple[int, ...]] = {
    Mode.INT8: (-128, -1, 0, 1, 127),
    Mode.INT4: (-8, -1, 0, 1, 7),
    Mode.FP16: (0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF),
    Mode.BF16: (0, 0x8000, 1, 0x8001, 0x007F, 0x0080, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F),
}
_SPECIALS = {Mode.FP16: (0x7C00, 0xFC00, 0x7E01), Mode.BF16: (0x7F80, 0xFF80, 0x7FA0)}


def corners(mode: Mode) -> npt.NDArray[Any]:
    """Return all corner cases of a mode's operands: zeros, extremes, subnormals, specials."""
    values = _CORNERS[mode] + _SPECIALS.get(mode, ())
    return np.array(values, np.uint16 if mode in _SPECIALS else np.int8)


def operands(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    mode: Mode,
    *,
    anchor: int = 0,
    special: bool = True,
) -> npt.NDArray[Any]:
    """Return random operands, some of them corner cases: integers, or the bits of floats.

    Most BF16 products lie in the window of ``anchor`` or just outside. With ``special`` low there
    are no infinities and NaNs, and no BF16 products far above the window.
    """
    values: npt.NDArray[Any]
    if mode in (Mode.INT8, Mode.INT4):
        low = _CORNERS[mode][0]
        values = rng.integers(low, -low, shape, np.int8)
    elif mode is Mode.FP16:
        values = rng.integers(0, 1 << 16, shape, np.uint16)
        values[(values & 0x7C00) == 0x7C00] &= 0xBFFF
    else:
        middle = (268 + anchor) // 2
        exponents = rng.integers(middle - 15, middle + 34 - 2 * (not special), shape)
        values = rng.integers(0, 1 << 16, shape, np.uint16) & 0x807F
        values |= exponents.clip(0, 254).astype(np.uint16) << 7
    corners = np.array(_CORNERS[mode], values.dtype)
    if mode is Mode.BF16 and not special:
        corners = corners[:6]
    chosen = corners[rng.integers(0, len(corners), shape)]
    if special and mode in _SPECIALS:  # few of them, else every sum is NaN
        specials = np.array(_SPECIALS[mode], values.dtype)
        rare = specials[rng.integers(0, len(specials), shape)]
        chosen = np.where(rng.random(shape) < 0.1, rare, chosen)
    return np.where(rng.random(shape) < 0.25, chosen, values)


def words(x: npt.NDArray[Any], mode: Mode) -> npt.NDArray[np.uint16]:
    """Return operand words[k, PE] of the columns x[column, k]."""
    lanes = LANES[mode]
    bits = 16 // lanes
    parts = (x.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint16)
    return sum(parts[lane::lanes].T << np.uint16(bits * lane) for lane in range(lanes))


def _number(mode: Mode, bits: int) -> float:
    if mode is Mode.FP16:
        return float(np.uint16(bits).view(np.float16))
    return float(np.uint32(bits << 16).view(np.float32))


def _place(mode: Mode, anchor: int, w: int, x: int) -> int:
    """Return how many bits above the window's bottom the product's lowest bit lies."""
    if mode is Mode.FP16:
        return 0
    return max(w >> 7 & 255, 1) + max(x >> 7 & 255, 1) - 268 - anchor


def _expected(
    mode: Mode, anchor: int, weights: Iterable[int], column: Iterable[int]
) -> tuple[int, set[str]]:
    """Return the sum of the products, and its flags."""
    total, flags = 0, set()
    for w, x in zip(map(int, weights), map(int, column), strict=True):
        if mode in (Mode.INT8, Mode.INT4):
            total += w * x
            continue
        product = _number(mode, w) * _number(mode, x)
        if w & 0x7FFF == 0 or x & 0x7FFF == 0:
            continue
        if math.isnan(product):
            flags.add("nan")
        elif math.isinf(product):
            flags.add("inf_pos" if product > 0 else "inf_neg")
        elif _place(mode, anchor, w, x) > 64:
            flags |= {"above", "inf_pos" if product > 0 else "inf_neg"}
        else:
            scaled = math.ldexp(product, 48 if mode is Mode.FP16 else -anchor)
            total += int(scaled)
            if int(scaled) != scaled:
                flags.add("below")
    return total, flags


def _sums(mode: Mode, low: Mapping[str, Any], high: Mapping[str, Any]) -> list[int]:
    """Return the sums in a pair of beats, unsigned."""
    segments, carries = low["segment"] + high["segment"], low["carry"] + high["carry"]
    if mode is Mode.INT4:
        return segments
    bits = 96 // LANES[mode]
    whole = [
        (segments[i] + (segments[i + 1] << 24) + (carries[i] << 24) + (carries[i + 1] << 48))
        for i in (0, 2)
    ]
    if mode is not Mode.INT8:
        whole = [whole[0] + (whole[1] << 48)]
    return [value & ((1 << bits) - 1) for value in whole]


def assert_sums(
    beats: Sequence[Mapping[str, Any]],
    mode: Mode,
    anchor: int,
    weights: npt.NDArray[Any],
    x: npt.NDArray[Any],
    where: str,
) -> None:
    """Check one visit's drain beats, column 0 first, against the sums of weights[k] * x[n, k]."""
    lanes = LANES[mode]
    assert len(beats) * lanes == 2 * len(x), f"{where}: {len(beats)} beats"
    mask = (1 << 96 // lanes) - 1
    for pe in range(len(x) // lanes):
        pair = beats[2 * pe], beats[2 * pe + 1]
        for lane, value in enumerate(_sums(mode, *pair)):
            column = pe * lanes + lane
            expected, flags = _expected(mode, anchor, weights, x[column])
            what = f"{where}, column {column}"
            for beat in pair:
                seen = {flag for flag in FLAGS if beat[flag]}
                assert seen == flags, f"{what}: flags {sorted(seen)} instead of {sorted(flags)}"
            assert value == expected & mask, f"{what}: {value:#x} instead of {expected & mask:#x}"
