"""Options that several commands share."""

from typing import Annotated

import typer

from .bench import DTYPES, ENCODINGS, OUT_DTYPES, STREAMS
from .transport import BACKENDS

__all__ = [
    "BackendOption",
    "DensityOption",
    "DtypeOption",
    "EncodingOption",
    "JsonOption",
    "MemoryOption",
    "OutOption",
    "PresetOption",
    "ResidentOption",
    "ScaleOption",
    "SeedOption",
    "SizeOption",
    "SkewOption",
    "StreamOption",
]

BackendOption = Annotated[str, typer.Option(help=f"The card: {' or '.join(BACKENDS)}.")]
PresetOption = Annotated[str, typer.Option(help="Size of the card: tiny, ecp5 or sim.")]
MemoryOption = Annotated[str, typer.Option(help="Card memory: hbm, or ideal (fixed latency).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the random numbers.")]
SizeOption = typer.Option(help="C[M, N] = A[M, K] x B[K, N].")
DtypeOption = Annotated[str, typer.Option(help=f"Format of A: {', '.join(DTYPES)}.")]
ResidentOption = Annotated[
    str | None, typer.Option(help="Format of B, of the same ones [default: as --dtype].")
]
OutOption = Annotated[
    str | None,
    typer.Option(help=f"Format of C: {', '.join(OUT_DTYPES)} [default: as --dtype]."),
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
