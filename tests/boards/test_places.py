"""Places of a card's memories and multipliers."""

import json
import re

import pytest

from deepseek.boards import BOARDS
from deepseek.boards.families import ecp5_places, gowin_places
from deepseek.boards.flow.tools import Processes

TOP = "shell.card."
MESH = f"{TOP}compute.grid.instance.mesh.instance."


def cells(rows, cols, blocks=32, lanes=8):
    """As those of a linked card are called."""
    elements = [f"{MESH}pe_{r}_{c}.instance." for r in range(rows) for c in range(cols)]
    partials = f"{TOP}compute.lane_0.instance.partials.words_0.words.0."
    rams = [f"{element}operands.ram" for element in elements]
    rams += [f"{TOP}scratchpad.bank{i % 4}.block{i // 4}" for i in range(blocks)]
    rams += [f"{partials}{i}" for i in range(6)]
    rams += [f"{TOP}load{i}.beats.0.0" for i in range(2)]
    storage = "shell.storage.lane_{}.instance.bank_0.0.{}"
    rams += [storage.format(lane, i) for lane in range(lanes) for i in range(16)]
    multipliers = [
        f"{element}product.{which}.multiplier"
        for element in elements
        for which in ("first", "second")
    ]
    others = ["$flatten\\shell.\\card.\\compute.\\lane_0.instance.\\multiply.$2", "elsewhere"]
    found = {key: {"type": "DP16KD"} for key in rams}
    found |= {key: {"type": "MULT18X18D"} for key in [*multipliers, *others]}
    return found | {f"{MESH}pe_0_0.instance.$ff.slice$1": {"type": "TRELLIS_FF"}}


def at(place):
    x, y = re.findall(r"[XY](\d+)", place)
    return int(x), int(y)


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (4, 8), (2, 2), (3, 13)])
def test_a_card(rows, cols):
    design = cells(rows, cols, blocks=8 * min(cols, 6), lanes=4)
    found = ecp5_places.places(design)
    assert len(set(found.values())) == len(found)
    assert set(design) - set(found) == {"elsewhere", f"{MESH}pe_0_0.instance.$ff.slice$1"}
    for name, place in found.items():
        assert ("EBR" in place) == (design[name]["type"] == "DP16KD")
    for row in range(rows):
        for column in range(cols):
            element = f"{MESH}pe_{row}_{column}.instance."
            places = [at(found[name]) for name in design if name in found and element in name]
            assert len(places) == 3
            (x, y), *multipliers = places
            assert all(abs(x - x1) <= 9 and abs(y - y1) == 12 for x1, y1 in multipliers)
            if column:
                (left, _), *_ = (
                    at(found[name])
                    for name in design
                    if f"pe_{row}_{column - 1}.instance.operands" in name
                )
                assert 0 < x - left <= 11


def test_what_is_no_card_is_left_to_place_and_route():
    assert ecp5_places.places({}) == {}
    assert ecp5_places.places({"shell.storage.lane_0.instance.x": {"type": "DP16KD"}}) == {}
    assert ecp5_places.places(cells(8, 8)) == {}  # rows without multipliers
    assert ecp5_places.places(cells(2, 14)) == {}
    for board in BOARDS.values():
        if not board.is_virtual:
            design = cells(4, 4)
            if board.name == "tangmega":
                design = {name: {"type": "DPB"} for name in design}
            placed = board.family.places(board.device, design)
            known = board.device[-3:] == "85F" or board.name == "tangmega"
            assert bool(placed) == known, board.name


def test_a_card_on_gw5a():
    names = [name.replace("DP16KD", "DPB") for name in cells(4, 4) if "multipl" not in name]
    design = {name: {"type": "DPB"} for name in names}
    design |= {"shell.card.x": {"type": "DFF"}}
    found = BOARDS["tangmega"].family.places("GW5AST-LV138FPG676A", design)
    assert set(found) == set(names) and len(set(found.values())) == len(found)
    assert set(found.values()) <= gowin_places._sites()
    for row in range(4):
        line = [at(found[f"{MESH}pe_{row}_{column}.instance.operands.ram"]) for column in range(4)]
        assert [x for x, _ in line] == sorted(x for x, _ in line)
        assert {y for _, y in line} == {45 if row < 2 else 63}
    memory = [at(place) for name, place in found.items() if ".storage.lane_0." in name]
    assert len(memory) == 16 and all(y in (9, 27, 45) and 60 < x < 120 for x, y in memory)
    assert gowin_places.places(f"{TOP}scratchpad.bank{i}.block0" for i in range(4)) == {}
    assert len(gowin_places.places(f"{MESH}pe_0_0.instance.{i}" for i in range(400))) == 340


def _placed(board, sites, folder):
    """Place a design with a cell in each of these places, of this kind; return where they are."""
    netlist = {
        name: {
            "type": kind,
            "attributes": {"BEL": site, "keep": "1"},
            "parameters": {},
            "port_directions": {},
            "connections": {},
        }
        for name, (kind, site) in sites.items()
    }
    top = {"attributes": {"top": "1"}, "ports": {}, "netnames": {}, "cells": netlist}
    (folder / "in.json").write_text(json.dumps({"modules": {"top": top}}))
    (folder / f"in.{board.family.constraints}").write_text("")
    options = board.family.route(board, board.family.package(board.make_platform()), 10**7, 1)
    with Processes() as processes:
        tool = board.family.route_tool
        processes.run(tool, [*options, "--placer", "heap", "--no-route"], folder)
    placed = json.loads((folder / "routed.json").read_text())["modules"]["top"]["cells"]
    return {name: placed[name]["attributes"]["NEXTPNR_BEL"] for name in sites}


def test_the_gw5a_has_all_places(tmp_path):
    tangmega = BOARDS["tangmega"]
    sites = {f"ram{i}": ("DPB", site) for i, site in enumerate(sorted(gowin_places._sites()))}
    assert len(sites) == tangmega.capacity.ebr
    found = _placed(tangmega, sites, tmp_path)
    assert found == {name: site for name, (_, site) in sites.items()}


def test_the_device_has_all_places(tmp_path):
    """A design with a cell in each place goes through place and route."""
    ulx3s = BOARDS["ulx3s"]
    sites = {
        f"{kind} {i}": (kind, site)
        for kind in ("DP16KD", "MULT18X18D")
        for i, site in enumerate(ecp5_places._sites(kind))
    }
    capacity = ulx3s.capacity
    assert len(sites) == capacity.ebr + capacity.dsp
    found = _placed(ulx3s, sites, tmp_path)
    assert found == {name: site for name, (_, site) in sites.items()}
