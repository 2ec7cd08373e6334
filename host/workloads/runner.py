"""Runs a `Network` on a card batch by batch, and compares every tensor with the golden model."""

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...sim.golden.network import conv2d
from ...sim.golden.vector import add, average_pool, max_pool
from ..card import Card
from ..compiler.network import AveragePool, Conv, MaxPool, Network
from ..compiler.program import Program
from ..counters import Counters

__all__ = ["Batch", "NetworkRunner", "golden_tensors"]

MAX_CYCLES = 20_000_000
"""Deadline of a job, far above what any batch takes."""


def golden_tensors(network: Network, images: npt.NDArray[np.int8]) -> list[npt.NDArray[np.int8]]:
    """Return the output [N, H, W, C] of every layer, by the golden model."""
    tensors, points = [images], network.zero_points()
    for layer, sources in zip(network.layers, network.sources(), strict=True):
        x, zero = tensors[sources[0]], points[sources[0]]
        if isinstance(layer, Conv):
            out = conv2d(
                x,
                layer.spread,
                bias=layer.bias,
                scale=layer.scale,
                stride=layer.stride,
                padding=layer.padding,
                pad_value=zero,
                function="relu" if layer.relu else "none",
                zero_point=layer.zero_point,
            )
        elif isinstance(layer, MaxPool):
            out = max_pool(x, kernel=layer.kernel, stride=layer.stride)
        elif isinstance(layer, AveragePool):
            out = average_pool(
                x,
                kernel=layer.kernel,
                stride=layer.stride,
                zero=zero,
                scale=_bits(layer.factor),
                zero_point=layer.zero_point,
            )
        else:
            out = add(
                x,
                tensors[sources[1]],
                a_zero=zero,
                b_zero=points[sources[1]],
                a_scale=_bits(layer.scale),
                b_scale=_bits(layer.other_scale),
                zero_point=layer.zero_point,
                clamp_low=layer.clamp_low,
            )
        tensors.append(out)
    return tensors[1:]


def _bits(scale: float | np.float32) -> int:
    return int(np.float32(scale).view(np.uint32))


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """What the card made of some images.

    Parameters
    ----------
    first : int
        Index of the batch's first image.
    tensors : list of int8 arrays [N, H, W, C]
        Output of every layer.
    identical : int
        Tensors (of one image and layer) that equal the golden model's bit for bit.
    """

    first: int
    tensors: list[npt.NDArray[np.int8]]
    identical: int


class NetworkRunner:
    """A network that is loaded on a card; to be used in a ``with`` statement.

    Parameters
    ----------
    card : Card
    network : Network
    batch : int
        Images of a batch (`Program`).

    Members
    -------
    program : Program
    counters : Counters
        Sum over all jobs so far.
    card_seconds : float
        Seconds on the wall in which the card ran.
    """

    def __init__(self, card: Card, network: Network, *, batch: int | None = None) -> None:
        self.card = card
        self.network = network
        self.program = Program(card.config, network, batch=batch)
        self.counters = Counters()
        self.card_seconds = 0.0
        self._memory = card.allocate(self.program.memory_bytes, "the network")
        try:
            card.write(self._memory, self.program.constants)
            self._launch(self.program.setup(self._memory.address))
        except BaseException:
            card.free(self._memory)
            raise

    def __enter__(self) -> "NetworkRunner":
        return self

    def __exit__(self, *_: object) -> None:
        self.card.free(self._memory)

    def run(self, images: npt.NDArray[np.int8]) -> Iterator[Batch]:
        """Run images [N, H, W, C]; yield each batch when it is done and compared."""
        for first in range(0, len(images), self.program.batch):
            yield self._run(first, images[first : first + self.program.batch])

    def _run(self, first: int, images: npt.NDArray[np.int8]) -> Batch:
        program, card, count = self.program, self.card, len(images)
        # Outputs of an earlier batch must not pass for this one's.
        for index, layout in enumerate(program.tensors[1:], start=1):
            stale = np.full(count * layout.image_bytes, 0x55, np.uint8)
            card.write(self._memory, stale, offset=program.tensor_offset(index))
        card.write(self._memory, program.pack_input(images), offset=program.tensor_offset(0))
        self._launch(program.run(self._memory.address, count))
        tensors, identical = [], 0
        golden = golden_tensors(self.network, images)
        for index, expected in enumerate(golden, start=1):
            layout = program.tensors[index]
            data = card.read(
                self._memory,
                offset=program.tensor_offset(index),
                nbytes=count * layout.image_bytes,
            )
            tensor = layout.unpack(data)
            identical += int((tensor == expected).all(axis=(1, 2, 3)).sum())
            tensors.append(tensor)
        return Batch(first, tensors, identical)

    def _launch(self, commands: list[bytes]) -> None:
        start = time.perf_counter()
        result = self.card.submit(commands).wait(max_cycles=MAX_CYCLES)
        self.card_seconds += time.perf_counter() - start
        self.counters += result.counters
