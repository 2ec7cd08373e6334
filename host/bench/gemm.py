"""GEMMs on the card: run, compared bit for bit with the golden model, and measured."""

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig, preset
from ...rtl.isa import Encoding
from ..card import Card, JobResult
from ..compiler.gemm import GemmPlan, plan_gemm
from ..transport import Progress
from .bandwidth import Bandwidth, measure
from .golden import expected
from .job import ENCODINGS, GemmJob, Operands, command_line
from .result import MismatchError, Result, compare, run_job

__all__ = ["GemmResult", "MismatchError", "compare", "gemm", "open_card", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmResult(Result):
    """A GEMM that ran.

    Parameters
    ----------
    sparse : bool
        Whether A was sent without its zeros.
    macs : int
        Useful multiplications: those with a non-zero value of A, if it was sent compressed.
    bandwidth : Bandwidth or None
        What card memory moves at best, for products whose time goes to memory.
    """

    job: GemmJob
    plan: GemmPlan
    sparse: bool
    bandwidth: Bandwidth | None

    name = "gemm"

    @property
    def lanes(self) -> int:
        return self.job.lanes

    @property
    def bandwidth_fraction(self) -> float | None:
        """Bytes moved in a cycle, of those that loads alone reach."""
        if self.bandwidth is None:
            return None
        return self.bytes_per_cycle / self.bandwidth.bytes_per_cycle

    @property
    def tiles(self) -> str:
        """How the product was cut, for people."""
        tiling = self.plan.tiling
        return (
            f"{tiling.tiles} of {tiling.tile} rows by {tiling.parts} of {tiling.part} columns, "
            f"{tiling.stay} stay"
        )

    @property
    def encoding(self) -> str:
        """Name of the streams' encoding."""
        return next(name for name, value in ENCODINGS.items() if value is self.plan.encoding)

    def command(self, name: str = "gemm") -> str:
        """Return the command line that repeats this."""
        options: dict[str, object] = {"preset": self.config.name}
        if name == "gemm":
            options["backend"] = self.backend
        options |= {"memory": self.memory, "seed": self.job.seed}
        return command_line(name, self.job.options(), **options)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        job = self.job
        fields: dict[str, Any] = {
            **self._card_fields(),
            "dtype": job.dtype,
            "resident_dtype": job.resident_name,
            "out_dtype": job.out_name,
            "shape": {"m": job.m, "n": job.n, "k": job.k},
            "density": job.nonzero,
            "skew": job.skew,
            "sparse": self.sparse,
            "encoding": self.encoding,
            "stream": self.plan.stream,
            "block_scale": job.block_scale,
            "seed": job.seed,
            **self._cycle_fields(cycles_estimated=self.plan.cycles),
            "bit_exact": True,
            "slice": self.plan.problem.slice,
            "tiles": dataclasses.asdict(self.plan.tiling),
            **self._moved_fields(),
            **self._memory_fields(),
            "wall_seconds": round(self.wall_s, 4),
            "command": self.command(),
        }
        if self.bandwidth is not None:
            fields["bandwidth"] = round(self.bandwidth.bytes_per_cycle, 4)
            fields["bandwidth_fraction"] = round(self.bandwidth_fraction or 0.0, 5)
        return fields


class Checked(Protocol):
    """A job that knows what does not fit a card."""

    def check(self, config: CardConfig) -> None:
        """Refuse it, before any array is made."""


def open_card(
    backend: str, config: str, memory: str, progress: Progress | None, *jobs: Checked
) -> Card:
    """Open a card for some jobs; refuse those that do not fit before the card is built."""
    for job in jobs:
        job.check(preset(config))
    return Card.open(backend, preset=config, memory=memory, progress=progress)


def gemm(card: Card, job: GemmJob) -> list[GemmResult]:
    """Run a GEMM; if A has zeros that need not be sent, the same product dense first.

    Raises
    ------
    MismatchError
        If a result differs from the golden model's.
    CardError, OutOfMemoryError, ValueError
    """
    job.check(card.config)
    operands = job.operands()
    wanted = expected(job, operands)
    both = job.sparse and job.encoding != "dense"
    encodings = [Encoding.DENSE] if both else []
    return [
        run(card, job, operands, wanted, encoding)[0]
        for encoding in (*encodings, ENCODINGS[job.encoding])
    ]


def run(
    card: Card,
    job: GemmJob,
    operands: Operands,
    wanted: npt.NDArray,
    encoding: Encoding | None,
) -> tuple[GemmResult, JobResult]:
    """Run a GEMM once, its streams encoded as given; ``wanted`` is the golden model's result."""
    # Zeros that are left out are A's.
    stream = job.stream if job.stream != "auto" else None
    if encoding not in (None, Encoding.DENSE) or job.block_scale is not None:
        stream = stream or "a"
    plan = plan_gemm(
        card.config,
        operands.a,
        operands.x,
        out_format=job.out_format,
        scale=operands.scale,
        scale_axis=None if job.block_scale is None else "ab".index(stream or "a"),
        block=job.block_scale,
        anchor=job.anchor,
        encoding=encoding,
        stream=stream,
        memory=card.memory_speed,
    )
    done = run_job(
        card,
        {"A": plan.pack_a(operands.a), "B": plan.pack_b(operands.x)},
        ("C", plan.c_bytes),
        plan.commands,
        plan.cycles,
    )
    compare(plan.unpack_c(done.output), wanted)
    sparse = plan.encoding is not Encoding.DENSE
    useful = int(np.count_nonzero(operands.a)) if sparse else operands.a.size
    vector = min(job.m, job.n) <= card.config.rows
    result = GemmResult(
        job=job,
        plan=plan,
        sparse=sparse,
        macs=useful * job.n,
        bandwidth=measure(card) if vector else None,
        **done.measured,
    )
    return result, done.ended
