"""Registers, and the card from outside."""

import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import ABI_VERSION, Csr, Opcode
from deepseek.sim.functional.card import FunctionalCard
from deepseek.sim.functional.testing import OK, RING, Host, copy, end, outcome


def test_reset_clears_all_but_memory():
    host = Host()
    host.run(bytes(128))
    host.card.csr_write(Csr.WATCHDOG, 5)
    host.card.csr_write(Csr.COUNT_ENGINE, 3)
    host.card.csr_write(Csr.CONTROL, 1)
    for csr in (Csr.RING_BASE, Csr.RING_TAIL, Csr.RING_HEAD, Csr.COMPLETED, Csr.ERROR, Csr.ACK):
        assert host.card.csr_read(csr) == 0
    assert host.card.csr_read(Csr.WATCHDOG) == 100_000
    assert host.card.csr_read(Csr.COUNT_ENGINE) == 0xFF
    assert host.card.read_memory(RING + 128, 128) == end()


def test_fixed_registers():
    card = FunctionalCard(preset("ecp5"))
    assert card.csr_read(Csr.ID).to_bytes(4, "little") == b"DPSK"
    assert card.csr_read(Csr.ABI) == ABI_VERSION
    assert card.csr_read(Csr.GEOMETRY) == 0x01100808
    assert card.csr_read(Csr.SCRATCHPAD_BYTES) == 128 << 10
    assert card.csr_read(Csr.MEMORY_BYTES) == 64 << 20
    assert card.csr_read(Csr.OPERAND_DEPTH) == 1024
    assert card.csr_read(Csr.PARTS) == 0b111
    card.csr_write(Csr.ID, 0)
    assert card.csr_read(Csr.ID) != 0
    assert card.csr_read(0xFC) == 0
    card.csr_write(0xFC, 1)
    card.csr_write(Csr.MEMORY_MODE, 1)
    assert card.csr_read(Csr.MEMORY_MODE) == 1
    assert card.csr_read(Csr.CYCLES) == 0


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_registers_take_32_bits(value):
    with FunctionalCard(preset("tiny")) as card:
        with pytest.raises(ValueError, match=f"a register takes 32 bits, not {value}"):
            card.csr_write(Csr.WATCHDOG, value)
        assert card.csr_read(Csr.WATCHDOG) == 100_000


def test_memory_access_is_checked():
    with FunctionalCard(preset("tiny")) as card:
        for addr, n in ((-1, 4), (card.config.memory_bytes - 3, 4)):
            with pytest.raises(ValueError, match="inside card memory"):
                card.read_memory(addr, n)
            with pytest.raises(ValueError, match="inside card memory"):
                card.write_memory(addr, bytes(n))


def test_run_stops_at_max_cycles():
    host = Host()
    host.ring(copy(Opcode.LOAD, 0, 0, 4096, inner=50), end())
    total = 0
    while host.card.csr_read(Csr.COMPLETED) == 0:
        passed = host.card.run(100)
        assert 0 < passed < 1000
        total += passed
    assert total == host.card.cycles > 50 * 4096 // 16
    assert outcome(host.record())[:2] == OK
