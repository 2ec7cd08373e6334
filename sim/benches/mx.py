"""Bench of `MxToBf16`: every number of every format with every scale."""

from typing import Any

import cocotb
import ml_dtypes
import numpy as np

from ...rtl.isa import Format
from ...rtl.numerics.mx import MxToBf16
from .lib import rng, sample, start, tick

# An independent converter, as a NumPy type, and what its numbers count.
KINDS: dict[Format, tuple[Any, float]] = {
    Format.E4M3: (ml_dtypes.float8_e4m3fn, 1.0),
    Format.E5M2: (ml_dtypes.float8_e5m2, 1.0),
    Format.INT8: (np.int8, 2.0**-6),
    Format.E2M1: (ml_dtypes.float4_e2m1fn, 1.0),
}


@cocotb.test()
@cocotb.parametrize(form=list(KINDS))
async def all_numbers(dut: Any, form: Format) -> None:
    """All pairs of a number and a scale, as products that float64 holds."""
    r = rng()
    kind, unit = KINDS[form]
    codes = 16 if form is Format.E2M1 else 256
    lanes = len(dut.numbers) // 8
    code, scale = (
        a.reshape(-1, lanes)
        for a in np.meshgrid(np.arange(codes, dtype=np.uint8), np.arange(256), indexing="xy")
    )
    number = code.view(kind).astype(np.float64) * unit
    # FP32 holds the products, but those that are infinite in BF16, too.
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.ldexp(number, scale - 127).astype(np.float32).astype(ml_dtypes.bfloat16)
    bits = product.view(np.uint16)
    wanted = np.where(np.isnan(product.astype(np.float32)) | (scale == 255), 0x7FC0, bits)
    if form is Format.E2M1:
        code = code | r.integers(0, 16, code.shape, np.uint8) << 4
    order = r.permutation(len(code))

    dut.valid_i.value = 0
    await start(dut)
    dut.format.value = form.value
    given = []
    index = got = 0
    while got < len(order):
        go = index < len(order) and r.random() < 0.9
        at = order[index] if go else int(r.integers(len(order)))
        dut.valid_i.value = int(go)
        dut.numbers.value = int.from_bytes(code[at].tobytes(), "little")
        dut.scale.value = int(scale[at, 0])
        given.append(at if go else None)
        index += go
        await sample(dut)
        if len(given) > MxToBf16.LATENCY:
            at = given[-1 - MxToBf16.LATENCY]
            assert int(dut.valid_o.value) == (at is not None)
            if at is not None:
                results = int(dut.results.value).to_bytes(2 * lanes, "little")
                right = wanted[at].astype("<u2").tobytes()
                assert results == right, f"{code[at]} * 2^({scale[at, 0]} - 127)"
                got += 1
        await tick(dut)
