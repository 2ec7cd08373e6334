"""Attention: equal to the golden models on all shapes, and near to attention in FP64."""

import dataclasses
import importlib
import json
import math
import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from deepseek.host import bench
from deepseek.host.bench.attention import AttentionJob, attention, expected
from deepseek.host.bench.golden import raw
from deepseek.host.card import Card
from deepseek.host.cli import app
from deepseek.host.compiler import commands
from deepseek.host.compiler.attention import Addresses, plan_attention
from deepseek.host.compiler.formats import DTYPES
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Command, Format, Opcode, Queue
from deepseek.sim.functional.checks import BODIES
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.units import execute

module = importlib.import_module("deepseek.host.bench.attention")  # a function has its name

AT = Addresses(tables=1 << 20, q=2 << 20, k=3 << 20, v=4 << 20, o=5 << 20)
SHAPES = [
    {"seq": 64, "dim": 32, "heads": 3},
    {"seq": 37, "dim": 20, "heads": 2},
    {"seq": 100, "dim": 9, "heads": 1},
    {"seq": 1, "dim": 1, "heads": 3},
    {"seq": 33, "dim": 70, "heads": 1},
]


def plan_of(job, config="tiny", rows=None):
    return plan_attention(preset(config), job.shape, job.scales, rows=rows)


@pytest.fixture(scope="module")
def card():
    with Card.open("functional", preset="tiny", memory="ideal") as card:
        yield card


@pytest.mark.parametrize("dtype", bench.ATTENTION_DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_golden_models(card, dtype, causal):
    for number, shape in enumerate(SHAPES):
        for rows in (None, 5):
            job = AttentionJob(dtype=dtype, causal=causal, seed=number, **shape)
            result = attention(card, job, rows=rows)
            assert result.error <= result.bound
            assert result.counters.mac_active > 0


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_every_layout_ends_and_is_right(card, copies, lag, causal, monkeypatch):
    real = module.plan_attention

    def planned(*arguments, **options):
        plan = real(*arguments, **options)
        layout = dataclasses.replace(plan.layout, lag=lag, copies=copies)
        return dataclasses.replace(plan, layout=layout)

    monkeypatch.setattr(module, "plan_attention", planned)
    for seq, heads, rows in ((48, 4, 16), (40, 3, 16), (16, 5, 16), (90, 2, 8)):
        job = AttentionJob(seq=seq, dim=16, heads=heads, causal=causal)
        result = attention(card, job, rows=rows)
        assert (result.plan.layout.lag, result.plan.layout.copies) == (lag, copies)


@pytest.mark.parametrize("dtype", bench.ATTENTION_DTYPES)
def test_golden_results_are_attention(dtype):
    """In FP64, with the very powers that the format can hold."""
    job = AttentionJob(seq=50, dim=24, heads=2, dtype=dtype, causal=True)
    q, k, v = job.operands()
    found = expected(job, q, k, v).view(DTYPES[job.format]).astype(np.float64) * job.out_scale
    scale = module.INPUT_SCALE if job.integer else 1.0
    q, k, v = (array.astype(np.float64) * scale for array in (q, k, v))
    for head, row in np.ndindex(2, 50):
        scores = [q[head, row] @ k[head, j] / math.sqrt(24) for j in range(row + 1)]
        powers = np.exp(np.array(scores) - max(scores))
        want = powers @ v[head, : row + 1] / powers.sum()
        tolerance = {"int8": 0.12, "fp16": 3e-3, "bf16": 3e-2}[dtype]
        assert np.abs(found[head, row] - want).max() < tolerance


def test_blocks_and_buffers_lie_apart():
    for dtype, name in (("int8", "tiny"), ("fp16", "ecp5"), ("bf16", "sim")):
        plan = plan_of(AttentionJob(dtype=dtype, heads=3), name)
        layout, ends = plan.layout, [0]
        for kind, count in (("q", 2), ("s", layout.lag + 2), ("o", 2), ("v", 2)):
            for index in range(count):
                assert layout.buffer(kind, index) == ends[-1]
                assert layout.buffer(kind, index + count) == ends[-1]
                ends.append(ends[-1] + layout.pitch(kind))
        for kind in "kt":
            for index in range(layout.copies):
                assert layout.buffer(kind, index) == ends[-1]
                ends.append(ends[-1] + layout.pitch(kind))
        assert ends[-1] == layout.nbytes <= preset(name).scratchpad_bytes
        assert all(end % 16 == 0 for end in ends)
    with pytest.raises(ValueError, match="kind must be one of q, s"):
        layout.buffer("x")


def test_no_command_waits_for_a_later_one():
    """With any depth of the queues the job ends: taken one by one, no semaphore is short."""
    for shape in ({"seq": 40, "heads": 3}, {"seq": 200, "heads": 2}, {"seq": 8, "heads": 6}):
        for causal in (False, True):
            plan = plan_of(AttentionJob(dim=16, causal=causal, **shape))
            given = [0] * 16
            for raw_command in plan.commands(AT):
                fields = commands.decode(raw_command)
                for i in range(4):
                    if fields[f"wait[{i}].enable"]:
                        given[fields[f"wait[{i}].index"]] -= 1
                assert min(given) >= 0
                for i in range(4):
                    if fields[f"signal[{i}].enable"]:
                        given[fields[f"signal[{i}].index"]] += 1


def references(fields, kind):
    return [fields[f"{kind}[{i}].index"] for i in range(4) if fields[f"{kind}[{i}].enable"]]


def run_in_any_order(config, job_commands, memory, rng):
    """Execute commands: queues in order, but which goes on, and when signals come, at random.

    A command is executed as a whole either when it starts or when it ends.
    """
    queues = {queue: [] for queue in Queue}
    for raw_command in job_commands:
        header = unpack(Command, raw_command)
        queues[header["queue"]].append((header, commands.decode(raw_command)))
    scratchpad = rng.integers(0, 256, config.scratchpad_bytes, np.uint8)
    given, running = [0] * 16, {}

    def work(header):
        opcode = Opcode(header["opcode"])
        operand = [item["base"] for item in header["operand"]]
        body = unpack(BODIES[opcode], header["body"])
        execute(opcode, body, operand, memory=memory, scratchpad=scratchpad, config=config)

    while any(queues.values()):
        ready = [
            queue
            for queue, waiting in queues.items()
            if waiting
            and (
                queue in running
                or all(
                    given[index] >= references(waiting[0][1], "wait").count(index)
                    for index in references(waiting[0][1], "wait")
                )
            )
        ]
        assert ready
        queue = ready[rng.integers(len(ready))]
        header, fields = queues[queue][0]
        if queue not in running:
            running[queue] = bool(rng.integers(2))
            for index in references(fields, "wait"):
                given[index] -= 1
            if running[queue]:
                work(header)
            continue
        if not running.pop(queue):
            work(header)
        for index in references(fields, "signal"):
            given[index] += 1
        queues[queue].pop(0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("copies", [1, 2])
def test_semaphores_keep_every_order_right(causal, copies):
    config = preset("tiny")
    for seed in range(12):
        rng = np.random.default_rng([seed, causal, copies])
        job = AttentionJob(
            heads=int(rng.integers(1, 5)),
            seq=int(rng.integers(1, 70)),
            dim=int(rng.integers(1, 20)),
            causal=causal,
            seed=seed,
        )
        plan = plan_of(job, rows=int(rng.integers(3, 30)))
        layout = dataclasses.replace(plan.layout, copies=copies, lag=int(rng.integers(1, 3)))
        plan = dataclasses.replace(plan, layout=layout)
        operands = job.operands()
        memory = np.zeros(6 << 20, np.uint8)
        memory[AT.tables :][: plan.tables.size] = plan.tables
        for place, operand in zip((AT.q, AT.k, AT.v), operands, strict=True):
            memory[place:][: plan.nbytes] = plan.pack(operand)
        run_in_any_order(config, plan.commands(AT), memory, rng)
        found = plan.unpack(memory[AT.o :][: plan.nbytes])
        np.testing.assert_array_equal(raw(found), expected(job, *operands))


def test_softmax_goes_on_beside_products():
    """Between the softmax of a block and its product with V there are products of others."""
    plan = plan_of(AttentionJob(heads=2), "ecp5")
    order = [commands.decode(raw_command)["opcode"] for raw_command in plan.commands(AT)]
    assert order.count(Opcode.ROWS) == 2 * plan.layout.blocks
    assert order.count(Opcode.REFORMAT) == 2 * 4
    ready, products = order.index(Opcode.ROWS), 0
    for opcode in order[ready:]:
        if opcode is Opcode.STORE:
            break
        products += opcode is Opcode.MATMUL
    assert products == plan.layout.lag + 1


def test_arrays_are_packed_and_unpacked():
    job = AttentionJob(seq=5, dim=3, heads=2, dtype="fp16")
    plan = plan_of(job)
    q, _, _ = job.operands()
    packed = plan.pack(q)
    assert packed.size == plan.nbytes == 2 * 5 * 16
    np.testing.assert_array_equal(raw(plan.unpack(packed)), raw(q))
    with pytest.raises(ValueError, match=r"array must be float16 \(2, 5, 3\), not float32"):
        plan.pack(q.astype(np.float32))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="seq must be at most 1024 on preset tiny, not 1025"):
        plan_of(AttentionJob(seq=1025))
    with pytest.raises(ValueError, match=r"takes .* bytes of scratchpad, preset tiny has 65536"):
        plan_of(AttentionJob(dtype="fp16"))
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        plan_of(AttentionJob(), rows=0)
    with pytest.raises(ValueError, match="--heads must be at least 1, not 0"):
        AttentionJob(heads=0)
    with pytest.raises(ValueError, match="no format 'int4'"):
        AttentionJob(dtype="int4")
    with pytest.raises(ValueError, match="format must be one of INT8, FP16, BF16"):
        module.AttentionShape(heads=1, seq=1, dim=1, format=Format.E4M3)


def test_a_wrong_result_is_refused(card, monkeypatch):
    real = expected

    def wrong(*arguments):
        result = real(*arguments)
        result[1, 2, 3] ^= 1
        return result

    monkeypatch.setattr(module, "expected", wrong)
    with pytest.raises(bench.MismatchError, match=r"1 of 512 results, first in O\[1, 2, 3\]"):
        attention(card, AttentionJob(seq=16, dim=16, heads=2))


def test_a_result_far_from_attention_is_refused(card, monkeypatch):
    job = AttentionJob(seq=16, dim=16)
    double = dataclasses.replace(job.scales, out=2 * job.scales.out)
    monkeypatch.setattr(AttentionJob, "scales", double)
    with pytest.raises(bench.MismatchError, match="differ from attention in FP64"):
        attention(card, job)


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


SMALL = "bench attention --seq 40 --dim 16 --backend functional --preset tiny --memory ideal"


def test_command_line():
    result = host(f"{SMALL} --json")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [fields["shape"]["heads"] for fields in lines] == [1, 8]
    for fields in lines:
        assert fields["bit_exact"] is True
        assert fields["macs"] == 2 * fields["shape"]["heads"] * 40 * 40 * 16
        expected = fields["macs"] / fields["cycles"] / fields["mac_units"]
        assert fields["utilization"] == pytest.approx(expected, abs=1e-5)
    words = shlex.split(lines[0]["command"])
    again = json.loads(host(shlex.join([*words[1:], "--json"])).stdout)
    assert again | {"wall_seconds": 0} == lines[0] | {"wall_seconds": 0}
    result = host(f"{SMALL} --heads 2 --dtype fp16 --causal")
    assert "2 heads of 40 x 16, fp16, causal" in result.stdout
    result = host(f"{SMALL} --dtype e4m3")
    assert result.exit_code == 2
    assert "no format 'e4m3'" in result.stderr
