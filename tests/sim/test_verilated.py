"""Building, caching, loading and running a Verilated design, on a small stand-in for the card."""

import dataclasses
import os
import sys
import time
import types

import numpy as np
import pytest
from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from deepseek.files import prune
from deepseek.rtl.config import preset
from deepseek.rtl.hostport.csr import HOST_READ_LATENCY
from deepseek.rtl.memory.bus import STORAGE_LATENCY, Storage
from deepseek.rtl.numerics.delay import delayed
from deepseek.sim.verilated import build as build_module
from deepseek.sim.verilated import doctor, library, toolchain
from deepseek.sim.verilated.build import build
from deepseek.sim.verilated.convert import to_design, to_verilog
from deepseek.sim.verilated.library import VerilatedCard
from deepseek.sim.verilated.model import Model, model_recipe


class StandIn(wiring.Component):
    """Copies beats: registers 0 from, 4 to, 8 count (write starts), 12 mask, 16 busy, 20 wide.

    Every byte is inverted, so that a copy that did not pass through it is seen.
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "storage": Out(Storage(config)),
                "host": In(
                    wiring.Signature(
                        {
                            "address": Out(8),
                            "write": Out(1),
                            "write_data": Out(32),
                            "read_data": In(32),
                        }
                    )
                ),
                "irq": Out(1),
                "wide_in": In(100),
                "wide_out": Out(100),
                "minus": In(signed(20)),
                "less": Out(signed(20)),
                "tap": Out(stream.Signature(8, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        storage, host = self.storage, self.host
        registers = Array(Signal(32, name=f"register_{i}") for i in range(8))
        m.d.comb += [self.wide_out.eq(~self.wide_in), self.less.eq(self.minus - 1)]
        source, target, count, mask = registers[0], registers[1], registers[2], registers[3]
        asked = delayed(m, 1, host.address[2:5], HOST_READ_LATENCY - 1, "asked")
        m.d.sync += host.read_data.eq(registers[asked])
        with m.If(host.write):
            m.d.sync += registers[host.address[2:5]].eq(host.write_data)
        with m.If(host.write & (host.address == 8)):
            m.d.sync += self.irq.eq(0)
        phase, writing = Signal(range(STORAGE_LATENCY + 1)), Signal()
        masks = Cat(mask, mask)[: self.config.bus_bytes]
        m.d.comb += [
            writing.eq(phase == STORAGE_LATENCY),
            storage.enable.eq((count != 0) & ((phase == 0) | writing)),
            storage.write.eq(writing),
            storage.address.eq(Mux(writing, target, source)),
            storage.write_data.eq(~storage.read_data),
            storage.write_mask.eq(masks),
        ]
        with m.If(count != 0):
            m.d.sync += phase.eq(phase + 1)
            with m.If(writing):
                m.d.sync += phase.eq(0)
                m.d.sync += [source.eq(source + 1), target.eq(target + 1), count.eq(count - 1)]
                m.d.sync += self.irq.eq(count == 1)
        return m


def stand_in(name, **options):
    config = dataclasses.replace(preset(name), memory_bytes=1 << 16)
    return VerilatedCard(config, component=StandIn(config), **options)


@pytest.mark.parametrize("name", ["tiny", "ecp5", "sim"])
def test_card_copies(name):
    rng = np.random.default_rng(1)
    with stand_in(name) as card:
        beat = card.config.bus_bytes
        image = rng.integers(0, 256, card.memory_bytes, np.uint8)
        card.write_memory(0, image)
        for mask in (0xFFFFFFFF, 0, 0x80000001, 0x5A5A1234):
            beats, source, target = 5, 3, int(rng.integers(100, 200))
            for address, value in ((0, source), (4, target), (12, mask), (8, beats)):
                card.csr_write(address, value)
                assert card.csr_read(address) == value or address == 8
            before = card.cycles
            assert card.run(1000) == card.cycles - before < (STORAGE_LATENCY + 1) * beats
            assert card.run(1000) == 0 and card.get("irq") == 1
            keep = np.array([mask >> (i % 32) & 1 for i in range(beat)], bool)
            for i in range(beats):
                place = slice((target + i) * beat, (target + i + 1) * beat)
                origin = slice((source + i) * beat, (source + i + 1) * beat)
                image[place] = np.where(keep, ~image[origin], image[place])
            assert np.array_equal(card.read_memory(0, card.memory_bytes), image)
        card.csr_write(8, 100)
        assert card.run(7) == 7


def make_old(path):
    """Make an empty file, and its folder, that nobody has used for 40 days."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    then = time.time() - 40 * 86400
    for each in (path, path.parent):
        os.utime(each, (then, then))
    return path


def test_conversion_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    old = make_old(tmp_path / "verilog" / "tiny-old.json")
    made = []

    def card(config, *, build_hash):
        assert build_hash == library.card_hash(config)
        made.append(config)
        return StandIn(config)

    monkeypatch.setitem(sys.modules, "deepseek.rtl.card", types.SimpleNamespace(Card=card))
    phases = []
    first = library.card_design(preset("tiny"), progress=lambda *at: phases.append(at))
    assert phases == [("convert", 0.0), ("convert", 1.0)]
    assert library.card_design(preset("tiny")) == first
    assert len(made) == 1 and not old.exists()
    library.card_design(preset("ecp5"))
    assert made == [preset("tiny"), preset("ecp5")]
    before = library.card_hash(preset("tiny"))
    monkeypatch.setattr(library, "_sources_hash", lambda: "other sources")
    assert library.card_hash(preset("tiny")) != before
    assert library.card_design(preset("tiny")) == first
    assert len(made) == 3


def test_ports_and_limits():
    with stand_in("tiny") as card:
        card.set("wide_in", 1 << 99 | 5)
        assert card.get("wide_out") == (1 << 100) - 1 - (1 << 99 | 5)
        card.set("minus", -(1 << 19) + 1)
        assert card.get("less") == -(1 << 19)
        with pytest.raises(ValueError, match="takes 100 bits"):
            card.set("wide_in", 1 << 100)
        with pytest.raises(ValueError, match="is an output"):
            card.set("less", 1)
        top = card.memory_bytes
        card.write_memory(top - 4, b"last")
        assert card.read_memory(top - 4, 4).tobytes() == b"last"
        card.write_memory(8, np.arange(4, dtype=np.float32)[::2])
        assert card.read_memory(8, 8).view(np.float32).tolist() == [0.0, 2.0]
        for address, size in ((top - 3, 4), (-1, 1), (top, 1), (0, top + 1)):
            with pytest.raises(ValueError, match="not in the"):
                card.read_memory(address, size)
            with pytest.raises(ValueError, match="not in the"):
                card.write_memory(address, bytes(size))
        with pytest.raises(ValueError, match="8 bits"):
            card.csr_read(256)
        with pytest.raises(ValueError, match="32 bits"):
            card.csr_write(0, 1 << 32)
        other = stand_in("tiny")
        card.csr_write(0, 7)
        assert (card.csr_read(0), other.csr_read(0)) == (7, 0)
        assert other.read_memory(top - 4, 4).tolist() == [0] * 4
        other.reset()
        other.close()
        other.close()
        with pytest.raises(ValueError, match="closed"):
            other.tick()


def test_waves(tmp_path):
    path = tmp_path / "deep" / "card.vcd"
    with stand_in("tiny", waves=path, wave_cycles=30) as card:
        card.tick(100)
    text = path.read_text()
    assert "wide_out" in text and "register_3" in text
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert times and max(times) == 10 * 29 + 5


def test_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    recipe = dataclasses.replace(model_recipe(doctor._COUNTER), runtime=())
    phases = []

    # Without the runtime it links all the same (a shared library may lack symbols), and quickly.
    old = [
        make_old(tmp_path / folder / "file")
        for folder in (f"{recipe.kind}/doctor-cut-off", "runtime/of-another-compiler")
    ]
    first = build(recipe, progress=lambda *at: phases.append(at))
    assert first.fresh and first.path.is_file()
    assert not any(path.parent.exists() for path in old)
    assert [phase for phase, fraction in phases if fraction == 1.0] == [
        "verilate",
        "compile",
        "link",
    ]
    assert all(0 <= fraction <= 1 for _, fraction in phases)
    again = build(recipe, progress=lambda *at: pytest.fail("built again"))
    assert not again.fresh and again.path == first.path
    # A build that was cut off has no stamp and does not count.
    (first.path.parent / "stamp").unlink()
    first.path.write_text("half")
    assert build(recipe).fresh
    changed = dataclasses.replace(recipe, fast=("-O0",))
    monkeypatch.setattr(build_module, "_verilate", _refuse)
    assert build(recipe).path == first.path
    with pytest.raises(RuntimeError, match="would build"):
        build(changed)


def test_runtime_in_use_is_kept(tmp_path):
    """Its objects are old; the folder's time is that of its last use."""
    target = make_old(tmp_path / "key" / "verilated.o")
    cxx = types.SimpleNamespace(
        recipe=model_recipe(doctor._COUNTER),
        runtime=lambda: [("verilated.cpp", target)],
        compile=_refuse,
        link=lambda objects, cwd: None,
    )
    (tmp_path / "work").mkdir()
    build_module._compile(cxx, tmp_path / "work", lambda *_: None)
    assert time.time() - target.parent.stat().st_mtime < 1000


def test_the_lock_of_a_build_under_way_is_kept(tmp_path, monkeypatch):
    """Another process's `prune` must not take it for one of long ago."""
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    recipe = dataclasses.replace(model_recipe(doctor._COUNTER), runtime=())
    folder = build(recipe).path.parent
    (folder / "stamp").unlink()
    lock = make_old(folder.with_suffix(".lock"))
    seen = []

    def verilate(*_):
        prune(folder.parent, build_module.KEEP_DAYS, stamp="stamp")
        seen.append(lock.exists() and folder.exists())
        raise RuntimeError("enough")

    monkeypatch.setattr(build_module, "_verilate", verilate)
    with pytest.raises(RuntimeError, match="enough"):
        build(recipe)
    assert seen == [True]


def test_tools_that_do_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "RUN_S", 0.2)
    message = r"linking in .* did not end within 0.2 s and was stopped; next: "
    with pytest.raises(toolchain.BuildError, match=message):
        build_module._run(["sleep", "100"], tmp_path, "linking")
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    monkeypatch.setattr(toolchain, "PROBE_S", 0.2)
    stuck = toolchain.Compiler("stuck", ("sh", "-c", "exec sleep 100"), "")
    monkeypatch.setattr(toolchain, "candidate_compilers", lambda: [stuck])
    with pytest.raises(toolchain.CompilerMissingError, match=r"no working C\+\+ compiler \(stuck"):
        toolchain.find_compiler()


def _refuse(*_):
    raise RuntimeError("would build")


def test_refused_design(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    loop = (
        "module loop(a, y); input [1:0] a; output [1:0] y; assign y = {y[0], a[1]} ^ y; endmodule"
    )
    design = dataclasses.replace(doctor._COUNTER, top="loop", verilog=loop, ports=())
    with pytest.raises(toolchain.BuildError, match="UNOPTFLAT"):
        Model(design)
    design = dataclasses.replace(doctor._COUNTER, verilog="module doctor(; endmodule")
    with pytest.raises(toolchain.BuildError, match="syntax error"):
        Model(design)


def test_compiler_choice(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(toolchain.CompilerMissingError, match="correct or unset CXX"):
        toolchain.find_compiler()
    assert not doctor.check_build().ok
    check = {check.name: check for check in doctor.check_tools()}["C++ compiler"]
    assert not check.ok and "CXX" in check.advice
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(toolchain, "candidate_compilers", list)
    with pytest.raises(toolchain.CompilerMissingError, match=r"install g\+\+") as caught:
        toolchain.find_compiler()
    assert "\n" not in str(caught.value)


def test_doctor():
    checks = doctor.check_tools()
    names = {"python", "amaranth", "verilator", "C++ compiler", "cache", "cocotb", "ccache"}
    assert names | {"make", "perl"} == {check.name for check in checks}
    assert all(check.ok for check in checks if check.required), checks
    assert all(check.ok or check.advice for check in checks)
    result = doctor.check_build()
    assert result.ok, result


def test_conversion():
    config = preset("tiny")
    text = to_verilog(StandIn(config), "top")
    assert text == to_verilog(StandIn(config), "top")
    assert "module top(" in text and "src =" not in text
    ports = {port.name: port for port in to_design(StandIn(config), "top").ports}
    assert "tap__ready" not in ports and "tap__valid" in ports
    assert ports["minus"].signed and ports["minus"].is_input and ports["minus"].width == 20
    assert not ports["storage__address"].is_input and ports["storage__read_data"].is_input
