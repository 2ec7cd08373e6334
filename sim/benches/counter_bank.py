"""Bench of `CounterBank` against plain sums, with counters that pass 2^32 within a few cycles."""

from typing import Any

import cocotb

from .lib import rng, sample, start, tick

AMOUNTS = ((1, 0), (5, 3), ((1 << 26) - 1, 0), (1 << 23, 4))
"""What the counters of the bench are made for."""


@cocotb.test()
async def sums(dut: Any) -> None:
    """Both halves of each counter are exact at any time, while they count and when they rest."""
    for name in ("clear", "count"):
        getattr(dut, name).value = 0
    await start(dut)
    r = rng()
    totals = [0] * len(AMOUNTS)
    passed = 0
    shown: tuple[str, int] | None = None  # what ``address`` named in the cycle before
    for cycle in range(6000):
        clear, count = r.random() < 0.001 or cycle == 0, r.random() < 0.9
        dut.clear.value, dut.count.value = int(clear), int(count)
        burst = cycle % 1000 < 700  # the largest amounts, time and again
        amounts = [most if burst else int(r.integers(most + 1)) for most, _ in AMOUNTS]
        for n, amount in enumerate(amounts):
            getattr(dut, f"amount_{n}").value = amount
        number, high = int(r.integers(len(AMOUNTS))), int(r.integers(2))
        dut.address.value = 2 * number + high
        await sample(dut)
        if shown is not None:
            name, wanted = shown
            assert int(dut.value.value) == wanted, name
            passed += name.endswith("1") and wanted != 0
        if cycle:
            wanted = totals[number] >> 32 * high & 0xFFFFFFFF
            shown = f"counter {number}, half {high}", wanted
        for n, (_, shift) in enumerate(AMOUNTS):
            totals[n] = 0 if clear else totals[n] + (amounts[n] << shift) * count
        await tick(dut)
    assert passed > 1000, "high halves stayed 0"
