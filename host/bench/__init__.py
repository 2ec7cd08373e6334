"""Benchmarks: figures from the card's counters, of results that equal the golden model's."""

from .gemm import GemmResult, MismatchError, compare, gemm, open_card
from .job import DTYPES, ENCODINGS, OUT_DTYPES, STREAMS, GemmJob
from .peers import PEERS
from .sparse import DENSITIES, Speedup, sparse_jobs, speedup
from .speed import simspeed
from .sweep import KINDS, CsvFile, Measured, Sweep, chosen_rows, shown_value

__all__ = [
    "DENSITIES",
    "DTYPES",
    "ENCODINGS",
    "KINDS",
    "OUT_DTYPES",
    "PEERS",
    "STREAMS",
    "CsvFile",
    "GemmJob",
    "GemmResult",
    "Measured",
    "MismatchError",
    "Speedup",
    "Sweep",
    "chosen_rows",
    "compare",
    "gemm",
    "open_card",
    "shown_value",
    "simspeed",
    "sparse_jobs",
    "speedup",
]
