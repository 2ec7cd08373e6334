"""``deepseek-host bench gemm`` for products whose operands the card makes ready itself."""

import json

import typer

from .bench import GemmResult, StagedResult
from .cli_tables import mark, result_table

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
    end = mark(result)
    more = {}
    if packed:
        more = {
            f"cycles{end}, sent dense": fields["dense_cycles"],
            f"cycles{end}, compressed by the compiler": fields["packed_cycles"],
            "times faster than dense": fields["speedup_over_dense"],
        }
    rows = {"on the card": result.job.made, "tiles": result.tiles}
    result_table(f"gemm: {result.job}", result, rows, more=more)
