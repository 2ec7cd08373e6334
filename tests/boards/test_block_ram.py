"""The model of the block RAM in each of its shapes, as yosys uses them, against plain lists."""

import collections
import json

import numpy as np
from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from deepseek.boards.flow.convert import TOP, convert_unit
from deepseek.boards.flow.netlist import split
from deepseek.boards.flow.synthesis import link, synthesise
from deepseek.sim.netlist.board import models
from deepseek.sim.netlist.ecp5 import to_verilog
from deepseek.sim.verilated.design import Design, Port
from deepseek.sim.verilated.model import Model

DEPTHS = {1: 16384, 2: 8192, 4: 4096, 9: 2048, 18: 1024}
WIDTH = sum(DEPTHS)
CYCLES = 6000


def contents(width, depth):
    draw = np.random.default_rng(width)
    return [int(word) for word in draw.integers(0, 1 << width, depth)]


class Memories(wiring.Component):
    """A memory of each width, with two ports that read and write, and all share their address.

    ``seen`` is what stood at ``address`` two cycles before.
    """

    def __init__(self):
        port = wiring.Signature(
            {"address": Out(14), "write": Out(1), "data": Out(18), "seen": In(WIDTH)}
        )
        super().__init__({"a": In(port), "b": In(port)})

    def elaborate(self, platform):
        m = Module()
        seen = {"a": [], "b": []}
        for width, depth in DEPTHS.items():
            memory = Memory(shape=unsigned(width), depth=depth, init=contents(width, depth))
            m.submodules[f"memory_{width}"] = memory
            for name, outputs in seen.items():
                port = getattr(self, name)
                # As in rtl/memory/block.py: the read is asynchronous with a register behind it.
                writer, reader = memory.write_port(), memory.read_port(domain="comb")
                word = Signal(width, name=f"{name}_{width}", reset_less=True)
                m.d.comb += [
                    writer.addr.eq(port.address),
                    writer.data.eq(port.data),
                    writer.en.eq(port.write),
                    reader.addr.eq(port.address),
                ]
                m.d.sync += word.eq(reader.data)
                outputs.append(word)
        for name, outputs in seen.items():
            m.d.sync += getattr(self, name).seen.eq(Cat(outputs))
        return m


def ports():
    fields = {"address": (True, 14), "write": (True, 1), "data": (True, 18), "seen": (False, WIDTH)}
    return tuple(
        Port(f"{name}__{field}", is_input, width, False)
        for name in "ab"
        for field, (is_input, width) in fields.items()
    )


def test_every_width(cache):
    parts = split(convert_unit(Memories()).texts)
    _, netlist = link(parts, synthesise(parts))
    used = [
        cell["parameters"]
        for cell in netlist["modules"][TOP]["cells"].values()
        if cell["type"] == "DP16KD"
    ]
    for port in "AB":
        assert sorted(int(cell[f"DATA_WIDTH_{port}"], 2) for cell in used) == list(DEPTHS)
        assert {cell[f"WRITEMODE_{port}"] for cell in used} == {"READBEFOREWRITE"}
    verilog = to_verilog(json.dumps(netlist), top="memories")
    design = Design("memories", "\n".join([verilog, models()]), ports())

    rng = np.random.default_rng(7)
    words = {width: contents(width, depth) for width, depth in DEPTHS.items()}
    # Few addresses, of the lowest and the highest, and what differs in one bit.
    near = [*(1 << bit for bit in range(14)), *range(40), *(0x3FFF - n for n in range(40))]
    expected = [None, None]
    compared = collections.Counter()
    with Model(design) as model:
        for cycle in range(CYCLES):
            access = {}
            for name in "ab":
                address = int(rng.choice(near) if rng.random() < 0.8 else rng.integers(1 << 14))
                access[name] = (address, bool(rng.random() < 0.4), int(rng.integers(1 << 18)))
                for field, value in zip(("address", "write", "data"), access[name], strict=True):
                    model.set(f"{name}__{field}", int(value))
            if access["a"][1] and access["b"][1]:
                # Two writes to the same word would leave nothing certain.
                access["b"] = (access["b"][0], False, access["b"][2])
                model.set("b__write", 0)
            model.tick()
            old = {}
            for width, depth in DEPTHS.items():
                place = {name: access[name][0] % depth for name in "ab"}
                same = place["a"] == place["b"]
                for name, other in ("ab", "ba"):
                    # What a port reads while the other one writes it is void.
                    void = same and access[other][1]
                    old[name, width] = None if void else words[width][place[name]]
                for name in "ab":
                    if access[name][1]:
                        words[width][place[name]] = access[name][2] & ((1 << width) - 1)
            expected = [old, expected[0]]
            if expected[1] is None:
                continue
            for name in "ab":
                got, at = model.get(f"{name}__seen"), 0
                for width in DEPTHS:
                    wanted = expected[1][name, width]
                    if wanted is not None:
                        value = got >> at & ((1 << width) - 1)
                        assert value == wanted, (cycle, name, width)
                        compared[width] += 1
                    at += width
    assert all(compared[width] > CYCLES // 2 for width in DEPTHS)
