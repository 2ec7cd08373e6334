"""GEMMs on the card: run, compared bit for bit with the golden model, and measured."""

import dataclasses
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig, preset
from ...rtl.isa import Encoding
from ..card import Card, JobResult
from ..compiler.gemm import GemmPlan, plan_gemm
from ..counters import Counters
from ..transport import Progress
from .bandwidth import Bandwidth, measure
from .golden import expected, raw
from .job import ENCODINGS, GemmJob, Operands, command_line

__all__ = ["GemmResult", "MismatchError", "compare", "gemm", "open_card", "run"]

DEADLINE = 50
"""A job that takes so many times its estimate is stopped."""


class MismatchError(RuntimeError):
    """The card's result is not the golden model's; names the first element that differs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmResult:
    """A GEMM that ran and equals the golden model bit for bit.

    Parameters
    ----------
    sparse : bool
        Whether A was sent without its zeros.
    macs : int
        Useful multiplications: those with a non-zero value of A, if it was sent compressed.
    bandwidth : Bandwidth or None
        What card memory moves at best, for products whose time goes to memory.
    wall_s : float
        Seconds in which the card ran.
    """

    job: GemmJob
    plan: GemmPlan
    config: CardConfig
    backend: str
    memory: str
    cycles_modelled: bool
    sparse: bool
    macs: int
    counters: Counters
    bandwidth: Bandwidth | None
    wall_s: float

    @property
    def mac_units(self) -> int:
        """Multiplications that the card can do in a cycle."""
        return self.config.rows * self.config.cols * self.job.lanes

    @property
    def utilization(self) -> float:
        """Useful multiplications per cycle and multiplier."""
        return self.counters.utilization(self.macs, self.config, self.job.lanes)

    @property
    def bytes_per_cycle(self) -> float:
        """Bytes over the card memory bus in a cycle."""
        moved = self.counters.bytes_read + self.counters.bytes_written
        return moved / max(self.counters.cycles, 1)

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

    def engine_cycles(self) -> dict[str, int]:
        """Return where the cycles of all engines went, by cause (`Counters`)."""
        return {"mac_active": self.counters.mac_active, **self.counters.stalls()}

    def command(self, name: str = "gemm") -> str:
        """Return the command line that repeats this."""
        options: dict[str, object] = {"preset": self.config.name}
        if name == "gemm":
            options["backend"] = self.backend
        options |= {"memory": self.memory, "seed": self.job.seed}
        return command_line(name, self.job.options(), **options)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        job, counters = self.job, self.counters
        fields: dict[str, Any] = {
            "name": "gemm",
            "preset": self.config.name,
            "backend": self.backend,
            "memory": self.memory,
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
            "cycles": counters.cycles,
            "cycles_modelled": self.cycles_modelled,
            "cycles_estimated": self.plan.cycles,
            "macs": self.macs,
            "mac_units": self.mac_units,
            "utilization": round(self.utilization, 5),
            "bit_exact": True,
            "slice": self.plan.problem.slice,
            "tiles": dataclasses.asdict(self.plan.tiling),
            "engine_cycles": self.engine_cycles(),
            "bytes_read": counters.bytes_read,
            "bytes_written": counters.bytes_written,
            "bytes_per_cycle": round(self.bytes_per_cycle, 4),
            "hbm_row_hits": counters.hbm_row_hits,
            "hbm_activates": counters.hbm_activates,
            "hbm_refreshes": counters.hbm_refreshes,
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
    buffers = []
    try:
        for nbytes, name in ((plan.a_bytes, "A"), (plan.b_bytes, "B"), (plan.c_bytes, "C")):
            buffers.append(card.allocate(nbytes, name))
        a_buffer, b_buffer, c_buffer = buffers
        card.write(a_buffer, plan.pack_a(operands.a))
        card.write(b_buffer, plan.pack_b(operands.x))
        # Results of an earlier run must not pass for this one's.
        card.write(c_buffer, np.full(plan.c_bytes, 0xA5, np.uint8))
        commands = plan.commands(*(buffer.address for buffer in buffers))
        start = time.perf_counter()
        ended = card.submit(commands).wait(max_cycles=DEADLINE * plan.cycles)
        wall = time.perf_counter() - start
        compare(plan.unpack_c(card.read(c_buffer)), wanted)
    finally:
        for buffer in buffers:
            card.free(buffer)
    sparse = plan.encoding is not Encoding.DENSE
    useful = int(np.count_nonzero(operands.a)) if sparse else operands.a.size
    vector = min(job.m, job.n) <= card.config.rows
    result = GemmResult(
        job=job,
        plan=plan,
        config=card.config,
        backend=card.transport.backend,
        memory=card.memory,
        cycles_modelled=card.transport.cycles_modelled,
        sparse=sparse,
        macs=useful * job.n,
        counters=dataclasses.replace(ended.counters, cycles=ended.cycles),
        bandwidth=measure(card) if vector else None,
        wall_s=wall,
    )
    return result, ended


def compare(actual: npt.NDArray, wanted: npt.NDArray) -> None:
    """Raise `MismatchError` unless two results [M, N] have the same bits."""
    found = raw(actual)
    wrong = np.argwhere(found != wanted)
    if len(wrong):
        row, column = wrong[0]
        raise MismatchError(
            f"the card differs from the golden model in {len(wrong)} of {wanted.size} results, "
            f"first in C[{row}, {column}]: {_bits(found[row, column])} instead of "
            f"{_bits(wanted[row, column])}; no figure is given"
        )


def _bits(value: np.generic) -> str:
    return f"{value:#x}" if value.dtype.kind == "u" else str(value)
