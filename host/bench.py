"""Benchmarks: figures from the card's counters, of results that equal the golden model's."""

import dataclasses
import shlex
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..rtl.config import CardConfig, preset
from ..rtl.isa import Format
from ..sim.golden import epilogue, exact
from .allocator import OutOfMemoryError
from .card import Card, JobResult
from .compiler.commands import FORMAT_BYTES
from .compiler.gemm import GemmPlan, check_k, plan_gemm
from .compiler.tiling import align, lanes
from .counters import Counters
from .transport import Progress

__all__ = ["DTYPES", "GemmJob", "GemmResult", "MismatchError", "gemm", "simspeed"]

DTYPES = {"int8": Format.INT8, "fp16": Format.FP16}
"""Input formats, by the name that the command line takes."""

OUT_DTYPES = {"int8": Format.INT8, "fp16": Format.FP16, "int32": Format.INT32, "fp32": Format.FP32}

SIMSPEED_SECONDS = 2.0
"""Jobs are repeated for so long at least, to average over the machine's noise."""


DEADLINE = 50
"""A job that takes so many times its estimate is stopped."""


class MismatchError(RuntimeError):
    """The card's result is not the golden model's; names the first element that differs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmJob:
    """A GEMM of random numbers: C[M, N] = A[M, K] x B[K, N].

    Parameters
    ----------
    m, n, k : int
    dtype, out_dtype : str
        Keys of `DTYPES`, and of `OUT_DTYPES` (the input's if None).
    density : float or None
        Fraction of A that is not zero, sent compressed; None is dense.
    seed : int

    Raises
    ------
    ValueError
        If an argument is out of range; names the option.
    """

    m: int
    n: int
    k: int
    dtype: str = "int8"
    out_dtype: str | None = None
    density: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("m", "n", "k"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, not {getattr(self, name)!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"no format {self.dtype!r}; choose one of: {', '.join(DTYPES)}")
        if self.out_name not in OUT_DTYPES:
            raise ValueError(f"no format {self.out_name!r}; choose one of: {', '.join(OUT_DTYPES)}")
        if self.dtype == "fp16" and self.out_name == "int32":
            raise ValueError("fp16 inputs have no int32 result; choose int8, fp16 or fp32")
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"--density must be from 0 to 1, not {self.density!r}")
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, not {self.seed!r}")

    @property
    def out_name(self) -> str:
        """Name of the output format."""
        return self.out_dtype or self.dtype

    @property
    def in_format(self) -> Format:
        """Format of A and B."""
        return DTYPES[self.dtype]

    @property
    def out_format(self) -> Format:
        """Format of C."""
        return OUT_DTYPES[self.out_name]

    @property
    def scale(self) -> np.float32:
        """Scale of the results: keeps almost all of them in the output's range."""
        spread = 73.0 * 73.0 if self.dtype == "int8" else 1.0
        density = 1.0 if self.density is None else max(self.density, 1 / self.k)
        target = 40.0 if self.out_name == "int8" else 1.0
        return np.float32(target / (spread * np.sqrt(self.k * density)))

    def check(self, config: CardConfig) -> None:
        """Refuse, before any array is made, what the card cannot do or hold.

        Raises
        ------
        ValueError, OutOfMemoryError
        """
        check_k(config, self.k)
        size = FORMAT_BYTES[self.in_format]
        pitch = align(self.k * size, 16)
        rows = self.m * (pitch if self.density is None else int(pitch * self.density))
        c = self.m * align(self.n * FORMAT_BYTES[self.out_format], 16)
        need = rows + self.n * pitch + c
        if need > config.memory_bytes:
            raise OutOfMemoryError(
                f"out of card memory: A, B and C of a {self.m} x {self.k} by {self.k} x {self.n} "
                f"product take {need} bytes, preset {config.name} has {config.memory_bytes}; "
                "choose a smaller shape",
                requested=need,
                free=config.memory_bytes,
                largest=config.memory_bytes,
            )

    def operands(self) -> tuple[npt.NDArray, npt.NDArray]:
        """Return A[M, K] and X[N, K], the same ones for the same seed."""
        random = np.random.default_rng(self.seed)
        if self.dtype == "int8":
            a = random.integers(-128, 128, (self.m, self.k), np.int8)
            x = random.integers(-128, 128, (self.n, self.k), np.int8)
            a[a == 0] = 1
        else:
            a = random.standard_normal((self.m, self.k), np.float32).astype(np.float16)
            x = random.standard_normal((self.n, self.k), np.float32).astype(np.float16)
            a[a == 0] = 1
        if self.density is not None:
            a[random.random((self.m, self.k)) >= self.density] = 0
        return a, x

    def expected(self, a: npt.NDArray, x: npt.NDArray) -> npt.NDArray:
        """Return the golden model's C[M, N]; floats as their bits."""
        if self.dtype == "int8":
            sums = exact.gemm(a, x, "int8")
        else:
            sums = exact.gemm(a.view(np.uint16), x.view(np.uint16), "fp16")
        return epilogue.finish(
            sums,
            bias=np.zeros(self.m, np.uint32),
            scale=np.full(self.m, self.scale).view(np.uint32),
            out_format=self.out_name,  # type: ignore[arg-type]
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmResult:
    """A GEMM that ran and equals the golden model bit for bit.

    Parameters
    ----------
    macs : int
        Useful multiplications: those with a non-zero value of A, if it was sent compressed.
    wall_s : float
        Seconds in which the card ran.
    """

    job: GemmJob
    plan: GemmPlan
    config: CardConfig
    backend: str
    memory: str
    cycles_modelled: bool
    macs: int
    counters: Counters
    wall_s: float

    @property
    def mac_units(self) -> int:
        """Multiplications that the card can do in a cycle."""
        return self.config.rows * self.config.cols * lanes(self.job.in_format)

    @property
    def utilization(self) -> float:
        """Useful multiplications per cycle and multiplier."""
        return self.counters.utilization(self.macs, self.config, lanes(self.job.in_format))

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        job, counters, tiling = self.job, self.counters, self.plan.tiling
        return {
            "name": "gemm",
            "preset": self.config.name,
            "backend": self.backend,
            "memory": self.memory,
            "dtype": job.dtype,
            "out_dtype": job.out_name,
            "shape": {"m": job.m, "n": job.n, "k": job.k},
            "density": 1.0 if job.density is None else job.density,
            "sparse": self.plan.sparse,
            "seed": job.seed,
            "cycles": counters.cycles,
            "cycles_modelled": self.cycles_modelled,
            "cycles_estimated": tiling.cycles,
            "macs": self.macs,
            "mac_units": self.mac_units,
            "utilization": round(self.utilization, 5),
            "bit_exact": True,
            "tile_m": tiling.tile_m,
            "tile_n": tiling.tile_n,
            "tiles": list(self.plan.tiles),
            "mac_active": counters.mac_active,
            "stalls": counters.stalls(),
            "bytes_read": counters.bytes_read,
            "bytes_written": counters.bytes_written,
            "hbm_row_hits": counters.hbm_row_hits,
            "hbm_activates": counters.hbm_activates,
            "hbm_refreshes": counters.hbm_refreshes,
            "wall_seconds": round(self.wall_s, 4),
            "command": repeat_command("gemm", self),
        }


def gemm(card: Card, job: GemmJob) -> list[GemmResult]:
    """Run a GEMM; with a density, the same product dense first.

    Raises
    ------
    MismatchError
        If a result differs from the golden model's.
    CardError, OutOfMemoryError, ValueError
    """
    job.check(card.config)
    a, x = job.operands()
    expected = job.expected(a, x)
    modes = (False,) if job.density is None else (False, True)
    return [_run(card, job, a, x, expected, sparse)[0] for sparse in modes]


def simspeed(
    card: Card, job: GemmJob, *, seconds: float = SIMSPEED_SECONDS
) -> tuple[GemmResult, dict[str, Any]]:
    """Repeat a GEMM and measure how fast the simulation is; return it and its JSON fields."""
    job.check(card.config)
    a, x = job.operands()
    expected = job.expected(a, x)
    cycles = runs = 0
    wall = 0.0
    while not runs or wall < seconds:
        result, ended = _run(card, job, a, x, expected, job.density is not None)
        cycles += ended.cycles
        wall += result.wall_s
        runs += 1
    fields = result.as_json()
    fields |= {
        "name": "simspeed",
        "runs": runs,
        "wall_seconds": round(wall, 4),
        "cycles_per_second": round(cycles / wall),
        "macs_per_second": round(result.macs * runs / wall),
        **card.transport.details(),
        "command": repeat_command("simspeed", result),
    }
    return result, fields


def repeat_command(name: str, result: GemmResult) -> str:
    """Return the command line that repeats a benchmark."""
    job = result.job
    words = ["deepseek-host", "bench", name, "--m", job.m, "--n", job.n, "--k", job.k]
    words += ["--dtype", job.dtype]
    if job.out_dtype is not None:
        words += ["--out-dtype", job.out_dtype]
    if job.density is not None:
        words += ["--density", job.density]
    words += ["--preset", result.config.name]
    if name == "gemm":
        words += ["--backend", result.backend]
    words += ["--memory", result.memory, "--seed", job.seed]
    return shlex.join(map(str, words))


def compare(actual: npt.NDArray, expected: npt.NDArray) -> None:
    """Raise `MismatchError` unless two results [M, N] have the same bits."""
    found = actual.view(expected.dtype) if actual.dtype != expected.dtype else actual
    wrong = np.argwhere(found != expected)
    if len(wrong):
        row, column = wrong[0]
        raise MismatchError(
            f"the card differs from the golden model in {len(wrong)} of {expected.size} results, "
            f"first in C[{row}, {column}]: {_bits(found[row, column])} instead of "
            f"{_bits(expected[row, column])}; no figure is given"
        )


def open_card(
    backend: str, config: str, memory: str, progress: Progress | None, job: GemmJob
) -> Card:
    """Open a card for a job; refuse a job that does not fit before the card is built."""
    job.check(preset(config))
    return Card.open(backend, preset=config, memory=memory, progress=progress)


def _bits(value: np.generic) -> str:
    return f"{value:#x}" if value.dtype.kind == "u" else str(value)


def _run(
    card: Card,
    job: GemmJob,
    a: npt.NDArray,
    x: npt.NDArray,
    expected: npt.NDArray,
    sparse: bool,
) -> tuple[GemmResult, JobResult]:
    plan = plan_gemm(
        card.config,
        a,
        job.n,
        out_format=job.out_format,
        scale=job.scale,
        sparse=sparse,
        memory=card.memory_speed,
    )
    buffers = []
    try:
        for nbytes, name in ((plan.a_image.size, "A"), (plan.b_bytes, "B"), (plan.c_bytes, "C")):
            buffers.append(card.allocate(nbytes, name))
        a_buffer, b_buffer, c_buffer = buffers
        card.write(a_buffer, plan.a_image)
        card.write(b_buffer, plan.pack_b(x))
        # Results of an earlier run must not pass for this one's.
        card.write(c_buffer, np.full(plan.c_bytes, 0xA5, np.uint8))
        commands = plan.commands(*(buffer.address for buffer in buffers))
        start = time.perf_counter()
        ended = card.submit(commands).wait(max_cycles=DEADLINE * plan.tiling.cycles)
        wall = time.perf_counter() - start
        compare(plan.unpack_c(card.read(c_buffer)), expected)
    finally:
        for buffer in buffers:
            card.free(buffer)
    useful = int(np.count_nonzero(a)) if sparse else a.size
    result = GemmResult(
        job=job,
        plan=plan,
        config=card.config,
        backend=card.transport.backend,
        memory=card.memory,
        cycles_modelled=card.transport.cycles_modelled,
        macs=useful * job.n,
        counters=dataclasses.replace(ended.counters, cycles=ended.cycles),
        wall_s=wall,
    )
    return result, ended
