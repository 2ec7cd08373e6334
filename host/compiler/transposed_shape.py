"""What a transposed convolution computes, and the windows of those that it is made of."""

import dataclasses
from collections.abc import Sequence

from .convolution_shape import KernelShape

__all__ = ["Axis", "TransposedShape", "axis_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransposedShape(KernelShape):
    """A transposed convolution of one image, as PyTorch's ``ConvTranspose2d`` has it.

    The padding is cut off the output; it is less than the kernel's extent. Negative numbers below
    and right are PyTorch's ``output_padding``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for (before, after), extent, step in zip(
            self.padding, self.extent, self.stride, strict=True
        ):
            if not 0 <= before < extent or not -step < after < extent:
                raise ValueError(
                    f"padding must be less than the kernel's extent of {extent}, and below and "
                    f"right more than minus the stride of {step}, not {(before, after)!r}"
                )
        if min(self.outputs) < 1:
            raise ValueError(f"padding must leave some output, not {self.padding!r}")

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and pixels of the output."""
        high, wide = (
            (size - 1) * step + extent - sum(pads)
            for size, step, extent, pads in zip(
                (self.height, self.width), self.stride, self.extent, self.padding, strict=True
            )
        )
        return high, wide

    @property
    def k(self) -> int:
        """Numbers that an output is the sum of, at most."""
        taps = [-(-size // step) for size, step in zip(self.kernel, self.stride, strict=True)]
        return taps[0] * taps[1] * (self.channels // self.groups)

    @property
    def macs(self) -> int:
        """Multiplications: each number of the image meets each weight of its filters."""
        weights = self.kernel[0] * self.kernel[1] * self.filters // self.groups
        return self.height * self.width * self.channels * weights


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of the ordinary convolutions.

    Parameters
    ----------
    taps : list of dict
        For each rest: by its place in the window, the place in the kernel.
    before, size : int
        Numbers of the window before the output's own place, and all.
    count : int
        Outputs of each rest.
    """

    taps: list[dict[int, int]]
    before: int
    size: int
    count: int

    def after(self, length: int) -> int:
        """Return the padding behind an axis of the image with so many numbers."""
        return max(0, self.count + self.size - 1 - self.before - length)


def axis_of(shape: TransposedShape, axis: int, rests: Sequence[int]) -> Axis:
    """Return the windows of outputs with some rests along an axis: one size for all of them."""
    step, dilation = shape.stride[axis], shape.dilation[axis]
    cut = shape.padding[axis][0]
    offsets = [
        {
            (rest + cut - place * dilation) // step: place
            for place in range(shape.kernel[axis])
            if (rest + cut - place * dilation) % step == 0
        }
        for rest in rests
    ]
    low = min((min(each, default=0) for each in offsets), default=0)
    high = max((max(each, default=0) for each in offsets), default=0)
    low, high = min(low, 0), max(high, 0)
    return Axis(
        taps=[{offset - low: place for offset, place in each.items()} for each in offsets],
        before=-low,
        size=high - low + 1,
        count=-(-shape.outputs[axis] // step),
    )
