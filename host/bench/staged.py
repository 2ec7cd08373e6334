"""Products whose operands the card makes ready itself: run, checked bit for bit, and measured."""

import dataclasses
from typing import Any

from ..card import Card
from ..compiler.mx import MX_FORMATS
from ..compiler.staged import StagedPlan, plan_staged
from .job import DTYPES, OUT_DTYPES, GemmJob
from .result import Result, compare, run_job
from .staged_jobs import CompressJob, LyingJob, MxJob, QuantizeJob, StagedJob

__all__ = ["GEMM_DTYPES", "StagedResult", "chosen_job", "run_staged"]

GEMM_DTYPES = (*DTYPES, *MX_FORMATS)
"""Formats of A, by the names that the command line takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagedResult(Result):
    """A product that ran.

    Parameters
    ----------
    macs : int
        Useful multiplications: those with a non-zero value of A, if its zeros are left out.
    """

    job: StagedJob
    plan: StagedPlan

    name = "gemm"

    @property
    def lanes(self) -> int:
        return self.job.base.lanes

    @property
    def tiles(self) -> str:
        """How the product was cut, for people."""
        shape = self.plan.shape
        return f"{shape.tiles} of {shape.tile} rows by {shape.parts} of {shape.part} columns"

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        job = self.job
        return {
            **self._card_fields(),
            "dtype": job.dtype,
            "resident_dtype": job.resident_name,
            "out_dtype": job.out_name,
            "shape": {"m": job.base.m, "n": job.base.n, "k": job.base.k},
            "density": job.base.nonzero,
            "on_card": job.made,
            "seed": job.seed,
            **self._cycle_fields(cycles_estimated=self.plan.cycles),
            "bit_exact": True,
            "slice": self.plan.problem.slice,
            "tiles": dataclasses.asdict(self.plan.shape),
            **self._moved_fields(),
            "wall_seconds": round(self.wall_s, 4),
            "command": self.command(),
        }


def chosen_job(
    *,
    dtype: str | None,
    resident_dtype: str | None,
    out_dtype: str | None,
    transpose_a: bool | None = None,
    transpose_b: bool | None = None,
    compress_on_card: bool = False,
    quantize: str | None = None,
    **fields: Any,
) -> GemmJob | StagedJob:
    """Return the job that options of the command line ask for.

    Parameters
    ----------
    dtype : str or None
        INT8 if it is not given; with ``quantize`` BF16.
    fields
        The other ones of `GemmJob`.

    Raises
    ------
    ValueError
        If two of them exclude each other, or one is wrong; names the option.
    """
    formats = ((dtype, GEMM_DTYPES), (resident_dtype, GEMM_DTYPES), (out_dtype, OUT_DTYPES))
    for name, known in formats:
        if name is not None and name not in known:
            raise ValueError(f"no format {name!r}; choose one of: {', '.join(known)}")
    mx = dtype in MX_FORMATS
    wanted = {
        "--transpose-a or --transpose-b": (transpose_a, transpose_b) != (None, None),
        "--compress-on-card": compress_on_card,
        "--quantize": quantize is not None,
        f"--dtype {dtype}": mx,
    }
    chosen = [name for name, asked in wanted.items() if asked]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other; leave one out")
    if resident_dtype in MX_FORMATS and not mx:
        raise ValueError(f"--resident-dtype {resident_dtype} goes with an MX --dtype only")
    if quantize is not None:
        weights = resident_dtype or "int8"
        source = dtype or "bf16"
        base = GemmJob(dtype=weights, out_dtype=out_dtype or source, **fields)
        return QuantizeJob(base, source, quantize)
    if dtype in MX_FORMATS:
        resident = resident_dtype or dtype
        plain = "bf16" if resident in MX_FORMATS else resident
        base = GemmJob(dtype="bf16", resident_dtype=plain, out_dtype=out_dtype or "fp32", **fields)
        return MxJob(base, dtype, resident)
    base = GemmJob(
        dtype=dtype or "int8", resident_dtype=resident_dtype, out_dtype=out_dtype, **fields
    )
    if compress_on_card:
        return CompressJob(base)
    if chosen:
        return LyingJob(base, bool(transpose_a), bool(transpose_b))
    return base


def run_staged(card: Card, job: StagedJob) -> StagedResult:
    """Run a product once.

    Raises
    ------
    MismatchError
        If a result differs from the golden model's.
    CardError, OutOfMemoryError, ValueError
    """
    job.check(card.config)
    staged = job.staged()
    plan = plan_staged(
        card.config,
        staged.a,
        staged.b,
        out_format=job.base.out_format,
        scale=staged.scale,
        anchor=staged.anchor,
        columns=staged.columns,
        memory=card.memory_speed,
    )
    done = run_job(
        card,
        {"A": plan.image_a(), "B": plan.image_b()},
        ("C", plan.c_bytes),
        plan.commands,
        plan.cycles,
    )
    compare(plan.unpack_c(done.output), staged.wanted)
    return StagedResult(job=job, plan=plan, macs=staged.macs, **done.measured)
