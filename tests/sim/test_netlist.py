"""Translation of netlists: tables as expressions, pins without nets, what is refused."""

import gzip
import itertools
import json
import os
import random

import pytest

from deepseek.sim.netlist.board import BoardPins, netlist_design
from deepseek.sim.netlist.ecp5 import NetlistError, to_verilog
from deepseek.sim.netlist.writer import lut


def evaluate(expression, pins):
    """The value of a table's expression, whose operators are Verilog's on single bits."""
    tokens = expression.replace("(", " ( ").replace(")", " ) ").replace("~", " ~ ").split()

    def atom():
        token = tokens.pop(0)
        if token == "~":
            return 1 - atom()
        if token == "(":
            left = atom()
            while tokens[0] != ")":
                operator = tokens.pop(0)
                right = atom()
                if operator == "?":
                    assert tokens.pop(0) == ":"
                    left = (left, right, atom())
                    left = left[1] if left[0] else left[2]
                else:
                    left = {"&": left & right, "|": left | right, "^": left ^ right}[operator]
            tokens.pop(0)
            return left
        return int(token[-1]) if "'" in token else pins[token]

    result = atom()
    assert not tokens
    return result


def test_tables():
    names = ["a", "b", "c", "d"]
    tables = [*range(256), *random.Random(1).sample(range(1 << 16), 2000), 0xFFFF, 0x6996, 0x8000]
    for table in tables:
        expression = lut(table, names)
        for bits in itertools.product((0, 1), repeat=4):
            index = sum(bit << place for place, bit in enumerate(bits))
            got = evaluate(expression, dict(zip(names, bits, strict=True)))
            assert got == table >> index & 1, (hex(table), expression)


def test_constant_pins():
    assert lut(0x8000, ["a", "1'b1", "1'b1", "1'b1"]) == "a"
    assert lut(0x8000, ["a", "1'b0", "b", "c"]) == "1'b0"


def netlist(**cells):
    return json.dumps({"modules": {"top": {"ports": {}, "cells": cells}}})


def cell(kind, connections=None, **parameters):
    connections = connections or {}
    return {
        "type": kind,
        "parameters": parameters,
        "port_directions": dict.fromkeys(connections, "input"),
        "connections": connections,
    }


@pytest.mark.parametrize("harm", ["cut off", "overwritten", "spoilt", "no gzip", "no netlist"])
def test_damaged_files(tmp_path, monkeypatch, harm):
    """One line that names the file and says what to do."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "card.netlist.json.gz"
    whole = gzip.compress(random.Random(2).randbytes(2000))
    content = {
        "cut off": whole[:-100],
        "overwritten": whole[:10] + bytes([255]) * 100 + whole[110:],
        "spoilt": whole[:1000] + bytes([whole[1000] ^ 255]) + whole[1001:],
        "no gzip": b"{}",
        "no netlist": whole,
    }
    path.write_bytes(content[harm])
    pins = BoardPins(clock="clk", rx="rx", tx="tx", running=None)
    with pytest.raises(NetlistError) as caught:
        netlist_design(path, pins, clock_hz=25_000_000)
    message = str(caught.value)
    assert message.startswith(str(path)) and "next: build it again" in message
    assert "\n" not in message


def test_a_design_is_made_once(tmp_path, monkeypatch):
    """And what nobody has used for long goes when another one is made."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path / "cache"))
    old = tmp_path / "cache" / "verilog" / "netlist-old.v"
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (1, 1))
    ways = {"clk": "input", "rx": "input", "tx": "output"}
    ports = {
        name: {"direction": way, "bits": [2 + n]} for n, (name, way) in enumerate(ways.items())
    }
    path = tmp_path / "card.netlist.json"
    path.write_text(json.dumps({"modules": {"top": {"ports": ports, "cells": {}}}}))
    pins, phases = BoardPins(clock="clk", rx="rx", tx="tx", running=None), []
    for _ in range(2):
        design = netlist_design(
            path, pins, clock_hz=25_000_000, progress=lambda *at: phases.append(at)
        )
        assert "netlist netlist (.clk(clk), .rx(rx), .tx(tx));" in design.verilog
    assert phases == [("convert", 0.0), ("convert", 1.0)]
    assert not old.exists()


def test_places_that_are_kept_free():
    """Cells without a function, beside the write port of a distributed memory."""
    assert "assign" not in to_verilog(netlist(x=cell("TRELLIS_COMB", {"F": []}, MODE="RAMW_BLOCK")))
    used = cell("TRELLIS_COMB", {"F": [2]}, MODE="RAMW_BLOCK")
    with pytest.raises(NetlistError, match="no model for mode RAMW_BLOCK of x"):
        to_verilog(netlist(x=used))


def test_gate_of_a_clock():
    """A buffer that is always open is a wire, another one an instance of its model."""
    pins = {"CLKI": [3], "CLKO": [4]}
    ways = {"CE": "input", "CLKI": "input", "CLKO": "output"}
    opened = {**cell("DCCA", pins), "port_directions": ways}
    gated = {**cell("DCCA", {"CE": [2], **pins}), "port_directions": ways}
    assert "assign n4 = n3;" in to_verilog(netlist(x=opened))
    assert ".CE(n2), .CLKI(n3), .CLKO(n4)" in to_verilog(netlist(x=gated))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (cell("DCUA"), "no model for cell x of type DCUA"),
        (cell("TRELLIS_COMB", MODE="RAMW"), "no model for mode RAMW of x"),
        (
            cell("TRELLIS_FF", {"Q": [2], "CLK": [3], "LSR": [4]}, SRMODE="ASYNC"),
            "no model for the asynchronous reset of x",
        ),
        (
            cell("IOLOGIC", {"CLK": [2]}, MODE="ODDRXN"),
            "no model for the registers of pad x",
        ),
        (
            cell("TRELLIS_IO", {"B": [2], "I": [3]}, DIR="BIDIR"),
            "a pad that goes both ways has no pin",
        ),
        (
            cell("DP16KD", {"RSTA": [2]}, RESETMODE="ASYNC"),
            "no model for the asynchronous reset of block RAM x",
        ),
        (cell("MULT18X18D", {"SRIA3": [2]}), "no model for pin SRIA3 of a MULT18X18D"),
    ],
)
def test_refusals(broken, message):
    with pytest.raises(NetlistError, match=message):
        to_verilog(netlist(x=broken))
