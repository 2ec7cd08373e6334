"""How fast the Verilated card is simulated."""

from typing import Any

from ..card import Card
from .gemm import GemmResult, run
from .golden import expected
from .job import ENCODINGS, GemmJob

__all__ = ["simspeed"]

SECONDS = 2.0
"""Jobs are repeated for so long at least, to average over the machine's noise."""


def simspeed(
    card: Card, job: GemmJob, *, seconds: float = SECONDS
) -> tuple[GemmResult, dict[str, Any]]:
    """Repeat a GEMM and measure how fast the simulation is; return it and its JSON fields."""
    job.check(card.config)
    operands = job.operands()
    wanted = expected(job, operands)
    cycles = runs = 0
    wall = 0.0
    while not runs or wall < seconds:
        result, ended = run(card, job, operands, wanted, ENCODINGS[job.encoding])
        cycles += ended.cycles
        wall += result.wall_s
        runs += 1
    fields = result.as_json() | {
        "name": "simspeed",
        "runs": runs,
        "wall_seconds": round(wall, 4),
        "cycles_per_second": round(cycles / wall),
        "macs_per_second": round(result.macs * runs / wall),
        **card.transport.details(),
        "command": result.command("simspeed"),
    }
    return result, fields
