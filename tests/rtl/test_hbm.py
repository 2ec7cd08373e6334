"""An HBM channel and its device model, and the rule table that judges them."""

import dataclasses

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from deepseek.rtl.config import preset
from deepseek.rtl.memory import timing as rtl_timing
from deepseek.rtl.memory.address import decode
from deepseek.rtl.memory.channel import Channel
from deepseek.rtl.memory.device import Device
from deepseek.sim.benches.hbm import KINDS, ROW_BITS
from deepseek.sim.golden import hbm
from deepseek.sim.golden.hbm import RULES, TIMINGS, Command, check
from deepseek.sim.runner import run_bench

BENCH = "deepseek.sim.benches.hbm"


@pytest.mark.parametrize("name", ["HBM3_6400", "HBM2_2000"])
def test_channel(name):
    dut = Channel(row_bits=ROW_BITS, timing=rtl_timing.TIMINGS[name])
    run_bench(
        dut, BENCH, testcase=[f"traffic/kind={kind}" for kind in KINDS], env={"HBM_TIMING": name}
    )


def test_device():
    dut = Device(row_bits=ROW_BITS, timing=rtl_timing.HBM3_6400)
    tests = ["device_agrees", "device_needs_refresh"]
    run_bench(dut, BENCH, testcase=tests, env={"HBM_TIMING": "HBM3_6400"})


@pytest.mark.parametrize("name", TIMINGS)
def test_same_timings(name):
    fields = dataclasses.asdict(rtl_timing.TIMINGS[name])
    assert {key: fields[key] for key in TIMINGS[name]} == TIMINGS[name]


def test_hbm3e_keeps_nanoseconds():
    slow, fast = rtl_timing.HBM3_6400, rtl_timing.HBM3E_9200
    for name in ("cl", "rp", "rcdrd", "faw", "wr", "rfc"):
        length = getattr(fast, name) * fast.tck_ps
        assert 0 <= length - getattr(slow, name) * slow.tck_ps < fast.tck_ps
    assert fast.refi * fast.tck_ps <= slow.refi * slow.tck_ps


@pytest.mark.parametrize("change", [{"rp": 0}, {"faw": 3}, {"ccdl": 5}, {"rfc": 40}, {"refi": 800}])
def test_timing_is_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(rtl_timing.HBM3_6400, **change)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.before}-{rule.after}")
def test_table_finds_each_pair(rule):
    timing = TIMINGS["HBM3_6400"]
    # The same bank, or only the same group, or only the same channel.
    group, bank = {"bank": (1, 1), "group": (1, 2), "channel": (2, 1)}[rule.scope]

    def rules(gap):
        trace = [Command(100, rule.before, 1, 1), Command(100 + gap, rule.after, group, bank)]
        return {violation.rule for violation in check(trace, timing)}

    gap = rule.gap(timing)
    assert rule.name in rules(gap - 1)
    assert rule.name not in rules(gap) or rule.before == rule.after == "REF"


def test_table_finds_states():
    timing = TIMINGS["HBM3_6400"]

    def rules(*trace, end=None):
        return {violation.rule for violation in check(trace, timing, end=end)}

    act = Command(100, "ACT", 1, 1, 7)
    assert not rules(act, Command(131, "RD", 1, 1, 7))
    assert rules(act, Command(131, "RD", 1, 1, 6)) == {"STATE"}
    assert rules(act, Command(131, "RD", 1, 2, 7)) == {"STATE"}
    assert rules(act, Command(200, "ACT", 1, 1, 7)) == {"STATE"}
    assert rules(act, Command(200, "REF")) == {"STATE"}
    assert not rules(act, Command(200, "PREA"), Command(226, "REF"))
    assert rules(act, end=6500) == {"REFI"}
    fifth = [Command(100 + 5 * i, "ACT", i % 4, i // 4) for i in range(5)]
    assert rules(*fifth) == {"FAW"}


@pytest.mark.parametrize("name", ["ecp5", "sim"])
def test_address_map(name):
    config = preset(name)
    address = Signal(config.memory_addr_width)
    last_beat = Signal(range(256 // config.bus_bytes))
    m = Module()
    channel, fields = decode(config, address, last_beat)
    out = {"channel": channel, **fields}
    ports = {key: Signal(len(value), name=key) for key, value in out.items()}
    m.d.comb += [ports[key].eq(value) for key, value in out.items()]
    addresses = [i * 4096 * 7919 % config.memory_bytes for i in range(300)] + [
        i * 256 for i in range(600)
    ]

    async def testbench(ctx):
        for block in addresses:
            for beat in (0, 256 // config.bus_bytes - 1):
                start = block + beat * config.bus_bytes
                ctx.set(address, start)
                ctx.set(last_beat, 0)
                got = {key: ctx.get(port) for key, port in ports.items()}
                first = hbm.decode(start, config.hbm_channels)
                last = hbm.decode(start + config.bus_bytes - 1, config.hbm_channels)
                for where, block_number in ((first, got["first"]), (last, got["last"])):
                    bank = got["bank"] ^ (block_number & 1)
                    assert (where.channel, where.row) == (got["channel"], got["row"])
                    assert where.group + 4 * where.bank == bank
                    assert where.column == got["high"] * 4 + block_number // 2

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


def test_map_is_a_permutation():
    for channels in (1, 2):
        places = {hbm.decode(32 * i, channels) for i in range(1 << 15)}
        assert len(places) == 1 << 15


def test_strides_leave_the_bank():
    """No power-of-two stride from 4 KiB to 16 MiB stays in one bank."""
    for shift in range(12, 25):
        banks = {
            (p.channel, p.group, p.bank) for p in (hbm.decode(i << shift, 1) for i in range(16))
        }
        assert len(banks) >= 4, 1 << shift
