"""Convolution of quantized tensors: exact sums and the epilogue, for whole layers."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from .epilogue import finish
from .exact import gemm

__all__ = ["conv2d"]


def conv2d(
    x: npt.NDArray[np.int8],
    weight: npt.NDArray[np.int8],
    *,
    bias: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float32],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    pad_value: int = 0,
    function: Literal["none", "relu"] = "none",
    zero_point: int = 0,
) -> npt.NDArray[np.int8]:
    """Return an INT8 convolution, ``int8`` [N, OH, OW, O].

    ``clamp(RNE(function(FP32(sum + bias) * scale)) + zero_point)`` with the sum over the window of
    ``x * weight``. A correction for the zero point of ``x`` is part of ``bias``. A fully connected
    layer is a convolution whose kernel covers ``x``.

    Parameters
    ----------
    x : ndarray
        ``int8`` [N, H, W, C].
    weight : ndarray
        ``int8`` [O, KH, KW, C].
    bias, scale : ndarray
        [O]; scales are finite and normal.
    stride, padding : (int, int)
        Of H and W. Padding is the same on both sides, with ``pad_value`` (the zero point of ``x``).

    Raises
    ------
    ValueError
        If shapes do not agree or the window does not fit.
    """
    if x.ndim != 4 or weight.ndim != 4 or x.shape[3] != weight.shape[3]:
        raise ValueError(
            "x and weight must be [N, H, W, C] and [O, KH, KW, C], "
            f"not {x.shape} and {weight.shape}"
        )
    outputs, kernel_h, kernel_w, channels = weight.shape
    pads = [(0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)]
    padded = np.pad(x, pads, constant_values=np.int8(pad_value))
    if padded.shape[1] < kernel_h or padded.shape[2] < kernel_w:
        raise ValueError(
            f"the padded x must hold the kernel, not {padded.shape} for {weight.shape}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_h, kernel_w), axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)
    shape = windows.shape[:3]
    rows = np.ascontiguousarray(windows).reshape(-1, kernel_h * kernel_w * channels)
    results = finish(
        gemm(weight.reshape(outputs, -1), rows, "int8"),
        bias=np.ascontiguousarray(bias, np.int32).view(np.uint32),
        scale=np.ascontiguousarray(scale, np.float32).view(np.uint32),
        function=function,
        out_format="int8",
        zero_point=zero_point,
    ).values
    return np.ascontiguousarray(results.T).reshape(*shape, outputs)
