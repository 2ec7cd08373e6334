"""The runner fails when it should, and the bench library does what benches rely on."""

from pathlib import Path

import pytest
from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum

from deepseek.rtl.config import preset
from deepseek.sim.benches.lib import pack, unpack
from deepseek.sim.benches.selftest import Toy
from deepseek.sim.runner import run_bench

BENCH = "deepseek.sim.benches.selftest"


@pytest.mark.parametrize("config", ["tiny", preset("ecp5")], ids=["name", "config"])
def test_good_component_passes(config):
    assert run_bench(Toy(), BENCH, preset=config) == 3


@pytest.mark.parametrize("fault", ["drop", "change", "hang"])
def test_fault_is_found(fault):
    with pytest.raises(
        AssertionError, match=r"1 of 1 tests failed \(noisy_traffic\).*SEED=5 pytest .*test_fault"
    ):
        run_bench(Toy(fault=fault), BENCH, preset="tiny", seed=5, testcase="noisy_traffic")


def test_no_test_fails():
    with pytest.raises(AssertionError, match="ran no test"):
        run_bench(Toy(), BENCH, preset="tiny", testcase="absent")
    with pytest.raises(AssertionError, match="ended without results"):
        run_bench(Toy(), "deepseek.sim.benches.lib", preset="tiny")


def test_import_error_fails():
    with pytest.raises(AssertionError, match="absent"):
        run_bench(Toy(), "deepseek.sim.benches.absent", preset="tiny")


def test_bench_without_configuration_fails():
    with pytest.raises(AssertionError, match="1 of 1 tests failed"):
        run_bench(Toy(), BENCH, testcase="smooth_traffic")


def test_waves_on_request(monkeypatch, capfd):
    monkeypatch.setenv("WAVES", "1")
    run_bench(Toy(), BENCH, preset="tiny", testcase="waiting_ends")
    path = capfd.readouterr().out.rpartition("waves: ")[2].strip()
    assert "request__payload" in Path(path).read_text()


class Kind(enum.Enum, shape=unsigned(3)):
    LOW = 1
    HIGH = 6


class Inner(data.Struct):
    kind: Kind
    offset: signed(5)


LAYOUT = data.StructLayout(
    {"flag": 1, "inner": Inner, "lanes": data.ArrayLayout(signed(4), 3), "more": Inner}
)


def test_pack_agrees_with_amaranth():
    fields = {"flag": 1, "inner": {"kind": Kind.HIGH, "offset": -16}, "lanes": [-8, 7, 0]}
    value = pack(LAYOUT, fields)
    assert value == LAYOUT.const(fields).as_value().value
    assert value == pack(LAYOUT, **fields) == pack(LAYOUT, {"flag": 1}, **fields)
    assert unpack(LAYOUT, value) == {
        "flag": 1,
        "inner": {"kind": 6, "offset": -16},
        "lanes": [-8, 7, 0],
        "more": {"kind": 0, "offset": 0},
    }
    nested = pack(Inner, kind=1, offset=3)
    assert pack(LAYOUT, more=nested) == nested << (1 + 8 + 12)
    assert pack(data.ArrayLayout(8, 2), [1, 2]) == 0x201


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flag": 2}, "not 2"),
        ({"flag": -1}, "not -1"),
        ({"inner": {"offset": 16}}, r"inner.offset takes signed\(5\), not 16"),
        ({"lanes": [1, 2]}, "3 items, not 2"),
        ({"absent": 0}, "no field 'absent'"),
    ],
)
def test_pack_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        pack(LAYOUT, fields)
