"""Bench of the model of an SDRAM, by commands given by hand: what it stores, when it answers, and
that it finds each rule that is broken. Each case begins with a chip that power came to just now."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import cocotb

from ..sdram import sdram_faults
from .lib import rng, sample, start, tick

MODE_SET, REFRESH, PRECHARGE, ACTIVATE, WRITE, READ, TERMINATE, NOP = range(8)
ALL = 1 << 10
"""Address that makes precharge one of all banks."""

LIMITS = {
    name: int(cycles)
    for name, cycles in (item.split("=") for item in os.environ["LIMITS"].split(","))
}
"""Cycles of each rule at the chips' clock."""

UNWRITTEN, FLOATING = 0xDEAD, 0xF10A
FAULTS = sdram_faults()


class Chip:
    """The chip, for one case.

    Parameters
    ----------
    dut
    cas, length : int
        What `begin` sets as the mode.
    """

    def __init__(self, dut: Any, *, cas: int = 3, length: int = 4) -> None:
        self.dut, self.cas, self.length = dut, cas, length
        self.seen: list[int | None] = []
        """What the pins had before each edge, None where the chip did not drive them."""

    @property
    def mode(self) -> int:
        return self.cas << 4 | (self.length - 1).bit_length()

    async def give(
        self,
        command: int = NOP,
        bank: int = 0,
        address: int = 0,
        *,
        dqm: int = 0,
        data: int | None = None,
        cke: int = 1,
    ) -> None:
        """Give a command, in the cycle that ends with the edge at which it is taken."""
        d = self.dut
        d.command.value, d.bank.value, d.address.value = command, bank, address
        d.dqm.value, d.cke.value = dqm, cke
        d.dq_i.value, d.dq_driven.value = data or 0, int(data is not None)
        await sample(d)
        self.seen.append(int(d.dq_o.value) if int(d.dq_oe.value) else None)
        if self.seen[-1] is None:
            assert int(d.dq_o.value) == FLOATING
        await tick(d)

    async def wait(self, cycles: int) -> None:
        for _ in range(cycles):
            await self.give()

    async def restart(self) -> None:
        """Take power away, and give it again."""
        self.dut.restart.value = 1
        await self.wait(1)
        self.dut.restart.value = 0

    async def after(self, cycles: int, *args: Any, **options: Any) -> None:
        """Give a command so many cycles after the last one."""
        await self.wait(cycles - 1)
        await self.give(*args, **options)

    async def begin(self, refreshes: int = 8) -> None:
        await self.restart()
        await self.wait(LIMITS["power_up"] - 1)
        await self.give(PRECHARGE, 0, ALL)
        for i in range(refreshes):
            await self.after(LIMITS["rfc"] if i else LIMITS["rp"], REFRESH)
        await self.after(LIMITS["rfc"], MODE_SET, 0, self.mode)
        await self.wait(LIMITS["mrd"] - 1)

    async def write(
        self, bank: int, column: int, data: list[int | None], dqm: list[int] | None = None
    ) -> None:
        """Give a write and its data."""
        for i, word in enumerate(data):
            await self.give(
                WRITE if i == 0 else NOP, bank, column, data=word, dqm=dqm[i] if dqm else 0
            )

    async def read(self, bank: int, column: int, dqm: list[int] | None = None) -> list[int | None]:
        """Give a read, and return what was on the pins until a cycle after the last word."""
        count = self.cas + self.length + 1
        begun = len(self.seen)
        for i in range(count):
            mask = dqm[i] if dqm and i < len(dqm) else 0
            await self.give(READ if i == 0 else NOP, bank, column, dqm=mask)
        return self.seen[begun:]

    async def fault(self) -> str | None:
        await self.wait(1)
        await sample(self.dut)
        code = int(self.dut.fault.value)
        await tick(self.dut)
        return {0: None, **{value: name for name, value in FAULTS.items()}}[code]


@cocotb.test()
async def power_up(dut: Any) -> None:
    """No command before its time, and one right at it."""
    await start(dut)
    for early in (0, 1):
        chip = Chip(dut)
        await chip.restart()
        await chip.after(LIMITS["power_up"] - early, PRECHARGE, 0, ALL)
        assert await chip.fault() == ("POWER_UP" if early else None)


@cocotb.test()
async def data(dut: Any) -> None:
    """Bursts of each length and latency: order within a block, masks, what nobody wrote; the pins
    are driven for a burst's cycles and in no others."""
    await start(dut)
    r = rng()
    expected: dict[tuple[int, int, int], int] = {}  # words stay from case to case
    for cas in (2, 3):
        for length in (1, 2, 4, 8):
            chip = Chip(dut, cas=cas, length=length)
            await chip.begin()
            for bank, row in ((0, 1), (3, 2), (0, 2)):
                await chip.give(PRECHARGE, 0, ALL)
                await chip.after(LIMITS["rp"], REFRESH)
                await chip.after(LIMITS["rfc"], ACTIVATE, bank, row)
                await chip.wait(LIMITS["rcd"] - 1)
                first = int(r.integers(32))
                columns = [first & -length | (first + i) % length for i in range(length)]
                words = [int(word) for word in r.integers(1 << 16, size=length)]
                dqm = [int(mask) for mask in r.integers(4, size=length)]
                await chip.write(bank, first, list(words), dqm)
                for column, word, mask in zip(columns, words, dqm, strict=True):
                    keep = (0x00FF if mask & 1 else 0) | (0xFF00 if mask & 2 else 0)
                    old = expected.get((bank, row, column), UNWRITTEN)
                    expected[bank, row, column] = old & keep | word & ~keep
                for start_at in (first, first & -length, (first + length) % 32):
                    got = await chip.read(bank, start_at)
                    places = [start_at & -length | (start_at + i) % length for i in range(length)]
                    want = [expected.get((bank, row, place), UNWRITTEN) for place in places]
                    assert got == [None] * cas + want + [None], (cas, length, bank, row)
                await chip.wait(LIMITS["ras"])
            assert await chip.fault() is None


@cocotb.test()
async def read_masks(dut: Any) -> None:
    """A mask takes a byte off the pins two cycles later."""
    await start(dut)
    chip = Chip(dut)
    await chip.begin()
    await chip.give(ACTIVATE, 1, 3)
    await chip.wait(LIMITS["rcd"] - 1)
    await chip.write(1, 4, [0x1122, 0x3344, 0x5566, 0x7788])
    # Words are on the pins 3, 4, 5 and 6 cycles after the read.
    got = await chip.read(1, 4, [0, 1, 2, 3, 0])
    assert got == [None, None, None, 0x1100 | FLOATING & 0xFF, FLOATING & 0xFF00 | 0x44,
                   None, 0x7788, None]  # fmt: skip
    assert await chip.fault() is None


Scenario = Callable[[Chip, int], Awaitable[None]]


async def _mode_refresh(chip: Chip, gap: int) -> None:
    await chip.begin()
    await chip.give(MODE_SET, 0, chip.mode)
    await chip.after(gap, REFRESH)


async def _open(chip: Chip, bank: int = 0) -> None:
    await chip.begin()
    await chip.give(ACTIVATE, bank, 1)


async def _activate_read(chip: Chip, gap: int) -> None:
    await _open(chip)
    await chip.after(gap, READ)


async def _activate_write(chip: Chip, gap: int) -> None:
    await _open(chip)
    await chip.wait(gap - 1)
    await chip.write(0, 0, [1, 2, 3, 4])


async def _precharge_activate(chip: Chip, gap: int) -> None:
    await _open(chip)
    await chip.after(20, PRECHARGE, 0)
    await chip.after(gap, ACTIVATE, 0, 2)


async def _precharge_refresh(chip: Chip, gap: int) -> None:
    await _open(chip, 2)
    await chip.after(20, PRECHARGE, 0, ALL)
    await chip.after(gap, REFRESH)


async def _activate_precharge(chip: Chip, gap: int) -> None:
    await _open(chip)
    await chip.after(gap, PRECHARGE, 0)


async def _activate_precharge_all(chip: Chip, gap: int) -> None:
    await _open(chip, 3)
    await chip.after(gap, PRECHARGE, 0, ALL)


async def _activate_activate(chip: Chip, gap: int) -> None:
    await _open(chip)
    await chip.after(LIMITS["ras"], PRECHARGE, 0)
    await chip.after(gap - LIMITS["ras"], ACTIVATE, 0, 2)


async def _two_banks(chip: Chip, gap: int) -> None:
    await _open(chip)
    await chip.after(gap, ACTIVATE, 1, 2)


async def _refresh_activate(chip: Chip, gap: int) -> None:
    await chip.begin()
    await chip.give(REFRESH)
    await chip.after(gap, ACTIVATE, 0, 2)


async def _write_precharge(chip: Chip, gap: int) -> None:
    await _activate_write(chip, 10)
    await chip.after(gap, PRECHARGE, 0)


async def _two_reads(chip: Chip, gap: int) -> None:
    await _activate_read(chip, 10)
    await chip.after(gap, READ, 0, 8)


async def _read_precharge(chip: Chip, gap: int) -> None:
    await _activate_read(chip, 10)
    await chip.after(gap, PRECHARGE, 0)


async def _read_write(chip: Chip, gap: int) -> None:
    await _activate_read(chip, 10)
    await chip.wait(gap - 1)
    await chip.write(0, 8, [1, 2, 3, 4])


AT_LEAST: list[tuple[Scenario, str, str]] = [
    (_mode_refresh, "mrd", "MRD"),
    (_activate_read, "rcd", "RCD"),
    (_activate_write, "rcd", "RCD"),
    (_precharge_activate, "rp", "RP"),
    (_precharge_refresh, "rp", "RP"),
    (_activate_precharge, "ras", "RAS"),
    (_activate_precharge_all, "ras", "RAS"),
    (_activate_activate, "rc", "RC"),
    (_two_banks, "rrd", "RRD"),
    (_refresh_activate, "rfc", "RFC"),
    (_write_precharge, "wr", "WR"),
    (_two_reads, "burst", "BURST"),
    (_read_precharge, "burst", "BURST"),
    (_read_write, "turn", "CONTENTION"),
]
"""Commands with a gap of at least so many cycles, and what is found if it is one less."""


@cocotb.test()
async def gaps(dut: Any) -> None:
    """Each least time is enough, and one cycle less is not."""
    await start(dut)
    for scenario, limit, name in AT_LEAST:
        for short in (0, 1):
            chip = Chip(dut)
            await scenario(chip, LIMITS[limit] - short)
            await chip.wait(12)
            found = await chip.fault()
            assert found == (name if short else None), (scenario.__name__, short, found)


@cocotb.test()
async def longest(dut: Any) -> None:
    """The most that a row is open, and that no refresh comes: a cycle more is found."""
    await start(dut)
    for more in (0, 1):
        chip = Chip(dut)
        await _open(chip)
        await chip.after(LIMITS["ras_max"] + more, PRECHARGE, 0)
        assert await chip.fault() == ("RAS_MAX" if more else None)
    for more in (0, 1):
        chip = Chip(dut)
        await _open(chip)
        await chip.after(100, PRECHARGE, 0)
        await chip.after(100, REFRESH)
        await chip.after(LIMITS["gap"] + more, REFRESH)
        assert await chip.fault() == ("REFRESH_LATE" if more else None)
    # Of the last so many refreshes, the first may be so long ago.
    count = LIMITS["refreshes"]
    for more in (0, 1):
        chip = Chip(dut)
        await _open(chip)
        await chip.after(100, PRECHARGE, 0)
        for i in range(2 * count):
            gap = LIMITS["window"] // count + more
            await chip.after(gap if i else gap - 100, REFRESH)
        assert await chip.fault() == ("REFRESH_LATE" if more else None)


@cocotb.test()
async def order(dut: Any) -> None:
    """The chip is initialised in the right order, and with a mode that there is."""
    await start(dut)

    async def case(name: str | None, *commands: tuple[int, ...], refreshes: int = -1) -> None:
        chip = Chip(dut)
        if refreshes >= 0:
            await chip.begin(refreshes)
        else:
            await chip.restart()
        await chip.wait(120)
        for command in commands:
            await chip.give(*command)
            await chip.wait(20)
        found = await chip.fault()
        assert found == name, (commands, refreshes, found)

    mode = 0x32
    every = (PRECHARGE, 0, ALL)
    await case("INIT_ORDER", (REFRESH,))
    await case("INIT_ORDER", (MODE_SET, 0, mode))
    await case("INIT_ORDER", (PRECHARGE, 0, 0), (REFRESH,))
    await case("INIT_ORDER", every, *[(REFRESH,)] * 8, (ACTIVATE, 0, 0))
    await case("INIT_ORDER", (ACTIVATE, 0, 0), refreshes=7)
    await case(None, every, (MODE_SET, 0, mode), *[(REFRESH,)] * 8, (ACTIVATE, 0, 0))
    for bank, word in ((0, 0x37), (0, 0x12), (0, 0x3A), (0, 0x232), (1, mode), (0, 0x34)):
        await case("MODE", (MODE_SET, bank, word), refreshes=8)

    opened = (ACTIVATE, 1, 2)
    await case("OPEN", opened, (ACTIVATE, 1, 3), refreshes=8)
    await case("OPEN", opened, (ACTIVATE, 1, 2), refreshes=8)
    await case("CLOSED", opened, (READ, 2, 0), refreshes=8)
    await case("CLOSED", opened, (PRECHARGE, 1), (READ, 1, 0), refreshes=8)
    await case("NOT_IDLE", opened, (REFRESH,), refreshes=8)
    await case("NOT_IDLE", opened, (MODE_SET, 0, mode), refreshes=8)
    await case("NOT_IDLE", opened, (PRECHARGE, 0), (REFRESH,), refreshes=8)
    await case(None, opened, (PRECHARGE, 0), (PRECHARGE, 1), (REFRESH,), refreshes=8)
    await case("UNDRIVEN", opened, (WRITE, 1, 0), refreshes=8)
    await case("ADDRESS", (ACTIVATE, 1, 4), refreshes=8)
    await case("ADDRESS", opened, (READ, 1, 32), refreshes=8)
    await case("UNSUPPORTED", opened, (READ, 1, ALL), refreshes=8)
    await case("UNSUPPORTED", opened, (TERMINATE,), refreshes=8)


@cocotb.test()
async def others(dut: Any) -> None:
    """Clock enable, pins driven by both sides, and writes that are all masked."""
    await start(dut)
    chip = Chip(dut)
    await chip.begin()
    await chip.give(cke=0)
    assert await chip.fault() == "UNSUPPORTED"

    # Nobody drives bytes that are masked; and the model does not write them.
    chip = Chip(dut)
    await _open(chip)
    await chip.wait(5)
    await chip.write(0, 0, [None] * 4, [3] * 4)
    await chip.write(0, 4, [1, 2, 3, 4])
    await chip.write(0, 4, [None] * 4, [3] * 4)
    assert (await chip.read(0, 4))[3:7] == [1, 2, 3, 4]
    assert await chip.fault() is None

    # Data from outside in each cycle in which the chip drives, or is about to, or has just done so.
    for late in range(8):
        chip = Chip(dut)
        await _activate_read(chip, 10)
        await chip.after(late + 1, data=0x55AA)
        await chip.wait(10)
        expected = "CONTENTION" if chip.cas - 1 <= late + 1 <= chip.cas + chip.length else None
        found = await chip.fault()
        assert found == expected, (late, found)

    # The first fault stays.
    chip = Chip(dut)
    await _activate_read(chip, LIMITS["rcd"] - 1)
    await chip.give(TERMINATE)
    await chip.wait(50)
    assert await chip.fault() == "RCD"


@cocotb.test()
async def clock(dut: Any) -> None:
    """A CAS latency needs a clock that is slow enough."""
    await start(dut)
    for cas in (2, 3):
        chip = Chip(dut, cas=cas)
        await chip.begin()
        assert await chip.fault() == ("CLOCK" if cas == 2 else None)
