"""Estimates of the clock: netlists small enough to add up by hand, and nextpnr's opinion."""

import math

import pytest

from deepseek.boards.families.ecp5_delays import arcs
from deepseek.boards.flow.timing import Arcs, estimate, longest
from deepseek.boards.unit import measure
from deepseek.rtl.config import preset

WIRE = 0.8
"""A wire with one load, in ns."""


def cell(kind, parameters=None, **connections):
    outputs = {"Q", "Z", "S0", "S1", "COUT", "DO", "DOA0", "P0"}
    return {
        "type": kind,
        "parameters": parameters or {},
        "connections": {port: [bit] for port, bit in connections.items()},
        "port_directions": {port: "output" if port in outputs else "input" for port in connections},
    }


def block(name):
    return name.partition(".")[0]


def slowest(cells):
    return estimate(cells, arcs, block)[0]


def test_register_to_register():
    path = slowest({"a.x": cell("TRELLIS_FF", Q=2), "b.y": cell("TRELLIS_FF", DI=2)})
    assert path.ns == pytest.approx(0.52 + WIRE)
    assert path.cells == ("a.x", "b.y") and path.end == "DI" and path.nets == (2,)
    assert path.mhz == pytest.approx(1e3 / path.ns)


def test_a_register_lies_beside_its_look_up_table():
    cells = {
        "a.x": cell("TRELLIS_FF", Q=2),
        "a.l": cell("LUT4", A=2, B="0", Z=3),
        "b.y": cell("TRELLIS_FF", DI=3),
    }
    assert slowest(cells).ns == pytest.approx(0.52 + WIRE + 0.24)
    # Not if something else hangs on it, nor by any other input than DI.
    shared = {**cells, "c.z": cell("TRELLIS_FF", DI=3)}
    assert slowest(shared).ns == pytest.approx(0.52 + WIRE + 0.24 + WIRE + 0.2)
    enable = {**cells, "b.y": cell("TRELLIS_FF", CE=3)}
    assert slowest(enable).ns == pytest.approx(0.52 + WIRE + 0.24 + WIRE + 0.1)


def test_fan_out_costs():
    cells = {"a.x": cell("TRELLIS_FF", Q=2)}
    cells |= {f"b.y{n}": cell("TRELLIS_FF", M=2) for n in range(32)}
    assert slowest(cells).ns == pytest.approx(0.52 + 0.8 + 0.2 * math.log2(32))


def test_a_carry_chain_has_wires_of_its_own():
    chain = {"a.x": cell("TRELLIS_FF", Q=2), "b.y": cell("TRELLIS_FF", DI=99)}
    chain["a.0"] = cell("CCU2C", A0=2, COUT=10)
    chain |= {f"a.{n}": cell("CCU2C", CIN=9 + n, COUT=10 + n) for n in range(1, 8)}
    chain["a.8"] = cell("CCU2C", CIN=17, S1=99)
    assert slowest(chain).ns == pytest.approx(0.52 + WIRE + 0.45 + 7 * 0.07 + 0.47, abs=0.01)


@pytest.mark.parametrize(
    ("first", "ns"),
    [
        (cell("DP16KD", {"REGMODE_A": "NOREG"}, DOA0=2), 5.83),
        (cell("DP16KD", {"REGMODE_A": "OUTREG"}, DOA0=2), 0.9),
        (cell("MULT18X18D", {"REG_INPUTA_CLK": "CLK0", "REG_OUTPUT_CLK": "CLK0"}, P0=2), 1.0),
        (cell("MULT18X18D", {"REG_INPUTA_CLK": "CLK0"}, P0=2), 4.8),
        (cell("TRELLIS_DPR16X4", DO=2), 0.7),
    ],
)
def test_what_launches(first, ns):
    path = slowest({"a.x": first, "b.y": cell("TRELLIS_FF", M=2)})
    assert path.ns == pytest.approx(ns + WIRE)


def test_what_passes():
    cells = {"a.x": cell("TRELLIS_FF", Q=2), "b.y": cell("TRELLIS_FF", M=3)}
    multiplier = cell("MULT18X18D", A0=2, P0=3)  # without registers
    assert slowest({**cells, "a.m": multiplier}).ns == pytest.approx(0.52 + 4.2 + 2 * WIRE)
    ram = cell("TRELLIS_DPR16X4", RAD=2, DO=3)
    assert slowest({**cells, "a.m": ram}).ns == pytest.approx(0.52 + 0.24 + 2 * WIRE)


def test_the_longest_path_of_each_pair_of_blocks():
    cells = {
        "a.x": cell("TRELLIS_FF", Q=2),
        "a.l": cell("LUT4", A=2, Z=3),
        "b.y": cell("TRELLIS_FF", DI=2, Q=4),
        "b.z": cell("TRELLIS_FF", M=3),
        "c.z": cell("TRELLIS_FF", M=4),
    }
    paths = estimate(cells, arcs, block)
    assert [(block(p.cells[0]), block(p.cells[-1])) for p in paths] == [("a", "b"), ("b", "c")]
    assert paths[0].cells == ("a.x", "a.l", "b.z")
    assert longest(paths, block) == {"b": paths[0].ns, "c": paths[1].ns}


def test_a_loop_and_what_no_clock_moves():
    cells = {
        "a.l": cell("LUT4", A=3, B=2, Z=3),
        "a.x": cell("TRELLIS_FF", Q=2),
        "b.y": cell("TRELLIS_FF", M=3),
        "c.pin": cell("TRELLIS_FF", M=7),
    }
    paths = estimate(cells, arcs, block)
    assert [path.cells for path in paths] == [("a.x", "a.l", "b.y")]


def test_an_unknown_cell_is_passed_over():
    assert arcs(cell("TRELLIS_IO", Z=3)) == Arcs()


@pytest.mark.parametrize("unit", ["array.prepare:PrepareWeight", "core.semaphore:SemaphoreFile"])
def test_against_place_and_route(unit, cache):
    """A unit alone has shorter wires than the estimate has in mind."""
    found = measure(unit, preset("tiny"), paths=1, clock=True)
    assert 0.5 < found["estimated_mhz"] / found["mhz"] < 1.1, found
    assert len(found["paths"]) == 1
    assert found["paths"][0].startswith(f"{1e3 / found['estimated_mhz']:.1f} ns, ")
