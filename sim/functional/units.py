"""What one iteration of each unit does to memory and scratchpad."""

from collections.abc import Sequence

import numpy as np

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import Opcode, Status
from .checks import check_matmul, check_transfer, check_vector, refuse
from .matmul import matmul
from .reformat import check_reformat, reformat
from .rows import check_rows, rows
from .vector import vector
from .work import Bytes, Fields, Work, windows

__all__ = ["execute"]

CHUNK_BYTES = 1 << 24
"""Bytes that a transfer moves in one NumPy operation."""

_PARTS = {Opcode.ROWS: "rows", Opcode.REFORMAT: "reformat"}
"""What of `CardConfig.vector_parts` runs a command; the others of the VECTOR queue: "pool"."""


def execute(
    opcode: Opcode,
    body: Fields,
    operand: Sequence[int],
    *,
    memory: Bytes,
    scratchpad: Bytes,
    config: CardConfig,
    dealt: int = 0,
) -> Work:
    """Check one iteration and execute it in place.

    Parameters
    ----------
    dealt : int
        Engine behind that of the last row of the MATMUL before.

    Raises
    ------
    Fault
        If the iteration is refused.
    """
    if opcode in (Opcode.LOAD, Opcode.STORE):
        check_transfer(body, operand, config)
        return _transfer(opcode, body, operand, memory, scratchpad, config)
    if opcode is Opcode.MATMUL:
        check_matmul(body, operand, config)
        return matmul(body, operand, scratchpad, config, dealt=dealt)
    refuse(_PARTS.get(opcode, "pool") not in config.vector_parts, Status.BAD_OPCODE)
    if opcode is Opcode.ROWS:
        check_rows(body, operand, config)
        return rows(body, operand, scratchpad, config)
    if opcode is Opcode.REFORMAT:
        check_reformat(body, operand, config)
        return reformat(body, operand, scratchpad, config)
    check_vector(body, operand, config)
    return vector(body, operand, scratchpad, config)


def _transfer(
    opcode: Opcode,
    body: Fields,
    operand: Sequence[int],
    memory: Bytes,
    scratchpad: Bytes,
    config: CardConfig,
) -> Work:
    x_bytes, y, rows = body["x_bytes"], body["y"], body["y"] * body["z"]
    bus = config.bus_bytes
    card, local = windows(memory, x_bytes), windows(scratchpad, x_bytes)
    step = max(1, CHUNK_BYTES // x_bytes)
    beats = 0
    for start in range(0, rows, step):
        z_index, y_index = np.divmod(np.arange(start, min(start + step, rows)), y)
        outside, inside = (
            base + y_index * body[f"{side}_y_stride"] + z_index * body[f"{side}_z_stride"]
            for base, side in zip(operand, ("memory", "scratchpad"), strict=False)
        )
        if opcode is Opcode.LOAD:
            local[inside] = card[outside]
        else:
            card[outside] = local[inside]
        beats += int(np.sum((outside + x_bytes - 1) // bus - outside // bus + 1))
    busy = rows + rows * x_bytes // GRANULE
    if opcode is Opcode.LOAD:
        return Work(read=beats * bus, busy=busy)
    return Work(written=beats * bus, busy=busy)
