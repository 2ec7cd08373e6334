"""Bench of `ShellRegisters`: who serves an access, and the registers of the shell itself."""

import collections

import cocotb

from ...rtl.hostport.csr import HOST_READ_LATENCY
from ...rtl.isa.link import SHELL_BASE, ShellCsr
from .lib import rng, sample, start, tick


class Bench:
    """The link's side of the port, and what surrounds it.

    The card answers with the address that it saw and the capture with nothing, as it does below
    its registers, or with the complement.
    """

    def __init__(self, dut) -> None:
        self.dut = dut
        self.cycle = 0
        self.writes: list[tuple[str, int, int]] = []
        self.answers = collections.deque([(0, 0)] * (HOST_READ_LATENCY - 1))

    async def step(self, address: int = 0, write: int | None = None) -> int:
        """Do an access, or none; return the data of the one `HOST_READ_LATENCY` cycles before."""
        dut = self.dut
        dut.link__address.value = address
        dut.link__write.value = int(write is not None)
        dut.link__write_data.value = write or 0
        await sample(dut)
        data = int(dut.link__read_data.value)
        for name in ("card", "capture"):
            if int(getattr(dut, f"{name}__write").value):
                where = int(getattr(dut, f"{name}__address").value)
                self.writes.append((name, where, int(getattr(dut, f"{name}__write_data").value)))
        card = int(dut.card__address.value) | 0x5A << 24
        capture = ~address & 0xFFFFFFFF if address >= ShellCsr.CAPTURE_CONTROL else 0
        await tick(dut)
        self.cycle += 1
        self.answers.append((card, capture))
        dut.card__read_data.value, dut.capture__read_data.value = self.answers.popleft()
        return data

    async def read(self, address: int) -> int:
        await self.step(address)
        for _ in range(HOST_READ_LATENCY - 1):
            await self.step()
        return await self.step()


async def begin(dut) -> Bench:
    for name in ("link__address", "link__write", "irq", "dropped", "card__read_data"):
        getattr(dut, name).value = 0
    dut.capture__read_data.value = 0
    await start(dut)
    return Bench(dut)


@cocotb.test()
async def accesses(dut):
    """Below `SHELL_BASE` the card is read and written, above it the shell and the capture."""
    bench, r = await begin(dut), rng()
    own = set(ShellCsr) - {a for a in ShellCsr if a >= ShellCsr.CAPTURE_CONTROL}
    card_writes, capture_writes = [], []
    for _ in range(3000):
        address = int(r.integers(1 << int(r.choice([8, 9, 12])))) & ~3
        if r.random() < 0.5:
            word = int(r.integers(1 << 32))
            await bench.step(address, word)
            capture_writes.append(("capture", address, word))
            if address < SHELL_BASE:
                card_writes.append(("card", address, word))
            continue
        got = await bench.read(address)
        if address < SHELL_BASE:
            assert got == address | 0x5A << 24
        elif address >= ShellCsr.CAPTURE_CONTROL:
            assert got == ~address & 0xFFFFFFFF
        elif address not in own:
            assert got == 0
    assert [write for write in bench.writes if write[0] == "card"] == card_writes
    assert [write for write in bench.writes if write[0] == "capture"] == capture_writes


@cocotb.test()
async def registers(dut):
    """Clock, counter, dropped frames and state read as they are; writes change none of them."""
    bench, r = await begin(dut), rng()
    assert await bench.read(ShellCsr.CLOCK_HZ) == 123_456_789
    for _ in range(300):
        dropped, irq = int(r.integers(1 << 32)), int(r.integers(2))
        dut.dropped.value, dut.irq.value = dropped, irq
        await bench.step(int(r.choice([a for a in ShellCsr if a <= ShellCsr.SHELL_STATE])), 77)
        assert await bench.read(ShellCsr.FRAMES_DROPPED) == dropped
        assert await bench.read(ShellCsr.SHELL_STATE) == irq


@cocotb.test()
async def cycle_counter(dut):
    """The two words that are read are of one cycle, wherever the carry comes between them."""
    bench, r = await begin(dut), rng()
    await bench.read(ShellCsr.CYCLES)
    to_carry = (1 << 32) - await bench.read(ShellCsr.CYCLES)
    totals, highs = set(), set()
    for offset in range(-8, 8):
        dut.rst.value = 1
        await tick(dut)
        dut.rst.value = 0
        await tick(dut, to_carry + offset)
        low = await bench.read(ShellCsr.CYCLES)
        for _ in range(int(r.integers(4))):
            await bench.step(int(r.choice([0, ShellCsr.CLOCK_HZ, 8])))
        high = await bench.read(ShellCsr.CYCLES_HIGH)
        totals.add((high << 32 | low) - offset)
        highs.add(high)
    assert len(totals) == 1, [hex(total) for total in totals]
    assert len(highs) == 2
