"""Figures of other open accelerators, each with where it comes from."""

import dataclasses

__all__ = ["ELSEWHERE", "PEERS", "Figure"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of another design.

    Parameters
    ----------
    design : str
    value : str
        With its unit.
    what : str
        What was measured, where it is not what a row measures.
    source : str
        Commit, paper or pull request, and how the figure came about.
    """

    design: str
    value: str
    what: str = ""
    source: str

    def __str__(self) -> str:
        return f"{self.design} {self.value}" + (f" ({self.what})" if self.what else "")


def _redmule(value: str, what: str = "") -> Figure:
    return Figure(
        design="RedMulE",
        value=value,
        what=what,
        source="pulp-platform/redmule, commit 51cd064: its RTL as shipped (48 FP16 FMAs), "
        "Verilated by us behind a memory that grants always; from the trigger to the end event, "
        "operands already in the scratchpad",
    )


def _ita(value: str, what: str = "") -> Figure:
    return Figure(
        design="ITA",
        value=value,
        what=what,
        source="pulp-platform/ITA, commit ba96519: its RTL (1024 INT8 MACs), Verilated by us with "
        "input streams that are always valid; throughput only, no memory",
    )


def _vortex(value: str, what: str) -> Figure:
    return Figure(
        design="Vortex",
        value=value,
        what=what,
        source="vortexgpgpu/vortex, perf/results/tcu: published RTL simulation of 64x64x64 on its "
        "tensor unit, 8 warps of 8 threads, with program, caches and loads",
    )


PEERS: dict[str, tuple[Figure, ...]] = {
    "fp16-64": (_redmule("87.4 %"),),
    "fp16-128": (_redmule("96.7 %"),),
    "fp16-256": (_redmule("96.9 %"),),
    "fp16-384": (_redmule("99.99 %"),),
    "fp16-16x256x256": (_redmule("66.5 %"),),
    "fp16-31x32x31": (_redmule("73.2 %"),),
    "int8-256": (_ita("99.62 %"),),
    "int8-128x768x768": (_ita("99.91 %"), _redmule("96.96 %", "FP16")),
    "gemv-1x256x256": (_redmule("8.3 %", "FP16, of its MACs"),),
    "fp16-512-2:4": (_vortex("1.29 x", "64x64x64"),),
    "int8-512-2:4": (_vortex("1.19 x", "64x64x64"),),
    "int8:fp16": (_vortex("1.81 x", "64x64x64"),),
    "int4:int8": (_vortex("1.00 x", "64x64x64"),),
    "resnet50": (
        Figure(
            design="Gemmini",
            value="51 %",
            what="16 x 16, end to end",
            source="ucb-bar/gemmini, pull request #90",
        ),
        Figure(
            design="NVDLA",
            value="23.2 %",
            what="INT8, 2048 MACs, 10 GB/s; a model, not a measurement",
            source="nvdla/hw, branch nvdlav1, commit 8e06b1b: its performance spreadsheet",
        ),
    ),
    "attention": (
        _ita("99.74 %", "S = 256, E = 256, P = 64, projections included"),
        _ita("99.2 %", "S = 256, P = 64, without them"),
    ),
    "latency": (
        _ita("63", "cycles beyond the MACs, of every job"),
        _redmule("108", "cycles beyond the MACs, of jobs with M from 16 on"),
    ),
}
"""Figures that answer a row of the sweep, a network, attention, or what a command costs, by name.
"""

ELSEWHERE: tuple[Figure, ...] = (
    _vortex("0.87 x", "2:4 sparsity in INT4, 64x64x64: slower than dense"),
    Figure(
        design="RedMulE",
        value="98.8 %",
        what="published, FP16, large matrices",
        source="arXiv 2204.11192",
    ),
    Figure(
        design="O-POPE",
        value="99.97 %",
        what="published, FP16, up to 2048 MACs",
        source="arXiv 2606.02333",
    ),
    Figure(
        design="OpenGeMM",
        value="81.89 to 99.34 %",
        what="published, INT8 networks with their control core",
        source="arXiv 2411.09543",
    ),
    Figure(
        design="SCNN",
        value="2.7 x",
        what="published, unstructured zeros in weights and activations, whole networks",
        source="ISCA 2017",
    ),
)
"""Figures that no row answers: whole networks, other shapes, other technologies."""
