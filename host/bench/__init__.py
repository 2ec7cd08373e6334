"""Benchmarks: figures from the card's counters, of results that equal the golden model's."""

from .attention import (
    ATTENTION_COLUMNS,
    ATTENTION_DTYPES,
    AttentionJob,
    AttentionResult,
    attention,
)
from .conv import ConvResult, conv
from .conv_job import PLANNERS, ConvJob, chosen_shape, shape_options
from .conv_network import LAYER_COLUMNS, NOT_COUNTED, MeasuredLayer, Total, layers_of, measure
from .gemm import GemmResult, MismatchError, compare, gemm, open_card
from .job import DTYPES, ENCODINGS, OUT_DTYPES, STREAMS, GemmJob
from .latency import LATENCY_COLUMNS, LATENCY_DTYPES, Latency, latency
from .networks import LAYERS, NETWORKS
from .peers import PEERS
from .result import Result
from .sparse import DENSITIES, Speedup, sparse_jobs, speedup
from .speed import simspeed
from .staged import GEMM_DTYPES, StagedResult, chosen_job, run_staged
from .staged_jobs import QUANTIZE, CompressJob, StagedJob
from .sweep import KINDS, CsvFile, Measured, Sweep, chosen_rows, shown_value
from .transposed_job import TransposedJob, transposed_shape

__all__ = [
    "ATTENTION_COLUMNS",
    "ATTENTION_DTYPES",
    "DENSITIES",
    "DTYPES",
    "ENCODINGS",
    "GEMM_DTYPES",
    "KINDS",
    "LATENCY_COLUMNS",
    "LATENCY_DTYPES",
    "LAYERS",
    "LAYER_COLUMNS",
    "NETWORKS",
    "NOT_COUNTED",
    "OUT_DTYPES",
    "PEERS",
    "PLANNERS",
    "QUANTIZE",
    "STREAMS",
    "AttentionJob",
    "AttentionResult",
    "CompressJob",
    "ConvJob",
    "ConvResult",
    "CsvFile",
    "GemmJob",
    "GemmResult",
    "Latency",
    "Measured",
    "MeasuredLayer",
    "MismatchError",
    "Result",
    "Speedup",
    "StagedJob",
    "StagedResult",
    "Sweep",
    "Total",
    "TransposedJob",
    "attention",
    "chosen_job",
    "chosen_rows",
    "chosen_shape",
    "compare",
    "conv",
    "gemm",
    "latency",
    "layers_of",
    "measure",
    "open_card",
    "run_staged",
    "shape_options",
    "shown_value",
    "simspeed",
    "sparse_jobs",
    "speedup",
    "transposed_shape",
]
