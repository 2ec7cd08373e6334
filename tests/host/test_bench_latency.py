"""``host bench latency``: figures that agree with each other and with waves of the counters."""

import importlib
import json
import shlex

import pytest
from typer.testing import CliRunner

from deepseek.host.bench import open_card
from deepseek.host.bench.gemm import MismatchError
from deepseek.host.bench.latency import LATENCY_DTYPES, VISITS, K, Latency, latency
from deepseek.host.cli import app
from deepseek.rtl.isa import Csr

# The package has a function of the same name.
module = importlib.import_module("deepseek.host.bench.latency")


@pytest.fixture(scope="module")
def card():
    with open_card("rtl", "tiny", "ideal", None) as opened:
        yield opened


@pytest.fixture(scope="module")
def measured(card):
    return {dtype: latency(card, dtype) for dtype in LATENCY_DTYPES}


def host(line):
    return CliRunner().invoke(app, shlex.split(line))


def watch(card, dtype, count):
    """Return the cycles from the first to the last weight of engine 0 in a job of MATMULs."""
    bench = module._Bench(card, dtype)
    card.transport.csr_write(Csr.COUNT_ENGINE, 0)
    bench._fill()
    job = card.submit([bench._matmul(number) for number in range(count)])
    seen = [card.transport.csr_read(Csr.MAC_ACTIVE) for _ in range(count * (VISITS * K + 300))]
    job.wait()
    card.transport.csr_write(Csr.COUNT_ENGINE, 0xFF)
    bench.close()
    assert seen[-1] == count * VISITS * K
    return seen.index(seen[-1]) - seen.index(1) + 1


@pytest.mark.parametrize("dtype", LATENCY_DTYPES)
def test_figures_agree_with_each_other(measured, dtype):
    one = measured[dtype]
    assert one.mac_cycles == VISITS * K
    assert one.overhead == one.job_cycles - one.mac_cycles
    assert 0 < one.empty_job < one.overhead
    assert 5 < one.first_mac < one.overhead
    # They go on until the host sees the record.
    lost = sum(one.lost.stalls().values())
    assert one.overhead <= lost <= one.overhead + 64
    # A further command costs less than a job of its own.
    assert all(0 <= idle < one.overhead for idle in one.between.values())


@pytest.mark.parametrize("dtype", LATENCY_DTYPES)
def test_what_lies_between_commands_is_what_the_counter_shows(card, measured, dtype):
    single = watch(card, dtype, 1)
    idle = watch(card, dtype, 2) - single - VISITS * K
    assert measured[dtype].between[2] == idle


def test_it_leaves_the_card_as_it_was(card, measured):
    free = card.info().free_bytes
    latency(card, "int8")
    assert card.info().free_bytes == free
    assert card.transport.csr_read(Csr.COUNT_ENGINE) == 0xFF


def test_no_first_mac_where_registers_are_slow(card, monkeypatch):
    read = card.transport.csr_read

    def slow(address):
        read(address)
        return read(address)

    monkeypatch.setattr(card.transport, "csr_read", slow)
    one = latency(card, "fp16")
    assert one.first_mac is None
    assert "not readable" in [value for _, value, _ in one.rows()]


@pytest.mark.parametrize("register", [Csr.STATE, Csr.MAC_ACTIVE])
def test_a_register_that_shows_nothing_gives_no_figure(card, monkeypatch, register):
    monkeypatch.setattr(module, "POLLS", 50)
    free, read = card.info().free_bytes, card.transport.csr_read
    bench = module._Bench(card, "int8")

    def blind(address):
        return read(address) * (address != register)

    monkeypatch.setattr(card.transport, "csr_read", blind)
    message = f"{register.name} showed nothing of the command in 50 reads; no figure is given"
    with pytest.raises(MismatchError, match=message):
        bench._first_mac()
    bench.close()
    assert card.info().free_bytes == free


def test_wrong_results_give_no_figure(card, monkeypatch):
    whole = module.expected

    def wrong(job, operands):
        results = whole(job, operands)
        results[2, 1] ^= 1
        return results

    monkeypatch.setattr(module, "expected", wrong)
    with pytest.raises(MismatchError, match=r"in 1 of 128 results, first in C\[2, 1\]"):
        latency(card, "int8")


def test_results_that_are_not_written_give_no_figure(card, monkeypatch):
    matmul = module._Bench._matmul
    # The second command writes where the first one does.
    monkeypatch.setattr(module._Bench, "_matmul", lambda self, number: matmul(self, 0))
    with pytest.raises(MismatchError, match="128 of 128 results, first in"):
        latency(card, "int8")


def test_other_counts_give_no_figure(card, monkeypatch):
    monkeypatch.setattr(card.transport, "csr_write", ignore_count(card.transport.csr_write))
    message = f"the card counted {4 * VISITS * K} cycles of multiplications .* of {VISITS * K};"
    with pytest.raises(MismatchError, match=message):
        latency(card, "int8")


def ignore_count(write):
    """Return a way to write registers by which all engines stay counted."""
    return lambda address, value: None if address == Csr.COUNT_ENGINE else write(address, value)


def test_cycles_must_be_counted():
    with open_card("functional", "tiny", "ideal", None) as card:
        with pytest.raises(ValueError, match="one that counts cycles, not 'functional'"):
            latency(card, "int8")


def test_json(measured):
    result = host("bench latency --preset tiny --json")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [measured[dtype].as_json() for dtype in LATENCY_DTYPES]
    for line in lines:
        assert line["bit_exact"] is True
        assert line["overhead_target"] is None
        assert line["command"] == "deepseek-host bench latency --preset tiny --memory ideal"


def test_table(measured, monkeypatch):
    fixed = iter(measured.values())
    monkeypatch.setattr("deepseek.host.cli_bench.latency", lambda card, dtype: next(fixed))
    result = host("bench latency --preset tiny")
    assert result.exit_code == 0, result.stderr
    assert "latency: cycles; rtl, preset tiny, memory ideal; bit-identical" in result.stdout
    one: Latency = measured["int8"]
    (line,) = (text for text in result.stdout.splitlines() if "overhead of the job" in text)
    assert f" {one.overhead} " in line
    assert all(f"idle between {count} MATMULs" in result.stdout for count in (2, 8))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--preset huge", "no preset 'huge'; choose one of: tiny, wide, ecp5, sim"),
        ("--memory ddr", "no memory 'ddr'; choose one of: hbm, ideal"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(line, message):
    result = host(f"bench latency {line}")
    assert result.exit_code == 2
    assert result.stdout == ""
    (error,) = result.stderr.splitlines()
    assert message in error
