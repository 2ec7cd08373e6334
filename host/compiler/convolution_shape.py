"""What a convolution computes, and how its images lie in card memory and scratchpad."""

import dataclasses
from typing import Self

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import BITS, Format
from .conv import output_size
from .formats import DTYPES, format_of, pack_rows, unpack_rows
from .tiling import LOOP_LIMIT, align

__all__ = ["ConvLayout", "ConvShape", "KernelShape", "Pads"]

Pads = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below an image, then pixels left and right of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelShape:
    """An image and the kernels that filters have for it.

    Parameters
    ----------
    height, width, channels, filters : int
    kernel, stride, dilation : (int, int)
        Along rows and columns.
    padding : ((int, int), (int, int))
        Rows above and below, pixels left and right.
    groups : int
        Equal parts of channels and filters; each filter sees its own part of the channels only.

    Raises
    ------
    ValueError
        If there is no such convolution; names the argument.
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Pads = ((0, 0), (0, 0))
    groups: int = 1

    def __post_init__(self) -> None:
        for field in ("height", "width", "channels", "filters", "groups"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)!r}")
        for field in ("kernel", "stride", "dilation"):
            if min(getattr(self, field)) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)!r}")
        for field in ("channels", "filters"):
            if getattr(self, field) % self.groups:
                raise ValueError(
                    f"{field} must be a multiple of the {self.groups} groups, "
                    f"not {getattr(self, field)!r}"
                )

    @classmethod
    def of(
        cls,
        weights: npt.NDArray,
        image: tuple[int, int, int],
        *,
        stride: int | tuple[int, int],
        dilation: int | tuple[int, int],
        padding: int | tuple[int, int] | Pads,
        groups: int,
    ) -> Self:
        """Return the shape for weights [filters, KH, KW, channels / groups].

        Parameters
        ----------
        image : (int, int, int)
            Height, width and channels.
        stride, dilation, padding
            One number stands for rows and columns, and for both sides.

        Raises
        ------
        ValueError
            If there is no such convolution, or the weights have another shape.
        """
        if weights.ndim != 4 or 0 in weights.shape:
            raise ValueError(
                f"weights must have the shape [filters, KH, KW, channels], not {weights.shape!r}"
            )
        above, left = (padding, padding) if isinstance(padding, int) else padding
        shape = cls(
            height=image[0],
            width=image[1],
            channels=image[2],
            filters=weights.shape[0],
            kernel=(weights.shape[1], weights.shape[2]),
            stride=_pair(stride),
            dilation=_pair(dilation),
            padding=(_pair(above), _pair(left)),
            groups=groups,
        )
        if weights.shape[3] != shape.channels // groups:
            raise ValueError(
                f"weights must have {shape.channels // groups} channels, for {shape.channels} in "
                f"{groups} groups, not {weights.shape[3]!r}"
            )
        return shape

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and pixels from a kernel's first to its last."""
        (high, wide), (down, right) = self.kernel, self.dilation
        return down * (high - 1) + 1, right * (wide - 1) + 1


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return a number for rows and one for columns."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvShape(KernelShape):
    """A two-dimensional convolution of one image.

    Its windows lie inside the padded image. The padding is at most the kernel's extent.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis, (pads, extent, size) in enumerate(
            zip(self.padding, self.extent, (self.height, self.width), strict=True)
        ):
            if min(pads) < 0 or max(pads) > extent:
                raise ValueError(
                    f"padding must be from 0 to the kernel's extent of {extent}, not {pads!r}"
                )
            if size + sum(pads) < extent:
                raise ValueError(
                    f"kernel must be at most the padded image's {('height', 'width')[axis]} of "
                    f"{size + sum(pads)}, not {extent}"
                )

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and pixels of the output."""
        sizes = []
        for axis, size in enumerate((self.height, self.width)):
            padded = size + sum(self.padding[axis])
            sizes.append(
                output_size(padded, self.kernel[axis], self.stride[axis], 0, self.dilation[axis])
            )
        return sizes[0], sizes[1]

    @property
    def k(self) -> int:
        """Numbers in a window of one group."""
        return self.kernel[0] * self.kernel[1] * (self.channels // self.groups)

    @property
    def macs(self) -> int:
        """Multiplications."""
        height, width = self.outputs
        return height * width * self.filters * self.k


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvLayout:
    """Input and output of a convolution as bytes: NHWC, rows padded to whole granules.

    The input lies with its padding around it, as real numbers. INT4 inputs have an even number of
    channels in each group: a zero is added to odd ones. An INT4 output has the pixels 2x and
    2x + 1 of a row side by side in one byte for each channel, the even one low; where a row has an
    odd number of pixels, the input has columns for one more.
    """

    shape: ConvShape
    in_format: Format
    out_format: Format

    @property
    def group_channels(self) -> int:
        """Channels of a group in memory."""
        return align(
            self.shape.channels // self.shape.groups, 2 if self.in_format is Format.INT4 else 1
        )

    @property
    def pixel_bytes(self) -> int:
        """Bytes of an input pixel."""
        return self.shape.groups * self.group_channels * BITS[self.in_format] // 8

    @property
    def columns(self) -> int:
        """Pixels of an output row that are computed."""
        return align(self.shape.outputs[1], 2 if self.out_format is Format.INT4 else 1)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and pixels of the input with its padding."""
        shape = self.shape
        least = (self.columns - 1) * shape.stride[1] + shape.extent[1]
        return (
            shape.height + sum(shape.padding[0]),
            max(shape.width + sum(shape.padding[1]), least),
        )

    @property
    def row_bytes(self) -> int:
        """Bytes from an input row to the next."""
        return align(self.size[1] * self.pixel_bytes, GRANULE)

    @property
    def image_bytes(self) -> int:
        """Bytes of the input."""
        return self.size[0] * self.row_bytes

    @property
    def out_step(self) -> int:
        """Bytes from a channel of an output pixel to the next one."""
        return max(1, BITS[self.out_format] // 8)

    @property
    def out_pixel_bytes(self) -> int:
        """Bytes from an output pixel to the next: for INT4, half of those of a pair."""
        if self.out_format is Format.INT4:
            return align(self.shape.filters, 2) // 2
        return self.shape.filters * self.out_step

    @property
    def out_row_bytes(self) -> int:
        """Bytes from an output row to the next."""
        return align(self.columns * self.out_pixel_bytes, GRANULE)

    @property
    def out_bytes(self) -> int:
        """Bytes of the output."""
        return self.shape.outputs[0] * self.out_row_bytes

    @property
    def skips(self) -> bool:
        """Whether there are input rows between windows, which are not loaded."""
        return self.shape.kernel[0] == 1 and self.shape.stride[0] > 1

    @property
    def row_step(self) -> int:
        """Loaded input rows from an output row's window to the next one's."""
        return 1 if self.skips else self.shape.stride[0]

    def rows_in(self, rows: int) -> int:
        """Return the input rows that are loaded for so many output rows."""
        return (rows - 1) * self.row_step + self.shape.extent[0]

    def in_a_column(self) -> "ConvLayout":
        """Return the layout with all pixels in one column, if that has the same bytes and results.

        Then tiles need not be whole rows of the image.
        """
        shape = self.shape
        if (
            (shape.kernel, shape.stride, shape.padding) != ((1, 1), (1, 1), ((0, 0), (0, 0)))
            or self.out_format is Format.INT4
            or self.pixel_bytes % GRANULE
            or self.out_pixel_bytes % GRANULE
            or shape.height * shape.width > LOOP_LIMIT
        ):
            return self
        column = dataclasses.replace(shape, height=shape.height * shape.width, width=1)
        return dataclasses.replace(self, shape=column)

    def pack(
        self, image: npt.NDArray, size: tuple[int, int], zero_point: int
    ) -> npt.NDArray[np.uint8]:
        """Return the bytes of an image [H, W, C], with ``zero_point`` as its padding.

        Parameters
        ----------
        size : (int, int)
            Height and width that the image must have: other ones than the layout's where that has
            all pixels in a column.

        Raises
        ------
        ValueError
            If it has another shape or type.
        """
        image, shape = np.asarray(image), self.shape
        if image.shape != (*size, shape.channels):
            raise ValueError(
                f"image must have the shape {[*size, shape.channels]}, not {image.shape!r}"
            )
        format_of("image", image, self.in_format)
        height, width = self.size
        groups, each = shape.groups, shape.channels // shape.groups
        padded = np.full((height, width, groups, self.group_channels), zero_point, image.dtype)
        (top, _), (left, _) = shape.padding
        padded[top : top + shape.height, left : left + shape.width, :, :each] = image.reshape(
            shape.height, shape.width, groups, each
        )
        return pack_rows(padded.reshape(height, -1), self.in_format, self.row_bytes).reshape(-1)

    def unpack(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return the output [H, W, filters] from its bytes."""
        (height, width), filters = self.shape.outputs, self.shape.filters
        rows = np.asarray(raw, np.uint8)[: self.out_bytes].reshape(height, self.out_row_bytes)
        pixels = rows[:, : self.columns * self.out_pixel_bytes]
        if self.out_format is not Format.INT4:
            numbers = np.ascontiguousarray(pixels).view(DTYPES[self.out_format])
            return numbers.reshape(height, width, filters)
        pairs = np.ascontiguousarray(pixels.reshape(height, self.columns // 2, -1)[..., :filters])
        halves = unpack_rows(pairs.reshape(-1, 1), 2, Format.INT4)
        halves = halves.reshape(height, self.columns // 2, filters, 2)
        return halves.swapaxes(2, 3).reshape(height, self.columns, filters)[:, :width]
