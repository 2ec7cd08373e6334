"""From a board's top to its bitstream, on a small design in the place of the card."""

import gzip
import json
import os
import re
import threading
import time

import pytest

from deepseek.boards import BOARDS, BoardError, board
from deepseek.boards.families import Device, ecp5
from deepseek.boards.flow import place, tools
from deepseek.boards.flow.build import build, build_hash
from deepseek.boards.flow.convert import TOP, convert
from deepseek.boards.flow.place import reached_mhz
from deepseek.boards.flow.report import peak
from deepseek.boards.flow.tools import Processes, Silent, ToolFailure
from deepseek.boards.manifest import Manifest
from deepseek.boards.top import BoardTop
from deepseek.rtl.isa import ABI_VERSION

ULX3S = BOARDS["ulx3s"]
REAL = [name for name, found in BOARDS.items() if not found.is_virtual]

ECP5 = [name for name in REAL if BOARDS[name].family is ecp5.ECP5]

# Where each board's oscillator and serial line are, from its schematics.
PINS = {
    "ulx3s": {"G2": "clk25_0__io", "M1": "uart_0__rx__io", "L4": "uart_0__tx__io"},
    "ecpix5": {"K23": "clk100_0__io", "R26": "uart_0__rx__io", "R24": "uart_0__tx__io"},
    "orangecrab": {"A9": "clk_0__io", "N17": "uart_0__rx__io", "M18": "uart_0__tx__io"},
    "tangmega": {"P16": "clk50_0__io", "P15": "uart_0__rx__io", "N16": "uart_0__tx__io"},
}


def phases_of(calls):
    return list(dict.fromkeys(phase for phase, _ in calls))


def test_bitstream(cache, tmp_path, make_shell, monkeypatch):
    """Twice: the second time everything comes from the cache."""
    calls = []

    def progress(phase, fraction):
        assert 0.0 <= fraction <= 1.0
        calls.append((phase, fraction))

    out = tmp_path / "out"
    built = build(
        ULX3S, "tiny", out, seeds=2, netlist=True, make_shell=make_shell, progress=progress
    )
    assert sorted(phases_of(calls)[3:5]) == ["place and route, seed 1", "place and route, seed 2"]
    assert phases_of(calls)[:3] + phases_of(calls)[5:] == [
        "convert",
        "synthesise",
        "link",
        "pack",
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        "ulx3s-tiny.bit",
        "ulx3s-tiny.bit.json",
        "ulx3s-tiny.netlist.json.gz",
        "ulx3s-tiny.report.json",
    ]
    manifest = Manifest.of(built.bitstream)
    assert manifest == built.manifest
    assert manifest.card == ULX3S.config("tiny")
    assert manifest.build == build_hash(ULX3S, manifest.card, ULX3S.clock_hz)
    assert (manifest.abi, manifest.clock_hz) == (ABI_VERSION, ULX3S.clock_hz)
    assert manifest.fmax_mhz * 1e6 >= manifest.clock_hz

    content = built.bitstream.read_bytes()
    header = f"Build: ulx3s tiny {manifest.build_hash} ABI {ABI_VERSION}".encode()
    assert header in content[:200]
    assert b"Part: LFE5U-85F-6CABGA381" in content[:200]
    assert bytes.fromhex("41113043") in content[:400]  # the device's IDCODE
    assert bytes.fromhex("c2800000" + manifest.build_hash[8:]) in content  # its USERCODE

    report = built.report
    assert report == json.loads((out / "ulx3s-tiny.report.json").read_text())
    blocks = {row["block"]: row for row in report["blocks"]}
    assert blocks["lane"]["instances"] == 4
    assert blocks["lane"]["ff"] == 4 * 12
    assert report["use"]["EBR"]["used"] == 2 == sum(row["ebr"] for row in report["blocks"])
    assert report["use"]["FF"]["of"] == 83640
    assert report["fmax_mhz"] == max(report["seeds"].values())
    path = report["critical_path"]
    assert path["ns"] == pytest.approx(1e3 / report["fmax_mhz"], rel=0.1)
    assert path["ns"] == pytest.approx(path["logic_ns"] + path["routing_ns"], abs=0.02)
    assert path["hops"][0]["block"] in path["start"]
    assert str(path["ns"]) in report["critical_path_in_words"]
    assert report["slowest"][0]["ns"] <= path["ns"] + 0.1

    before = content
    calls.clear()
    run, used = Processes.run, []

    def recorded(self, name, *arguments, **options):
        used.append(name)
        return run(self, name, *arguments, **options)

    monkeypatch.setattr(Processes, "run", recorded)
    again = build(ULX3S, "tiny", out, seeds=2, make_shell=make_shell, progress=progress)
    assert again.bitstream.read_bytes() == before
    assert not (out / "ulx3s-tiny.netlist.json.gz").exists()  # an earlier build's
    assert used == ["ecppack"]
    assert not [p for p in (cache / "routes").iterdir() if p.name.startswith("partial")]


def test_clock_that_is_not_reached_is_refused(cache, tmp_path, make_shell):
    with pytest.raises(BoardError) as error:
        build(ULX3S, "tiny", tmp_path, freq_mhz=400, make_shell=make_shell)
    message = str(error.value)
    found = re.search(
        r"is to be 400 MHz, but the best of 1 seed reaches ([\d.]+) MHz: no bitstream was written; "
        r"build it with --freq ([\d.]+),",
        message,
    )
    assert float(found[2]) <= float(found[1]) < 400
    assert "slowest path: " in message
    report = json.loads((tmp_path / "ulx3s-tiny.report.json").read_text())
    assert (report["bitstream"], report["fmax_mhz"]) == (
        None,
        pytest.approx(float(found[1]), abs=0.1),
    )
    assert not (tmp_path / "ulx3s-tiny.bit").exists()


def timing_report(clocks, *paths):
    """Return a report of nextpnr's with paths between clocks: where from, where to, ns."""
    return {
        "fmax": {name: {"achieved": mhz} for name, mhz in clocks.items()},
        "critical_paths": [
            {"from": start, "to": end, "path": [{"delay": ns / 2}, {"delay": ns / 2}]}
            for start, end, ns in paths
        ],
    }


def test_paths_between_clocks_count():
    """They have a cycle like others; half of one between unlike edges. Those of pins do not."""
    clocks = {"a": 100.0, "b": 90.0}
    own = ("posedge a", "posedge a", 10.0)
    pin = ("<async>", "posedge a", 50.0)
    assert reached_mhz(timing_report(clocks, own, pin)) == 90.0
    short, long = ("posedge a", "posedge b", 11.0), ("posedge b", "posedge a", 12.5)
    assert reached_mhz(timing_report(clocks, own, short)) == 90.0
    assert reached_mhz(timing_report(clocks, own, long)) == 80.0
    half = ("negedge b", "posedge a", 10.0)
    assert reached_mhz(timing_report(clocks, own, half)) == 50.0
    assert reached_mhz(timing_report({})) == 0.0


def test_path_between_clocks_that_is_too_long_is_refused(cache, tmp_path, make_shell, monkeypatch):
    reached = place.reached_mhz

    def slower(report):
        path = {"from": "posedge other", "to": "posedge clk", "path": [{"delay": 40.0}]}
        return reached({**report, "critical_paths": [*report["critical_paths"], path]})

    monkeypatch.setattr(place, "reached_mhz", slower)
    with pytest.raises(BoardError, match=r"best of 1 seed reaches 25\.0 MHz: no bitstream was w"):
        build(ULX3S, "tiny", tmp_path, make_shell=make_shell)


def test_design_that_does_not_fit_is_refused(cache, tmp_path, make_shell, monkeypatch):
    monkeypatch.setitem(ecp5.DEVICES, "85F", Device(comb=60, ff=80, dsp=156, ebr=208))
    with pytest.raises(
        BoardError,
        match=r"needs \d+ of 60 COMB \([\d.]+ %\), \d+ of 80 FF \([\d.]+ %\); "
        r"its largest blocks are .*lane x 4 \d+.*; choose a smaller preset",
    ):
        build(ULX3S, "tiny", tmp_path, make_shell=make_shell)
    assert list(tmp_path.glob("*.bit")) == []


def test_memories_that_do_not_fit_are_refused_at_once(cache, tmp_path):
    with pytest.raises(
        BoardError,
        match=r"preset sim does not fit ulx3s .*at least 544 of 208 EBR "
        r"\(card memory 32, scratchpad 256, operands 256\); choose a smaller",
    ):
        build(ULX3S, "sim", tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_cards_have_memories_that_fit(name):
    for preset in ("tiny", "ecp5"):
        config = board(name).config(preset)
        used = config.memory_bytes + config.scratchpad_bytes
        assert used // 2048 + config.rows * config.cols <= 0.9 * board(name).capacity.ebr
        assert config.vector_parts == ("pool",)


def top_of(name, make_shell):
    found = board(name)
    top = BoardTop(found, make_shell(None), found.clock(found.clock_hz))
    return convert(top, found.make_platform(), found.family.constraints)


@pytest.mark.parametrize("name", REAL)
def test_pins(name, make_shell):
    found, constraints = board(name), top_of(name, make_shell).constraints
    sites = dict(
        re.findall(r'^(?:LOCATE COMP|IO_LOC) "(\S+)"(?: SITE)? "?(\w+)', constraints, re.M)
    )
    for pin, port in PINS[name].items():
        assert sites[port] == pin
    assert len(sites) == 3 + len(found.leds) + len(found.high)


@pytest.mark.parametrize("name", ECP5)
def test_clock(name, make_shell):
    top, found = top_of(name, make_shell), board(name)
    setting = found.clock(found.clock_hz)
    assert f'FREQUENCY PORT "{next(iter(PINS[name].values()))}"' in top.constraints
    text = top.texts[TOP]
    assert f"parameter \\CLKFB_DIV {setting.feedback}" in text
    assert f"parameter \\CLKI_DIV {setting.divider}" in text


def test_virtual(tmp_path):
    built = build(BOARDS["virtual"], "tiny", tmp_path)
    manifest = Manifest.of(built.bitstream)
    assert (manifest.device, manifest.fmax_mhz) == ("virtual", 0.0)
    assert manifest.card.memory_bytes == 256 << 10
    assert manifest.card.vector_parts == ("pool",)
    fields = json.loads(built.bitstream.read_text())
    assert fields["build_hash"] == manifest.build_hash
    assert build(BOARDS["virtual"], "tiny", tmp_path, freq_mhz=24).manifest.clock_hz == 24_000_000


def test_build_hash_tells_builds_apart():
    config = ULX3S.config("tiny")
    hashes = {
        build_hash(ULX3S, config, 100_000_000),
        build_hash(ULX3S, config, 120_000_000),
        build_hash(ULX3S, ULX3S.config("ecp5"), 100_000_000),
        build_hash(BOARDS["ecpix5"], config, 100_000_000),
    }
    assert len(hashes) == 4
    assert build_hash(ULX3S, config, 100_000_000) in hashes


@pytest.mark.parametrize("seeds", [0, -1])
def test_seeds_are_checked(tmp_path, seeds):
    with pytest.raises(BoardError, match="--seeds must be 1 or more"):
        build(ULX3S, "tiny", tmp_path, seeds=seeds)


def test_unknown_names():
    with pytest.raises(BoardError, match="no board 'x'; choose one of: ulx3s, ecpix5"):
        board("x")
    with pytest.raises(ValueError, match="no preset 'x'; choose one of: tiny"):
        ULX3S.config("x")


def test_missing_tools(cache, tmp_path, make_shell, monkeypatch):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BoardError, match=r"amaranth-boards is not installed: pip install"):
        build(ULX3S, "tiny", tmp_path, make_shell=make_shell)
    with pytest.raises(BoardError, match=r"yosys is not installed: pip install 'deepseek-card"):
        tools.tool("yosys")


def test_tool_of_the_environment(tmp_path, monkeypatch):
    script = tmp_path / "yosys"
    script.write_text("#!/bin/sh\necho called $*; echo ERROR: a bad day; exit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("YOSYS", str(script))
    with Processes() as processes, pytest.raises(ToolFailure) as error:
        processes.run("yosys", ["-q", "x"], tmp_path)
    assert str(error.value) == "yosys failed: ERROR: a bad day"
    assert "called -q x" in error.value.log
    monkeypatch.setenv("YOSYS", str(tmp_path / "none"))
    with Processes() as processes, pytest.raises(ToolFailure, match="cannot be started"):
        processes.run("yosys", [], tmp_path)


def test_end_of_the_context_stops_what_runs(tmp_path, monkeypatch):
    script = tmp_path / "yosys"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("YOSYS", str(script))
    failures = []

    def work(processes):
        try:
            processes.run("yosys", [], tmp_path)
        except ToolFailure as error:
            failures.append(error)

    with pytest.raises(KeyboardInterrupt), Processes() as processes:
        thread = threading.Thread(target=work, args=(processes,))
        thread.start()
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt
    thread.join(10)
    assert not thread.is_alive()
    assert len(failures) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    with pytest.raises(ToolFailure, match="interrupted"):
        processes.run("yosys", [], tmp_path)


def test_what_a_listener_refuses_is_stopped(tmp_path, monkeypatch):
    script = tmp_path / "yosys"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho no\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("YOSYS", str(script))

    def heard(line):
        raise ToolFailure(line)

    start = time.monotonic()
    with Processes() as processes, pytest.raises(ToolFailure, match="no"):
        processes.run("yosys", [], tmp_path, heard=heard)
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_silent_tool_is_stopped(tmp_path, monkeypatch):
    script = tmp_path / "yosys"
    script.write_text("#!/bin/sh\nfor i in 1 2 3 4; do sleep 0.3; echo $i; done\nexec sleep $1\n")
    script.chmod(0o755)
    monkeypatch.setenv("YOSYS", str(script))
    start = time.monotonic()
    with Processes() as processes:
        assert processes.run("yosys", ["0"], tmp_path, quiet_s=1.1) == "1\n2\n3\n4\n"
        with pytest.raises(Silent, match=r"yosys printed nothing for 1\.1 s") as error:
            processes.run("yosys", ["60"], tmp_path, quiet_s=1.1)
    assert error.value.log == "1\n2\n3\n4\n"
    assert time.monotonic() - start < 30


ROUTER = """#!/bin/sh
case "$*" in *--version*) echo 1; exit;; esac
echo "$*" >> {calls}
case "$*" in *{endless}*) i=0
  while {talks}; do i=$((i+1)); echo "Info: iter=$i steplen=1.0 a=1.0 penalty=[1.0]"; done
  exec sleep 60;;
esac
echo '{{"fmax": {{"clk": {{"achieved": 50.0}}}}, "critical_paths": []}}' > report.json
echo '{{}}' > routed.json
"""


def test_a_tool_that_does_not_say_its_version(monkeypatch):
    monkeypatch.setenv("YOSYS", "sh -c 'exec sleep 100'")
    monkeypatch.setattr(tools, "VERSION_S", 0.2)
    tools.tool_version.cache_clear()
    with pytest.raises(BoardError, match=r"YOSYS: .* timed out after 0.2 seconds; correct or uns"):
        tools.tool_version("yosys")
    tools.tool_version.cache_clear()


@pytest.fixture
def place_with(cache, tmp_path, monkeypatch):
    """Place with a tool that never ends where ``endless`` is among its options; return what was
    placed, and the placers that were tried."""

    def run(endless, talks=True):
        script, calls = tmp_path / "nextpnr", tmp_path / "calls"
        talks = str(talks).lower()
        script.write_text(ROUTER.format(calls=calls, endless=endless, talks=talks))
        script.chmod(0o755)
        monkeypatch.setenv("NEXTPNR_ECP5", str(script))
        netlist = tmp_path / "in.json.gz"
        design = {"creator": f"{endless} {talks}", "modules": {}}  # not what the cache has
        netlist.write_bytes(gzip.compress(json.dumps(design).encode()))
        placed = place.place_and_route(ULX3S, "CABGA381", netlist, "", 10**7, [1])
        return placed, [line.rsplit(" ", 1)[1] for line in calls.read_text().splitlines()]

    tools.tool_version.cache_clear()
    yield run
    tools.tool_version.cache_clear()


@pytest.mark.parametrize(
    ("endless", "talks", "placers"),
    [
        ("static", True, ["static", "heap"]),
        ("static", False, ["static", "heap"]),
        ("nothing", True, ["static"]),
    ],
)
def test_a_placer_without_an_end_gives_way_to_another(
    place_with, monkeypatch, endless, talks, placers
):
    monkeypatch.setattr(place, "QUIET_S", 60.0 if talks else 1.0)
    (placed,), tried = place_with(endless, talks)
    assert placed.fmax_mhz == 50
    assert tried == placers


def test_no_placer_comes_to_an_end(place_with):
    with pytest.raises(BoardError, match="seed 1: the placer found no end in 1000 steps; try"):
        place_with("placer")


def _progress(*lines):
    calls = []
    listen = place._Listener("route", lambda phase, fraction: calls.append(round(fraction, 3)))
    for line in lines:
        listen(line)
    assert calls == sorted(calls)
    return calls


def test_progress_follows_what_nextpnr_says():
    calls = _progress(
        "Info: Packing IOs..",
        "Info: overlap: COMB=90.0%, FF=88.8%, RAM=87.8%, MUL=52.8%",
        "Info: overlap: COMB=10.0%, FF=3.3%, RAM=0.0%, MUL=0.0%",
        "Info:   at iteration #1: temp = 0.000000, timing cost = 1332, wirelen = 472773",
        "Info:     iter=1 wires=1100 overused=999 overuse=1200 archfail=NA",
        "Info:     iter=2 wires=1125 overused=9 overuse=9 archfail=NA",
        "Info:     iter=3 wires=1126 overused=0 overuse=0 archfail=0",
    )
    assert calls[:2] == [0.025, 0.225] and 0.225 < calls[2] < 0.5
    assert calls[3:] == [0.5, 0.833, 1.0]


def test_progress_with_other_algorithms():
    calls = _progress(
        "Info:     at iteration #1, type ALL: wirelen solved = 895, spread = 1069, legal = 1117;",
        "Info: Routing 999 arcs.",
        "Info:        264 |        4        230 |    4   230 |         9|       0.13       0.13|",
        "Info:       1264 |       44       1230 |   40  1000 |         0|       0.13       0.26|",
    )
    assert 0 < calls[0] < 0.5 and calls[1:] == [0.5, 0.833, 1.0]


def test_peak():
    """All PEs of a 4x4 card, with 1, 2 and 4 products each, at 50 MHz."""
    use = {"COMB": {"used": 40_000}, "DSP": {"used": 40}}
    assert peak(ULX3S.config("tiny"), 50_000_000, use) == {
        "int8": {"gmacs": 1.6, "per_kcomb": 0.04, "per_dsp": 0.04},
        "fp16": {"gmacs": 0.8, "per_kcomb": 0.02, "per_dsp": 0.02},
        "int4": {"gmacs": 3.2, "per_kcomb": 0.08, "per_dsp": 0.08},
        "bf16": {"gmacs": 0.8, "per_kcomb": 0.02, "per_dsp": 0.02},
    }
