"""Where to put the window of a BF16 sum."""

import numpy as np
import numpy.typing as npt

from ...rtl.isa import MAX_ANCHOR, MIN_ANCHOR

__all__ = ["window_anchor"]

_TOP_SHIFT = 64
_OFFSET = 268


def window_anchor(a: npt.NDArray, b: npt.NDArray) -> int:
    """Return the lowest anchor with which no product of two operands is above the window.

    What the window can hold is decided by the exponents alone: the card flags a product as above
    if ``e_a + e_b - 268 - anchor > 64``, e being the exponents' fields in BF16. A lower anchor
    keeps more of small products, so the lowest one is the best. All of one output must be computed
    with one anchor; where only a part of the operands is known, take the largest numbers that may
    come.

    Parameters
    ----------
    a, b : arrays
        Of input formats, any shape. Infinities and NaNs do not count.
    """
    anchor = _largest(a) + _largest(b) - _OFFSET - _TOP_SHIFT
    return min(max(anchor, MIN_ANCHOR), MAX_ANCHOR)


def _largest(array: npt.NDArray) -> int:
    """Return the largest exponent field, at least 1, of the finite numbers of an array."""
    field = np.asarray(array).astype(np.float32).view(np.uint32) >> 23 & 0xFF
    finite = field[field != 0xFF]
    return max(1, int(finite.max(initial=1)))
