"""Drives a pipelined unit of `rtl.numerics` with cases, and collects its results."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .lib import sample, start, tick

__all__ = ["SPECIAL", "compare", "run_unit"]

SPECIAL = np.array(
    [
        *(0x00000000, 0x00000001, 0x00000002, 0x00000003, 0x007FFFFF, 0x00800000, 0x00800001),
        *(0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x40000000, 0x3F000000, 0x7F000000, 0x7F7FFFFF),
        *(0x7F800000, 0x7F800001, 0x7FC00000, 0x00FFFFFF, 0x01000000, 0x33800000, 0x34000000),
    ],
    np.uint32,
)
SPECIAL = np.concatenate([SPECIAL, SPECIAL | np.uint32(1 << 31)])
"""FP32 words at the borders of every class, of both signs."""


async def run_unit(
    dut: Any,
    cases: Mapping[str, Sequence[int]],
    *,
    latency: int,
    stall: float,
    rng: np.random.Generator,
    constants: Mapping[str, int] | None = None,
    outputs: Sequence[str] = ("result",),
) -> list[int]:
    """Send the cases through the unit, and return the results, in order.

    Checks that each result appears ``latency`` cycles with ``ce`` high after its case.

    Parameters
    ----------
    dut
    cases : mapping
        For each input port its value in each case.
    latency : int
    stall : float
        Probability that ``ce`` is low, and that no case is offered, in each cycle.
    rng : numpy.random.Generator
    constants : mapping, optional
        Inputs that stand still.
    outputs : sequence of str
        Output ports that make a result, the lowest first.
    """
    dut.ce.value = 0
    dut.valid_i.value = 0
    for name, value in (constants or {}).items():
        getattr(dut, name).value = value
    await start(dut)
    ports = [getattr(dut, name) for name in cases]
    results_ports = [getattr(dut, name) for name in outputs]
    rows = list(zip(*cases.values(), strict=True))
    results: list[int] = []
    moving = collections.deque([False] * latency)
    sent = 0
    while len(results) < len(rows):
        ce, offer = (True, True) if not stall else (rng.random(2) >= stall).tolist()
        offer = offer and sent < len(rows)
        dut.ce.value = ce
        dut.valid_i.value = offer
        # Without `valid_i` the operands of the next case are noise.
        for port, value in zip(ports, rows[min(sent, len(rows) - 1)], strict=True):
            port.value = value
        await sample(dut)
        assert bool(dut.valid_o.value) == moving[0], f"valid_o after {sent} cases"
        if ce:
            if moving.popleft():
                number, shift = 0, 0
                for port in results_ports:
                    number |= int(port.value) << shift
                    shift += len(port)
                results.append(number)
            moving.append(offer)
            sent += offer
        await tick(dut)
    return results


def compare(
    cases: Mapping[str, Sequence[int]], results: Sequence[int], expected: Sequence[int]
) -> None:
    """Fail with the first case whose result is not the expected one."""
    assert len(results) == len(expected)
    for i, (result, right) in enumerate(zip(results, expected, strict=True)):
        if result != right:
            inputs = ", ".join(f"{name}={values[i]:#x}" for name, values in cases.items())
            raise AssertionError(f"case {i}: {inputs} gives {result:#x}, not {right:#x}")
