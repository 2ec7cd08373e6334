"""GEMM plans under a scheduler that is as unfair as the semaphores allow.

Commands are dispatched in order, while their queue has room; iterations of the five queues start
and end in random order, two of a queue at a time. Nothing is computed: granules of the scratchpad
carry a label that says what was put there, an iteration checks the labels that it reads, and two
iterations that run at the same time must not touch the same bytes.
"""

import bisect
import dataclasses
import itertools

import numpy as np
import pytest

from deepseek.host.compiler import commands as builders
from deepseek.host.compiler import gemm
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.estimate import tilings
from deepseek.host.compiler.gemm import plan_gemm
from deepseek.host.compiler.tiling import tile_sizes
from deepseek.rtl.config import preset
from deepseek.rtl.isa import BITS, Encoding, Format, Opcode, Queue

A, B, C = 1 << 24, 2 << 24, 3 << 24
RESULT = 1 << 40
"""Labels of results: this and the number of the tile and the part."""

UNKNOWN = -1


@dataclasses.dataclass
class Iteration:
    """Ranges of granules in the scratchpad, with the labels that reads expect and writes leave."""

    waits: list[int]
    signals: list[int]
    reads: list[tuple[int, np.ndarray]]
    writes: list[tuple[int, np.ndarray]]
    last: bool

    def ranges(self, written):
        found = [(start, start + len(labels)) for start, labels in self.writes]
        if not written:
            found += [(start, start + len(labels)) for start, labels in self.reads]
        return found


def address(fields, number, o, i, done):
    get = {key: fields[f"operand[{number}].{key}"] for key in ("base", "inner", "outer", "pong")}
    parity = o & 1 if fields["pong_outer"] >> number & 1 else done & 1
    step = o * get["outer"] + i * get["inner"] + parity * get["pong"]
    return (get["base"] + step) % (1 << 32)


def semaphores(fields, kind, at_edge):
    found = []
    for number in range(4):
        prefix = f"{kind}[{number}]."
        if fields[prefix + "enable"] and (at_edge or not fields[prefix + "outer"]):
            found.append(fields[prefix + "index"])
    return found


class Card:
    """The queues of a card that runs one plan."""

    def __init__(self, plan, random, room=4):
        self.plan, self.random, self.room = plan, random, room
        self.label = np.full(plan.config.scratchpad_bytes // 16, UNKNOWN, np.int64)
        self.waiting = [decode(command) for command in plan.commands(A, B, C)]
        self.queues = {queue: [] for queue in Queue}
        self.running = {queue: [] for queue in Queue}
        self.current = dict.fromkeys(Queue)
        self.credits = np.zeros(16, int)
        self.stored = {}
        # Some queues are much slower than others.
        self.speed = {queue: 10.0 ** -random.integers(0, 4) for queue in Queue}
        sizes = tile_sizes(plan.problem.rows, *self.tiles())
        self.row = [0, *itertools.accumulate(sizes)]

    def tiles(self):
        tiling = self.plan.tiling
        return tiling.tile, tiling.first, tiling.tiles

    def run(self):
        while self.step():
            pass
        assert not self.waiting
        assert not any(self.queues.values())
        assert not any(self.running.values())

    def step(self):
        """Do one thing that may happen now; return whether there was any."""
        choices, speed = [], []
        if self.waiting:
            fields = self.waiting[0]
            if fields["opcode"] is Opcode.SEMAPHORE:
                choices.append(self.add)
                speed.append(1.0)
            elif len(self.queues[Queue(fields["queue"])]) < self.room:
                choices.append(self.dispatch)
                speed.append(1.0)
        for queue in Queue:
            if self.current[queue] is None and self.queues[queue] and not self.running[queue]:
                self.current[queue] = self.expand(self.queues[queue].pop(0))
            if self.current[queue] and len(self.running[queue]) < 2:
                need = self.current[queue][0].waits
                if all(self.credits[s] >= need.count(s) for s in need):
                    choices.append(lambda queue=queue: self.start(queue))
                    speed.append(self.speed[queue])
            if self.running[queue]:
                choices.append(lambda queue=queue: self.end(queue))
                speed.append(self.speed[queue])
        if choices:
            at = self.random.random() * sum(speed)
            choices[min(bisect.bisect(list(itertools.accumulate(speed)), at), len(choices) - 1)]()
        return bool(choices)

    def add(self):
        fields = self.waiting.pop(0)
        self.credits[fields["index"]] += fields["value"]

    def dispatch(self):
        fields = self.waiting.pop(0)
        self.queues[Queue(fields["queue"])].append(fields)

    def start(self, queue):
        made = self.current[queue].pop(0)
        for s in made.waits:
            self.credits[s] -= 1
        for other in itertools.chain(*self.running.values()):
            for (low, high), (low2, high2) in (
                *itertools.product(made.ranges(True), other.ranges(False)),
                *itertools.product(made.ranges(False), other.ranges(True)),
            ):
                assert high <= low2 or high2 <= low
        for first, labels in made.writes:
            self.label[first : first + len(labels)] = UNKNOWN
        self.running[queue].append(made)

    def end(self, queue):
        made = self.running[queue].pop(0)
        for first, labels in made.reads:
            assert np.array_equal(self.label[first : first + len(labels)], labels)
        for first, labels in made.writes:
            self.label[first : first + len(labels)] = labels
        for s in made.signals:
            self.credits[s] += 1
            assert self.credits[s] <= 255
        if made.last:
            self.current[queue] = None

    def expand(self, fields):
        """Return the iterations of a command."""
        inner, outer = fields["inner"], fields["outer"]
        found = []
        for done in range(inner * outer):
            o, i = divmod(done, inner)
            at = [address(fields, number, o, i, done) for number in range(3)]
            reads, writes = {
                Opcode.LOAD: self.load,
                Opcode.STORE: self.store,
                Opcode.MATMUL: self.matmul,
            }[fields["opcode"]](fields, at, o, i)
            found.append(
                Iteration(
                    semaphores(fields, "wait", i == 0),
                    semaphores(fields, "signal", i == inner - 1),
                    reads,
                    writes,
                    done == inner * outer - 1,
                )
            )
        return found

    def load(self, fields, at, o, i):
        assert fields["y"] == fields["z"] == 1
        count = fields["x_bytes"] // 16
        assert at[1] // 16 + count <= len(self.label)
        return [], [(at[1] // 16, at[0] + 16 * np.arange(count))]

    def matmul(self, fields, at, o, i):
        plan, tiling = self.plan, self.plan.tiling
        assert (fields["inner"], fields["outer"]) == (tiling.inner, tiling.passes)
        panel, mover = divmod(o, tiling.movers)
        item = panel * tiling.inner + i
        tile, part = (mover, item) if tiling.stay == "columns" else (item, mover)
        for group in plan.schedule.groups:
            if group.tile <= tile < group.tile + group.tiles:
                image = group.offset + (tile - group.tile) * group.blob_bytes
                blob = group.blob_bytes
        stream, resident = (A, B) if plan.stream == "a" else (B, A)
        part_bytes = plan.schedule.part_bytes
        reads = [
            (at[0] // 16, stream + image + 16 * np.arange(blob // 16)),
            (at[1] // 16, resident + part * part_bytes + 16 * np.arange(part_bytes // 16)),
        ]
        first, last = at[2] // 16, -(-(at[2] + self.result_bytes()) // 16)
        label = RESULT if tiling.gather else RESULT + tile * tiling.parts + part
        # Results that are gathered share granules: only the last one's label is looked at.
        if tiling.gather:
            return reads, [(first, np.full(1, label))] if item == tiling.parts - 1 else []
        return reads, [(first, np.full(last - first, label))]

    def result_bytes(self):
        problem, tiling = self.plan.problem, self.plan.tiling
        if self.plan.stream == "a":
            return tiling.tile * problem.out_bytes(tiling.part)
        return tiling.part * problem.out_bytes(tiling.tile)

    def store(self, fields, at, o, i):
        plan, tiling = self.plan, self.plan.tiling
        if tiling.gather:
            assert (at[0], fields["x_bytes"], fields["y"]) == (C, plan.c_bytes, 1)
            self.stored[0] = 1
            return [], []
        pitch = plan.schedule.c_pitch
        bits = BITS[plan.problem.out_format]
        for tile, part in itertools.product(range(tiling.tiles), range(tiling.parts)):
            place = (self.row[tile], part * tiling.part)
            row, column = place if plan.stream == "a" else place[::-1]
            if at[0] == C + row * pitch + column * bits // 8:
                break
        else:
            raise AssertionError("a store to no result's place")
        size = max(fields["x_bytes"], fields["scratchpad_y_stride"] * (fields["y"] - 1))
        assert at[0] + (fields["y"] - 1) * pitch + fields["x_bytes"] <= C + plan.c_bytes
        number = tile * tiling.parts + part
        self.stored[number] = self.stored.get(number, 0) + 1
        return [(at[1] // 16, np.full(size // 16, RESULT + number))], []


def plan_of(monkeypatch, chosen, m, k, n, out_format, stream, gather=False, **options):
    def reordered(problem):
        order = [t for t in tilings(problem) if t.gather == gather]
        return order[chosen % len(order) :]

    monkeypatch.setattr(gemm, "tilings", reordered)
    a, b = np.ones((m, k), np.int8), np.ones((n, k), np.int8)
    return plan_gemm(
        preset("tiny"),
        a,
        b,
        out_format=out_format,
        stream=stream,
        encoding=Encoding.DENSE,
        **options,
    )


@pytest.mark.parametrize("chosen", [0, 1, 9, 30, 60, 110, -1])
@pytest.mark.parametrize("stream", ["a", "b"])
@pytest.mark.parametrize(
    ("m", "k", "n", "out_format"),
    [
        (61, 75, 83, Format.INT8),
        (60, 700, 70, Format.FP32),
        (97, 300, 16, Format.INT8),
        (3, 1500, 60, Format.FP16),
    ],
)
def test_no_order_breaks_a_plan(monkeypatch, chosen, stream, m, k, n, out_format):
    random = np.random.default_rng(8)
    plan = plan_of(monkeypatch, chosen, m, k, n, out_format, stream)
    assert plan.schedule.scratchpad_bytes <= plan.config.scratchpad_bytes
    for _ in range(3):
        card = Card(plan, random)
        card.run()
        assert card.stored == dict.fromkeys(range(plan.tiling.tiles * plan.tiling.parts), 1)


@pytest.mark.parametrize("stream", ["a", "b"])
def test_gathered_results(monkeypatch, stream):
    random = np.random.default_rng(9)
    for chosen in (0, 2, -1):
        plan = plan_of(monkeypatch, chosen, 2, 4096, 3, Format.FP16, stream, gather=True)
        card = Card(plan, random)
        card.run()
        assert card.stored == {0: 1}


def test_the_shapes_need_every_kind_of_tiling():
    """Else the tests above would not be worth much."""
    seen = set()
    for m, k, n in [(61, 75, 83), (60, 700, 70), (97, 300, 16), (3, 1500, 60)]:
        a, b = np.ones((m, k), np.int8), np.ones((n, k), np.int8)
        for stream in "ab":
            plan = plan_gemm(preset("tiny"), a, b, out_format=Format.INT8, stream=stream)
            for t in tilings(plan.problem):
                seen.add(("stay", t.stay))
                seen.add(("panels", t.panels > 1))
                seen.add(("first", t.first < t.tile))
                seen.add(("kept", t.kept < t.inner, t.kept == 1))
                seen.add(("moving", t.moving < t.movers, t.moving == 1))
                seen.add(("results", t.results < t.passes * t.inner, t.results == 1))
    assert len(seen) >= 2 + 2 + 2 + 3 + 3 + 3


@pytest.mark.parametrize("stream", ["a", "b"])
def test_the_scheduler_sees_a_missing_wait(monkeypatch, stream):
    """Without any one of its waits a plan has a race, and the scheduler finds it."""
    plans = [plan_of(monkeypatch, 0, 120, 700, 90, Format.INT32, stream)]
    assert plans[0].tiling.panels > 1
    real = builders.encode
    waits = {s for p in plans for c in p.commands(A, B, C) for s in waits_of(decode(c))}
    assert len(waits) == 7
    for missing in waits:
        monkeypatch.setattr(
            "deepseek.host.compiler.checks.encode",
            lambda *a, wait, missing=missing, **k: real(
                *a, wait=[w for w in wait if w.sem != missing], **k
            ),
        )
        with pytest.raises(AssertionError):
            for seed in range(60):
                Card(plans[0], np.random.default_rng(seed)).run()


def waits_of(fields):
    if fields["opcode"] is Opcode.SEMAPHORE:
        return []
    return [fields[f"wait[{n}].index"] for n in range(4) if fields[f"wait[{n}].enable"]]
