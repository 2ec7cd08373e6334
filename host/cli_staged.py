"""``host bench gemm`` for products whose operands the card makes ready itself."""

import json
from typing import Any

import typer

from .bench import GemmResult, StagedResult
from .cli_tables import explained, mark
from .console import table

__all__ = ["print_staged"]


def print_staged(result: StagedResult, packed: list[GemmResult], as_json: bool) -> None:
    """Print a result; ``packed`` are those of the same product, dense and compressed before."""
    fields = result.as_json()
    cycles = result.counters.cycles
    if packed:
        dense, compressed = (other.counters.cycles for other in packed)
        fields |= {"dense_cycles": dense, "packed_cycles": compressed}
        fields["speedup_over_dense"] = round(dense / cycles, 3)
    if as_json:
        typer.echo(json.dumps(fields))
        return
    counters, end = result.counters, mark(result)
    rows: dict[str, Any] = {
        f"cycles{end}": cycles,
        "multiplications": result.macs,
        f"MAC utilisation{end}": f"{result.utilization:.2%} of {result.mac_units} a cycle",
        "on the card": result.job.made,
        "tiles": result.tiles,
        "bytes read, written": f"{counters.bytes_read:,}, {counters.bytes_written:,}",
    }
    if packed:
        rows |= {
            f"cycles{end}, sent dense": fields["dense_cycles"],
            f"cycles{end}, compressed by the compiler": fields["packed_cycles"],
            "times faster than dense": fields["speedup_over_dense"],
        }
    table(
        f"gemm: {result.job}; {result.backend}, preset {result.config.name}, "
        f"memory {result.memory}",
        rows | explained(result),
    )
