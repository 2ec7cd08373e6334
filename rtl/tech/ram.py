"""A memory whose words come out of a register."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from . import ECP5, GW5A, gw5a, technology

__all__ = ["RegisteredRam"]

_BLOCK_WIDTH, _BLOCK_DEPTH = 18, 1024


class RegisteredRam(wiring.Component):
    """A memory with a port to write and a port to read; a word comes `LATENCY` cycles later.

    What is read in the cycle in which it is written is void. ``data`` keeps its word where
    nothing is read.

    Parameters
    ----------
    width, depth : int

    Members
    -------
    write, write_address, write_data : ``In``
    read, read_address : ``In``
    data : ``Out(width)``
    """

    LATENCY = 2

    def __init__(self, width: int, depth: int) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width!r}")
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, not {depth!r}")
        self._width, self._depth = width, depth
        super().__init__(
            {
                "write": In(1),
                "write_address": In(range(depth)),
                "write_data": In(width),
                "read": In(1),
                "read_address": In(range(depth)),
                "data": Out(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fits = self._width <= _BLOCK_WIDTH and self._depth <= _BLOCK_DEPTH
        if technology(platform) == ECP5 and fits:
            m.submodules.ram = self._ecp5()
            return m
        if technology(platform) == GW5A and fits:
            self._gw5a(m)
            return m
        m.submodules.words = words = Memory(shape=unsigned(self._width), depth=self._depth, init=[])
        write, read = words.write_port(), words.read_port()
        data = Signal(self._width, reset_less=True)
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            read.en.eq(self.read),
            read.addr.eq(self.read_address),
            self.data.eq(data),
        ]
        m.d.sync += data.eq(read.data)
        return m

    def _ecp5(self) -> Instance:
        """Port A writes, port B reads; of 18-bit words, address bits 0 and 1 enable the bytes."""
        write_at, read_at = (
            Cat(address, Const(0, 10 - len(address)))
            for address in (self.write_address, self.read_address)
        )
        ports: dict[str, object] = {}
        for side, clock_enable, address, write in (
            ("A", self.write, write_at, self.write),
            ("B", self.read, read_at, 0),
        ):
            ports |= {
                f"p_DATA_WIDTH_{side}": _BLOCK_WIDTH,
                f"p_CSDECODE_{side}": "0b000",
                f"p_WRITEMODE_{side}": "NORMAL",
                f"i_CLK{side}": ClockSignal(),
                f"i_CE{side}": clock_enable,
                f"i_OCE{side}": 1,
                f"i_WE{side}": write,
                f"i_RST{side}": 0,
                **{f"i_CS{side}{i}": 0 for i in range(3)},
                **{f"i_AD{side}{i}": 1 if side == "A" and i < 2 else 0 for i in range(4)},
                **{f"i_AD{side}{i + 4}": address[i] for i in range(10)},
            }
        for i in range(_BLOCK_WIDTH):
            used = i < self._width
            ports[f"i_DIA{i}"] = self.write_data[i] if used else 0
            ports[f"i_DIB{i}"] = 0
            if used:
                ports[f"o_DOB{i}"] = self.data[i]
        return Instance(
            "DP16KD", p_REGMODE_A="NOREG", p_REGMODE_B="OUTREG", p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC", p_CLKAMUX="CLKA", p_CLKBMUX="CLKB", p_GSR="DISABLED",
            **ports,
        )  # fmt: skip

    def _gw5a(self, m: Module) -> None:
        data = Signal(_BLOCK_WIDTH)
        m.submodules.ram = gw5a.block_ram(
            write=self.write,
            write_address=self.write_address,
            write_mask=Const(0b11, 2),
            write_data=Cat(self.write_data, Const(0, _BLOCK_WIDTH - self._width)),
            read=self.read,
            read_address=self.read_address,
            data=data,
        )
        output = Signal(self._width, reset_less=True)
        m.d.sync += output.eq(data)
        m.d.comb += self.data.eq(output)
