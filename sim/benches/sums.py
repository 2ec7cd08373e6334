"""What the array's benches share: operands with corners in them, and sums out of drain beats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..golden import exact

__all__ = ["assert_sums", "operands"]

_FP16_CORNERS = np.array(
    (0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF), np.uint16
)
_FP16_SPECIALS = np.array((0x7C00, 0xFC00, 0x7E01), np.uint16)
_INT8_CORNERS = np.array([-128, -1, 0, 1, 127], np.int8)


def operands(
    rng: np.random.Generator, shape: tuple[int, ...], fp16: bool, *, special: bool = True
) -> npt.NDArray:
    """Return random operands, a quarter of them corner cases: INT8, or FP16 bits.

    With ``special`` low there are no infinities and NaNs among them.
    """
    values: npt.NDArray[Any]
    chosen: npt.NDArray[Any]
    if fp16:
        values = rng.integers(0, 1 << 16, shape, np.uint16)
        values[(values & 0x7C00) == 0x7C00] &= 0xBFFF
        chosen = _FP16_CORNERS[rng.integers(0, len(_FP16_CORNERS), shape)]
        if special:  # few of them, else every sum is NaN
            rare = _FP16_SPECIALS[rng.integers(0, len(_FP16_SPECIALS), shape)]
            chosen = np.where(rng.random(shape) < 0.1, rare, chosen)
    else:
        values = rng.integers(-128, 128, shape, np.int8)
        chosen = _INT8_CORNERS[rng.integers(0, len(_INT8_CORNERS), shape)]
    return np.where(rng.random(shape) < 0.25, chosen, values)


def assert_sums(
    beats: Sequence[Mapping], sums: exact.ExactSums, row: int, columns: int, where: str
) -> None:
    """Check one visit's drain beats, column 0 first, against a row of golden sums."""
    halves = []
    for beat in beats:
        segment, carry = beat["segment"], beat["carry"]
        halves.append((segment[0] + (segment[1] << 24) + (carry[0] << 24), carry[1]))
    if isinstance(sums, exact.IntSums):
        assert len(halves) == columns, f"{where}: {len(halves)} beats"
        for column, (value, _) in enumerate(halves):
            expected = int(sums.value[row, column]) & ((1 << 48) - 1)
            assert value & ((1 << 48) - 1) == expected, f"{where}, column {column}"
        return
    assert len(halves) == 2 * columns, f"{where}: {len(halves)} beats"
    for column in range(columns):
        (low, carry), (high, _) = halves[2 * column : 2 * column + 2]
        value = (low + (carry << 48) + (high << 48)) & ((1 << 96) - 1)
        expected = (int(sums.high[row, column]) << 64) + int(sums.low[row, column])
        for beat in beats[2 * column : 2 * column + 2]:
            for flag in ("nan", "inf_pos", "inf_neg"):
                assert beat[flag] == bool(getattr(sums, flag)[row, column]), (
                    f"{where}, column {column}: {flag}"
                )
        assert value == expected & ((1 << 96) - 1), (
            f"{where}, column {column}: {value:#x} instead of {expected:#x}"
        )
