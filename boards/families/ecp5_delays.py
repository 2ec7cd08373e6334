"""How long ECP5's cells take on grade 6, in ns, as nextpnr's database has it (the slowest arc of
each kind), for estimates before place and route."""

import functools
from collections.abc import Mapping
from typing import Any

from ..flow.timing import Arcs

__all__ = ["arcs"]

LUT = 0.24
WIDE_LUT = 0.20  # of the multiplexers behind look-up tables; what selects takes a wire:
WIDE_SELECT = 0.26
CARRY = {"sum": 0.45, "next_sum": 0.60, "out": 0.45, "from_carry": 0.47, "ripple": 0.07}
REGISTER, ENABLE, RESET = 0.52, 0.10, 0.42
RAM_LAUNCH, RAM_SETUP = 0.70, 0.10
BLOCK_LAUNCH, BLOCK_LAUNCH_REGISTERED, BLOCK_SETUP = 5.83, 0.90, 0.20
# A multiplier by the last of its registers.
MULTIPLY, MULTIPLY_SETUP = 4.2, 0.20
MULTIPLY_LAUNCH = (("REG_OUTPUT_CLK", 1.0), ("REG_PIPELINE_CLK", 3.0), ("REG_INPUTA_CLK", 4.8))

_ABCD = ("A", "B", "C", "D")


def _carry() -> Arcs:
    low, high = ([f"{port}{half}" for port in _ABCD] for half in (0, 1))
    through = [(port, "S0", CARRY["sum"], False) for port in low]
    through += [(port, "S1", CARRY["next_sum"], False) for port in low]
    through += [(port, "S1", CARRY["sum"], False) for port in high]
    through += [(port, "COUT", CARRY["out"], False) for port in low + high]
    through += [("CIN", output, CARRY["from_carry"], True) for output in ("S0", "S1")]
    return Arcs((*through, ("CIN", "COUT", CARRY["ripple"], True)))


_FIXED = {
    "LUT4": Arcs(tuple((port, "Z", LUT, False) for port in _ABCD)),
    "PFUMX": Arcs(
        (
            *((port, "Z", WIDE_LUT, True) for port in ("ALUT", "BLUT")),
            ("C0", "Z", WIDE_SELECT, False),
        )
    ),
    "L6MUX21": Arcs(
        (*((port, "Z", WIDE_LUT, True) for port in ("D0", "D1")), ("SD", "Z", WIDE_SELECT, False))
    ),
    "CCU2C": _carry(),
    "DCCA": Arcs((("CLKI", "CLKO", 0.0, False),)),  # the rest is taken for wire
    "TRELLIS_DPR16X4": Arcs(
        (("RAD", "DO", LUT, False),),
        (("DO", RAM_LAUNCH),),
        tuple((port, RAM_SETUP) for port in ("DI", "WAD", "WRE")),
    ),
    "TRELLIS_FF": Arcs(
        launch=(("Q", REGISTER),),
        capture=(("DI", 0.0), ("M", 0.0), ("CE", ENABLE), ("LSR", RESET)),
        absorbs=("DI",),
    ),
}


@functools.cache
def _block_ram(outputs: tuple[str, ...], inputs: tuple[str, ...], registered: str) -> Arcs:
    return Arcs(
        launch=tuple(
            (port, BLOCK_LAUNCH_REGISTERED if port[2] in registered else BLOCK_LAUNCH)
            for port in outputs
        ),
        capture=tuple((port, BLOCK_SETUP) for port in inputs if not port.startswith("CLK")),
    )


@functools.cache
def _multiplier(outputs: tuple[str, ...], inputs: tuple[str, ...], launch: float) -> Arcs:
    if not launch:
        return Arcs(tuple((x, y, MULTIPLY, False) for x in inputs for y in outputs))
    return Arcs(
        launch=tuple((port, launch) for port in outputs),
        capture=tuple((port, MULTIPLY_SETUP) for port in inputs),
    )


def arcs(cell: Mapping[str, Any]) -> Arcs:
    """Return what a cell of a netlist takes (`deepseek.boards.flow.timing.Arcs`)."""
    kind, parameters = cell["type"], cell["parameters"]
    if kind in _FIXED:
        return _FIXED[kind]
    if kind not in ("DP16KD", "MULT18X18D"):
        return Arcs()
    ports = cell["port_directions"]
    outputs = tuple(port for port in cell["connections"] if ports[port] == "output")
    inputs = tuple(port for port in cell["connections"] if ports[port] == "input")
    if kind == "DP16KD":
        registered = "".join(x for x in "AB" if parameters.get(f"REGMODE_{x}") == "OUTREG")
        return _block_ram(outputs, inputs, registered)
    stages = [ns for name, ns in MULTIPLY_LAUNCH if parameters.get(name, "NONE") != "NONE"]
    return _multiplier(outputs, inputs, stages[0] if stages else 0.0)
