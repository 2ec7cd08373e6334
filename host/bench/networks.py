"""The layers of published networks, each distinct shape once, with how often it occurs.

Convolutions and the classifier, which is one of a single pixel. Pooling, functions, and the sums of
shortcuts have no multiplications that a network's figure counts.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from ..compiler.convolution_shape import ConvShape

__all__ = ["LAYERS", "NETWORKS", "Layer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A shape that occurs in a network.

    Parameters
    ----------
    name : str
        As ``resnet50:conv1``.
    shape : ConvShape
    times : int
        How often it occurs.
    """

    name: str
    shape: ConvShape
    times: int

    @property
    def macs(self) -> int:
        """Multiplications of all its occurrences."""
        return self.times * self.shape.macs


def _conv(
    size: int, channels: int, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> ConvShape:
    pad = kernel // 2
    return ConvShape(
        height=size,
        width=size,
        channels=channels,
        filters=filters,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        groups=groups,
    )


def _resnet50() -> Iterator[tuple[str, ConvShape]]:
    """All layers in order; those of a stage's first block that differ are called ``first``."""
    yield "conv1", _conv(224, 3, 64, 7, 2)
    channels, size = 64, 56
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        width, stride = 16 << stage, 1 if stage == 2 else 2
        for block in range(blocks):
            first, step = ("", 1) if block else ("first-", stride)
            yield f"conv{stage}-{first}reduce", _conv(size, channels, width)
            yield f"conv{stage}-{first if step > 1 else ''}3x3", _conv(size, width, width, 3, step)
            yield f"conv{stage}-expand", _conv(size // step, width, 4 * width)
            if first:
                yield f"conv{stage}-shortcut", _conv(size, channels, 4 * width, 1, step)
            channels, size = 4 * width, size // step
    yield "classifier", _conv(1, channels, 1000)


def _mobilenetv2() -> Iterator[tuple[str, ConvShape]]:
    """All layers in order; blocks are counted from 1."""
    yield "first", _conv(224, 3, 32, 3, 2)
    channels, size, block = 32, 112, 0
    for factor, filters, blocks, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for index in range(blocks):
            block += 1
            stride, wide = 1 if index else first_stride, factor * channels
            if factor > 1:
                yield f"block{block}-expand", _conv(size, channels, wide)
            yield f"block{block}-depthwise", _conv(size, wide, wide, 3, stride, groups=wide)
            size //= stride
            yield f"block{block}-project", _conv(size, wide, filters)
            channels = filters
    yield "last", _conv(size, channels, 1280)
    yield "classifier", _conv(1, 1280, 1000)


def _distinct(network: str, layers: Iterable[tuple[str, ConvShape]]) -> tuple[Layer, ...]:
    """Return each shape once, under the name of its first occurrence."""
    found: dict[ConvShape, Layer] = {}
    for name, shape in layers:
        new = Layer(name=f"{network}:{name}", shape=shape, times=0)
        layer = found.get(shape, new)
        found[shape] = dataclasses.replace(layer, times=layer.times + 1)
    return tuple(found.values())


NETWORKS: dict[str, tuple[Layer, ...]] = {
    "resnet50": _distinct("resnet50", _resnet50()),
    "mobilenetv2": _distinct("mobilenetv2", _mobilenetv2()),
}
"""Layers of images of 224 x 224, batch 1, in the order of their first occurrence."""

LAYERS: dict[str, Layer] = {layer.name: layer for layers in NETWORKS.values() for layer in layers}
"""All of them by name."""
