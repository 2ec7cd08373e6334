"""INT8 networks: their layers, and which tensors they take."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .conv import output_size

__all__ = ["INPUT", "Add", "AveragePool", "Conv", "Layer", "MaxPool", "Network"]

INPUT = "input"
"""Name of a network's input."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Conv:
    """A convolution, or, where the kernel covers the input, a fully connected layer.

    Parameters
    ----------
    name : str
    weight : int8 array [O, KH, KW, C]
    bias : int32 array [O]
        With the correction for the zero point of the input.
    scale : float32 array [O]
        Input scale times weight scale over output scale.
    stride, padding : (int, int)
        Padding holds the input's zero point.
    dilation : (int, int)
    relu : bool
        Before the output is quantized.
    zero_point : int
        Of the output.
    source : str, optional
        What it takes: the name of a layer before it, or `INPUT`; else the output of the layer
        before.
    """

    name: str
    weight: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    scale: npt.NDArray[np.float32]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    relu: bool = False
    zero_point: int = 0
    source: str | None = None

    @property
    def spread(self) -> npt.NDArray[np.int8]:
        """The weight of the same convolution without dilation: with zeros between its pixels."""
        outputs, height, width, channels = self.weight.shape
        down, right = self.dilation
        shape = (outputs, (height - 1) * down + 1, (width - 1) * right + 1, channels)
        weight = np.zeros(shape, np.int8)
        weight[:, ::down, ::right] = self.weight
        return weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Maximum over windows; ``source`` as for `Conv`."""

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    source: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragePool:
    """Mean over windows; where the kernel covers the input, over all of it.

    Parameters
    ----------
    name : str
    kernel, stride : (int, int)
    scale : float
        Input scale over output scale.
    zero_point : int
        Of the output.
    source : str, optional
        As for `Conv`.
    """

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    scale: float = 1.0
    zero_point: int = 0
    source: str | None = None

    @property
    def factor(self) -> np.float32:
        """What the sum of a window is multiplied by."""
        return np.float32(self.scale / (self.kernel[0] * self.kernel[1]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Add:
    """Sum of two tensors of one shape, as at the end of a residual block.

    Parameters
    ----------
    name : str
    other : str
        The second tensor: the name of a layer before, or `INPUT`.
    scale, other_scale : float
        Scales of the two over that of the output.
    relu : bool
        Before the output is quantized.
    zero_point : int
        Of the output.
    source : str, optional
        The first tensor; as for `Conv`.
    """

    name: str
    other: str
    scale: float = 1.0
    other_scale: float = 1.0
    relu: bool = False
    zero_point: int = 0
    source: str | None = None

    @property
    def clamp_low(self) -> int:
        """The least output: that of zero, behind a ReLU."""
        return max(-128, self.zero_point) if self.relu else -128


Layer = Conv | MaxPool | AveragePool | Add


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Layers, each after those whose outputs it takes.

    Tensors are counted: 0 is the input, and ``i + 1`` the output of layer ``i``.

    Parameters
    ----------
    shape : (int, int, int)
        Height, width and channels of the input.
    zero_point : int
        Of the input.
    layers : sequence of `Layer`
        With different names, none of them `INPUT`.

    Raises
    ------
    ValueError
        If a layer does not fit the tensors that it takes; names the layer.
    """

    shape: tuple[int, int, int]
    zero_point: int
    layers: Sequence[Layer]

    def __post_init__(self) -> None:
        names = [INPUT, *(layer.name for layer in self.layers)]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(f"layers must have different names, not {names[1:]!r}")
        self.shapes()

    def sources(self) -> list[tuple[int, ...]]:
        """Return the tensors that each layer takes: two for `Add`, one for all others."""
        known = {INPUT: 0}
        found = []
        for index, layer in enumerate(self.layers):
            wanted = [layer.source, *([layer.other] if isinstance(layer, Add) else [])]
            for name in wanted:
                if name is not None and name not in known:
                    raise ValueError(
                        f"layer {layer.name}: takes {name!r}, which is none of the tensors before "
                        f"it: {', '.join(known)}"
                    )
            found.append(tuple(index if name is None else known[name] for name in wanted))
            known[layer.name] = index + 1
        return found

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return height, width and channels of every tensor."""
        shapes = [self.shape]
        for layer, sources in zip(self.layers, self.sources(), strict=True):
            height, width, channels = shapes[sources[0]]
            if isinstance(layer, Add):
                if (other := shapes[sources[1]]) != shapes[sources[0]]:
                    raise ValueError(
                        f"layer {layer.name}: takes tensors of one shape, not {height} x {width} x "
                        f"{channels} and {' x '.join(map(str, other))}"
                    )
                shapes.append(other)
                continue
            padding, dilation = (0, 0), (1, 1)
            if isinstance(layer, Conv):
                outputs, *kernel, inputs = layer.weight.shape
                padding, dilation = layer.padding, layer.dilation
                if inputs != channels:
                    raise ValueError(
                        f"layer {layer.name}: weight must have {channels} input channels, "
                        f"not {inputs!r}"
                    )
            else:
                outputs, kernel = channels, list(layer.kernel)
            size = (
                output_size(height, kernel[0], layer.stride[0], padding[0], dilation[0]),
                output_size(width, kernel[1], layer.stride[1], padding[1], dilation[1]),
            )
            if min(size) < 1:
                raise ValueError(
                    f"layer {layer.name}: kernel must fit the {height} x {width} input, "
                    f"not {kernel[0]} x {kernel[1]}"
                )
            shapes.append((*size, outputs))
        return shapes

    def zero_points(self) -> list[int]:
        """Return the zero point of every tensor."""
        points = [self.zero_point]
        for layer, sources in zip(self.layers, self.sources(), strict=True):
            points.append(points[sources[0]] if isinstance(layer, MaxPool) else layer.zero_point)
        return points

    @property
    def macs(self) -> int:
        """Multiplications of one image."""
        return sum(
            layer.weight.size * height * width
            for layer, (height, width, _) in zip(self.layers, self.shapes()[1:], strict=True)
            if isinstance(layer, Conv)
        )
