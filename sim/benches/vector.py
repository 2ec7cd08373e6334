"""Bench of the vector unit: which part runs a command, and what becomes of one without a part."""

from typing import Any

import cocotb
import numpy as np

from ...rtl import isa
from ...rtl.config import GRANULE
from .lib import bench_config, pack, rng, start
from .units import ScratchpadModel, UnitDriver

# Amaranth's enums look like integers to a type checker.
Status: Any = isa.Status
Opcode: Any = isa.Opcode

ONE = 0x3F800000
OUT = 1024

LAYOUTS: dict[str, Any] = {
    "pool": isa.VectorBody,
    "rows": isa.RowsBody,
    "reformat": isa.ReformatBody,
}
OPCODES = {"pool": Opcode.VECTOR, "rows": Opcode.ROWS, "reformat": Opcode.REFORMAT}

# Each copies, or transposes, one granule.
BODIES: dict[str, dict[str, int]] = {
    "pool": dict.fromkeys(("granules", "out_y", "out_x", "kernel_y", "kernel_x"), 1),
    "rows": {"length": GRANULE, "y": 1, "z": 1, "a_scale": ONE, "b_scale": ONE}
    | {"clamp_low": -128, "clamp_high": 127},
    "reformat": {"rows": GRANULE, "length": 1, "batch": 1, "in_stride": GRANULE},
}


@cocotb.test()
async def parts(dut: Any) -> None:
    """What there is runs; what there is not is refused with its first iteration, again and again,
    and leaves the scratchpad alone."""
    r, config = rng(), bench_config()
    await start(dut)
    scratchpad = ScratchpadModel(dut, config, r, read=1, write=1)
    unit = UnitDriver(dut, r)
    order = [str(part) for _ in range(4) for part in r.permutation(list(BODIES))]
    for count, part in enumerate(order):
        scratchpad.bytes[OUT:] = 0
        before = scratchpad.bytes.copy()
        unit.stall.short = 0.5 * (count % 2)
        body = pack(LAYOUTS[part], BODIES[part])
        operands = [[0, 0, OUT], [0, 0, OUT + GRANULE]]
        outcome = await unit.run(body, operands, opcode=OPCODES[part].value)
        if part in config.vector_parts:
            assert (outcome.done, outcome.status) == (2, None), part
            source = scratchpad.bytes[: GRANULE * GRANULE].reshape(GRANULE, GRANULE)
            wanted = source[:, 0] if part == "reformat" else source[0]
            for result in scratchpad.bytes[OUT:].reshape(-1, GRANULE)[:2]:
                assert np.array_equal(result, wanted), part
            await unit.quiet(10)
        else:
            assert (outcome.done, outcome.status) == (0, Status.BAD_OPCODE.value), part
            await unit.refuse()
            assert np.array_equal(scratchpad.bytes, before)
