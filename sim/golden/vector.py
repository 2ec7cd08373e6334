"""What the vector unit computes: INT8 pooling, and sums and products of two tensors.

The specification
-----------------
MAX is the largest number of a window. The others make an FP32 number ``v`` of exact integers; each
FP32 operation rounds to nearest even, and treats subnormal results like any others:

* AVERAGE: ``v = fp32(s) * scale``, with ``s`` the sum of ``a - a_zero`` over a window. The scale
  holds the division by the window's size.
* ADD: ``v = fp32(a - a_zero) * a_scale + fp32(b - b_zero) * b_scale``.
* MULTIPLY: ``v = fp32((a - a_zero) * (b - b_zero)) * scale``.

The integers are below 2^24, so FP32 holds them exactly. The result is ``v`` rounded to nearest even
(NaN becomes 0, infinities the largest of their sign), plus the zero point, raised to ``clamp_low``
if below, then lowered to ``clamp_high`` if above; the low 8 bits of that. Scales are normal FP32
numbers, given as their bits.
"""

import numpy as np
import numpy.typing as npt

from .epilogue import fp32_add, fp32_mul, int_to_fp32, quantize

__all__ = ["add", "average", "average_pool", "max_pool", "multiply"]

Int8s = npt.NDArray[np.int8]
Integers = npt.NDArray[np.int64]

LIMIT = 1 << 24
"""FP32 holds all integers of magnitudes up to this."""


def max_pool(
    x: Int8s,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
) -> Int8s:
    """Return the maximum over windows of ``x``, NHWC.

    Parameters
    ----------
    x : ndarray
        ``int8`` [N, H, W, C].
    kernel, stride, padding : (int, int)
        Of H and W. Padding is the same on both sides and never the maximum.

    Raises
    ------
    ValueError
        If the type, a size or a shape does not fit.
    """
    return _windows(x, kernel, stride, padding, -128).max(axis=(-2, -1))


def average_pool(
    x: Int8s,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    zero: int = 0,
    scale: int,
    zero_point: int = 0,
    clamp_low: int = -128,
    clamp_high: int = 127,
) -> Int8s:
    """Return the scaled sums over windows of ``x``, NHWC; a window of all of it is global pooling.

    Parameters
    ----------
    x : ndarray
        ``int8`` [N, H, W, C].
    kernel, stride, padding : (int, int)
        Of H and W. Padding is the same on both sides, and holds ``zero``.
    zero : int
        The zero point of ``x``.
    scale : int
        FP32 bits of the scale of ``x`` / (that of the result * numbers of the window).
    zero_point, clamp_low, clamp_high : int
        Of the result.

    Raises
    ------
    ValueError
        If the type, a size or a shape does not fit, or the scale is not a normal number.
    """
    windows = _windows(x, kernel, stride, padding, zero)
    sums = windows.sum(axis=(-2, -1), dtype=np.int64) - zero * kernel[0] * kernel[1]
    return average(
        sums,
        scale=scale,
        zero_point=zero_point,
        clamp_low=clamp_low,
        clamp_high=clamp_high,
    )


def average(
    sums: Integers,
    *,
    scale: int,
    zero_point: int = 0,
    clamp_low: int = -128,
    clamp_high: int = 127,
) -> Int8s:
    """Return the results of exact sums of differences, of any shape (see `average_pool`)."""
    if np.abs(sums).max(initial=0) > LIMIT:
        raise ValueError(f"sums must be at most {LIMIT}, not {np.abs(sums).max()}")
    value = fp32_mul(int_to_fp32(sums), _scale("scale", scale))
    return quantize(value, zero_point=zero_point, clamp_low=clamp_low, clamp_high=clamp_high)


def add(
    a: Int8s,
    b: Int8s,
    *,
    a_zero: int = 0,
    b_zero: int = 0,
    a_scale: int,
    b_scale: int,
    zero_point: int = 0,
    clamp_low: int = -128,
    clamp_high: int = 127,
) -> Int8s:
    """Return the requantized sum of two tensors of one shape.

    Parameters
    ----------
    a, b : ndarray
        ``int8``.
    a_zero, b_zero : int
        Their zero points.
    a_scale, b_scale : int
        FP32 bits of their scales, over the result's.
    zero_point, clamp_low, clamp_high : int
        Of the result.

    Raises
    ------
    ValueError
        If a type or shape does not fit, or a scale is not a normal number.
    """
    x, y = _differences(a, b, a_zero, b_zero)
    value = fp32_add(
        fp32_mul(int_to_fp32(x), _scale("a_scale", a_scale)),
        fp32_mul(int_to_fp32(y), _scale("b_scale", b_scale)),
    )
    return quantize(value, zero_point=zero_point, clamp_low=clamp_low, clamp_high=clamp_high)


def multiply(
    a: Int8s,
    b: Int8s,
    *,
    a_zero: int = 0,
    b_zero: int = 0,
    scale: int,
    zero_point: int = 0,
    clamp_low: int = -128,
    clamp_high: int = 127,
) -> Int8s:
    """Return the requantized product of two tensors of one shape, number by number (see `add`).

    ``scale`` has the FP32 bits of the product of their scales, over the result's.
    """
    x, y = _differences(a, b, a_zero, b_zero)
    value = fp32_mul(int_to_fp32(x * y), _scale("scale", scale))
    return quantize(value, zero_point=zero_point, clamp_low=clamp_low, clamp_high=clamp_high)


def _windows(
    x: Int8s,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    pad_value: int,
) -> Int8s:
    """Return windows [N, H, W, C, ky, kx]."""
    if x.dtype != np.int8 or x.ndim != 4:
        raise ValueError(f"x must be int8 [N, H, W, C], not {x.dtype} {x.shape}")
    if min(kernel) < 1 or min(stride) < 1:
        raise ValueError(f"kernel and stride must be positive, not {kernel!r} and {stride!r}")
    if not all(0 <= pad < size for pad, size in zip(padding, kernel, strict=True)):
        raise ValueError(f"padding must be below the kernel, not {padding!r}")
    pads = [(0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)]
    padded = np.pad(x, pads, constant_values=pad_value)
    if padded.shape[1] < kernel[0] or padded.shape[2] < kernel[1]:
        raise ValueError(f"kernel must fit into x, not {kernel!r}")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    return windows[:, :: stride[0], :: stride[1]]


def _differences(a: Int8s, b: Int8s, a_zero: int, b_zero: int) -> tuple[Integers, Integers]:
    if a.dtype != np.int8 or b.dtype != np.int8 or a.shape != b.shape:
        raise ValueError(
            f"a and b must be int8 of one shape, not {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    return a.astype(np.int64) - a_zero, b.astype(np.int64) - b_zero


def _scale(name: str, bits: int) -> npt.NDArray[np.uint32]:
    if not 0 < (bits >> 23 & 0xFF) < 0xFF:
        raise ValueError(f"{name} must be the bits of a normal FP32 number, not {bits!r}")
    return np.array(bits, np.uint32)
