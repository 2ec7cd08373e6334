"""What a benchmark of a transposed convolution computes."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..compiler.convolution import ConvShape
from ..compiler.transposed import TransposedShape
from .conv_job import ConvJob, options_named, shape_fields

__all__ = ["TransposedJob", "transposed_shape"]


def transposed_shape(
    layer: str | None, options: Mapping[str, int | str | None], *, dilation: str, groups: int
) -> TransposedShape:
    """Return the shape that a command line with ``--transposed`` asks for: see `chosen_shape`."""
    if layer is not None:
        raise ValueError("--layer names ordinary convolutions; leave --transposed out")
    given = {name: value for name, value in options.items() if value is not None}
    with options_named():
        return TransposedShape(**shape_fields(given, dilation=dilation, groups=groups))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransposedJob(ConvJob):
    """A transposed convolution of random numbers: see `ConvJob`."""

    shape: TransposedShape  # type: ignore[assignment]

    def expected(self, weights: npt.NDArray, image: npt.NDArray) -> npt.NDArray:
        """Return the raw output [H, W, filters] by the golden models.

        That is an ordinary convolution with the kernel turned round, of an image with zeros between
        its pixels.
        """
        shape = self.shape
        zero = image.dtype.type(self.zero_point)
        (down, right), (high, wide) = shape.stride, shape.extent
        (above, _), (left, _) = shape.padding
        height, width = shape.outputs
        # So that output (0, 0) is the first window's.
        top, before = high - 1 - above, wide - 1 - left
        spread = np.full(
            (
                max(height + high - 1, top + (shape.height - 1) * down + 1),
                max(width + wide - 1, before + (shape.width - 1) * right + 1),
                shape.channels,
            ),
            zero,
            image.dtype,
        )
        spread[top::down, before::right][: shape.height, : shape.width] = image
        spread = spread[: height + high - 1, : width + wide - 1]
        ordinary = _Ordinary(
            shape=ConvShape(
                height=spread.shape[0],
                width=spread.shape[1],
                channels=shape.channels,
                filters=shape.filters,
                kernel=shape.kernel,
                dilation=shape.dilation,
                groups=shape.groups,
            ),
            dtype=self.dtype,
            out_dtype=self.out_dtype,
            seed=self.seed,
            transposed=self,
        )
        return ordinary.expected(weights[:, ::-1, ::-1], spread)

    def options(self) -> list[str]:
        """Return the command line's options for this job."""
        return [*super().options(), "--transposed"]

    def __str__(self) -> str:
        return f"transposed, {super().__str__()}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ordinary(ConvJob):
    """The ordinary convolution that is the same as a transposed one, with its scales and biases."""

    transposed: TransposedJob

    def scales(self) -> npt.NDArray[np.float32]:
        return self.transposed.scales()

    def biases(self) -> npt.NDArray:
        return self.transposed.biases()
