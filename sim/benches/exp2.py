"""Bench of `Exp2` against its definition, worked out with decimal fractions."""

import decimal
from typing import Any

import cocotb
import numpy as np

from ...rtl.numerics.exp2 import Exp2
from .lib import rng
from .numerics import SPECIAL, compare, run_unit

with decimal.localcontext(prec=60):
    POWERS = [
        int((decimal.Decimal(2) ** (23 + decimal.Decimal(i) / 256)).to_integral_value())
        for i in range(257)
    ]


def exp2(word: int) -> int:
    """Return the bits of EXP2 of an FP32 number that is not positive."""
    number = float(np.uint32(word).view(np.float32))
    if np.isnan(number):
        return 0x7FC00000
    if number < -1000:
        return 0
    units = int(np.floor(number * 65536))
    exponent, index, place = units >> 16, units >> 8 & 255, units & 255
    if exponent < -126:
        return 0
    power = POWERS[index] + ((POWERS[index + 1] - POWERS[index]) * place >> 8)
    return int(np.float32(float(power) * 2.0 ** (exponent - 23)).view(np.uint32))


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3])
async def powers(dut: Any, stall: float) -> None:
    """All indices, all places between two of them, all exponents, and what is cut off."""
    r = rng()
    units = np.concatenate(
        [
            np.arange(0, 1 << 16, 7),
            np.arange(0, 132 << 16, 1 << 16),
            np.arange(0, 132 << 16, 1 << 16) + 1,
            np.arange(0, 132 << 16, 1 << 16) - 1,
            np.arange(0, 1024),
            r.integers(0, 130 << 16, 3000),
        ]
    )
    numbers = [-np.abs(units) / 65536, -(2.0 ** -r.integers(0, 149, 500)), -r.random(2000) * 130]
    numbers += [numbers[0] * (1 + 2.0**-23), numbers[0] * (1 - 2.0**-23)]
    words = np.concatenate(numbers).astype(np.float32).view(np.uint32)
    words = np.concatenate([words, SPECIAL[SPECIAL >> 31 == 1], [0, 0x7FC00000, 0x7F800001]])
    if stall:
        words = r.choice(words, 2000)
    cases = {"number": words.tolist()}
    results = await run_unit(dut, cases, latency=Exp2.LATENCY, stall=stall, rng=r)
    compare(cases, results, [exp2(int(word)) for word in words])
