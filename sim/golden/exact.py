"""Exact dot products: what the array computes.

The specification
-----------------
Both operands are widened to the array's mode (`formats`).

INT8 and INT4: the sum of the products, exact.

FP16: the sum of the exact products, as a 96-bit two's complement number in units of 2^-48, and
sticky flags.

- A product with a zero of either sign contributes nothing, even if the other factor is an infinity
  or a NaN. So a stream may leave zero weights out without changing any result.
- Otherwise a product with a NaN sets ``nan``.
- Otherwise a product with an infinity sets ``inf_pos`` or ``inf_neg``, by the product's sign.
- A sum with ``nan``, or with both infinities, is NaN; with one infinity it is that infinity.

BF16: the same in units of 2^anchor, a window on the products. A product of two finite numbers other
than zero is ``m * 2^shift`` units, with ``m`` the product of the two significands of 8 bits.

- ``shift`` above 64: the product counts as an infinity of its sign and sets ``above``.
- ``shift`` of 0 or more: it is added.
- ``shift`` below 0: its magnitude is truncated toward zero to whole units before it is added, and
  it sets ``below`` if that dropped anything but zeros.

The number of a sum whose flags are set is the sum of the products that are numbers. A sum has at
most 32,768 products, so none overflows; and since each is added exactly, their order and any split
of K into slices change neither the sum nor its flags.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from .formats import DTYPES, InFormat, array_mode, widen
from .window import FRACTION_BITS, FixedSums, float_sums

__all__ = [
    "FRACTION_BITS",
    "MAX_ANCHOR",
    "MAX_K",
    "MIN_ANCHOR",
    "ExactSums",
    "FixedSums",
    "InFormat",
    "IntSums",
    "add",
    "gemm",
]

MAX_K = 32768
"""Longest dot product."""

MIN_ANCHOR, MAX_ANCHOR = -126, 32

FLOAT32_K = 1024
"""Longest dot product of INT8 whose float32 sums are all exact: K * 2^14 is at most 2^24."""


@dataclasses.dataclass(frozen=True)
class IntSums:
    """Exact integer sums, ``int64``, of any one shape."""

    value: npt.NDArray[np.int64]


ExactSums = IntSums | FixedSums


def gemm(
    a: npt.NDArray,
    x: npt.NDArray,
    stream_fmt: InFormat,
    in_fmt: InFormat | None = None,
    *,
    anchor: int = 0,
) -> ExactSums:
    """Return the exact sums ``C[m, n] = sum over k of A[m, k] * X[n, k]``.

    Parameters
    ----------
    a, x : ndarray
        Raw numbers A[M, K] and X[N, K], K innermost in both; see `formats`.
    stream_fmt, in_fmt : str
        Formats of A and X; one stands for both.
    anchor : int
        In mode BF16, the lowest bit of a sum weighs 2^anchor. Without effect in other modes.

    Raises
    ------
    ValueError
        If a type, a shape, K, the pair of formats or the anchor does not fit.
    """
    in_fmt = stream_fmt if in_fmt is None else in_fmt
    mode = array_mode(stream_fmt, in_fmt)
    for operand, fmt in ((a, stream_fmt), (x, in_fmt)):
        if operand.dtype != DTYPES[fmt]:
            raise ValueError(f"operands must be {np.dtype(DTYPES[fmt])}, not {operand.dtype}")
        if fmt == "int4" and operand.size and (operand.min() < -8 or operand.max() > 7):
            raise ValueError("operands must be from -8 to 7, not others in INT4")
    if a.ndim != 2 or x.ndim != 2 or a.shape[1] != x.shape[1]:
        raise ValueError(f"operands must be A[M, K] and X[N, K], not {a.shape} and {x.shape}")
    if not 1 <= a.shape[1] <= MAX_K:
        raise ValueError(f"K must be from 1 to {MAX_K}, not {a.shape[1]!r}")
    if not MIN_ANCHOR <= anchor <= MAX_ANCHOR:
        raise ValueError(f"anchor must be from {MIN_ANCHOR} to {MAX_ANCHOR}, not {anchor!r}")
    if mode == "int8" or mode == "int4":
        return _int_sums(a, x)
    return float_sums(widen(a, stream_fmt, mode), widen(x, in_fmt, mode), mode, anchor)


def _int_sums(a: npt.NDArray[np.int8], x: npt.NDArray[np.int8]) -> IntSums:
    total = np.zeros((a.shape[0], x.shape[0]), np.int64)
    for start in range(0, a.shape[1], FLOAT32_K):
        part = slice(start, start + FLOAT32_K)
        total += (a[:, part].astype(np.float32) @ x[:, part].astype(np.float32).T).astype(np.int64)
    return IntSums(total)


def add(first: ExactSums, second: ExactSums) -> ExactSums:
    """Return the sums of two slices of K: numbers added exactly, flags OR-ed.

    Raises
    ------
    ValueError
        If the two are not sums of the same mode and anchor.
    """
    if isinstance(first, IntSums) and isinstance(second, IntSums):
        return IntSums(first.value + second.value)
    if not isinstance(first, FixedSums) or not isinstance(second, FixedSums):
        raise ValueError("sums must be of the same mode, not integers and floats")
    if first.unit != second.unit:
        raise ValueError(f"sums must have the same unit, not {first.unit!r} and {second.unit!r}")
    low = first.low + second.low
    return FixedSums(
        first.high + second.high + (low < second.low),
        low,
        first.nan | second.nan,
        first.inf_pos | second.inf_pos,
        first.inf_neg | second.inf_neg,
        first.below | second.below,
        first.above | second.above,
        unit=first.unit,
    )
