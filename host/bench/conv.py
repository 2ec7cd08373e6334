"""Convolutions on the card: run, compared bit for bit with the golden model, and measured."""

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...rtl.isa import LANES
from ..card import Card
from ..compiler.convolution import ConvPlan, plan_conv
from ..compiler.transposed import TransposedPlan, plan_transposed
from ..counters import Counters
from .conv_job import ConvJob
from .gemm import DEADLINE, MismatchError
from .golden import raw
from .job import ENCODINGS, command_line
from .transposed_job import TransposedJob

__all__ = ["ConvResult", "conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvResult:
    """A convolution that ran and equals the golden model bit for bit.

    Parameters
    ----------
    wall_s : float
        Seconds in which the card ran.
    """

    job: ConvJob
    plan: ConvPlan | TransposedPlan
    config: CardConfig
    backend: str
    memory: str
    cycles_modelled: bool
    counters: Counters
    wall_s: float

    @property
    def lanes(self) -> int:
        """Multiplications that a PE does in a cycle."""
        return LANES[self.job.mode]

    @property
    def mac_units(self) -> int:
        """Multiplications that the card can do in a cycle."""
        return self.config.rows * self.config.cols * self.lanes

    @property
    def utilization(self) -> float:
        """Multiplications of the convolution per cycle and multiplier."""
        return self.counters.utilization(self.job.shape.macs, self.config, self.lanes)

    @property
    def encoding(self) -> str:
        """Name of the streams' encoding."""
        return next(name for name, value in ENCODINGS.items() if value is self.plan.encoding)

    @property
    def tiles(self) -> str:
        """How the convolution was cut, for people."""
        return self.plan.describe()

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        job, counters = self.job, self.counters
        shape = dataclasses.asdict(job.shape)
        moved = counters.bytes_read + counters.bytes_written
        return {
            "name": "conv",
            "preset": self.config.name,
            "backend": self.backend,
            "memory": self.memory,
            "dtype": job.dtype,
            "out_dtype": job.out_name,
            "shape": shape | {"outputs": job.shape.outputs},
            "kind": self.plan.kind,
            "encoding": self.encoding,
            "seed": job.seed,
            "cycles": counters.cycles,
            "cycles_modelled": self.cycles_modelled,
            "cycles_estimated": self.plan.cycles,
            "macs": job.shape.macs,
            "mac_units": self.mac_units,
            "utilization": round(self.utilization, 5),
            "bit_exact": True,
            **self.plan.details(),
            "engine_cycles": {"mac_active": counters.mac_active, **counters.stalls()},
            "bytes_read": counters.bytes_read,
            "bytes_written": counters.bytes_written,
            "bytes_per_cycle": round(moved / max(counters.cycles, 1), 4),
            "hbm_row_hits": counters.hbm_row_hits,
            "hbm_activates": counters.hbm_activates,
            "hbm_refreshes": counters.hbm_refreshes,
            "wall_seconds": round(self.wall_s, 4),
            "command": self.command(),
        }

    def command(self) -> str:
        """Return the command line that repeats this."""
        return command_line(
            "conv",
            self.job.options(),
            preset=self.config.name,
            backend=self.backend,
            memory=self.memory,
            seed=self.job.seed,
        )


def conv(card: Card, job: ConvJob) -> ConvResult:
    """Run a convolution.

    Raises
    ------
    MismatchError
        If the result differs from the golden model's.
    CardError, OutOfMemoryError, ValueError
    """
    weights, image = job.operands()
    planner = plan_transposed if isinstance(job, TransposedJob) else plan_conv
    plan = planner(
        card.config,
        weights,
        image.shape,
        in_format=job.format,
        out_format=job.out_format,
        stride=job.shape.stride,
        dilation=job.shape.dilation,
        padding=job.shape.padding,
        groups=job.shape.groups,
        scale=job.scales(),
        bias=job.biases(),
        in_zero_point=job.zero_point,
        anchor=job.anchor,
        memory=card.memory_speed,
        kind=job.kind,
    )
    buffers = []
    try:
        for nbytes, name in (
            (plan.weights_bytes, "the weights"),
            (plan.x_bytes, "the image"),
            (plan.y_bytes, "the output"),
        ):
            buffers.append(card.allocate(nbytes, name))
        card.write(buffers[0], plan.weights)
        card.write(buffers[1], plan.pack_x(image))
        # Results of an earlier run must not pass for this one's.
        card.write(buffers[2], np.full(plan.y_bytes, 0xA5, np.uint8))
        commands = plan.commands(*(buffer.address for buffer in buffers))
        start = time.perf_counter()
        ended = card.submit(commands).wait(max_cycles=DEADLINE * plan.cycles)
        wall = time.perf_counter() - start
        _compare(raw(plan.unpack_y(card.read(buffers[2]))), job.expected(weights, image))
    finally:
        for buffer in buffers:
            card.free(buffer)
    return ConvResult(
        job=job,
        plan=plan,
        config=card.config,
        backend=card.transport.backend,
        memory=card.memory,
        cycles_modelled=card.transport.cycles_modelled,
        counters=dataclasses.replace(ended.counters, cycles=ended.cycles),
        wall_s=wall,
    )


def _compare(found: npt.NDArray, wanted: npt.NDArray) -> None:
    wrong = np.argwhere(found != wanted)
    if len(wrong):
        row, column, channel = wrong[0]
        raise MismatchError(
            f"the card differs from the golden model in {len(wrong)} of {wanted.size} results, "
            f"first in Y[{row}, {column}, {channel}]: {found[row, column, channel]} instead of "
            f"{wanted[row, column, channel]}; no figure is given"
        )
