"""Cards whose vector unit is without some of its parts."""

import dataclasses

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import Csr, Format, Opcode, ReformatOp, RowsOp, Status, Unit
from deepseek.sim.functional.assemble import command
from deepseek.sim.functional.random_jobs import RandomJobs
from deepseek.sim.functional.testing import OK, Host, copy, outcome

ONE = 0x3F800000
COMMANDS = {
    "pool": command(
        Opcode.VECTOR, dict.fromkeys(("granules", "out_y", "out_x", "kernel_y", "kernel_x"), 1)
    ),
    "rows": command(
        Opcode.ROWS,
        {"op": RowsOp.AFFINE, "in_format": Format.INT8, "out_format": Format.INT8}
        | {"length": 16, "y": 1, "z": 1, "a_scale": ONE, "b_scale": ONE},
    ),
    "reformat": command(
        Opcode.REFORMAT,
        {"op": ReformatOp.TRANSPOSE, "in_format": Format.INT8}
        | {"rows": 16, "length": 1, "batch": 1, "in_stride": 16},
    ),
}


@pytest.mark.parametrize(
    "parts, mask",
    [
        (("pool",), 1),
        (("pool", "rows"), 3),
        (("pool", "reformat"), 5),
        (("pool", "rows", "reformat"), 7),
    ],
)
def test_commands_without_their_part_are_refused(parts, mask):
    host = Host(dataclasses.replace(preset("tiny"), vector_parts=parts))
    assert host.card.csr_read(Csr.PARTS) == mask
    load = copy(Opcode.LOAD, 0, 0)
    for part, raw in COMMANDS.items():
        found = outcome(host.run(load, raw))
        assert found == ((*OK, 2) if part in parts else (Status.BAD_OPCODE, Unit.VECTOR, 1))


def test_random_jobs_keep_to_the_parts_that_there_are():
    config = dataclasses.replace(preset("tiny"), vector_parts=("pool",))
    jobs = RandomJobs(config, np.random.default_rng(5), base=0, nbytes=1 << 22)
    kinds = {raw[0] for _ in range(10) for raw in jobs.job(6).commands}
    assert Opcode.VECTOR.value in kinds and Opcode.MATMUL.value in kinds
    assert not kinds & {Opcode.ROWS.value, Opcode.REFORMAT.value}
