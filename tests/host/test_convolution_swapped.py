"""Convolutions with swapped roles: the golden model's bits, and right under any schedule."""

import bisect
import dataclasses
import itertools

import numpy as np
import pytest

from deepseek.host.bench.conv import conv
from deepseek.host.bench.conv_job import ConvJob
from deepseek.host.card import Card
from deepseek.host.compiler import convolution_swapped
from deepseek.host.compiler.commands import decode
from deepseek.host.compiler.convolution import ConvShape, plan_conv
from deepseek.host.compiler.convolution_swapped_search import candidates
from deepseek.host.compiler.convolution_swapped_tiles import uses
from deepseek.rtl.config import PRESETS, preset
from deepseek.rtl.isa import Command, Encoding, Format, Function, Opcode, Queue
from deepseek.sim.functional.checks import BODIES
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.units import execute


def draw(random, size=20):
    """A shape with every parameter at random, of whole granules of channels and filters."""
    kernel = tuple(int(v) for v in random.integers(1, 5, 2))
    if random.random() < 0.3:
        kernel = (1, 1)
    dilation = tuple(int(v) for v in random.integers(1, 4, 2))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    pads = [tuple(int(v) for v in random.integers(0, e + 1, 2)) for e in extents]
    if random.random() < 0.4:
        pads = [(0, 0), (0, 0)]
    return ConvShape(
        height=int(random.integers(extents[0], size)),
        width=int(random.integers(extents[1], size)),
        channels=16 * int(random.integers(1, 9)),
        filters=16 * int(random.integers(1, 7)),
        kernel=kernel,
        stride=tuple(int(v) for v in random.integers(1, 4, 2)),
        dilation=dilation,
        padding=tuple(pads),
    )


@pytest.mark.parametrize("name", list(PRESETS))
def test_random_layers_equal_the_golden_model(cards, name):
    random = np.random.default_rng(70)
    for seed in range(10):
        conv(cards[name], ConvJob(shape=draw(random), kind="swapped", seed=seed))


def plan_of(name, weights, shape, kind, **options):
    return plan_conv(
        preset(name),
        weights,
        (shape.height, shape.width, shape.channels),
        in_format=Format.INT8,
        stride=shape.stride,
        dilation=shape.dilation,
        padding=shape.padding,
        kind=kind,
        **options,
    )


def operands(random, shape):
    weights = random.integers(-128, 128, (shape.filters, *shape.kernel, shape.channels), np.int8)
    return weights, random.integers(-128, 128, (shape.height, shape.width, shape.channels), np.int8)


@pytest.mark.parametrize("function", list(Function))
@pytest.mark.parametrize("clamp", [None, (-50, 99)])
def test_both_ways_give_the_same_bits(cards, run, function, clamp):
    random = np.random.default_rng(71)
    shape = dataclasses.replace(draw(random), filters=48)
    weights, image = operands(random, shape)
    options = {
        "scale": random.uniform(5e-5, 5e-4, 48) * random.choice([-1, 1], 48),
        "bias": random.integers(-(1 << 20), 1 << 20, 48),
        "in_zero_point": -37,
        "zero_point": 11,
        "function": function,
        "clamp": clamp,
    }
    found = [
        run(cards["tiny"], plan_of("tiny", weights, shape, kind, **options), image)
        for kind in ("windows", "swapped")
    ]
    assert np.array_equal(*found)
    assert len(np.unique(found[0])) > 40


def test_the_largest_sums_and_biases(cards, run):
    """A sum and a bias beyond 2^24, where their order of rounding shows, and one beyond INT32."""
    shape = ConvShape(height=2, width=2, channels=4096, filters=16, kernel=(1, 1))
    weights = np.full((16, 1, 1, 4096), -128, np.int8)
    image = np.full((2, 2, 4096), -128, np.int8)
    weights[:, 0, 0, 0] = np.arange(16)
    biases = np.array([2**31 - 1, 1 - 2**31, 2**25 + 1, -(2**26) - 3] * 4)
    options = {"scale": 2.0**-24, "bias": biases}
    found = [
        run(cards["ecp5"], plan_of("ecp5", weights, shape, kind, **options), image)
        for kind in ("windows", "swapped")
    ]
    assert np.array_equal(*found)


def test_filters_that_are_no_whole_granules(cards):
    """Where there is one output, as of a classifier."""
    shape = ConvShape(height=3, width=2, channels=64, filters=37, kernel=(3, 2))
    conv(cards["ecp5"], ConvJob(shape=shape, kind="swapped"))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ({"channels": 24}, {}),
        ({"filters": 24}, {}),
        ({"groups": 2}, {}),
        ({}, {"out_format": Format.INT32}),
        ({}, {"encoding": Encoding.DELTA}),
        ({}, {"scale": 2.0**100}),
    ],
)
def test_what_cannot_be_swapped(shape, options):
    shape = ConvShape(
        **{"height": 4, "width": 4, "channels": 32, "filters": 32, "kernel": (1, 1)} | shape
    )
    weights = np.ones((shape.filters, 1, 1, shape.channels // shape.groups), np.int8)
    options = {"groups": shape.groups, **options}
    with pytest.raises(ValueError, match="as 'swapped'"):
        plan_of("tiny", weights, shape, "swapped", **options)
    assert plan_of("tiny", weights, shape, None, **options).kind != "swapped"


def test_an_unknown_kind():
    shape = ConvShape(height=4, width=4, channels=16, filters=16, kernel=(1, 1))
    with pytest.raises(ValueError, match=r"kind must be one of windows, swapped.*, not 'sideways'"):
        plan_of("tiny", np.ones((16, 1, 1, 16), np.int8), shape, "sideways")


def test_few_pixels_are_rows():
    """Images of 7 x 7 fill blocks of 16 columns to 77 %."""
    shape = ConvShape(height=7, width=7, channels=512, filters=2048, kernel=(1, 1))
    plan = plan_of("ecp5", np.ones((2048, 1, 1, 512), np.int8), shape, None)
    assert plan.kind == "swapped"
    assert plan.cycles < shape.macs / (8 * 8 * 2) / 0.9


def test_buffers_in_turn():
    items = [0, 1, 2, 0, 1, 2]
    assert [use.loads for use in uses(items, 3)] == [True] * 3 + [False] * 3
    assert [use.leaves for use in uses(items, 3)] == [False] * 3 + [True] * 3
    assert [use.number for use in uses(items, 2)] == [0, 1, 2, 3, 4, 5]
    assert [use.loads for use in uses([0, 0, 1, 1], 1)] == [True, False, True, False]
    assert [use.leaves for use in uses([0, 0, 1, 1], 1)] == [False, True, False, True]


@dataclasses.dataclass
class Iteration:
    """One that runs: its effects are known now, or when it ends."""

    fields: dict
    late: bool
    written: list


class Unfair:
    """Runs commands as unfairly as queues and semaphores allow.

    What an iteration will write is garbage from its start to its end; what it reads it reads at its
    start or at its end.
    """

    def __init__(self, config, memory, commands, random):
        self.config, self.random = config, random
        self.memory, self.scratchpad = memory, np.zeros(config.scratchpad_bytes, np.uint8)
        self.waiting = [decode(command) | {"raw": command} for command in commands]
        self.queues = {queue: [] for queue in Queue}
        self.running = dict.fromkeys(Queue)
        self.credits = np.zeros(16, int)
        self.speed = {queue: 10.0 ** -random.integers(0, 4) for queue in Queue}

    def run(self):
        while self.step():
            pass
        assert not self.waiting
        assert not any(self.queues.values())
        assert not any(self.running.values())

    def step(self):
        choices, speeds = [], []
        if self.waiting:
            fields = self.waiting[0]
            semaphore = fields["opcode"] is Opcode.SEMAPHORE
            if semaphore or len(self.queues[fields["queue"]]) < self.config.queue_depth:
                choices.append(self.dispatch)
                speeds.append(1.0)
        for queue in Queue:
            if self.running[queue]:
                choices.append(lambda queue=queue: self.end(queue))
            elif self.queues[queue] and all(
                self.credits[index] for index in self.references(self.queues[queue][0], "wait")
            ):
                choices.append(lambda queue=queue: self.start(queue))
            else:
                continue
            speeds.append(self.speed[queue])
        if choices:
            at = self.random.random() * sum(speeds)
            choices[min(bisect.bisect(list(itertools.accumulate(speeds)), at), len(choices) - 1)]()
        return bool(choices)

    @staticmethod
    def references(fields, kind):
        names = [f"{kind}[{number}]." for number in range(4)]
        return [fields[name + "index"] for name in names if fields[name + "enable"]]

    def dispatch(self):
        fields = self.waiting.pop(0)
        if fields["opcode"] is Opcode.SEMAPHORE:
            self.credits[fields["index"]] += fields["value"]
        else:
            assert fields["inner"] == fields["outer"] == 1
            self.queues[fields["queue"]].append(fields)

    def effects(self, fields):
        """Return what the iteration would write: for memory and scratchpad, places and bytes."""
        before = (self.memory, self.scratchpad)
        after = [space.copy() for space in before]
        opcode, command = fields["opcode"], unpack(Command, fields["raw"])
        execute(
            opcode,
            unpack(BODIES[opcode], command["body"]),
            [operand["base"] for operand in command["operand"]],
            memory=after[0],
            scratchpad=after[1],
            config=self.config,
        )
        found = []
        for old, new in zip(before, after, strict=True):
            places = np.flatnonzero(old != new)
            found.append((old, places, new[places]))
        return found

    def start(self, queue):
        fields = self.queues[queue].pop(0)
        for index in self.references(fields, "wait"):
            self.credits[index] -= 1
        written = self.effects(fields)
        for space, places, new in written:
            space[places] = ~new
        self.running[queue] = Iteration(fields, bool(self.random.integers(2)), written)

    def end(self, queue):
        iteration = self.running[queue]
        self.running[queue] = None
        written = self.effects(iteration.fields) if iteration.late else iteration.written
        for space, places, new in written:
            space[places] = new
        for index in self.references(iteration.fields, "signal"):
            self.credits[index] += 1


def some_plan(name, shape, random, allowed, **options):
    """Return a plan with any tiling that is allowed, not only the best one; and its operands."""
    weights, image = operands(random, shape)

    def some(problem):
        found = [tiling for tiling in candidates(problem) if allowed(tiling)]
        return [found[int(random.integers(len(found)))]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution_swapped, "tilings", some)
        plan = plan_of(name, weights, shape, "swapped", **options)
    return plan, weights, image


def several(tiling):
    return len(tiling.strips) > 1 and len(tiling.parts) > 1


def is_cut(tiling):
    return tiling.cut > 0


LONG = ConvShape(
    height=7, width=6, channels=128, filters=48, kernel=(3, 3), padding=((1, 1), (1, 1))
)
"""K is 1152: four parts do not fit preset tiny."""


@pytest.mark.parametrize("most", [0, 100, 70_000, 400_000])
def test_k_in_two_pieces(cards, run, most):
    """Biases are numbers of K then: the bits stay the same."""
    random = np.random.default_rng(73 + most)
    options = {
        "scale": random.uniform(5e-5, 5e-4, 48),
        "bias": random.integers(-most, most + 1, 48),
        "in_zero_point": -3,
        "zero_point": 7,
    }
    for seed in range(4):
        random = np.random.default_rng([74, seed])
        plan, weights, image = some_plan("tiny", LONG, random, is_cut, **options)
        assert plan.problem.biases == plan.tiling.pieces(plan.problem)[0].biases > 0
        wanted = run(cards["tiny"], plan_of("tiny", weights, LONG, "windows", **options), image)
        assert np.array_equal(run(cards["tiny"], plan, image), wanted)


def test_biases_that_are_too_large_keep_k_whole():
    shape = ConvShape(
        height=7, width=7, channels=512, filters=512, kernel=(3, 3), padding=((1, 1), (1, 1))
    )
    weights = np.ones((512, 3, 3, 512), np.int8)
    assert plan_of("ecp5", weights, shape, "swapped", bias=1 << 20).tiling.cut
    assert not plan_of("ecp5", weights, shape, "swapped", bias=1 << 24).tiling.cut


@pytest.mark.parametrize("seed", range(16))
def test_any_schedule_gives_the_same_bits(cards, run, seed):
    random = np.random.default_rng([75, seed])
    options = {"scale": 2.0**-13, "bias": 12345, "in_zero_point": 5}
    shape = dataclasses.replace(draw(random, size=12), channels=32, filters=64)
    shape, allowed = (LONG, is_cut) if seed % 4 == 3 else (shape, lambda tiling: True)
    plan, weights, image = some_plan("tiny", shape, random, allowed, **options)
    wanted = run(cards["tiny"], plan_of("tiny", weights, shape, "windows", **options), image)
    at = [0, plan.weights_bytes, plan.weights_bytes + plan.x_bytes]
    memory = np.zeros(at[-1] + plan.y_bytes, np.uint8)
    memory[: at[1]], memory[at[1] : at[2]] = plan.weights, plan.pack_x(image)
    config = dataclasses.replace(plan.config, memory_bytes=1 << 22)
    Unfair(config, memory, plan.commands(*at), random).run()
    assert np.array_equal(plan.unpack_y(memory[at[2] :]), wanted), plan.describe()


def test_unfair_schedules_are_of_all_kinds(cards):
    """The tilings that `test_any_schedule_gives_the_same_bits` draws from."""
    problem = some_plan("tiny", LONG, np.random.default_rng(1), is_cut)[0].problem
    found = list(candidates(problem))
    assert {(t.by_strips, t.cut > 0) for t in found if several(t)} == {
        (True, False),
        (False, False),
        (True, True),
    }
    assert {1, 2} <= {t.strip_slots for t in found} and {1, 2} <= {t.sum_slots for t in found}


def test_on_the_rtl(run):
    """Of a layer the plan that is chosen, and one that cuts K; with padding, and few pixels."""
    random = np.random.default_rng(76)
    options = {"scale": random.uniform(5e-5, 5e-4, 48), "bias": random.integers(-9000, 9000, 48)}
    with Card.open("rtl", preset="tiny", memory="ideal") as card:
        conv(card, ConvJob(shape=LONG, kind="swapped"))
        for allowed in (is_cut, several):
            plan, weights, image = some_plan("tiny", LONG, random, allowed, **options)
            with Card.open("functional", preset="tiny") as functional:
                wanted = run(
                    functional, plan_of("tiny", weights, LONG, "windows", **options), image
                )
            assert np.array_equal(run(card, plan, image), wanted), plan.describe()
