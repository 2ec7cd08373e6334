"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
    "LoadOption",
    "MemoryOption",
    "NetlistOption",
    "OutOption",
    "PortOption",
    "PresetOption",
    "QuantizeOption",
    "ScaleOption",
    "SeedOption",
    "SizeOption",
    "SkewOption",
    "StreamOption",
    "TransposeAOption",
    "TransposeBOption",
    "chosen_card",
]

BackendOption = Annotated[str, typer.Option(help=f"The card: {' or '.join(SIMULATED)}.")]
PresetOption = Annotated[str, typer.Option(help="Size of the card: tiny, wide, ecp5 or sim.")]
MemoryOption = Annotated[str, typer.Option(help="Card memory: hbm, or ideal (fixed latency).")]
CardBackendOption = Annotated[
    str | None,
    typer.Option(
        help=f"The card: {', '.join(BACKENDS)} (with --bitstream: board).",
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
    Path | None, typer.Option(help="Run on a board: load this bitstream, as host build made it.")
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
        help=f"Format of C: {', '.join(OUT_DTYPES)} (default: as --dtype, of MX formats fp32)."
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
    chosen = backend or ("board" if bitstream is not None else default)
    if bitstream is not None:
        if chosen != "board":
            raise ValueError(f"a bitstream runs on a board, not on the backend {chosen!r}")
        inside = board_preset(bitstream)
        if preset not in (None, inside):
            raise ValueError(
                f"{bitstream.name} holds a card of preset {inside}, not {preset}; leave --preset "
                f"out, or build one with: deepseek-host build --preset {preset}"
            )
        preset = inside
    return {
        "backend": chosen,
        "preset": preset or "ecp5",
        "memory": memory,
        "bitstream": bitstream,
        "board": board,
        "port": port,
        "load": load,
        "netlist": netlist,
    }
