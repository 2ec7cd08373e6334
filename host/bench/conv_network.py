"""All layers of a network on the card, one job for each distinct shape."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ..card import Card
from .conv import ConvResult, conv
from .conv_job import ConvJob, shape_text
from .networks import NETWORKS, Layer

__all__ = [
    "LAYER_COLUMNS",
    "NOT_COUNTED",
    "MeasuredLayer",
    "Total",
    "layers_of",
    "measure",
    "wanted",
]

NOT_COUNTED = (
    "Not in the figure: pooling, functions and sums of shortcuts, which have no multiplications "
    "that count. Each layer is a job of its own: its first loads and last stores are in it."
)

TARGETS = {
    ("resnet50", "ecp5"): 0.96,
    ("resnet50", "sim"): 0.92,
    ("mobilenetv2", "ecp5"): 0.80,
    ("mobilenetv2", "sim"): 0.65,
}
"""Utilisation that is wanted, INT8 with the memory model on."""


def wanted(network: str, preset: str, *, memory: str, dtype: str) -> float | None:
    """Return the utilisation that is wanted of a whole network, if there is such a figure."""
    return TARGETS.get((network, preset)) if (memory, dtype) == ("hbm", "int8") else None


LAYER_COLUMNS = (
    *("layer", "times", "input", "filters", "kernel", "stride", "groups", "outputs"),
    *("dtype", "preset", "memory", "backend", "macs", "cycles", "cycles_estimated"),
    *("mac_units", "utilization", "kind", "encoding", "tiles"),
    *("mac_active", "stall_stream", "stall_fill", "stall_drain"),
    *("idle_imbalance", "idle_memory", "idle_other", "bytes_read", "bytes_written"),
    *("bit_exact", "cycles_modelled", "build", "command"),
)
"""Columns of the CSV file. ``macs``, ``cycles`` and what follows them are of one occurrence;
``mac_active`` to ``idle_other`` are engine-cycles."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredLayer:
    """A layer that ran and equals the golden model.

    Parameters
    ----------
    build : str
        Of the card: a hash of its RTL.
    """

    layer: Layer
    result: ConvResult
    build: str

    @property
    def shape(self) -> str:
        """The layer's shape, for people."""
        return shape_text(self.layer.shape)

    def fields(self) -> dict[str, Any]:
        """Return the row of the CSV file: `LAYER_COLUMNS`."""
        result, shape, counters = self.result, self.layer.shape, self.result.counters
        return {
            "layer": self.layer.name,
            "times": self.layer.times,
            "input": f"{shape.height}x{shape.width}x{shape.channels}",
            "filters": shape.filters,
            "kernel": f"{shape.kernel[0]}x{shape.kernel[1]}",
            "stride": f"{shape.stride[0]}x{shape.stride[1]}",
            "groups": shape.groups,
            "outputs": f"{shape.outputs[0]}x{shape.outputs[1]}",
            "dtype": result.job.dtype,
            "preset": result.config.name,
            "memory": result.memory,
            "backend": result.backend,
            "macs": shape.macs,
            "cycles": counters.cycles,
            "cycles_estimated": result.plan.cycles,
            "mac_units": result.mac_units,
            "utilization": round(result.utilization, 5),
            "kind": result.plan.kind,
            "encoding": result.encoding,
            "tiles": result.tiles,
            "mac_active": counters.mac_active,
            **counters.stalls(),
            "bytes_read": counters.bytes_read,
            "bytes_written": counters.bytes_written,
            "bit_exact": True,
            "cycles_modelled": result.cycles_modelled,
            "build": self.build,
            "command": result.command(),
        }


@dataclasses.dataclass(frozen=True)
class Total:
    """The figures of a network, or of the layers of it that ran.

    Parameters
    ----------
    network : str
    done : sequence of MeasuredLayer
        At least one.
    """

    network: str
    done: tuple[MeasuredLayer, ...]

    @property
    def complete(self) -> bool:
        """Whether all layers ran."""
        return len(self.done) == len(NETWORKS[self.network])

    @property
    def macs(self) -> int:
        return sum(one.layer.macs for one in self.done)

    @property
    def cycles(self) -> int:
        return sum(one.layer.times * one.result.counters.cycles for one in self.done)

    @property
    def utilization(self) -> float:
        """Multiplications per cycle and multiplier."""
        return self.macs / (self.cycles * self.done[0].result.mac_units)

    @property
    def target(self) -> float | None:
        """Utilisation that is wanted of the whole network, if there is such a figure."""
        first = self.done[0].result
        if not self.complete:
            return None
        preset, dtype = first.config.name, first.job.dtype
        return wanted(self.network, preset, memory=first.memory, dtype=dtype)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the total's line."""
        first, target = self.done[0].result, self.target
        estimated = sum(one.layer.times * one.result.plan.cycles for one in self.done)
        return {
            "name": "conv-network",
            "network": self.network,
            "complete": self.complete,
            "layers": sum(one.layer.times for one in self.done),
            "distinct": len(self.done),
            "preset": first.config.name,
            "backend": first.backend,
            "memory": first.memory,
            "dtype": first.job.dtype,
            "macs": self.macs,
            "cycles": self.cycles,
            "cycles_estimated": estimated,
            "cycles_modelled": first.cycles_modelled,
            "mac_units": first.mac_units,
            "utilization": round(self.utilization, 5),
            "target": target,
            "met": None if target is None else self.utilization >= target,
            "bit_exact": True,
            "build": self.done[0].build,
        }


def layers_of(network: str, only: Iterable[str] = ()) -> list[Layer]:
    """Return the layers of a network whose names contain one of some texts; all without any.

    Raises
    ------
    ValueError
        If there is no such network, or a text is in no name; lists the names.
    """
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}; choose one of: {', '.join(NETWORKS)}")
    layers, texts = NETWORKS[network], list(only)
    for text in texts:
        if not text or not any(text in layer.name for layer in layers):
            known = ", ".join(layer.name for layer in layers)
            raise ValueError(f"no layer of {network} has {text!r} in its name; they are: {known}")
    return [layer for layer in layers if not texts or any(text in layer.name for text in texts)]


def measure(
    card: Card, layers: Iterable[Layer], *, dtype: str, kind: str | None = None, seed: int = 0
) -> Iterator[MeasuredLayer]:
    """Run layers one after the other, with random numbers, and compare each with the golden model.

    Raises
    ------
    MismatchError, CardError, OutOfMemoryError, ValueError
    """
    for layer in layers:
        job = ConvJob(shape=layer.shape, dtype=dtype, kind=kind, seed=seed)
        yield MeasuredLayer(layer=layer, result=conv(card, job), build=card.info().build)
