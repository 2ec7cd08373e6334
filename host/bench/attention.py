"""Attention on the card: run, compared bit for bit with the golden models, and measured.

A job's numbers are random. Its results must be those of the golden models of products, softmax and
epilogue, one after the other, and no further from attention in FP64 than rounding explains.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.isa import Format
from ...sim.golden import epilogue, exact
from ...sim.golden import rows as golden_rows
from ..card import Card
from ..compiler.attention import (
    FORMATS,
    Addresses,
    AttentionPlan,
    AttentionScales,
    AttentionShape,
    plan_attention,
)
from ..compiler.formats import DTYPES
from ..compiler.rows import LOG2_E
from .golden import raw
from .job import ANCHOR
from .result import MismatchError, Result, compare, run_job

__all__ = [
    "ATTENTION_COLUMNS",
    "ATTENTION_DTYPES",
    "AttentionJob",
    "AttentionResult",
    "attention",
]

ATTENTION_DTYPES = {fmt.name.lower(): fmt for fmt in FORMATS}
"""Formats of Q, K, V and O, by the name that the command line takes."""

INPUT_SCALE = 1 / 32
"""Of INT8: four standard deviations of the random numbers."""
SCORE_SCALE = 1 / 20
"""Of INT8 scores, whose standard deviation is 1."""
OUT_SCALE = 1 / 128
"""Of INT8 results: means of many rows of V. Where a row may see but one, it is that of V."""

EXP2_ERROR = 1.1e-5
"""Relative, at most (`sim.golden.rows`; measured in tests/golden/test_rows.py)."""
DIGITS = {Format.FP16: 11, Format.BF16: 8}

TARGETS = {"ecp5": 0.95, "sim": 0.93}
"""Utilisation that is wanted of INT8 heads of 256 x 64 with ideal memory, by preset."""

ATTENTION_COLUMNS = (
    *("job", "heads", "seq", "dim", "causal", "dtype", "preset", "memory", "backend"),
    *("macs", "cycles", "mac_units", "utilization", "target", "met", "rows", "lag", "copies"),
    *("mac_active", "stall_stream", "stall_fill", "stall_drain"),
    *("idle_imbalance", "idle_memory", "idle_other", "bytes_read", "bytes_written"),
    *("bit_exact", "cycles_modelled", "build", "command"),
)
"""Columns of the CSV file; ``mac_active`` to ``idle_other`` are engine-cycles."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionJob:
    """Attention of random numbers.

    Parameters
    ----------
    heads, seq, dim : int
    dtype : str
        A key of `ATTENTION_DTYPES`.
    causal : bool
    seed : int

    Raises
    ------
    ValueError
        If an argument is out of range; names the option.
    """

    heads: int = 1
    seq: int = 256
    dim: int = 64
    dtype: str = "int8"
    causal: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("heads", "seq", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, not {getattr(self, name)!r}")
        if self.dtype not in ATTENTION_DTYPES:
            known = ", ".join(ATTENTION_DTYPES)
            raise ValueError(f"no format {self.dtype!r}; choose one of: {known}")
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, not {self.seed!r}")

    @property
    def format(self) -> Format:
        return ATTENTION_DTYPES[self.dtype]

    @property
    def integer(self) -> bool:
        return self.format is Format.INT8

    @property
    def shape(self) -> AttentionShape:
        return AttentionShape(
            heads=self.heads,
            seq=self.seq,
            dim=self.dim,
            format=self.format,
            causal=self.causal,
        )

    @property
    def out_scale(self) -> float:
        """Scale of the results."""
        return (INPUT_SCALE if self.causal else OUT_SCALE) if self.integer else 1.0

    @property
    def scales(self) -> AttentionScales:
        """Factors for the card."""
        root = 1 / math.sqrt(self.dim)
        if self.integer:
            return AttentionScales(
                score=root * INPUT_SCALE**2 / SCORE_SCALE,
                softmax=SCORE_SCALE,
                out=INPUT_SCALE / self.out_scale,
            )
        return AttentionScales(score=root, anchor=ANCHOR if self.format is Format.BF16 else 0)

    def operands(self) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
        """Return Q, K and V [heads, seq, dim]: normal numbers of variance 1, in the format."""
        random = np.random.default_rng(self.seed)
        values = random.standard_normal((3, self.heads, self.seq, self.dim))
        if self.integer:
            values = np.clip(np.rint(values / INPUT_SCALE), -127, 127)
        q, k, v = values.astype(DTYPES[self.format])
        return q, k, v

    def options(self) -> list[str]:
        """Return the command line's options for this job."""
        words = ["--heads", self.heads, "--seq", self.seq, "--dim", self.dim]
        return [*map(str, words), "--dtype", self.dtype, *(["--causal"] if self.causal else [])]

    def __str__(self) -> str:
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        return f"{heads} of {self.seq} x {self.dim}, {self.dtype}" + (
            ", causal" if self.causal else ""
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionResult(Result):
    """Attention that ran.

    Parameters
    ----------
    error, bound : float
        The largest difference from attention in FP64, and what rounding can make of it at most.
    build : str
        Of the card: a hash of its RTL.
    """

    job: AttentionJob
    plan: AttentionPlan
    error: float
    bound: float
    build: str

    name = "attention"

    @property
    def lanes(self) -> int:
        return self.job.shape.lanes

    @property
    def target(self) -> float | None:
        """Utilisation that is wanted, if there is such a figure for this job."""
        job = self.job
        published = (job.seq, job.dim, job.dtype, job.causal) == (256, 64, "int8", False)
        return TARGETS.get(self.config.name) if published and self.memory == "ideal" else None

    def fields(self) -> dict[str, Any]:
        """Return the row of the CSV file: `ATTENTION_COLUMNS`."""
        values = self.as_json()
        values |= {"job": str(self.job), **values["shape"], **values["engine_cycles"]}
        return {name: values[name] for name in ATTENTION_COLUMNS}

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        job, target = self.job, self.target
        return {
            **self._card_fields(),
            "dtype": job.dtype,
            "shape": {"heads": job.heads, "seq": job.seq, "dim": job.dim},
            "causal": job.causal,
            "seed": job.seed,
            **self._cycle_fields(),
            "target": target,
            "met": None if target is None else self.utilization >= target,
            "bit_exact": True,
            "error": self.error,
            "error_bound": self.bound,
            "rows": self.plan.layout.rows,
            "lag": self.plan.layout.lag,
            "copies": self.plan.layout.copies,
            **self._moved_fields(),
            "wall_seconds": round(self.wall_s, 4),
            "build": self.build,
            "command": self.command(),
        }


def attention(card: Card, job: AttentionJob, *, rows: int | None = None) -> AttentionResult:
    """Run attention; ``rows`` of a block are chosen if not given.

    Raises
    ------
    MismatchError
        If the result differs from the golden models', or too much from attention in FP64.
    CardError, OutOfMemoryError, ValueError
    """
    plan = plan_attention(card.config, job.shape, job.scales, rows=rows)
    operands = job.operands()

    def commands(*addresses: int) -> list[bytes]:
        return plan.commands(Addresses(**dict(zip(("tables", *"qkvo"), addresses, strict=True))))

    inputs = {"the directories": plan.tables}
    inputs |= {name: plan.pack(operand) for name, operand in zip("QKV", operands, strict=True)}
    done = run_job(card, inputs, ("O", plan.nbytes), commands, plan.cycles)
    found = plan.unpack(done.output)
    compare(found, expected(job, *operands), "O")
    error, bound = _error(job, found, *operands)
    return AttentionResult(
        job=job,
        plan=plan,
        macs=job.shape.macs,
        error=error,
        bound=bound,
        build=card.info().build,
        **done.measured,
    )


def expected(job: AttentionJob, q: npt.NDArray, k: npt.NDArray, v: npt.NDArray) -> npt.NDArray:
    """Return raw results [heads, seq, dim] by the golden models.

    Blocks do not matter: a score of a row does not depend on the others, and powers of 0 add
    nothing.
    """
    shape, scales, fmt = job.shape, job.scales, job.dtype
    score_format = shape.score_format.name.lower()
    seen = np.arange(1, job.seq + 1) if job.causal else None
    one = np.zeros(job.seq, np.uint32)
    results = []
    for queries, keys, values in zip(raw(q), raw(k), raw(v), strict=True):
        sums = exact.gemm(queries, keys, fmt, anchor=scales.anchor)  # type: ignore[arg-type]
        scores = epilogue.finish(
            sums,
            bias=one,
            scale=np.full(job.seq, scales.score, np.float32).view(np.uint32),
            out_format=score_format,
        ).values
        powers, factors = golden_rows.softmax(
            scores,
            score_format,
            golden_rows.Output(fmt),  # type: ignore[arg-type]
            a_scale=_bits(scales.softmax * LOG2_E),
            b_scale=_bits(shape.largest),
            c_scale=_bits(scales.out / shape.largest),
            valid=seen,
        )
        columns = np.ascontiguousarray(values.T)
        sums = exact.gemm(powers, columns, fmt, anchor=scales.anchor)  # type: ignore[arg-type]
        results.append(
            epilogue.finish(sums, bias=one, scale=factors, out_format=fmt).values  # type: ignore[arg-type]
        )
    return np.stack(results)


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def _error(
    job: AttentionJob, found: npt.NDArray, q: npt.NDArray, k: npt.NDArray, v: npt.NDArray
) -> tuple[float, float]:
    """Return the largest difference from attention in FP64, and the largest one possible.

    Scores are off by ``e`` at most, so powers by a factor of exp(2 e), the error of EXP2 and their
    rounding; so are the weights of V's rows, and their sum is rounded once more.
    """
    scale = INPUT_SCALE if job.integer else 1.0
    q, k, v = (array.astype(np.float64) * scale for array in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(job.dim)
    if job.integer:
        off = np.maximum(np.abs(scores) - 127 * SCORE_SCALE, SCORE_SCALE / 2) + 1e-6
        absolute, relative = 0.5 / 127, 0.0
    else:
        digits = DIGITS[job.format]
        off = np.abs(scores) * 2.0 ** -DIGITS[job.shape.score_format] + 2.0**-24 + 1e-6
        absolute, relative = 2.0**-25, 2.0**-digits
    if job.causal:
        hidden = np.triu(np.ones((job.seq, job.seq), bool), 1)
        scores, off = np.where(hidden, -np.inf, scores), np.where(hidden, 0, off)
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    total = powers.sum(axis=2, keepdims=True)
    weights = powers / total
    want = weights @ v
    factor = np.exp(2 * off.max(axis=2, keepdims=True)) * (1 + 3 * EXP2_ERROR)
    spread = factor * (1 + relative) - 1
    bound = spread * (weights @ np.abs(v))
    bound += factor * absolute / total * ((weights > 0) @ np.abs(v))
    if job.integer:
        clipped = np.maximum(np.abs(want) - 127 * job.out_scale, 0)
        bound += np.maximum(clipped, job.out_scale / 2) + 1e-6
    else:
        bound += (np.abs(want) + bound) * relative + 2.0**-25
    error = np.abs(found.astype(np.float64) * job.out_scale - want)
    if np.any(error > bound):
        raise MismatchError(
            f"results differ from attention in FP64 by up to {error.max():.3g}, more than rounding "
            "explains; no figure is given"
        )
    return float(error.max()), float(bound.max())
