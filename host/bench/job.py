"""What a GEMM benchmark computes: its shape, its formats and its random numbers."""

import dataclasses
import math
import shlex

import numpy as np
import numpy.typing as npt

from ...rtl.config import MAX_K, RELEASE_WORDS, CardConfig
from ...rtl.isa import (
    BITS,
    INPUT_FORMATS,
    LANES,
    Encoding,
    Format,
    Mode,
    array_mode,
)
from ..allocator import OutOfMemoryError
from ..compiler.formats import DTYPES as ARRAY_DTYPES
from ..compiler.formats import packed_bytes

__all__ = [
    "ANCHOR",
    "DTYPES",
    "ENCODINGS",
    "OUT_DTYPES",
    "PATTERNS",
    "STREAMS",
    "GemmJob",
    "Operands",
    "command_line",
]

DTYPES = {format.name.lower(): format for format in sorted(INPUT_FORMATS, key=BITS.__getitem__)}
"""Input formats, by the name that the command line takes."""

OUT_DTYPES = {**DTYPES, "fp32": Format.FP32, "int32": Format.INT32}
"""Output formats, by name."""

ENCODINGS: dict[str, Encoding | None] = {
    "auto": None,
    "dense": Encoding.DENSE,
    "delta": Encoding.DELTA,
    "2:4": Encoding.SPARSE_2_4,
    "1:4": Encoding.SPARSE_1_4,
    "1:8": Encoding.SPARSE_1_8,
}
"""Stream encodings, by name; None leaves the choice to the compiler."""

PATTERNS = {"2:4": (2, 4), "1:4": (1, 4), "1:8": (1, 8)}
"""Non-zero values, and of how many."""

STREAMS = ("auto", "a", "b")
"""Which operand streams past the other, which is resident."""

ANCHOR = -64
"""Lowest bit of the BF16 window: products of the random numbers lie from 2^-64 to 2^15."""

INTEGERS = {Format.INT8: 128, Format.INT4: 8}
"""Integers of a format go from minus this to this less one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
    """The numbers of a GEMM.

    Parameters
    ----------
    a : array of shape [M, K]
    x : array of shape [N, K]
    scale : float32
        Of all results; with a block scale an array [rows of the streams, blocks].
    """

    a: npt.NDArray
    x: npt.NDArray
    scale: np.float32 | npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmJob:
    """A GEMM of random numbers: C[M, N] = A[M, K] x B[K, N].

    Parameters
    ----------
    m, n, k : int
    dtype : str
        Format of A: a key of `DTYPES`.
    resident_dtype : str or None
        Format of B; as A if None.
    out_dtype : str or None
        Format of C: a key of `OUT_DTYPES`; as A if None.
    density : float or None
        Fraction of A that is not zero; None is all.
    skew : float
        Standard deviation of the logarithm of the rows' densities; 0 is equal ones.
    encoding : str
        Key of `ENCODINGS`. With one of `PATTERNS`, A's non-zero values lie in that pattern.
    block_scale : int or None
        Every so many products have a scale of their own, for each row of the operand that streams.
    stream : str
        One of `STREAMS`. With a block scale, ``"auto"`` is A.
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
    resident_dtype: str | None = None
    out_dtype: str | None = None
    density: float | None = None
    skew: float = 0.0
    encoding: str = "auto"
    block_scale: int | None = None
    stream: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, limit in (("m", None), ("n", None), ("k", MAX_K)):
            value = getattr(self, name)
            if value < 1 or (limit is not None and value > limit):
                asked = f"from 1 to {limit}" if limit else "at least 1"
                raise ValueError(f"--{name} must be {asked}, not {value!r}")
        for name, known in (
            (self.dtype, DTYPES),
            (self.resident_name, DTYPES),
            (self.out_name, OUT_DTYPES),
        ):
            if name not in known:
                raise ValueError(f"no format {name!r}; choose one of: {', '.join(known)}")
        for option, value, choices in (
            ("encoding", self.encoding, tuple(ENCODINGS)),
            ("stream", self.stream, STREAMS),
        ):
            if value not in choices:
                raise ValueError(f"--{option} must be one of {', '.join(choices)}, not {value!r}")
        if array_mode(self.a_format, self.b_format) is None:
            raise ValueError(f"{self.dtype} and {self.resident_name} cannot be multiplied")
        if self.out_format is Format.INT32:
            if not self.integers:
                raise ValueError(
                    f"{self.dtype} by {self.resident_name} has no int32 result; choose fp32"
                )
            if self.block_scale is not None:
                raise ValueError("--block-scale has no int32 result; choose fp32")
        self._check_zeros()
        if self.block_scale is not None and (
            self.block_scale < 1 or (self.block_scale % RELEASE_WORDS and self.block_scale < self.k)
        ):
            raise ValueError(
                f"--block-scale must be a positive multiple of {RELEASE_WORDS}, or K of {self.k} "
                f"or more, not {self.block_scale!r}"
            )
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, not {self.seed!r}")

    def _check_zeros(self) -> None:
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"--density must be from 0 to 1, not {self.density!r}")
        if not 0 <= self.skew < math.inf:
            raise ValueError(f"--skew must be a number of at least 0, not {self.skew!r}")
        if self.skew and self.density is None:
            raise ValueError("--skew needs --density; next: add --density 0.1, or leave --skew out")
        if self.encoding in PATTERNS and self.density is not None:
            raise ValueError(f"--encoding {self.encoding} sets the density; leave --density out")
        if self.streams_b and self.sparse:
            raise ValueError("--stream b sends A dense; leave its zeros out")
        if self.streams_b and self.out_format is Format.INT4:
            raise ValueError("--stream b has no int4 results; choose int8")

    @property
    def resident_name(self) -> str:
        """Name of B's format."""
        return self.dtype if self.resident_dtype is None else self.resident_dtype

    @property
    def out_name(self) -> str:
        """Name of the output format."""
        return self.dtype if self.out_dtype is None else self.out_dtype

    @property
    def a_format(self) -> Format:
        return DTYPES[self.dtype]

    @property
    def b_format(self) -> Format:
        return DTYPES[self.resident_name]

    @property
    def out_format(self) -> Format:
        return OUT_DTYPES[self.out_name]

    @property
    def mode(self) -> Mode:
        """How the array multiplies."""
        mode = array_mode(self.a_format, self.b_format)
        assert mode is not None  # checked when the job was made
        return mode

    @property
    def lanes(self) -> int:
        """Multiplications that a PE does in a cycle."""
        return LANES[self.mode]

    @property
    def integers(self) -> bool:
        """Whether both inputs are integers."""
        return self.a_format in INTEGERS and self.b_format in INTEGERS

    @property
    def anchor(self) -> int:
        """Of the window, in BF16 mode."""
        return ANCHOR if self.mode is Mode.BF16 else 0

    @property
    def sparse(self) -> bool:
        """Whether A has zeros, so that sending it compressed is worth a comparison."""
        return self.density is not None or self.encoding in PATTERNS

    @property
    def nonzero(self) -> float:
        """Expected fraction of A that is not zero."""
        if self.encoding in PATTERNS:
            kept, group = PATTERNS[self.encoding]
            return kept / group
        return 1.0 if self.density is None else self.density

    @property
    def streams_b(self) -> bool:
        """Whether it is asked that B streams past A."""
        return self.stream == "b"

    @property
    def blocks(self) -> int:
        """Scales that a row has."""
        return 1 if self.block_scale is None else -(-self.k // self.block_scale)

    @property
    def zeros(self) -> str:
        """What is zero in A, for people."""
        if self.encoding in PATTERNS:
            return f"{self.encoding} non-zero"
        if self.density is None:
            return "no zeros"
        skewed = f", rows skewed by {self.skew}" if self.skew else ""
        return f"density {self.density}{skewed}"

    def check(self, config: CardConfig) -> None:
        """Refuse, before any array is made, what the card cannot hold.

        Raises
        ------
        OutOfMemoryError
        """
        # A stream never takes more than dense.
        a, x = (self.m * _pitch(self.k, self.a_format), self.n * _pitch(self.k, self.b_format))
        c = self.m * _pitch(self.n, self.out_format)
        need = int(a * min(1.0, 1.25 * self.nonzero)) + x + c
        if need > config.memory_bytes:
            raise OutOfMemoryError(
                f"out of card memory: A, B and C of a {self.m} x {self.k} by {self.k} x {self.n} "
                f"product take {need} bytes, preset {config.name} has {config.memory_bytes}; "
                "choose a smaller shape",
                requested=need,
                free=config.memory_bytes,
                largest=config.memory_bytes,
            )

    def operands(self) -> Operands:
        """Return the numbers, the same ones for the same seed; results stay in range."""
        random = np.random.default_rng(self.seed)
        a = _numbers(random, (self.m, self.k), self.a_format)
        x = _numbers(random, (self.n, self.k), self.b_format)
        keep = self._keep(random)
        a[a == a.dtype.type(0)] = a.dtype.type(1)
        if keep is not None:
            a[~keep] = a.dtype.type(0)
        return Operands(a, x, self._scale(random))

    def _keep(self, random: np.random.Generator) -> npt.NDArray[np.bool_] | None:
        shape = (self.m, self.k)
        if self.encoding in PATTERNS:
            kept, group = PATTERNS[self.encoding]
            groups = -(-self.k // group)
            order = np.argsort(random.random((self.m, groups, group)), axis=-1)
            return (order < kept).reshape(self.m, groups * group)[:, : self.k]
        if self.density is None:
            return None
        density = np.full((self.m, 1), self.density)
        if self.skew:
            density *= random.lognormal(-(self.skew**2) / 2, self.skew, (self.m, 1))
        return random.random(shape) < density

    def _scale(self, random: np.random.Generator) -> np.float32 | npt.NDArray[np.float32]:
        """Scales that keep almost all results in the output's range."""
        spread = _spread(self.a_format) * _spread(self.b_format)
        target = {Format.INT8: 40.0, Format.INT4: 2.5}.get(self.out_format, 1.0)
        length = max(self.k * self.nonzero, 1.0)
        scale = np.float32(target / (spread * np.sqrt(length)))
        if self.block_scale is None:
            return scale
        rows = self.n if self.streams_b else self.m
        return scale * random.uniform(0.5, 1.5, (rows, self.blocks)).astype(np.float32)

    def options(self) -> list[str]:
        """Return the command line's options for this job."""
        words: list[object] = ["--m", self.m, "--n", self.n, "--k", self.k, "--dtype", self.dtype]
        default = GemmJob(m=1, n=1, k=1)
        for field in ("resident_dtype", "out_dtype", "density", "skew", "encoding", "block_scale"):
            value = getattr(self, field)
            if value != getattr(default, field):
                words += [f"--{field.replace('_', '-')}", value]
        if self.stream != default.stream:
            words += ["--stream", self.stream]
        return list(map(str, words))

    def __str__(self) -> str:
        formats = self.dtype
        if self.resident_name != self.dtype:
            formats += f" by {self.resident_name}"
        return f"{self.m} x {self.k} by {self.k} x {self.n}, {formats} to {self.out_name}"


def command_line(name: str, words: list[str], **options: object) -> str:
    """Return a command that repeats a benchmark."""
    for option, value in options.items():
        words = [*words, f"--{option}", str(value)]
    return shlex.join(["deepseek-host", "bench", name, *words])


def _pitch(numbers: int, format: Format) -> int:
    """Bytes of a row of so many numbers."""
    return -(-packed_bytes(numbers, format) // 16) * 16


def _numbers(random: np.random.Generator, shape: tuple[int, int], format: Format) -> npt.NDArray:
    if format in INTEGERS:
        limit = INTEGERS[format]
        return random.integers(-limit, limit, shape, np.int8).astype(ARRAY_DTYPES[format])
    return random.standard_normal(shape, np.float32).astype(ARRAY_DTYPES[format])


def _spread(format: Format) -> float:
    """Standard deviation of the random numbers of a format."""
    limit = INTEGERS.get(format)
    return 1.0 if limit is None else limit / np.sqrt(3)
