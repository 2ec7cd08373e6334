"""Benchmarks: figures from the card's counters, of results that equal the golden model's."""

from .conv import ConvResult, conv
from .conv_job import LAYERS, ConvJob, chosen_shape
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
    "LAYERS",
    "OUT_DTYPES",
    "PEERS",
    "STREAMS",
    "ConvJob",
    "ConvResult",
    "CsvFile",
    "GemmJob",
    "GemmResult",
    "Measured",
    "MismatchError",
    "Speedup",
    "Sweep",
    "chosen_rows",
    "chosen_shape",
    "compare",
    "conv",
    "gemm",
    "open_card",
    "shown_value",
    "simspeed",
    "sparse_jobs",
    "speedup",
]
