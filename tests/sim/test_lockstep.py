"""Arrays in lockstep: what the C++ of an array does is what its Verilog does, in every cycle."""

import os
import random

import pytest
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from deepseek.rtl.array.grid import Grid
from deepseek.rtl.config import CardConfig
from deepseek.rtl.hierarchy import Repeated
from deepseek.rtl.isa import Mode
from deepseek.sim.verilated.convert import to_design
from deepseek.sim.verilated.model import Model

SEED = int(os.environ.get("SEED", "1"))

ELEMENT = wiring.Signature(
    {
        "mode": In(2),
        "amount": In(5),
        "wide": In(40),
        "own": In(16),
        "left": In(40),
        "right": Out(40),
        "flags": Out(4),
    }
)


class Array(wiring.Component):
    """``count`` elements in a ring that is cut open, all under the same ``mode``."""

    def __init__(self, element, count):
        self._element, self._count = element, count
        super().__init__(
            {
                "mode": In(2),
                "amount": In(5),
                "wide": In(40),
                "head": In(40),
                "own": In(16).array(count),
                "tail": Out(40),
                "flags": Out(3 * count),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left, flags = self.head, []
        for index in range(self._count):
            element = self._element()
            m.submodules[f"element_{index}"] = Repeated(element, "element")
            m.d.comb += [
                element.mode.eq(self.mode),
                element.amount.eq(self.amount),
                element.wide.eq(self.wide),
                element.own.eq(self.own[index]),
                element.left.eq(left),
            ]
            left = element.right
            flags.append(element.flags[1:])
        m.d.comb += [self.tail.eq(left), self.flags.eq(Cat(flags))]
        return m


class Element(wiring.Component):
    """Something of everything that the C++ of an element is made of."""

    def __init__(self):
        super().__init__(ELEMENT)

    def elaborate(self, platform):
        m = Module()
        own, left, mode, wide = self.own, self.left, self.mode, self.wide
        a, b = own[:8].as_signed(), own[8:].as_signed()

        m.submodules.memory = memory = Memory(shape=unsigned(11), depth=16, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(own[:4]),
            write.data.eq(left),
            write.en.eq(own[4] ^ mode[0]),
            read.addr.eq(own[8:12]),
            read.en.eq(~own[5]),
        ]

        narrow, sums = Signal(20, reset_less=True), Signal(signed(40))
        shifted, kept = Signal(48), Signal(7)
        m.d.sync += [
            narrow.eq((a * b) - Mux(a < b, a, -b) + (own ^ ~left[:16])),
            sums.eq(sums + left.as_signed() + Mux(mode == 2, wide, own)),
            shifted.eq(own << Mux(own[0], own[1:6], self.amount)),
        ]
        with m.If(own[3:9].all() | (left < wide)):
            m.d.sync += kept.eq(kept + 1)
        with m.Elif(left.any() & (a >= b)):
            m.d.sync += kept[2:5].eq(own.bit_select(mode, 3))
        with m.If(mode[1]):
            m.d.sync += kept[6].eq((own >> own[12:]) & 1)

        word = Signal(16)
        with m.Switch(Cat(own[:3], mode)):
            with m.Case("--1--"):
                m.d.comb += word.eq(narrow)
            with m.Case("00-10", "11000"):
                m.d.comb += word[4:12].eq(sums.word_select(mode, 8))
            with m.Case():
                m.d.comb += word.eq(1)
            with m.Default():
                m.d.comb += word.eq(shifted >> own[:5])
        right, flags = Signal(40), Signal(4, reset_less=True)
        m.d.sync += [
            right.eq(Cat(word, read.data, (kept.as_signed() >> 2)[:9]) ^ sums),
            flags.eq(Cat(a > 0, sums <= wide.as_signed(), narrow != kept, (own - b)[3])),
        ]
        m.d.comb += [self.right.eq(right), self.flags.eq(flags)]
        return m


def top_of(component, name):
    """Return a top with the ports of a component, which is under `Repeated`."""

    class Top(wiring.Component):
        def __init__(self):
            super().__init__(component.signature)

        def elaborate(self, platform):
            m = Module()
            m.submodules.array = Repeated(component, name)
            wiring.connect(m, wiring.flipped(self), component)
            return m

    return Top()


def models(make, name, array=None):
    """Return a design as Verilog, and as Verilog with an array (in it, or all) in lockstep."""
    plain = to_design(top_of(make(), name), "top")
    arrays = to_design(top_of(make(), name), "top", arrays=True)
    assert plain.sources == ()
    assert [file for file, _ in arrays.sources] == [f"lockstep_{array or name}.cpp"]
    assert plain.ports == arrays.ports
    return Model(plain), Model(arrays)


def compare(pair, stimuli):
    """Drive two models alike, a dictionary of inputs a cycle; their outputs have to be equal."""
    outputs = [port.name for port in pair[0].design.ports if not port.is_input]
    seen = {name: set() for name in outputs}
    for model in pair:
        model.reset()
    for cycle, inputs in enumerate(stimuli):
        for model in pair:
            if cycle == 300:
                model.reset()
            for port, value in inputs.items():
                model.set(port, value)
            model.tick()
        for name in outputs:
            first, second = (model.get(name) for model in pair)
            assert first == second, f"{name} in cycle {cycle}: {first:#x} and {second:#x}"
            seen[name].add(first)
    return seen


@pytest.mark.parametrize("count", [3, 20])
def test_an_array_does_what_its_verilog_does(count):
    draw = random.Random(SEED)
    print(f"SEED={SEED}")

    def stimuli():
        for cycle in range(600):
            inputs = {f"own__{n}": draw.getrandbits(16) for n in range(count)}
            inputs |= {"head": draw.getrandbits(40)}
            if not cycle % 10:
                inputs |= {"mode": draw.getrandbits(2), "amount": draw.getrandbits(5)}
                inputs |= {"wide": draw.getrandbits(40)}
            yield inputs

    pair = models(lambda: Array(Element, count), "ring")
    with pair[0], pair[1]:
        seen = compare(pair, stimuli())
    assert len(seen["tail"]) > 500


def test_two_models_do_not_share_their_state():
    design = to_design(top_of(Array(Element, 3), "ring"), "top", arrays=True)
    with Model(design) as first, Model(design) as second:
        for model in (first, second):
            model.reset()
        before = second.get("tail")
        first.set("own__0", 0x1234)
        first.tick(5)
        assert first.get("tail") != before
        assert second.get("tail") == before


def grid_config():
    return CardConfig(
        name="few",
        rows=2,
        cols=3,
        scratchpad_banks=4,
        scratchpad_bytes=1 << 16,
        stream_ports=1,
        bus_bytes=8,
        hbm_channels=1,
        operand_depth=64,
    )


def test_the_array_of_pes_does_what_its_verilog_does():
    draw = random.Random(SEED)
    print(f"SEED={SEED}")
    config = grid_config()
    design = to_design(top_of(Grid(config), "grid"), "top")
    widths = {port.name: port.width for port in design.ports}

    def word(port, valid):
        """Random bits, often of a valid word: the bit is behind value and address."""
        return draw.getrandbits(widths[port]) | (draw.random() < valid) << 22

    def stimuli():
        for cycle in range(900):
            inputs = {f"stream__{r}": word(f"stream__{r}", 0.7) for r in range(config.rows)}
            inputs |= {f"fill__{c}": word(f"fill__{c}", 0.3) for c in range(config.cols)}
            if not cycle % 100:
                inputs |= {"mode": draw.choice(list(Mode)).value, "offset": draw.randint(-30, 40)}
            yield inputs

    pair = models(lambda: Grid(config), "grid", "mesh")
    with pair[0], pair[1]:
        seen = compare(pair, stimuli())
    assert min(len(seen[f"drain__{r}"]) for r in range(config.rows)) > 300


def output_at_once(m, element):
    m.d.comb += element.flags[3].eq(0)
    m.d.comb += element.right[0].eq(element.own[0])


def own_bits(m, element):
    word = Signal(4)
    m.d.comb += word[0].eq(element.own[0])
    with m.If(word[0]):
        m.d.comb += word[1].eq(1)
    m.d.sync += element.flags.eq(word)


def other_clock(m, element):
    m.domains.other = ClockDomain("other", clk_edge="neg", reset_less=True)
    m.d.comb += ClockSignal("other").eq(ClockSignal())
    step = Signal()
    m.d.other += step.eq(element.own[0])
    late = Signal()
    m.d.sync += late.eq(step)
    m.d.sync += element.flags.eq(late)


def starts_at_one(m, element):
    count = Signal(3, init=5)
    m.d.sync += count.eq(count + element.own)
    m.d.comb += element.flags.eq(count)


def many_bits(m, element):
    big = Signal(70)
    m.d.sync += big.eq(big + element.own)
    m.d.comb += element.flags.eq(big[66:])


class Plain(wiring.Component):
    """An element that does nothing but what a change adds."""

    def __init__(self, change):
        self.change = change
        super().__init__(ELEMENT)

    def elaborate(self, platform):
        m = Module()
        self.change(m, self)
        return m


@pytest.mark.parametrize(
    "change", [output_at_once, own_bits, other_clock, starts_at_one, many_bits]
)
def test_what_has_no_cpp_stays_verilog(change):
    design = to_design(top_of(Array(lambda: Plain(change), 4), "ring"), "top", arrays=True)
    assert design.sources == ()
    assert "module element(" in design.verilog


def test_logic_beside_the_elements_stays_verilog():
    class Busy(Array):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            late = Signal(40)
            m.d.sync += late.eq(self.head)
            m.submodules.last = Repeated(last := Element(), "element")
            m.d.comb += last.left.eq(late)
            return m

    assert to_design(top_of(Busy(Element, 2), "ring"), "top", arrays=True).sources == ()
