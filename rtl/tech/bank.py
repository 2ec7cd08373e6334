"""A memory of wide words with a write mask, whose output has a register."""

from functools import partial

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, GW5A, gw5a, technology

__all__ = ["Bank"]

_BLOCK_WORDS = 1024
"""Words of two bytes of 9 bits in a block RAM, of which 8 are used."""


class Bank(wiring.Component):
    """One write and one read a cycle.

    What a read of a word gets that is written in the same cycle is not specified. Nothing is reset.

    Parameters
    ----------
    bytes, depth : int
        Bytes of a word, and words.

    Members
    -------
    write_enable, write_address, write_data, write_mask : ``In``
        The bytes in ``write_mask`` are written at the end of the cycle.
    read_enable, read_address : ``In``
    read_data : ``Out``
        Two cycles after ``read_address``, if ``read_enable`` was high with it.
    """

    def __init__(self, *, bytes: int, depth: int) -> None:
        if bytes < 1:
            raise ValueError(f"bytes must be positive, not {bytes!r}")
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        self._bytes, self._depth = bytes, depth
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(range(depth)),
                "write_data": In(8 * bytes),
                "write_mask": In(bytes),
                "read_enable": In(1),
                "read_address": In(range(depth)),
                "read_data": Out(8 * bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A memory that synthesis infers returns the old bytes of a word that is written: that takes
        # as many registers as it has inputs and outputs, and leaves out its own one.
        blocks = {ECP5: self._block, GW5A: partial(self._gw5a, m)}.get(technology(platform))
        if blocks and self._depth <= _BLOCK_WORDS and self._bytes % 2 == 0:
            for pair in range(self._bytes // 2):
                m.submodules[f"block{pair}"] = blocks(pair)
            return m
        m.submodules.memory = words = memory.Memory(
            shape=unsigned(8 * self._bytes), depth=self._depth, init=[]
        )
        write, read = words.write_port(granularity=8), words.read_port()
        output = Signal(8 * self._bytes, reset_less=True)
        m.d.sync += output.eq(read.data)
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_mask & self.write_enable.replicate(self._bytes)),
            read.addr.eq(self.read_address),
            read.en.eq(self.read_enable),
            self.read_data.eq(output),
        ]
        return m

    def _block(self, pair: int) -> Instance:
        """Return the block RAM of two bytes: port A writes, port B reads into its register."""
        none = Const(0, 1)
        mask = self.write_mask.word_select(pair, 2)
        data = self.write_data.word_select(pair, 16)
        out = self.read_data.word_select(pair, 16)
        # The lowest address bits of a port of 18 bits are its byte enables.
        write_address = Cat(mask, Const(0, 2), self.write_address)
        read_address = Cat(Const(0, 4), self.read_address)
        ports: dict[str, object] = {
            "i_CLKA": ClockSignal(),
            "i_CLKB": ClockSignal(),
            "i_CEA": Const(1, 1),
            "i_CEB": self.read_enable,
            "i_OCEA": none,
            "i_OCEB": Const(1, 1),
            "i_WEA": self.write_enable,
            "i_WEB": none,
            "i_RSTA": none,
            "i_RSTB": none,
        }
        for port in "AB":
            ports |= {f"i_CS{port}{bit}": none for bit in range(3)}
        for bit in range(14):
            for port, address in (("A", write_address), ("B", read_address)):
                ports[f"i_AD{port}{bit}"] = address[bit] if bit < len(address) else none
        for bit in range(18):
            byte, place = divmod(bit, 9)
            ports[f"i_DIA{bit}"] = data[8 * byte + place] if place < 8 else none
            ports[f"i_DIB{bit}"] = none
            if place < 8:
                ports[f"o_DOB{bit}"] = out[8 * byte + place]
        return Instance(
            "DP16KD",
            p_DATA_WIDTH_A=18,
            p_DATA_WIDTH_B=18,
            p_REGMODE_A="NOREG",
            p_REGMODE_B="OUTREG",
            p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC",
            p_WRITEMODE_A="NORMAL",
            p_WRITEMODE_B="NORMAL",
            p_CLKAMUX="CLKA",
            p_CLKBMUX="CLKB",
            p_CSDECODE_A="0b000",
            p_CSDECODE_B="0b000",
            p_GSR="DISABLED",
            **ports,
        )

    def _gw5a(self, m: Module, pair: int) -> Instance:
        """Return the block RAM of two bytes, and put its output register into ``m``."""
        data = Signal(18, name=f"data{pair}")
        output = Signal(16, name=f"output{pair}", reset_less=True)
        m.d.sync += output.eq(Cat(data[:8], data[9:17]))
        m.d.comb += self.read_data.word_select(pair, 16).eq(output)
        first, second = (
            Cat(self.write_data.word_select(2 * pair + byte, 8), Const(0, 1)) for byte in range(2)
        )
        return gw5a.block_ram(
            write=self.write_enable,
            write_address=self.write_address,
            write_mask=self.write_mask.word_select(pair, 2),
            write_data=Cat(first, second),
            read=self.read_enable,
            read_address=self.read_address,
            data=data,
        )
