"""What every way to run a convolution is asked for, and what it answers with."""

import abc
import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...rtl.isa import Encoding, Format, Mode
from .convolution_shape import ConvLayout, ConvShape
from .schedule import Epilogue
from .tiling import MemorySpeed

__all__ = ["ConvPlan", "ConvRequest"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ConvRequest:
    """A convolution of one image for one card, its arguments checked.

    Parameters
    ----------
    shape : ConvShape
    weights : array [filters, KH, KW, channels / groups]
    weights_format, in_format, out_format : Format
    mode : Mode
    scales : float32 array [filters]
    biases : array [filters]
        Of integers int32, with the correction for ``in_zero_point`` in them; else float32.
    in_zero_point : int
        What the padding holds.
    encoding : Encoding or None
        Of the weights as streams; any if None.
    """

    config: CardConfig
    shape: ConvShape
    weights: npt.NDArray
    weights_format: Format
    in_format: Format
    out_format: Format
    mode: Mode
    scales: npt.NDArray[np.float32]
    biases: npt.NDArray
    epilogue: Epilogue
    in_zero_point: int
    encoding: Encoding | None
    memory: MemorySpeed

    @property
    def layout(self) -> ConvLayout:
        """Of the images in card memory."""
        return ConvLayout(shape=self.shape, in_format=self.in_format, out_format=self.out_format)


class Problem(Protocol):
    """A convolution on one card, as a way to run it sees it."""

    @property
    def config(self) -> CardConfig: ...

    @property
    def layout(self) -> ConvLayout: ...


class Tiling(Protocol):
    """Sizes and loops."""

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ConvPlan(abc.ABC):
    """A convolution for one card configuration, with everything but the addresses decided.

    All plans of a convolution give the same bits, and take and leave images in the same form
    (`convolution_shape.ConvLayout`).

    Parameters
    ----------
    shape : ConvShape
    problem : Problem
        Its image may be the pixels in one column, where that is the same.
    tiling : Tiling
    weights : uint8 array
        Bytes of the weights for card memory, with all else that does not depend on the image.
    in_zero_point : int
        What the padding holds.
    """

    shape: ConvShape
    problem: Problem
    tiling: Tiling
    weights: npt.NDArray[np.uint8]
    in_zero_point: int

    kind: ClassVar[str]
    """How the array is used: a key of `convolution.PLANNERS`."""

    @property
    @abc.abstractmethod
    def encoding(self) -> Encoding:
        """Of the streams."""

    @property
    def config(self) -> CardConfig:
        """The card that the plan is for."""
        return self.problem.config

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""
        return self.tiling.cycles

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in card memory."""
        return self.weights.size

    @property
    def x_bytes(self) -> int:
        """Bytes of the input in card memory, its padding included."""
        return self.problem.layout.image_bytes

    @property
    def y_bytes(self) -> int:
        """Bytes of the output in card memory."""
        return self.problem.layout.out_bytes

    def pack_x(self, image: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of an image [H, W, C] for card memory.

        Raises
        ------
        ValueError
            If shape or type are not the plan's.
        """
        size = (self.shape.height, self.shape.width)
        return self.problem.layout.pack(image, size, self.in_zero_point)

    def unpack_y(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return the output [H, W, filters] from its bytes in card memory."""
        return self.problem.layout.unpack(raw).reshape(*self.shape.outputs, self.shape.filters)

    @abc.abstractmethod
    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        """Return the commands, without an END.

        They start with all semaphores at 0, and leave credits behind: between two plans of one
        job goes a `commands.barrier`. They use the whole scratchpad.

        Parameters
        ----------
        weights, x, y : int
            Addresses in card memory: multiples of 16.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Return how the convolution is cut, for people."""

    @abc.abstractmethod
    def details(self) -> dict[str, Any]:
        """Return the same as fields of JSON."""
