"""The scratchpad: banks of granules behind read and write ports with fixed priority."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from ..config import GRANULE, CardConfig
from .ports import ReadPort, WritePort

__all__ = ["Scratchpad"]

_WORD = 8 * GRANULE


class Scratchpad(wiring.Component):
    """Banked memory of `GRANULE`-byte words, one read and one write port a bank.

    Granule ``a`` lies in row ``a // banks`` of bank ``(a + a // banks) % banks``: consecutive ones
    lie in different banks, and so do those a row of banks apart, as the same k of neighbouring rows
    of a matrix often is. Each bank serves one read and one write a cycle, to the first port in the
    order of the lists that wants it; a port of several granules gets all that it needs or none, and
    does not hold up others while it waits. ``ready`` does not depend on the port's own ``valid``.
    Read data come two cycles after the request was accepted (the bank's read register, then the
    port's) and stay until the port's next data.

    Parameters
    ----------
    config : CardConfig
    readers, writers : list of int
        Granules of each port, the port of highest priority first: 1, 2 or 4, fewer than
        ``scratchpad_banks``.

    Members
    -------
    read0, read1, ... : ``In(ReadPort(config, readers[i]))``
    write0, write1, ... : ``In(WritePort(config, writers[i]))``
    """

    def __init__(self, config: CardConfig, *, readers: list[int], writers: list[int]) -> None:
        allowed = [width for width in (1, 2, 4) if width < config.scratchpad_banks]
        for name, widths in (("readers", readers), ("writers", writers)):
            if not widths or any(width not in allowed for width in widths):
                raise ValueError(f"{name} must be a list of widths from {allowed}, not {widths!r}")
        self.config = config
        self.readers = list(readers)
        self.writers = list(writers)
        super().__init__(
            {f"read{i}": In(ReadPort(config, width)) for i, width in enumerate(readers)}
            | {f"write{i}": In(WritePort(config, width)) for i, width in enumerate(writers)}
        )

    @property
    def read_ports(self) -> list:
        """The read ports, highest priority first."""
        return [getattr(self, f"read{i}") for i in range(len(self.readers))]

    @property
    def write_ports(self) -> list:
        """The write ports, highest priority first."""
        return [getattr(self, f"write{i}") for i in range(len(self.writers))]

    def _arbitrate(self, m: Module, name: str, ports: list, widths: list[int]) -> list[list]:
        """Drive every port's ``ready``.

        Returns, for each bank, ``(wanted, row, port, lane)`` of every lane, highest priority
        first: of the lanes with ``wanted``, the first has the bank.
        """
        banks = self.config.scratchpad_banks
        bank_bits = (banks - 1).bit_length()
        choices: list[list] = [[] for _ in range(banks)]
        claims: list[Value] = []
        for i, (port, width) in enumerate(zip(ports, widths, strict=True)):
            low = port.address[:bank_bits]
            row = port.address[bank_bits:]
            first = Signal(banks, name=f"{name}{i}_first")
            m.d.comb += first.eq(Const(1, banks) << (low + row[:bank_bits])[:bank_bits])
            next_row = Signal(len(row), name=f"{name}{i}_next_row")
            m.d.comb += next_row.eq(row + 1)
            masks, lane_rows = [first], [row]
            for lane in range(1, width):
                # Lanes beyond the row's end are one bank further on.
                beyond = low >= banks - lane
                near, far = (
                    Cat(first[(b - hop) % banks] for b in range(banks)) for hop in (lane, lane + 1)
                )
                masks.append(Mux(beyond, far, near))
                lane_rows.append(Mux(beyond, next_row, row))
            if name == "read" and width > 1:
                masks = [
                    Mux(port.needed[lane], lane_mask, 0) for lane, lane_mask in enumerate(masks)
                ]
            mask = Signal(banks, name=f"{name}{i}_mask")
            m.d.comb += mask.eq(reduce(or_, masks))
            taken = reduce(or_, claims, Const(0, banks))
            m.d.comb += port.ready.eq((mask & taken) == 0)
            # A single granule that waits wants a bank that somebody else has, so it may claim the
            # bank whether it was granted or not; this keeps the chain of grants short.
            granted = port.valid if width == 1 else port.valid & port.ready
            claim = Signal(banks, name=f"{name}{i}_claim")
            m.d.comb += claim.eq(Mux(granted, mask, 0))
            claims.append(claim)
            for lane in range(width):
                for b in range(banks):
                    wanted = claim[b] if width == 1 else claim[b] & masks[lane][b]
                    choices[b].append((wanted, lane_rows[lane], port, lane))
        return choices

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        banks = config.scratchpad_banks
        bank_bits = (banks - 1).bit_length()
        reads = self._arbitrate(m, "read", self.read_ports, self.readers)
        writes = self._arbitrate(m, "write", self.write_ports, self.writers)

        words = []
        for b in range(banks):
            bank = memory.Memory(shape=unsigned(_WORD), depth=config.bank_rows, init=[])
            m.submodules[f"bank{b}"] = bank
            write = bank.write_port(granularity=8)
            read = bank.read_port()
            words.append(read.data)

            m.d.comb += read.en.eq(Cat(wanted for wanted, *_ in reads[b]).any())
            for i, (wanted, row, _, _) in enumerate(reads[b]):
                with m.If(wanted) if i == 0 else m.Elif(wanted):
                    m.d.comb += read.addr.eq(row)

            for i, (wanted, row, port, lane) in enumerate(writes[b]):
                with m.If(wanted) if i == 0 else m.Elif(wanted):
                    m.d.comb += [
                        write.addr.eq(row),
                        write.data.eq(port.data.word_select(lane, _WORD)),
                        write.en.eq(port.mask.word_select(lane, GRANULE)),
                    ]

        for i, (port, width) in enumerate(zip(self.read_ports, self.readers, strict=True)):
            fetched = Signal(name=f"read{i}_fetched")
            valid = Signal(name=f"read{i}_valid")
            m.d.sync += [fetched.eq(port.valid & port.ready), valid.eq(fetched)]
            m.d.comb += port.data_valid.eq(valid)
            for lane in range(width):
                select = Signal(bank_bits, name=f"read{i}_select{lane}", reset_less=True)
                data = Signal(_WORD, name=f"read{i}_data{lane}", reset_less=True)
                low, row = port.address[:bank_bits], port.address[bank_bits:]
                beyond = low >= banks - lane if lane else 0
                m.d.sync += select.eq(low + row[:bank_bits] + lane + beyond)
                with m.If(fetched), m.Switch(select):
                    for b in range(banks):
                        with m.Case(b):
                            m.d.sync += data.eq(words[b])
                m.d.comb += port.data.word_select(lane, _WORD).eq(data)
        return m
