"""Counters: where the engines' cycles went."""

import dataclasses

import pytest

from deepseek.host.counters import Counters
from deepseek.rtl.isa import Csr

ENGINE = {
    "mac_active": 60,
    "stall_stream": 5,
    "stall_fill": 10,
    "stall_drain": 1,
    "idle_imbalance": 4,
    "idle_memory": 15,
    "idle_other": 5,
}


def test_read():
    registers = {}
    for place, field in enumerate(dataclasses.fields(Counters), start=1):
        address = int(Csr[field.name.upper()])
        registers |= {address: place, address + 4: 2 * place}
    counters = Counters.read(lambda addresses: [registers[address] for address in addresses])
    for place, field in enumerate(dataclasses.fields(Counters), start=1):
        assert getattr(counters, field.name) == place | 2 * place << 32


def test_shares_add_up():
    counters = Counters(cycles=25, **ENGINE)
    assert counters.engine_cycles == 100
    shares = counters.explain()
    assert list(shares.values()) == [value / 100 for value in ENGINE.values()]
    assert shares["multiplied"] == 0.6
    assert counters.stalls() == {k: v for k, v in ENGINE.items() if k != "mac_active"}


def test_nothing_counted():
    assert Counters().explain() == {}
    assert Counters().utilization(1, None, 2) == 0


def test_sum():
    total = Counters(cycles=1, **ENGINE) + Counters(cycles=2, **ENGINE)
    assert total.cycles == 3
    assert total.engine_cycles == 200
    assert total.explain() == pytest.approx(Counters(**ENGINE).explain())
