"""Sums of floating-point products in a fixed-point window: the float modes of `exact`.

Products of *regular* numbers cannot leave the window. They are summed by BLAS: their significands
are cut into slices whose float64 dot products are exact. The others are multiplied one by one.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from .formats import Fields, Mode, decode

__all__ = ["FRACTION_BITS", "FixedSums", "float_sums"]

FRACTION_BITS = 48
"""The unit of an FP16 sum is 2^-48, the product of the two smallest FP16 numbers."""

MAX_SHIFT = 64
"""Products of BF16 numbers are in the window up to this many bits above its lowest one."""

FLOAT64_BITS = 53
LIMB_BITS = 32
PRODUCTS = 1 << 20
"""Products that are worked on at a time where they are made one by one."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def _no() -> Bools:
    return np.zeros((), np.bool_)


@dataclasses.dataclass(frozen=True)
class FixedSums:
    """Exact fixed-point sums in units of 2**unit: ``high * 2**64 + low``, and the sticky flags.

    All arrays have the same shape, or one that broadcasts to it. ``high`` has the sign and is in
    the range of an ``int32``.
    """

    high: npt.NDArray[np.int64]
    low: npt.NDArray[np.uint64]
    nan: Bools
    inf_pos: Bools
    inf_neg: Bools
    below: Bools = dataclasses.field(default_factory=_no)
    above: Bools = dataclasses.field(default_factory=_no)
    unit: int = -FRACTION_BITS


@dataclasses.dataclass(frozen=True)
class _Operand:
    """One operand's numbers: signed significands, 0 where not finite.

    ``lowest`` are the weights of the lowest bits that are set.
    """

    value: npt.NDArray[np.int16]
    exponent: npt.NDArray[np.int16]
    lowest: npt.NDArray[np.int16]
    fields: Fields

    def without(self, places: Bools) -> "_Operand":
        """Return the numbers with zeros in some places."""
        return dataclasses.replace(self, value=np.where(places, np.int16(0), self.value))


def float_sums(
    a: npt.NDArray[np.uint16], x: npt.NDArray[np.uint16], mode: Mode, anchor: int
) -> FixedSums:
    """Return the sums over k of ``A[m, k] * X[n, k]``, both in bits of the mode's format."""
    first, second = _operand(a, mode), _operand(x, mode)
    nan, inf_pos, inf_neg = _specials(first, second)
    total = _Total((a.shape[0], x.shape[0]))
    unit = -FRACTION_BITS
    if mode == "bf16":
        unit = anchor
        a_single, x_single = _singles(first, second, unit)
        total.add_single(first, a_single, second, unit)
        first = first.without(a_single)
        turned = _Total((x.shape[0], a.shape[0]))
        turned.add_single(second, x_single, first, unit)
        total.add_transposed(turned)
        second = second.without(x_single)
    _add_regular(total, first, second, unit)
    return FixedSums(
        total.high,
        total.low,
        nan,
        inf_pos | total.above_pos,
        inf_neg | total.above_neg,
        total.below,
        total.above_pos | total.above_neg,
        unit=unit,
    )


def _operand(bits: npt.NDArray[np.uint16], mode: Mode) -> _Operand:
    fields = decode(bits, mode)
    value = np.where(fields.negative, -fields.significand, fields.significand)
    bit = (value & -value).astype(np.float32)
    lowest = (fields.exponent + np.frexp(bit)[1] - 1).astype(np.int16)
    return _Operand(value, fields.exponent, lowest, fields)


def _singles(a: _Operand, x: _Operand, unit: int) -> tuple[Bools, Bools]:
    """Return which numbers are not regular: the products of all others are in the window."""
    used = [operand.value != 0 for operand in (a, x)]
    weights = (x.value.shape[0], a.value.shape[0])
    lowest = [operand.lowest[places] for operand, places in zip((a, x), used, strict=True)]
    negated = [-operand.exponent[places] for operand, places in zip((a, x), used, strict=True)]
    bottoms = _thresholds(lowest[0], lowest[1], unit, weights)
    tops = _thresholds(negated[0], negated[1], -unit - MAX_SHIFT, weights)
    return tuple(
        places & ((operand.lowest < bottom) | (-operand.exponent < top))
        for operand, places, bottom, top in zip((a, x), used, bottoms, tops, strict=True)
    )


def _thresholds(
    first: npt.NDArray[np.int16],
    second: npt.NDArray[np.int16],
    total: int,
    weights: tuple[int, int],
) -> tuple[int, int]:
    """Return thresholds of both operands whose sum is ``total`` or more.

    Those are best by which the fewest products have a factor that is below its threshold.
    """
    if not first.size or not second.size:
        return -(1 << 14), -(1 << 14)
    bounds = [(int(part.min()), int(part.max())) for part in (first, second)]
    if bounds[0][0] + bounds[1][0] >= total:
        return bounds[0][0], bounds[1][0]
    low = min(bounds[0][0], total - bounds[1][1])
    high = max(bounds[0][1] + 1, total - bounds[1][0])
    candidates = np.arange(low, high + 1)
    products = np.zeros(candidates.size)
    for part, places, weight in (
        (first, candidates, weights[0]),
        (second, total - candidates, weights[1]),
    ):
        least = int(part.min())
        below = np.concatenate([[0], np.cumsum(np.bincount(part.astype(np.int64) - least))])
        products += below[np.clip(places - least, 0, below.size - 1)] * float(weight)
    best = int(candidates[np.argmin(products)])
    return best, total - best


class _Total:
    """Sums that grow, and flags that stick."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.high = np.zeros(shape, np.int64)
        self.low = np.zeros(shape, np.uint64)
        self.below, self.above_pos, self.above_neg = (np.zeros(shape, np.bool_) for _ in range(3))

    def add_shifted(self, part: Ints, shift: int) -> None:
        """Add ``part << shift``."""
        if shift >= 64:
            self.high += part << shift - 64
            return
        low_part = part.astype(np.uint64) << np.uint64(shift)
        self.low += low_part
        self.high += (part >> min(64 - shift, 63)) + (self.low < low_part)

    def add_transposed(self, other: "_Total") -> None:
        """Add the transpose of other sums."""
        self.low += other.low.T
        self.high += other.high.T + (self.low < other.low.T)
        self.below |= other.below.T
        self.above_pos |= other.above_pos.T
        self.above_neg |= other.above_neg.T

    def add_single(self, own: _Operand, chosen: Bools, others: _Operand, unit: int) -> None:
        """Add the products of the chosen numbers, one by one, each by the window's rule."""
        rows, places = np.nonzero(chosen)
        if not rows.size:
            return
        other_value = np.ascontiguousarray(others.value.T).astype(np.int64)
        other_exponent = np.ascontiguousarray(others.exponent.T).astype(np.int64) - unit
        limbs = [np.zeros(self.high.shape, np.int64) for _ in range(3)]
        step = max(1, PRODUCTS // max(1, self.high.shape[1]))
        for start in range(0, len(rows), step):
            row, k = rows[start : start + step], places[start : start + step]
            product = own.value[row, k].astype(np.int64)[:, np.newaxis] * other_value[k]
            shift = own.exponent[row, k].astype(np.int64)[:, np.newaxis] + other_exponent[k]
            size = np.abs(product)
            above = (shift > MAX_SHIFT) & (size != 0)
            dropped = np.clip(-shift, 0, 63)
            kept = size >> dropped
            below = kept << dropped != size
            kept[above] = 0
            word, left = np.divmod(np.clip(shift, 0, MAX_SHIFT), LIMB_BITS)
            kept = np.where(product < 0, -1, 1) * (kept << left)
            low = np.sign(kept) * (np.abs(kept) & (1 << LIMB_BITS) - 1)
            high = (kept - low) >> LIMB_BITS
            starts = np.concatenate([[0], np.flatnonzero(row[1:] != row[:-1]) + 1])
            target = row[starts]
            for i, limb in enumerate(limbs):
                part = np.where(word == i, low, 0) + np.where(word == i - 1, high, 0)
                limb[target] += np.add.reduceat(part, starts, axis=0)
            for flags, flag in (
                (self.below, below),
                (self.above_pos, above & (product > 0)),
                (self.above_neg, above & (product < 0)),
            ):
                flags[target] |= np.logical_or.reduceat(flag, starts, axis=0)
        for i, limb in enumerate(limbs):
            self.add_shifted(limb, LIMB_BITS * i)


def _add_regular(total: _Total, a: _Operand, x: _Operand, unit: int) -> None:
    """Add all products, of numbers whose products are whole units and small enough."""
    used = [operand.value != 0 for operand in (a, x)]
    if not used[0].any() or not used[1].any():
        return
    spans = []
    for operand, places in zip((a, x), used, strict=True):
        bottom = int(operand.lowest[places].min())
        ends = np.frexp(np.abs(operand.value[places]).astype(np.float32))[1]
        spans.append((bottom, int((operand.exponent[places] + ends).max()) - bottom))
    (a_bottom, a_bits), (x_bottom, x_bits) = spans
    # Slices of `width` and `room - width` bits have exact dot products. Take as few as possible.
    room = FLOAT64_BITS - (a.value.shape[1] - 1).bit_length()
    counts = [(-(-a_bits // w) * -(-x_bits // (room - w)), w) for w in range(1, room)]
    width = min(counts)[1]
    a_slices = _slices(a, a_bottom, a_bits, width)
    x_slices = _slices(x, x_bottom, x_bits, room - width)
    for i, a_slice in enumerate(a_slices):
        for j, x_slice in enumerate(x_slices):
            part = (a_slice @ x_slice.T).astype(np.int64)
            shift = a_bottom + x_bottom - unit + width * i + (room - width) * j
            total.add_shifted(part, shift)


def _slices(operand: _Operand, bottom: int, bits: int, width: int) -> list[npt.NDArray[np.float64]]:
    """Return numbers in units of 2**bottom, cut into signed slices of ``width``, lowest first."""
    size = np.abs(operand.value).astype(np.int64)
    sign = np.sign(operand.value).astype(np.float64)
    slices = []
    for start in range(0, bits, width):
        shift = operand.exponent.astype(np.int64) - bottom - start
        part = np.where(
            shift >= 0, size << np.clip(shift, 0, width), size >> np.clip(-shift, 0, 63)
        )
        slices.append((part & (1 << width) - 1) * sign)
    return slices


def _specials(a: _Operand, x: _Operand) -> tuple[Bools, Bools, Bools]:
    """Return the sticky flags ``nan``, ``inf_pos`` and ``inf_neg`` of infinities and NaNs."""
    shape = (a.value.shape[0], x.value.shape[0])
    nan, inf_pos, inf_neg = (np.zeros(shape, np.bool_) for _ in range(3))
    a_number, x_number = ((o.value != 0) | o.fields.inf for o in (a, x))
    a_any, x_any = a_number | a.fields.nan, x_number | x.fields.nan
    if a.fields.nan.any() or x.fields.nan.any():
        nan = _any(a.fields.nan, x_any) | _any(a_any, x.fields.nan)
    if a.fields.inf.any() or x.fields.inf.any():
        for flag, same_sign in ((inf_pos, True), (inf_neg, False)):
            for a_sign in (False, True):
                a_signed = a.fields.negative == a_sign
                x_signed = x.fields.negative == (a_sign == same_sign)
                flag |= _any(a.fields.inf & a_signed, x_number & x_signed)
                flag |= _any(a_number & a_signed, x.fields.inf & x_signed)
    return nan, inf_pos, inf_neg


def _any(a: Bools, x: Bools) -> Bools:
    """Return for every pair of rows whether both are true at some k."""
    return (a.astype(np.float32) @ x.astype(np.float32).T) > 0
