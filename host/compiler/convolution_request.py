"""What every way to run a convolution is asked for, and what it answers with."""

import dataclasses
from typing import Any, Protocol

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


class ConvPlan(Protocol):
    """A convolution for one card configuration, with everything but the addresses decided.

    All plans of a convolution give the same bits, and take and leave images in the same form
    (`convolution_shape.ConvLayout`).
    """

    @property
    def config(self) -> CardConfig:
        """The card that the plan is for."""

    @property
    def shape(self) -> ConvShape: ...

    @property
    def kind(self) -> str:
        """How the array is used: a key of `convolution.PLANNERS`."""

    @property
    def encoding(self) -> Encoding:
        """Of the streams."""

    @property
    def cycles(self) -> int:
        """Estimate for the whole job."""

    @property
    def weights(self) -> npt.NDArray[np.uint8]:
        """Bytes of the weights for card memory, with all else that does not depend on the image."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in card memory."""

    @property
    def x_bytes(self) -> int:
        """Bytes of the input in card memory, its padding included."""

    @property
    def y_bytes(self) -> int:
        """Bytes of the output in card memory."""

    def pack_x(self, image: npt.NDArray) -> npt.NDArray[np.uint8]:
        """Return the bytes of an image [H, W, C] for card memory.

        Raises
        ------
        ValueError
            If shape or type are not the plan's.
        """

    def unpack_y(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray:
        """Return the output [H, W, filters] from its bytes in card memory."""

    def commands(self, weights: int, x: int, y: int) -> list[bytes]:
        """Return the commands, without an END.

        They start with all semaphores at 0, and leave credits behind: between two plans of one
        job goes a `commands.barrier`. They use the whole scratchpad.

        Parameters
        ----------
        weights, x, y : int
            Addresses in card memory: multiples of 16.
        """

    def describe(self) -> str:
        """Return how the convolution is cut, for people."""

    def details(self) -> dict[str, Any]:
        """Return the same as fields of JSON."""
