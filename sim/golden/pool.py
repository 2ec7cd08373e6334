"""Maximum over windows: what the vector unit computes."""

import numpy as np
import numpy.typing as npt

__all__ = ["max_pool"]


def max_pool(
    x: npt.NDArray[np.int8],
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
) -> npt.NDArray[np.int8]:
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
    if x.dtype != np.int8 or x.ndim != 4:
        raise ValueError(f"x must be int8 [N, H, W, C], not {x.dtype} {x.shape}")
    if min(kernel) < 1 or min(stride) < 1:
        raise ValueError(f"kernel and stride must be positive, not {kernel!r} and {stride!r}")
    if not all(0 <= pad < size for pad, size in zip(padding, kernel, strict=True)):
        raise ValueError(f"padding must be below the kernel, not {padding!r}")
    pads = [(0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)]
    padded = np.pad(x, pads, constant_values=-128)
    if padded.shape[1] < kernel[0] or padded.shape[2] < kernel[1]:
        raise ValueError(f"kernel must fit into x, not {kernel!r}")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    return windows[:, :: stride[0], :: stride[1]].max(axis=(-2, -1))
