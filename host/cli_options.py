"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..rtl.config import MAX_K, RELEASE_WORDS
from .bench import DTYPES, ENCODINGS, GEMM_DTYPES, OUT_DTYPES, QUANTIZE, STREAMS
from .transport import BACKENDS, SIMULATED, board_preset

__all__ = [
    "BackendOption",
    "BitstreamOption",
    "BoardOption",
    "CardBackendOption",
    "CardPresetOption",
    "CompressOption",
    "CsvOption",
    "DensityOption",
    "DtypeOption",
    "EncodingOption",
    "GemmDtypeOption",
    "GemmResidentOption",
    "JsonOption",
    "KOption",
    "LoadOption",
    "MOption",
    "MemoryOption",
    "NOption",
    "NetlistOption",
    "OutOption",
    "PortOption",
    "PresetOption",
    "QuantizeOption",
    "ScaleOption",
    "SeedOption",
    "SkewOption",
    "StreamOption",
    "TransposeAOption",
    "TransposeBOption",
    "check_bitstream",
    "chosen_card",
]

BackendOption = Annotated[str, typer.Option(help=f"The card: {' or '.join(SIMULATED)}.")]
PresetOption = Annotated[str, typer.Option(help="Size of the card: tiny, wide, ecp5 or sim.")]
MemoryOption = Annotated[str, typer.Option(help="Card memory: hbm, or ideal (fixed latency).")]
CardBackendOption = Annotated[
    str | None,
    typer.Option(
        help=f"The card: {', '.join(BACKENDS)} (default: rtl to run, functional for info; with "
        "--bitstream board).",
        show_default=False,
    ),
]
CardPresetOption = Annotated[
    str | None,
    typer.Option(
        help="Size of the card: tiny, wide, ecp5 or sim (default: ecp5; a bitstream has its own).",
        show_default=False,
    ),
]
BitstreamOption = Annotated[
    Path | None, typer.Option(help="Run on a board: load this bitstream of deepseek-host build.")
]
BoardOption = Annotated[
    str | None,
    typer.Option(help="The bitstream's board, or virtual: simulate it (default: the bitstream's)."),
]
PortOption = Annotated[
    str | None, typer.Option(help="The board's serial port (default: the one that fits).")
]
LoadOption = Annotated[
    bool, typer.Option("--load/--no-load", help="Load the bitstream, or it runs already.")
]
NetlistOption = Annotated[
    bool,
    typer.Option(
        "--netlist",
        help="With --board virtual: simulate the placed and routed netlist beside the bitstream.",
    ),
]
CsvOption = Annotated[
    Path | None, typer.Option(help="Write the rows to this file, too; its folder must be there.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the random numbers.")]
MOption = Annotated[int, typer.Option(help="Rows of A and C, in C[M, N] = A[M, K] x B[K, N].")]
NOption = Annotated[int, typer.Option(help="Columns of B and C.")]
KOption = Annotated[
    int,
    typer.Option(help=f"Length of the dot products: columns of A, rows of B (at most {MAX_K})."),
]
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
        help=f"Format of C: {', '.join(OUT_DTYPES)} (default: as --dtype, of MX formats fp32)."
    ),
]
DensityOption = Annotated[
    float | None,
    typer.Option(help="Fraction of A that is not zero, from 0 to 1, at random (default: all)."),
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
    int | None,
    typer.Option(
        help=f"A scale for every so many products, a positive multiple of {RELEASE_WORDS}; with K "
        "or more each row has one (default: one for all)."
    ),
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


def check_bitstream(path: Path) -> None:
    """Raise `ValueError` if a folder is named in place of a bitstream."""
    if path.is_dir():
        raise ValueError(f"--bitstream must name a file, and {path} is a folder")


def chosen_card(
    *,
    backend: str | None,
    default: str,
    preset: str | None,
    memory: str,
    bitstream: Path | None,
    board: str | None,
    port: str | None,
    load: bool,
    netlist: bool,
) -> dict[str, Any]:
    """Return the arguments of `Card.open` that the options stand for.

    Raises
    ------
    ValueError
        If they contradict each other.
    """
    if backend is None:
        backend = default if bitstream is None else "board"
    if bitstream is not None:
        if backend != "board":
            raise ValueError(
                f"--bitstream runs on a board, not on the backend {backend!r}; leave --backend out"
            )
        check_bitstream(bitstream)
        inside = board_preset(bitstream)
        if preset not in (None, inside):
            raise ValueError(
                f"{bitstream.name} holds a card of preset {inside}, not {preset}; leave --preset "
                f"out, or build one with: deepseek-host build --preset {preset}"
            )
        preset = inside
    return {
        "backend": backend,
        "preset": "ecp5" if preset is None else preset,
        "memory": memory,
        "bitstream": bitstream,
        "board": board,
        "port": port,
        "load": load,
        "netlist": netlist,
    }
