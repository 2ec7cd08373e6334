"""Sequential INT8 networks: their description, and the program that runs them on a card.

A batch of images stays in the scratchpad from the first layer to the last. The queues work on
different layers of different images at once, ordered image by image by semaphores: while the
array convolves image 7, the vector unit pools image 6 and the store writes image 5. Every layer's
output is stored to card memory, where the host may read it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import SEMAPHORES, Function, Queue
from . import commands
from .commands import Operand, Signal, Wait
from .conv import ConvKernel, lower_conv, output_size
from .tensor import TensorLayout, granules

__all__ = ["Conv", "MaxPool", "Network", "Program"]

MAX_BATCH = 64
"""Images of a batch at most, whatever fits: semaphores count images, and progress shows batches."""


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
    """Maximum over windows."""

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Layers in a row.

    Parameters
    ----------
    shape : (int, int, int)
        Height, width and channels of the input.
    zero_point : int
        Of the input.
    layers : sequence of Conv and MaxPool
        With different names.

    Raises
    ------
    ValueError
        If a layer does not fit the one before; names the layer.
    """

    shape: tuple[int, int, int]
    zero_point: int
    layers: Sequence[Conv | MaxPool]

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"layers must have different names, not {names!r}")
        self.shapes()

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return height, width and channels of the input and of every layer's output."""
        shapes = [self.shape]
        for layer in self.layers:
            height, width, channels = shapes[-1]
            if isinstance(layer, Conv):
                outputs, *kernel, inputs = layer.weight.shape
                padding, dilation = layer.padding, layer.dilation
                if inputs != channels:
                    raise ValueError(
                        f"layer {layer.name}: weight must have {channels} input channels, "
                        f"not {inputs!r}"
                    )
            else:
                outputs, kernel, padding = channels, list(layer.kernel), (0, 0)
                dilation = (1, 1)
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
        """Return the zero point of the input and of every layer's output."""
        points = [self.zero_point]
        for layer in self.layers:
            points.append(layer.zero_point if isinstance(layer, Conv) else points[-1])
        return points

    @property
    def macs(self) -> int:
        """Multiplications of one image."""
        return sum(
            layer.weight.size * height * width
            for layer, (height, width, _) in zip(self.layers, self.shapes()[1:], strict=True)
            if isinstance(layer, Conv)
        )


class Program:
    """A network lowered for a card: layout of its memory, and its commands.

    Card memory is one region of `memory_bytes`, at any aligned ``base``: first `constants`, which
    the host writes once, then the batch's input and every layer's output, at `tensor_offset`.

    Parameters
    ----------
    config : CardConfig
    network : Network
    batch : int
        Images of a batch; as many as fit, up to 32, if not given.

    Raises
    ------
    ValueError
        If a layer has no lowering, or not even one image (or ``batch`` images) fits.
    """

    DEFAULT_BATCH = 32

    def __init__(self, config: CardConfig, network: Network, *, batch: int | None = None) -> None:
        if batch is not None and not 1 <= batch <= MAX_BATCH:
            raise ValueError(f"batch must be from 1 to {MAX_BATCH}, not {batch!r}")
        self.config = config
        self.network = network
        self.tensors = _layouts(network)
        self._kernels = self._lower()

        blob_bytes = {name: len(kernel.blob.data) for name, kernel in self._kernels.items()}
        image_bytes = sum(tensor.image_bytes for tensor in self.tensors)
        room = (config.scratchpad_bytes - sum(blob_bytes.values())) // image_bytes
        self.batch = min(room, self.DEFAULT_BATCH) if batch is None else batch
        if not 1 <= self.batch <= room:
            raise ValueError(
                f"{max(self.batch, 1)} images need "
                f"{sum(blob_bytes.values()) + max(self.batch, 1) * image_bytes} bytes of "
                f"scratchpad, preset {config.name} has {config.scratchpad_bytes}; "
                + (f"use a batch of at most {room}" if room > 0 else "use a larger preset")
            )

        # Scratchpad: blobs, then tensors. Memory: blobs and halo templates, then tensors.
        address = offset = 0
        self._blob_address: dict[str, int] = {}
        self._blob_offset: dict[str, int] = {}
        for name, size in blob_bytes.items():
            self._blob_address[name], self._blob_offset[name] = address, offset
            address, offset = address + size, offset + size
        self._template_offset: dict[int, int] = {}
        for index, tensor in enumerate(self.tensors):
            if index and tensor.halo != (0, 0):
                self._template_offset[index] = offset
                offset += tensor.image_bytes
        self._constant_bytes = offset
        self._address: list[int] = []
        self._offset: list[int] = []
        for tensor in self.tensors:
            self._address.append(address)
            self._offset.append(offset)
            address += self.batch * tensor.image_bytes
            offset += self.batch * tensor.image_bytes
        self.memory_bytes = offset

    @property
    def constants(self) -> npt.NDArray[np.uint8]:
        """Weights and halos: what the start of the memory region must hold."""
        image = np.zeros(self._constant_bytes, np.uint8)
        for name, offset in self._blob_offset.items():
            data = self._kernels[name].blob.data
            image[offset : offset + len(data)] = data
        points = self.network.zero_points()
        for index, offset in self._template_offset.items():
            size = self.tensors[index].image_bytes
            image[offset : offset + size] = points[index] & 0xFF
        return image

    def tensor_offset(self, index: int) -> int:
        """Return where in the memory region tensor ``index`` lies: 0 is the input."""
        return self._offset[index]

    def pack_input(self, images: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        """Return the bytes to write at ``tensor_offset(0)`` for images [N, H, W, C]."""
        return self.tensors[0].pack(images, fill=self.network.zero_point)

    def setup(self, base: int) -> list[bytes]:
        """Return the commands that bring weights and halos into the scratchpad, without an END.

        They stay there for any number of batches, until other commands write the scratchpad.
        """
        stream = [
            commands.load(
                Operand(base + offset),
                Operand(self._blob_address[name]),
                x_bytes=len(self._kernels[name].blob.data),
            )
            for name, offset in self._blob_offset.items()
        ]
        stream += [
            commands.load(
                Operand(base + offset),
                Operand(self._address[index], inner=self.tensors[index].image_bytes),
                x_bytes=self.tensors[index].image_bytes,
                inner=self.batch,
                queue=Queue.LOAD1,
            )
            for index, offset in self._template_offset.items()
        ]
        return stream

    def run(self, base: int, images: int) -> list[bytes]:
        """Return the commands for the first ``images`` images of the region, without an END."""
        if not 1 <= images <= self.batch:
            raise ValueError(f"images must be from 1 to the batch of {self.batch}, not {images!r}")
        free = list(range(SEMAPHORES))
        by_image = [self._by_image(index) for index in range(len(self.network.layers))]
        # One load for all images: image by image it would wait for the stores again and again.
        wait, signal = _link(free.pop(0), False, by_image[0])
        stream = [
            commands.load(
                Operand(base + self._offset[0]),
                Operand(self._address[0]),
                x_bytes=images * self.tensors[0].image_bytes,
                signal=signal,
            )
        ]
        for index, layer in enumerate(self.network.layers):
            if len(free) < 2:
                stream.append(commands.barrier())
                free = list(range(SEMAPHORES))
                wait = []
            produced = by_image[index]
            store_wait, signal = _link(free.pop(0), produced, produced)
            next_wait: list[Wait] = []
            if index + 1 < len(by_image):
                next_wait, also = _link(free.pop(0), produced, by_image[index + 1])
                signal += also
            if isinstance(layer, Conv):
                stream.append(
                    self._kernels[layer.name].command(
                        blob=self._blob_address[layer.name],
                        x=self._address[index],
                        out=self._address[index + 1],
                        images=images,
                        wait=wait,
                        signal=signal,
                    )
                )
            else:
                stream.append(self._pool(index, layer, images, wait, signal))
            stream.append(self._store(base, index + 1, images, produced, store_wait))
            wait = next_wait
        return stream

    def _lower(self) -> dict[str, ConvKernel]:
        kernels = {}
        for index, layer in enumerate(self.network.layers):
            if not isinstance(layer, Conv):
                continue
            try:
                kernels[layer.name] = lower_conv(
                    self.config,
                    layer.weight,
                    bias=layer.bias,
                    scale=layer.scale,
                    source=self.tensors[index],
                    target=self.tensors[index + 1],
                    stride=layer.stride,
                    padding=layer.padding,
                    dilation=layer.dilation,
                    function=Function.RELU if layer.relu else Function.NONE,
                    zero_point=layer.zero_point,
                )
            except ValueError as error:
                raise ValueError(f"layer {layer.name}: {error}") from None
        return kernels

    def _by_image(self, index: int) -> bool:
        """Whether a layer's command has an iteration an image, or one for all."""
        kernel = self._kernels.get(self.network.layers[index].name)
        return kernel is None or not kernel.fold

    def _pool(
        self,
        index: int,
        layer: MaxPool,
        images: int,
        wait: Sequence[Wait],
        signal: Sequence[Signal],
    ) -> bytes:
        source, target = self.tensors[index], self.tensors[index + 1]
        return commands.pool(
            Operand(self._address[index] + source.origin, inner=source.image_bytes),
            Operand(self._address[index + 1] + target.origin, inner=target.image_bytes),
            granules=source.pixel_bytes // GRANULE,
            out_y=target.height,
            out_x=target.width,
            kernel_y=layer.kernel[0],
            kernel_x=layer.kernel[1],
            in_y_stride=layer.stride[0] * source.row_bytes,
            in_x_stride=layer.stride[1] * source.pixel_bytes,
            in_ky_stride=source.row_bytes,
            in_kx_stride=source.pixel_bytes,
            out_y_stride=target.row_bytes,
            out_x_stride=target.pixel_bytes,
            inner=images,
            wait=wait,
            signal=signal,
        )

    def _store(
        self, base: int, index: int, images: int, by_image: bool, wait: Sequence[Wait]
    ) -> bytes:
        size = self.tensors[index].image_bytes
        return commands.store(
            Operand(base + self._offset[index], inner=size),
            Operand(self._address[index], inner=size),
            x_bytes=size if by_image else images * size,
            inner=images if by_image else 1,
            wait=wait,
        )


def _link(semaphore: int, produced: bool, consumed: bool) -> tuple[list[Wait], list[Signal]]:
    """Order a consumer after a producer, each of which runs by image or once for all images."""
    return (
        [Wait(semaphore, outer=consumed and not produced)],
        [Signal(semaphore, outer=produced and not consumed)],
    )


def _layouts(network: Network) -> list[TensorLayout]:
    """Return how the input and every layer's output lie: the consumer says which halo it reads."""
    shapes = network.shapes()
    readers: list[Conv | MaxPool | None] = [*network.layers, None]
    tensors = []
    for index, ((height, width, channels), reader) in enumerate(zip(shapes, readers, strict=True)):
        # The host packs the input, so it may be narrower than the granules that pooling reads.
        packed = index == 0 and isinstance(reader, Conv)
        tensors.append(
            TensorLayout(
                height=height,
                width=width,
                channels=channels,
                pixel_bytes=channels if packed else granules(channels),
                halo=reader.padding if isinstance(reader, Conv) else (0, 0),
            )
        )
    return tensors
