"""What stands for a card's registers, and tests of registers and memory through a line."""

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from deepseek.rtl.hostport.csr import HOST_READ_LATENCY, HostPort
from deepseek.rtl.isa import ABI_VERSION, Csr
from deepseek.rtl.numerics.delay import delayed

SCRATCH, SCRATCH_WORDS = 0x40, 16


class Identity(wiring.Component):
    """What a card says of itself, and registers to write, in distributed memory.

    Parameters
    ----------
    build_hash : int
    others : dict
        Further values to read, by address.
    """

    def __init__(self, build_hash, others=None):
        self._build_hash, self._others = build_hash, others or {}
        super().__init__({"host": In(HostPort())})

    def elaborate(self, platform):
        m = Module()
        host = self.host
        asked = delayed(m, 1, host.address, HOST_READ_LATENCY - 1, "asked")
        readable = {
            Csr.ID: 0x4B535044,
            Csr.ABI: ABI_VERSION,
            Csr.BUILD_LOW: self._build_hash & 0xFFFFFFFF,
            Csr.BUILD_HIGH: self._build_hash >> 32,
            **self._others,
        }
        m.submodules.memory = memory = Memory(shape=32, depth=SCRATCH_WORDS, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(host.address[2:]),
            write.data.eq(host.write_data),
            write.en.eq(host.write),
            read.addr.eq(asked[2:]),
        ]
        with m.Switch(asked):
            for address, value in readable.items():
                with m.Case(address):
                    m.d.sync += host.read_data.eq(value)
            with m.Default():
                m.d.sync += host.read_data.eq(read.data)
        return m


def check_registers(link, rng, count):
    """Write registers at random and read them; the first ones never change."""
    values = {}
    for _ in range(count):
        address = int(SCRATCH + 4 * rng.integers(SCRATCH_WORDS))
        values[address] = int(rng.integers(1 << 32))
        link.csr_write(address, values[address])
    assert link.csr_read_many(list(values)) == list(values.values())


def check_memory(link, rng, bases, span):
    """Write memory at these places, whole and in pieces, and read it."""
    image = rng.integers(0, 256, span, dtype=np.uint8)
    for base in bases:
        link.write_memory(base, image)
        for _ in range(5):
            first = int(rng.integers(span))
            piece = rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8)
            piece = piece[: span - first]
            image[first : first + piece.size] = piece
            link.write_memory(base + first, piece)
        assert np.array_equal(link.read_memory(base, span), image)
