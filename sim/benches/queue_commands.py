"""Random commands for benches of queues, and the iterations that they run as."""

import collections
import dataclasses
from typing import Any

import numpy as np

from ...rtl.core.bank import UNITS

MASK = 0xFFFFFFFF
OVERLAP = UNITS.index("compute")
"""The queue whose commands overlap."""
BODY_BITS = 512
TRANSFER_BITS = 192
TRANSFERS = ("load0", "load1", "store")


@dataclasses.dataclass
class Iteration:
    """What one iteration must look like and do."""

    operands: list[int]
    body: int
    waits: collections.Counter[int]
    signals: list[int]
    command: int
    first: bool
    last: bool


def used(unit: str, operands: list[int], body: int) -> tuple[list[int], int]:
    """Return what a unit gets of an iteration's operands and its command's body."""
    if unit in TRANSFERS:
        return operands[:2], body & ((1 << TRANSFER_BITS) - 1)
    return operands, body


def reference(semaphore: int, *, outer: bool = False) -> dict[str, int]:
    """Return the fields of a wait or a signal."""
    return {"index": semaphore, "outer": int(outer), "enable": 1}


def iterations(fields: dict[str, Any], number: int) -> list[Iteration]:
    """Return a command's iterations, from the definition in `Operand` and `SemaphoreRef`."""
    result: list[Iteration] = []
    inner_count, outer_count = fields["inner"], fields["outer"]
    for outer in range(outer_count):
        for inner in range(inner_count):
            operands = []
            for n, operand in enumerate(fields["operand"]):
                by_outer = fields["pong_outer"] >> n & 1
                parity = outer & 1 if by_outer else len(result) & 1
                address = operand["base"] + outer * operand["outer"] + inner * operand["inner"]
                operands.append((address + parity * operand["pong"]) & MASK)

            def chosen(name: str, turn: bool) -> list[int]:
                return [
                    item["index"]
                    for item in fields[name]
                    if item.get("enable") and (turn or not item.get("outer"))
                ]

            result.append(
                Iteration(
                    operands=operands,
                    body=fields["body"],
                    waits=collections.Counter(chosen("wait", inner == 0)),
                    signals=chosen("signal", inner == inner_count - 1),
                    command=number,
                    first=outer == inner == 0,
                    last=outer == outer_count - 1 and inner == inner_count - 1,
                )
            )
    return result


def random_command(r: np.random.Generator, *, semaphores: int) -> dict[str, Any]:
    """Return a command of up to 30 iterations that uses the first few semaphores."""

    def references() -> list[dict[str, int]]:
        return [
            {
                "index": int(r.integers(semaphores)),
                "outer": int(r.random() < 0.3),
                "enable": int(r.random() < 0.35),
            }
            for _ in range(4)
        ]

    def number() -> int:
        return int(r.choice([int(r.integers(1 << 32)), int(r.integers(256))]))

    return {
        "pong_outer": int(r.integers(8)),
        "wait": references(),
        "signal": references(),
        "inner": int(r.choice([1, 2, int(r.integers(1, 7))])),
        "outer": int(r.choice([1, 2, int(r.integers(1, 6))])),
        "operand": [
            {
                "base": number(),
                "inner": number() - (1 << 31),
                "outer": number() - (1 << 31),
                "pong": number(),
            }
            for _ in range(3)
        ],
        "body": int.from_bytes(r.bytes(BODY_BITS // 8), "little"),
    }
