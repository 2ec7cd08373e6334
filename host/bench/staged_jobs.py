"""Products whose operands the card makes ready itself: what they compute, and what they must give.

Each job brings the numbers, the sources that `compiler.staged` plans with, and the results that the
golden models give.
"""

import abc
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import CardConfig
from ...rtl.isa import Format, Mode
from ...sim.golden import epilogue, exact, reformat, rows
from ..compiler.formats import DTYPES as ARRAY_DTYPES
from ..compiler.mx import MX_FORMATS, MxArray, quantize_mx
from ..compiler.sources import Columns, Mx, Quantized, Rows, Source, Sparse
from ..compiler.staged import ColumnScales
from ..compiler.window import window_anchor
from .golden import expected, raw
from .job import DTYPES, PATTERNS, GemmJob

__all__ = [
    "QUANTIZE",
    "TILE",
    "CompressJob",
    "LyingJob",
    "MxJob",
    "QuantizeJob",
    "Staged",
    "StagedJob",
]

QUANTIZE = ("row", "tile")
"""What has a scale of its own: a row of A, or `TILE` numbers of it."""

TILE = 128

ONE = 0x3F800000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Staged:
    """A job's operands, what is done to sums, and the raw results [M, N] that are right."""

    a: Source
    b: Source
    wanted: npt.NDArray
    macs: int
    scale: float = 1.0
    anchor: int = 0
    columns: ColumnScales | None = None


class StagedJob(abc.ABC):
    """A product of random numbers whose operands the vector unit makes ready.

    ``base`` has shapes, formats as the array takes them, and the seed.
    """

    base: GemmJob

    @property
    def seed(self) -> int:
        return self.base.seed

    @property
    def dtype(self) -> str:
        """Format of A in card memory."""
        return self.base.dtype

    @property
    def resident_name(self) -> str:
        """Format of B in card memory."""
        return self.base.resident_name

    @property
    def out_name(self) -> str:
        """Format of C."""
        return self.base.out_name

    @property
    @abc.abstractmethod
    def made(self) -> str:
        """What the vector unit does, for people."""

    @abc.abstractmethod
    def staged(self) -> Staged:
        """Return the operands, the same ones for the same seed, and the results."""

    @abc.abstractmethod
    def options(self) -> list[str]:
        """Return the command line's options for this job."""

    def check(self, config: CardConfig) -> None:
        """Refuse, before any array is made, what the card cannot hold."""
        self.base.check(config)

    def __str__(self) -> str:
        formats = self.dtype
        if self.resident_name != self.dtype:
            formats += f" by {self.resident_name}"
        base = self.base
        return f"{base.m} x {base.k} by {base.k} x {base.n}, {formats} to {self.out_name}"


@dataclasses.dataclass(frozen=True)
class LyingJob(StagedJob):
    """Operands as they lie in memory, row by row; what K does not follow is transposed.

    Parameters
    ----------
    base : GemmJob
    transpose_a, transpose_b : bool
        A lies as [K, M] and not [M, K]; B lies as [N, K] and not [K, N].
    """

    base: GemmJob
    transpose_a: bool
    transpose_b: bool

    def __post_init__(self) -> None:
        _plain(self.base, "--transpose-a and --transpose-b")

    @property
    def made(self) -> str:
        """Which operands are transposed."""
        names = [
            n for n, turned in (("A", self.transpose_a), ("B", not self.transpose_b)) if turned
        ]
        return f"{' and '.join(names)} transposed" if names else "nothing: K is innermost"

    def staged(self) -> Staged:
        operands = self.base.operands()
        a, x = operands.a, operands.x
        return Staged(
            a=Columns(np.ascontiguousarray(a.T)) if self.transpose_a else Rows(a),
            b=Rows(x) if self.transpose_b else Columns(np.ascontiguousarray(x.T)),
            wanted=expected(self.base, operands),
            macs=self.base.m * self.base.n * self.base.k,
            scale=float(operands.scale),
            anchor=self.base.anchor,
        )

    def options(self) -> list[str]:
        flags = [
            f"--{'' if turned else 'no-'}transpose-{name}"
            for name, turned in (("a", self.transpose_a), ("b", self.transpose_b))
        ]
        return [*self.base.options(), *flags]


@dataclasses.dataclass(frozen=True)
class CompressJob(StagedJob):
    """A with zeros, dense in memory: the card leaves them out."""

    base: GemmJob

    def __post_init__(self) -> None:
        _plain(self.base, "--compress-on-card", sparse=True)
        if not self.base.sparse:
            raise ValueError("--compress-on-card needs --density: there is nothing to leave out")

    @property
    def made(self) -> str:
        return "A's zeros left out"

    @property
    def packed(self) -> GemmJob:
        """The same product with A compressed by the compiler."""
        encoding = self.base.encoding if self.base.encoding in PATTERNS else "delta"
        return dataclasses.replace(self.base, encoding=encoding)

    def staged(self) -> Staged:
        operands = self.base.operands()
        return Staged(
            a=Sparse(operands.a),
            b=Rows(operands.x),
            wanted=expected(self.base, operands),
            macs=int(np.count_nonzero(operands.a)) * self.base.n,
            scale=float(operands.scale),
            anchor=self.base.anchor,
        )

    def options(self) -> list[str]:
        return [*self.base.options(), "--compress-on-card"]


@dataclasses.dataclass(frozen=True)
class MxJob(StagedJob):
    """Operands in MX formats, expanded to BF16; B may be of a plain format instead.

    Parameters
    ----------
    base : GemmJob
        BF16 by BF16, or by B's plain format.
    a_name, b_name : str
        Keys of `MX_FORMATS`; ``b_name`` may be a plain format.
    """

    base: GemmJob
    a_name: str
    b_name: str

    def __post_init__(self) -> None:
        _plain(self.base, f"--dtype {self.a_name}")

    @property
    def dtype(self) -> str:
        return self.a_name

    @property
    def resident_name(self) -> str:
        return self.b_name

    @property
    def made(self) -> str:
        both = "A and B" if self.b_name in MX_FORMATS else "A"
        return f"{both} expanded to bf16"

    def staged(self) -> Staged:
        base = self.base
        random = np.random.default_rng(base.seed)
        a = quantize_mx(random.standard_normal((base.m, base.k)), MX_FORMATS[self.a_name])
        if self.b_name in MX_FORMATS:
            x = quantize_mx(random.standard_normal((base.n, base.k)), MX_FORMATS[self.b_name])
            b: Source = Mx(x)
            resident = _expanded(x)
        else:
            plain = base.operands().x
            b, resident = Rows(plain), plain
        stream = _expanded(a)
        anchor = window_anchor(stream, resident)
        scale = np.float32(1 / np.sqrt(base.k))
        sums = exact.gemm(
            raw(stream),
            raw(resident),
            "bf16",
            base.resident_name,  # type: ignore[arg-type]
            anchor=anchor,
        )
        return Staged(
            a=Mx(a),
            b=b,
            wanted=_finished(base, sums, np.full(base.m, scale.view(np.uint32))),
            macs=base.m * base.n * base.k,
            scale=float(scale),
            anchor=anchor,
        )

    def options(self) -> list[str]:
        return _options(self)


@dataclasses.dataclass(frozen=True)
class QuantizeJob(StagedJob):
    """FP16 or BF16 activations, quantized on the card, times weights with a scale a column.

    Parameters
    ----------
    base : GemmJob
        Of the weights' format, to which the activations are quantized: INT8 or E4M3.
    source : str
        "fp16" or "bf16".
    scales : str
        One of `QUANTIZE`.
    """

    base: GemmJob
    source: str
    scales: str

    def __post_init__(self) -> None:
        _plain(self.base, "--quantize")
        if self.scales not in QUANTIZE:
            known = ", ".join(QUANTIZE)
            raise ValueError(f"--quantize must be one of {known}, not {self.scales!r}")
        if self.source not in ("fp16", "bf16"):
            raise ValueError(f"--quantize needs --dtype fp16 or bf16, not {self.source!r}")
        if self.base.a_format not in (Format.INT8, Format.E4M3):
            raise ValueError(
                f"--quantize needs --resident-dtype int8 or e4m3, not {self.base.dtype!r}"
            )
        if self.base.out_format is Format.INT32:
            raise ValueError("--quantize has no int32 result; choose fp32")

    @property
    def dtype(self) -> str:
        return self.source

    @property
    def made(self) -> str:
        each = "row" if self.scales == "row" else f"1 x {TILE} tile"
        return f"A quantized to {self.base.dtype} with a scale a {each}, C scaled by column"

    def staged(self) -> Staged:
        base = self.base
        random = np.random.default_rng(base.seed)
        # Magnitudes differ from token to token, and a few channels stand out.
        x = random.standard_normal((base.m, base.k)) * random.lognormal(0, 1, (base.m, 1))
        x[:, random.random(base.k) < 0.01] *= 20
        activations = x.astype(ARRAY_DTYPES[DTYPES[self.source]])
        weights = base.operands().x
        spread = float(weights.astype(np.float32).std())
        columns = ColumnScales(
            (random.uniform(0.5, 1.5, base.n) / (spread * np.sqrt(base.k))).astype(np.float32),
            random.standard_normal(base.n).astype(np.float32),
        )
        block = TILE if self.scales == "tile" else None
        return Staged(
            a=Quantized(activations, base.a_format, block),
            b=Rows(weights),
            wanted=self._wanted(raw(activations), raw(weights), columns, block or base.k),
            macs=base.m * base.n * base.k,
            columns=columns,
        )

    def _wanted(
        self, x: npt.NDArray, weights: npt.NDArray, columns: ColumnScales, size: int
    ) -> npt.NDArray:
        base = self.base
        largest = {Format.INT8: 127, Format.E4M3: 448}[base.a_format]
        over = int(np.float32(1 / largest).view(np.uint32))
        sums, scales = [], []
        for start in range(0, base.k, size):
            part = slice(start, start + size)
            values, scale = rows.quantize(
                np.ascontiguousarray(x[:, part]),
                self.source,  # type: ignore[arg-type]
                rows.Output(base.dtype),  # type: ignore[arg-type]
                b_scale=over,
                c_scale=ONE,
            )
            formats: tuple[Any, Any] = (base.dtype, base.resident_name)
            sums.append(exact.gemm(values, np.ascontiguousarray(weights[:, part]), *formats))
            scales.append(scale)
        scaled = epilogue.finish(
            sums if self.scales == "tile" else sums[0],
            bias=np.zeros(base.m, np.uint32),
            scale=np.array(scales) if self.scales == "tile" else scales[0],
            out_format="fp32",
        ).values
        table = rows.Table(columns.bias.view(np.uint32), columns.scale.view(np.uint32))
        output = rows.Output(self.out_name)  # type: ignore[arg-type]
        return rows.affine(scaled, "fp32", output, a_scale=ONE, table=table)

    def options(self) -> list[str]:
        return [*_options(self), "--quantize", self.scales]


def _plain(base: GemmJob, option: str, *, sparse: bool = False) -> None:
    """Refuse options that go with streams that the compiler packs."""
    for name in ("encoding", "block_scale", "stream"):
        pattern = sparse and name == "encoding" and base.encoding in PATTERNS
        if getattr(base, name) != getattr(GemmJob(m=1, n=1, k=1), name) and not pattern:
            raise ValueError(f"--{name.replace('_', '-')} has no place with {option}; leave it out")
    if base.density is not None and not sparse:
        raise ValueError(f"--density has no place with {option}; leave it out")
    if Mode.INT4 is base.mode or Format.INT4 in (base.a_format, base.b_format, base.out_format):
        raise ValueError(f"{option} has no path for int4; choose int8")


def _expanded(array: MxArray) -> npt.NDArray:
    """Return an MX array as BF16, by the golden model."""
    names: dict[Format, Any] = {Format.E2M1: "e2m1", Format.INT8: "int8"}
    name = names.get(array.format, array.format.name.lower())
    codes = array.elements
    codes = codes if array.format is Format.INT8 else codes.view(np.uint8)
    return reformat.expand(codes, array.scales, name).view(ARRAY_DTYPES[Format.BF16])


def _finished(base: GemmJob, sums: Any, scale: npt.NDArray[np.uint32]) -> npt.NDArray:
    return epilogue.finish(
        sums,
        bias=np.zeros(base.m, np.uint32),
        scale=scale,
        out_format=base.out_name,  # type: ignore[arg-type]
    ).values


def _options(job: StagedJob) -> list[str]:
    """Return the options of shapes and formats."""
    base = job.base
    words: list[object] = ["--m", base.m, "--n", base.n, "--k", base.k, "--dtype", job.dtype]
    words += ["--resident-dtype", job.resident_name, "--out-dtype", job.out_name]
    return list(map(str, words))
