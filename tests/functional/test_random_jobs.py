"""Random jobs run without an error, cover what there is, and faults end them as they should."""

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import (
    INPUT_FORMATS,
    OUTPUT_FORMATS,
    Command,
    Csr,
    Encoding,
    Flag,
    Format,
    MatmulBody,
    MatmulFlag,
    Opcode,
    RowsBody,
    RowsOp,
    Status,
    Unit,
)
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.faults import KINDS, inject
from deepseek.sim.functional.random_jobs import RandomJobs
from deepseek.sim.functional.rows import FLAGS, IN_FORMATS, OUT_FORMATS
from deepseek.sim.functional.testing import OK, Host, end, outcome

DATA, DATA_BYTES = 1 << 22, 1 << 23


def job_on(host, rng, operations):
    job = RandomJobs(host.card.config, rng, base=DATA, nbytes=DATA_BYTES).job(operations)
    for address, content in job.writes:
        host.card.write_memory(address, content)
    return job


def test_random_jobs_end_well_and_cover_what_there_is():
    host = Host(ring_size=256)
    config = preset("tiny")
    seen, flags, bodies = set(), Flag(0), []
    for seed in range(25):
        job = job_on(host, np.random.default_rng(seed), 8)
        record = host.run(*job.commands)
        assert outcome(record)[:2] == OK, seed
        flags |= Flag(record["flags"])
        bodies += [
            unpack(MatmulBody, unpack(Command, job.commands[index])["body"]) for index in job.blobs
        ]
    for body in bodies:
        seen |= {("stream", Format(body["stream_format"])), ("in", Format(body["in_format"]))}
        seen |= {("out", Format(body["out_format"])), Encoding(body["encoding"])}
    assert seen == {
        *(("stream", fmt) for fmt in INPUT_FORMATS),
        *(("in", fmt) for fmt in INPUT_FORMATS),
        *(("out", fmt) for fmt in OUTPUT_FORMATS),
        *Encoding,
    }
    assert flags == Flag.BELOW | Flag.ABOVE | Flag.OVERFLOW | Flag.NAN
    for condition in (
        lambda b: b["k"] > config.operand_depth and b["slice"] > config.operand_depth,
        lambda b: b["k"] > config.operand_depth and b["slice"] < b["k"],
        lambda b: b["slice"] < b["k"] and b["flags"] & MatmulFlag.BLOCK_SCALE,
        lambda b: b["flags"] & MatmulFlag.DEAL_ON,
        lambda b: b["slice"] < b["k"] and b["k"] % b["slice"],
        lambda b: b["entries"] % config.rows and b["entries"] > config.rows,
        lambda b: b["n"] % 2 and b["out_format"] == Format.INT4.value,
        lambda b: b["runs_inner"] > 1,
    ):
        assert any(condition(body) for body in bodies)


def test_random_rows_cover_what_there_is():
    seen, bodies = set(), []
    for seed in range(40):
        jobs = RandomJobs(preset("tiny"), np.random.default_rng(seed), base=DATA, nbytes=DATA_BYTES)
        for raw in jobs.job(8).commands:
            if raw[0] == Opcode.ROWS.value:
                header = unpack(Command, raw)
                bodies.append(unpack(RowsBody, header["body"]) | {"operand": header["operand"]})
    for body in bodies:
        op = RowsOp(body["op"])
        seen |= {op, ("in", body["in_format"]), ("out", body["out_format"]), (op, body["flags"])}
    assert seen == {
        *RowsOp,
        *(("in", fmt.value) for fmt in IN_FORMATS),
        *(("out", fmt.value) for fmt in OUT_FORMATS),
        *((op, flags) for op in RowsOp for flags in range(8) if not flags & ~FLAGS[op]),
    }
    for condition in (
        lambda b: b["operand"][1] == b["operand"][2],
        lambda b: b["op"] == RowsOp.SOFTMAX.value and b["valid_step"] and b["y"] > 1,
        lambda b: b["y"] > 1 and b["z"] > 1,
        lambda b: b["length"] > 200,
        lambda b: b["length"] == 1,
    ):
        assert any(condition(body) for body in bodies)


@pytest.mark.parametrize("kind", KINDS)
def test_faults_end_a_job_as_they_should(kind):
    host = Host(ring_size=256)
    found = 0
    for seed in range(40):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        jobs = RandomJobs(host.card.config, rng, base=DATA, nbytes=DATA_BYTES)
        job = jobs.job(3)
        job.commands.append(end())
        fault = inject(job, kind, host.card.config, rng)
        if fault is None:
            continue
        for address, content in job.writes:
            host.card.write_memory(address, content)
        host.ring(*job.commands)
        host.card.run(10**7)
        host.record()
        error = host.card.csr_read(Csr.ERROR)
        got = Status(error & 0xFF), Unit(error >> 8), host.card.csr_read(Csr.ERROR_COMMAND)
        assert got == fault
        host.card.csr_write(Csr.CONTROL, 1)
        host.open()
        found += 1
        if found == 4:
            break
    assert found
