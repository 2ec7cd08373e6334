"""How an image tensor lies in memory: NHWC with a halo around each image."""

import dataclasses

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE

__all__ = ["TensorLayout", "granules"]


def granules(size: int) -> int:
    """Return ``size`` in bytes rounded up to whole granules."""
    return -(-size // GRANULE) * GRANULE


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorLayout:
    """INT8 images [N, H, W, C], one after the other; the same in card memory and scratchpad.

    Parameters
    ----------
    height, width, channels : int
        Of an image without its halo.
    pixel_bytes : int
        Distance of two pixels of a row: at least ``channels``.
    halo : (int, int)
        Pixels stored above and below, and left and right, of each image. They hold the tensor's
        zero point, so that a convolution reads them as zeros.
    """

    height: int
    width: int
    channels: int
    pixel_bytes: int
    halo: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for field in ("height", "width", "channels"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be positive, not {getattr(self, field)!r}")
        if self.pixel_bytes < self.channels:
            raise ValueError(
                f"pixel_bytes must hold {self.channels} channels, not {self.pixel_bytes!r}"
            )
        if min(self.halo) < 0:
            raise ValueError(f"halo must not be negative, not {self.halo!r}")

    @property
    def row_bytes(self) -> int:
        """Distance of two rows of an image."""
        return (self.width + 2 * self.halo[1]) * self.pixel_bytes

    @property
    def image_bytes(self) -> int:
        """Distance of two images: whole granules."""
        return granules((self.height + 2 * self.halo[0]) * self.row_bytes)

    @property
    def origin(self) -> int:
        """Bytes from an image's start to its pixel (0, 0)."""
        return self.halo[0] * self.row_bytes + self.halo[1] * self.pixel_bytes

    def pack(self, images: npt.NDArray[np.int8], *, fill: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of images [N, H, W, C]; ``fill`` is put everywhere else.

        Raises
        ------
        ValueError
            If type or shape are not the layout's.
        """
        shape = (self.height, self.width, self.channels)
        if images.dtype != np.int8 or images.shape[1:] != shape:
            raise ValueError(
                f"images must be int8 [N, {shape[0]}, {shape[1]}, {shape[2]}], "
                f"not {images.dtype} {images.shape}"
            )
        data = np.full((len(images), self.image_bytes), fill, np.int8)
        self._interior(data)[:] = images
        return data.view(np.uint8).reshape(-1)

    def unpack(self, data: bytes | npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
        """Return the images [N, H, W, C] in the bytes of whole images."""
        array = np.frombuffer(data, np.int8).reshape(-1, self.image_bytes)
        return np.ascontiguousarray(self._interior(array))

    def _interior(self, data: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """View images [N, image_bytes] as [N, H, W, C]."""
        return np.lib.stride_tricks.as_strided(
            data[:, self.origin :],
            (len(data), self.height, self.width, self.channels),
            (self.image_bytes, self.row_bytes, self.pixel_bytes, 1),
            writeable=data.flags.writeable,
        )
