"""GEMM plans under a scheduler that is as unfair as the semaphores allow.

Iterations of the five queues start and end in random order. Nothing is computed: bytes of the
scratchpad carry a label that says what was put there, an iteration checks the labels that it
reads, and two iterations that run at the same time must not touch the same bytes.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from deepseek.host.compiler import gemm
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.gemm import plan_gemm
from deepseek.host.compiler.tiling import tilings
from deepseek.rtl.config import preset
from deepseek.rtl.isa import Format, Opcode, Queue

A, B, C = 1 << 24, 2 << 24, 3 << 24


@dataclasses.dataclass
class Iteration:
    """Scratchpad ranges, with the labels that reads expect and writes leave."""

    waits: list[int]
    signals: list[int]
    reads: list[tuple[int, int, object]]
    writes: list[tuple[int, int, object]]
    stored: tuple[int, object] | None = None


def address(fields, number, o, i, done) -> int:
    get = {key: fields[f"operand[{number}].{key}"] for key in ("base", "inner", "outer", "pong")}
    parity = o & 1 if fields["pong_outer"] >> number & 1 else done & 1
    step = o * get["outer"] + i * get["inner"] + parity * get["pong"]
    return (get["base"] + step) % (1 << 32)


def semaphores(fields, kind, first_or_last) -> list[int]:
    found = []
    for number in range(4):
        prefix = f"{kind}[{number}]."
        if fields[prefix + "enable"] and (first_or_last or not fields[prefix + "outer"]):
            found.append(fields[prefix + "index"])
    return found


def iterations(fields, plan, a_of, b_of) -> Iterator[Iteration]:
    """Expand a command; ``a_of`` and ``b_of`` map scratchpad addresses to what they should hold."""
    inner, outer = fields["inner"], fields["outer"]
    for done in range(inner * outer):
        o, i = divmod(done, inner)
        at = [address(fields, number, o, i, done) for number in range(3)]
        made = Iteration(
            semaphores(fields, "wait", i == 0), semaphores(fields, "signal", i == inner - 1), [], []
        )
        if fields["opcode"] is Opcode.LOAD:
            size = fields["x_bytes"] * fields["y"]
            assert at[1] + size <= plan.config.scratchpad_bytes
            made.writes.append((at[1], size, (at[0], size)))
        elif fields["opcode"] is Opcode.STORE:
            size = fields["scratchpad_y_stride"] * fields["y"]
            made.reads.append((at[1], max(size, fields["x_bytes"]), ("c", at[0])))
            made.stored = (at[0], (fields["x_bytes"], fields["y"]))
        else:
            made.reads.append((at[0], None, a_of(o)))
            made.reads.append((at[1], fields["n"] * fields["x_inner_stride"], b_of(i)))
            made.writes.append((at[2], None, (o, i)))
        yield made


def expand(plan) -> dict[Queue, list[Iteration]]:
    """Every iteration of each queue, in order, with labels by where the bytes belong."""
    queues: dict[Queue, list[Iteration]] = {queue: [] for queue in Queue}
    shape, tiling = plan.shape, plan.tiling
    out_bytes = np.dtype(gemm.OUT_DTYPES[shape.out_format]).itemsize
    pitch = -(-tiling.tile_n * out_bytes // 16) * 16
    credits = np.zeros(16, int)
    commands = [decode(command) for command in plan.commands(A, B, C)]
    parts = [(g, c) for g in plan.groups for c in column_parts(shape.n, tiling.tile_n)]
    part = iter(parts)
    for fields in commands:
        if fields["opcode"] is Opcode.SEMAPHORE:
            credits[fields["index"]] += fields["value"]
            continue
        queue = Queue(fields["queue"])
        group, (column, columns) = (None, (0, 0))
        if fields["opcode"] is Opcode.MATMUL:
            group, (column, columns) = next(part)

        def a_of(o, group=group):
            return (A + group.offset + o * group.blob_bytes, group.blob_bytes)

        def b_of(i, column=column, columns=columns):
            return B + (column + i * columns) * shape.b_pitch

        for made in iterations(fields, plan, a_of, b_of):
            if group is not None:
                o, i = made.writes[0][2]
                row = group.row + o * group.rows
                where = C + row * shape.c_pitch + (column + i * columns) * out_bytes
                made.writes[0] = (made.writes[0][0], pitch * group.rows, ("c", where))
                made.reads[0] = (made.reads[0][0], group.blob_bytes, made.reads[0][2])
            queues[queue].append(made)
    assert next(part, None) is None
    return queues, credits


def column_parts(n, tile_n):
    full, rest = divmod(n, tile_n)
    if full:
        yield (0, tile_n)
    if rest:
        yield (full * tile_n, rest)


def execute(plan, random) -> set:
    """Run all iterations in a random order; return what was stored."""
    queues, credits = expand(plan)
    label = np.zeros(plan.config.scratchpad_bytes // 16, np.int64)
    names: list = [None]
    position = dict.fromkeys(Queue, 0)
    running: dict[Queue, Iteration] = {}
    stored = set()

    def granules(start, size):
        return slice(start // 16, (start + size) // 16)

    while any(position[q] < len(queues[q]) for q in Queue) or running:
        ready = [
            q
            for q in Queue
            if q not in running
            and position[q] < len(queues[q])
            and all(credits[s] for s in queues[q][position[q]].waits)
        ]
        choices = ready + list(running)
        assert choices, "deadlock"
        queue = choices[random.integers(len(choices))]
        if queue not in running:
            made = queues[queue][position[queue]]
            for s in made.waits:
                credits[s] -= 1
            for other in running.values():
                for start, size, _ in made.writes:
                    for start2, size2, _ in other.reads + other.writes:
                        assert start + size <= start2 or start2 + size2 <= start
                for start, size, _ in made.reads:
                    for start2, size2, _ in other.writes:
                        assert start + size <= start2 or start2 + size2 <= start
            for start, size, _ in made.writes:
                label[granules(start, size)] = 0
            running[queue] = made
            continue
        made = running.pop(queue)
        position[queue] += 1
        for start, size, expected in made.reads:
            seen = set(label[granules(start, size)].tolist())
            assert len(seen) == 1
            found = names[seen.pop()]
            if isinstance(expected, int):  # a tile of B, inside what was loaded
                base, length = found
                assert base <= expected
                assert expected + size <= base + length
            else:
                assert found == expected
        for start, size, name in made.writes:
            names.append(name)
            label[granules(start, size)] = len(names) - 1
        if made.stored is not None:
            assert made.stored not in stored
            stored.add(made.stored)
        for s in made.signals:
            credits[s] += 1
    return stored


@pytest.mark.parametrize("chosen", [0, 1, 4, 9, 20, 50, -1])
@pytest.mark.parametrize(
    ("m", "n", "k", "out_format"),
    [(61, 83, 75, Format.INT8), (40, 50, 700, Format.FP32), (97, 16, 40, Format.INT8)],
)
def test_no_order_breaks_a_plan(monkeypatch, chosen, m, n, k, out_format):
    def reordered(config, shape):
        order = tilings(config, shape)
        return order[chosen % len(order) :]

    monkeypatch.setattr(gemm, "tilings", reordered)
    random = np.random.default_rng(8)
    plan = plan_gemm(preset("tiny"), np.ones((m, k), np.int8), n, out_format=out_format)
    for _ in range(5):
        stored = execute(plan, random)
        assert len(stored) == plan.tiles[0] * plan.tiles[1]


def test_the_scheduler_sees_a_missing_credit(monkeypatch):
    """A plan with one credit too many has a race, and the scheduler finds it."""
    from deepseek.host.compiler import commands

    monkeypatch.setattr(commands, "semaphore", lambda i, v, real=commands.semaphore: real(i, v + 1))
    plan = plan_gemm(preset("tiny"), np.ones((97, 300), np.int8), 80, out_format=Format.INT32)
    assert max(plan.tiles) > 2
    with pytest.raises(AssertionError):
        for seed in range(20):
            execute(plan, np.random.default_rng(seed))
