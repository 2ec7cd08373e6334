"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from .bench import DTYPES, ENCODINGS, GEMM_DTYPES, OUT_DTYPES, QUANTIZE, STREAMS
from .transport import BACKENDS

__all__ = [
    "BackendOption",
    "CompressOption",
    "CsvOption",
    "DensityOption",
    "DtypeOption",
    "EncodingOption",
    "GemmDtypeOption",
    "GemmResidentOption",
    "JsonOption",
    "MemoryOption",
    "OutOption",
    "PresetOption",
    "QuantizeOption",
    "ScaleOption",
    "SeedOption",
    "SizeOption",
    "SkewOption",
    "StreamOption",
    "TransposeAOption",
    "TransposeBOption",
]

BackendOption = Annotated[str, typer.Option(help=f"The card: {' or '.join(BACKENDS)}.")]
PresetOption = Annotated[str, typer.Option(help="Size of the card: tiny, ecp5 or sim.")]
MemoryOption = Annotated[str, typer.Option(help="Card memory: hbm, or ideal (fixed latency).")]
CsvOption = Annotated[Path | None, typer.Option(help="Write the rows there, too.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the random numbers.")]
SizeOption = typer.Option(help="C[M, N] = A[M, K] x B[K, N].")
DtypeOption = Annotated[str, typer.Option(help=f"Format of A: {', '.join(DTYPES)}.")]
GemmDtypeOption = Annotated[
    str | None,
    typer.Option(
        help=f"Format of A: {', '.join(GEMM_DTYPES)} (default: int8; with --quantize bf16)."
    ),
]
GemmResidentOption = Annotated[
    str | None,
    typer.Option(help="Format of B, of the same ones (default: as --dtype; with --quantize int8)."),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        help=f"Format of C: {', '.join(OUT_DTYPES)} [default: as --dtype, of MX formats fp32]."
    ),
]
DensityOption = Annotated[
    float | None, typer.Option(help="Fraction of A that is not zero, at random.")
]
SkewOption = Annotated[
    float, typer.Option(help="Spread of the rows' densities: of their logarithm (0: none).")
]
EncodingOption = Annotated[
    str,
    typer.Option(
        help=f"How streams are sent: {', '.join(ENCODINGS)}. N:M gives A zeros in that pattern."
    ),
]
ScaleOption = Annotated[
    int | None, typer.Option(help="A scale for every so many products, a multiple of 16.")
]
StreamOption = Annotated[
    str, typer.Option(help=f"Which operand streams past the other: {', '.join(STREAMS)}.")
]
TransposeAOption = Annotated[
    bool | None,
    typer.Option(
        help="A and B lie in memory row by row, A as [K, M] or [M, K]: what K does not follow is "
        "transposed on the card.",
        show_default=False,
    ),
]
TransposeBOption = Annotated[
    bool | None,
    typer.Option(help="The same, B as [N, K] or [K, N].", show_default=False),
]
CompressOption = Annotated[
    bool,
    typer.Option("--compress-on-card", help="A lies in memory dense; the card leaves zeros out."),
]
QuantizeOption = Annotated[
    str | None,
    typer.Option(
        help=f"A is quantized on the card, with a scale a {' or a '.join(QUANTIZE)} (1 x 128)."
    ),
]
