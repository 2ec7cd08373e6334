"""The program that runs an INT8 network on a card, a batch of images at a time.

A batch stays in the scratchpad from the first layer to the last. The queues work on different
layers of different images at once, ordered image by image by semaphores: while the array convolves
image 7, the vector unit pools image 6 and the store writes image 5. Every layer's output is stored
to card memory, where the host may read it.
"""

import collections
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import SEMAPHORES, Function, Queue, VectorOp
from . import commands
from .commands import Operand, Signal, Wait
from .conv import ConvKernel, lower_conv
from .network import Add, AveragePool, Conv, Layer, MaxPool, Network
from .tensor import TensorLayout, granules

__all__ = ["Program"]

MAX_BATCH = 64
"""Images of a batch at most, whatever fits: semaphores count images, and progress shows batches."""

MAX_SIGNALS = 4
"""Of a command."""


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
        sources = self.network.sources()
        barriers, links = self._order()
        by_image = [False, *map(self._by_image, range(len(sources)))]

        def signals(tensor: int) -> list[Signal]:
            return [
                _link(number, by_image[tensor], by_image[reader])[1]
                for (made, reader), number in links.items()
                if made == tensor
            ]

        # One load for all images: image by image it would wait for the stores again and again.
        stream = [
            commands.load(
                Operand(base + self._offset[0]),
                Operand(self._address[0]),
                x_bytes=images * self.tensors[0].image_bytes,
                signal=signals(0),
            )
        ]
        for index, layer in enumerate(self.network.layers):
            made = index + 1
            if index in barriers:
                stream.append(commands.barrier())
            wait = [
                _link(links[tensor, made], by_image[tensor], by_image[made])[0]
                for tensor in dict.fromkeys(sources[index])
                if (tensor, made) in links
            ]
            if isinstance(layer, Conv):
                stream.append(
                    self._kernels[layer.name].command(
                        blob=self._blob_address[layer.name],
                        x=self._address[sources[index][0]],
                        out=self._address[made],
                        images=images,
                        wait=wait,
                        signal=signals(made),
                    )
                )
            else:
                stream.append(
                    self._vector(layer, sources[index], made, images, wait, signals(made))
                )
            stored = _link(links[made, made], by_image[made], by_image[made])[0]
            stream.append(self._store(base, made, images, by_image[made], [stored]))
        return stream

    def _order(self) -> tuple[set[int], dict[tuple[int, int], int]]:
        """Decide what waits for what.

        Returns
        -------
        set of int
            Layers that have a barrier before them, since semaphores or signals had run out.
        dict
            The semaphore of every pair of a tensor and a reader that waits for it. Readers are
            named by the tensor that they make; a tensor's own is its store.
        """
        barriers: set[int] = set()
        links: dict[tuple[int, int], int] = {}
        told: collections.Counter[int] = collections.Counter()
        first = used = 0  # the oldest tensor since the last barrier; semaphores since then
        for index, taken in enumerate(self.network.sources()):
            made = index + 1
            fresh = [tensor for tensor in dict.fromkeys(taken) if tensor >= first]
            full = any(told[tensor] == MAX_SIGNALS for tensor in fresh)
            if full or used + len(fresh) + 1 > SEMAPHORES:
                barriers.add(index)
                first, used, fresh = made, 0, []
            for tensor in [*fresh, made]:
                links[tensor, made] = used
                used += 1
                told[tensor] += 1
        return barriers, links

    def _lower(self) -> dict[str, ConvKernel]:
        kernels = {}
        sources = self.network.sources()
        for index, layer in enumerate(self.network.layers):
            if not isinstance(layer, Conv):
                continue
            try:
                kernels[layer.name] = lower_conv(
                    self.config,
                    layer.weight,
                    bias=layer.bias,
                    scale=layer.scale,
                    source=self.tensors[sources[index][0]],
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

    def _vector(
        self,
        layer: MaxPool | AveragePool | Add,
        sources: Sequence[int],
        made: int,
        images: int,
        wait: Sequence[Wait],
        signal: Sequence[Signal],
    ) -> bytes:
        source, target = self.tensors[sources[0]], self.tensors[made]
        points = self.network.zero_points()
        kernel = stride = (1, 1)
        within, second = source, None
        op, scale, other_scale, other_zero, low = VectorOp.MAX, None, None, 0, -128
        if isinstance(layer, Add):
            within, second = self.tensors[sources[1]], self._images(sources[1])
            op, scale, other_scale = VectorOp.ADD, layer.scale, layer.other_scale
            other_zero, low = points[sources[1]], layer.clamp_low
        else:
            kernel, stride = layer.kernel, layer.stride
            if isinstance(layer, AveragePool):
                op, scale = VectorOp.AVERAGE, float(layer.factor)
        return commands.vector(
            op,
            self._images(sources[0]),
            self._images(made),
            second,
            granules=target.pixel_bytes // GRANULE,
            out_y=target.height,
            out_x=target.width,
            kernel_y=kernel[0],
            kernel_x=kernel[1],
            in_y_stride=stride[0] * source.row_bytes,
            in_x_stride=stride[1] * source.pixel_bytes,
            in_ky_stride=within.row_bytes,
            in_kx_stride=within.pixel_bytes,
            out_y_stride=target.row_bytes,
            out_x_stride=target.pixel_bytes,
            a_scale=scale,
            b_scale=other_scale,
            a_zero=points[sources[0]],
            b_zero=other_zero,
            zero_point=points[made],
            clamp_low=low,
            inner=images,
            wait=wait,
            signal=signal,
        )

    def _images(self, tensor: int) -> Operand:
        """Return the first pixel of a tensor, image by image."""
        layout = self.tensors[tensor]
        return Operand(self._address[tensor] + layout.origin, inner=layout.image_bytes)

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


def _link(semaphore: int, produced: bool, consumed: bool) -> tuple[Wait, Signal]:
    """Order a consumer after a producer, each of which runs by image or once for all images."""
    return (
        Wait(semaphore, outer=consumed and not produced),
        Signal(semaphore, outer=produced and not consumed),
    )


def _layouts(network: Network) -> list[TensorLayout]:
    """Return how all tensors lie: their readers say which halo there is."""
    shapes = network.shapes()
    readers: list[list[Layer]] = [[] for _ in shapes]
    for layer, sources in zip(network.layers, network.sources(), strict=True):
        for tensor in sources:
            readers[tensor].append(layer)
    tensors = []
    for index, ((height, width, channels), layers) in enumerate(zip(shapes, readers, strict=True)):
        convs = [layer for layer in layers if isinstance(layer, Conv)]
        # The host packs the input, so it may be narrower than the granules that others read.
        packed = index == 0 and len(convs) == len(layers)
        paddings = [(0, 0), *(layer.padding for layer in convs)]
        tensors.append(
            TensorLayout(
                height=height,
                width=width,
                channels=channels,
                pixel_bytes=channels if packed else granules(channels),
                halo=(max(pad[0] for pad in paddings), max(pad[1] for pad in paddings)),
            )
        )
    return tensors
