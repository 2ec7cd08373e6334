"""Convolutions on the card: run, compared bit for bit with the golden model, and measured."""

import dataclasses
from typing import Any

from ...rtl.isa import LANES
from ..card import Card
from ..compiler.convolution import ConvPlan, plan_conv
from ..compiler.transposed import TransposedPlan, plan_transposed
from .conv_job import ConvJob
from .job import ENCODINGS
from .result import Result, compare, run_job
from .transposed_job import TransposedJob

__all__ = ["ConvResult", "conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvResult(Result):
    """A convolution that ran."""

    job: ConvJob
    plan: ConvPlan | TransposedPlan

    name = "conv"

    @property
    def lanes(self) -> int:
        return LANES[self.job.mode]

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
        job = self.job
        shape = dataclasses.asdict(job.shape)
        return {
            **self._card_fields(),
            "dtype": job.dtype,
            "out_dtype": job.out_name,
            "shape": shape | {"outputs": job.shape.outputs},
            "kind": self.plan.kind,
            "encoding": self.encoding,
            "seed": job.seed,
            **self._cycle_fields(cycles_estimated=self.plan.cycles),
            "bit_exact": True,
            **self.plan.details(),
            **self._moved_fields(),
            **self._memory_fields(),
            "wall_seconds": round(self.wall_s, 4),
            "command": self.command(),
        }


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
    done = run_job(
        card,
        {"the weights": plan.weights, "the image": plan.pack_x(image)},
        ("the output", plan.y_bytes),
        plan.commands,
        plan.cycles,
    )
    compare(plan.unpack_y(done.output), job.expected(weights, image), "Y")
    return ConvResult(job=job, plan=plan, macs=job.shape.macs, **done.measured)
