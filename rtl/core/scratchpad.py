"""The scratchpad: banks of granules behind read and write ports with fixed priority."""

import dataclasses
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..config import GRANULE, CardConfig
from ..tech import GENERIC, KEEP, technology
from ..tech.bank import Bank
from ..tech.copy import copies
from ..tech.gate import Gate
from ..tech.select import select
from .ports import READ_LATENCY, ReadPort, WritePort, lane_banks

__all__ = ["Scratchpad"]

_WORD = 8 * GRANULE

_READ_TOGETHER, _WRITTEN_TOGETHER = 16, 52
"""Bits that share a register of what chooses them, as a bank's block RAMs (of 16 bits) lie apart.
What is written is chosen late, so that few registers can wait for it."""


@dataclasses.dataclass
class _Claim:
    """What a port asks of the banks; each bit is a bank.

    The first port that is ``granted`` and whose bit in ``want`` is set has the bank. ``lanes`` are
    the banks of each granule. A cycle later ``rows`` are the rows that it asks of the banks.
    """

    want: Signal
    granted: Value
    lanes: list[Value]
    rows: list[Value]


class Scratchpad(wiring.Component):
    """Banked memory of `GRANULE`-byte words, one read and one write port a bank.

    Granule ``a`` lies in row ``a // banks`` of bank ``(a + a // banks) % banks``: consecutive ones
    lie in different banks, and so do those a row of banks apart, as the same k of neighbouring rows
    of a matrix often is. Each bank serves one read and one write a cycle, to the first port in the
    order of the lists that wants it; a port of several granules gets all that it needs or none, and
    does not hold up others while it waits. ``ready`` does not depend on the port's own ``valid``.
    Which port a bank serves is registered, and with it what the ports ask; in the next cycle a
    multiplexer leads to the bank. Read data come out of its output register through another one.

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

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        banks = config.scratchpad_banks
        reads = self._arbitrate(m, "read", self.read_ports, self.readers)
        writes = self._arbitrate(m, "write", self.write_ports, self.writers)

        words = []
        for b in range(banks):
            m.submodules[f"bank{b}"] = bank = Bank(bytes=GRANULE, depth=config.bank_rows)
            words.append(bank.read_data)
            name = f"bank{b}_read"
            wanted, port = self._choose(m, reads, b, name)
            row = self._pick(
                m, platform, port, [claim.rows[b] for claim in reads], name, _READ_TOGETHER
            )
            m.d.comb += [bank.read_enable.eq(wanted), bank.read_address.eq(row)]

        beats = [self._beats(m, i) for i in range(len(self.writers))]
        for b in range(banks):
            bank = getattr(m.submodules, f"bank{b}")
            name = f"bank{b}_write"
            wanted, port = self._choose(m, writes, b, name)
            requests = []
            for i, (claim, parts) in enumerate(zip(writes, beats, strict=True)):
                lane = self._later(m, _number([mask[b] for mask in claim.lanes]), f"{name}_lane{i}")
                part = select(m, platform, lane, parts, name=f"{name}_part{i}")
                requests.append(Cat(part, claim.rows[b]))
            chosen = self._pick(m, platform, port, requests, name, _WRITTEN_TOGETHER)
            m.d.comb += [
                bank.write_enable.eq(wanted),
                Cat(bank.write_data, bank.write_mask, bank.write_address).eq(chosen),
            ]

        for i, (port, claim) in enumerate(zip(self.read_ports, reads, strict=True)):
            valid = Signal(READ_LATENCY, name=f"read{i}_valid")
            m.d.sync += valid.eq(Cat(port.valid & port.ready, valid))
            m.d.comb += port.data_valid.eq(valid[-1])
            for lane, mask in enumerate(claim.lanes):
                bank = _number([mask[b] for b in range(banks)])
                for step in range(READ_LATENCY - 1):
                    bank = self._later(m, bank, f"read{i}_bank{lane}_{step}")
                word = self._pick(m, platform, bank, words, f"read{i}_word{lane}", _READ_TOGETHER)
                m.d.comb += port.data.word_select(lane, _WORD).eq(word)
        return m

    def _arbitrate(self, m: Module, name: str, ports: list, widths: list[int]) -> list[_Claim]:
        """Drive every port's ``ready``; return what each port asks, highest priority first."""
        banks = self.config.scratchpad_banks
        bank_bits = (banks - 1).bit_length()
        claims: list[_Claim] = []
        goes: list[Value] = []  # whether each is granted what it wants, for those behind it
        for i, (port, width) in enumerate(zip(ports, widths, strict=True)):
            row = port.address[bank_bits:]
            lanes = [port.banks] if width == 1 else lane_banks(m, self.config, port.address, width)
            want = Signal(banks, name=f"{name}{i}_want")
            m.d.comb += want.eq(Mux(port.valid, port.banks, 0))
            # A single granule that waits wants a bank that somebody else has, so it may claim the
            # bank whether it is granted or not. Who is in the way of whom is found side by side,
            # to keep the chain of grants short: synthesis would build it around what is not late.
            meets = Signal(len(claims), name=f"{name}{i}_meets", attrs=KEEP)
            for j, (before, meet) in enumerate(zip(ports, meets, strict=False)):
                both = Signal(banks, name=f"{name}{i}_meets{j}_both")
                some = Signal((banks + 1) // 2, name=f"{name}{i}_meets{j}_some", attrs=KEEP)
                m.d.comb += [
                    both.eq(port.banks & before.banks),
                    some.eq(Cat(both[b : b + 2].any() for b in range(0, banks, 2))),
                    meet.eq(before.valid & some.any()),
                ]
            m.d.comb += port.ready.eq(self._ready(m, meets, goes, f"{name}{i}_ready"))
            if width > 1:
                # Beyond the end of a row of banks lies the next row.
                low = port.address[:bank_bits]
                next_row = Signal(len(row), name=f"{name}{i}_next_row")
                m.d.comb += next_row.eq(row + 1)
                further = Signal(banks, name=f"{name}{i}_further")
                far = [Mux(low >= banks - j, lanes[j], 0) for j in range(1, width)]
                m.d.comb += further.eq(reduce(or_, far))
                rows = [Mux(further[b], next_row, row) for b in range(banks)]
                rows = [self._later(m, row, f"{name}{i}_row{b}") for b, row in enumerate(rows)]
            else:
                rows = [self._later(m, row, f"{name}{i}_row")] * banks
            granted = port.ready if width > 1 else Const(1, 1)
            claims.append(_Claim(want, granted, lanes, rows))
            goes.append(self._goes(m, ports[: i + 1], goes, f"{name}{i}") if width > 1 else granted)
        return claims

    def _ready(self, m: Module, meets: Value, goes: list[Value], name: str) -> Value:
        """Return whether none that ``goes`` is met: of few bits, which are late, by one gate."""
        late = [j for j, go in enumerate(goes) if not isinstance(go, Const)]
        if not late or len(goes) + len(late) > 4:
            return ~(meets & Cat(goes)).any()

        def free(*bits: int) -> bool:
            waits = list(bits[: len(goes)])
            for j, go in zip(late, bits[len(goes) :], strict=False):
                waits[j] &= go
            return not any(waits)

        m.submodules[name] = gate = Gate(free)
        m.d.comb += gate.bits.eq(Cat(meets, (goes[j] for j in late)))
        return gate.out

    def _goes(self, m: Module, ports: list, goes: list[Value], name: str) -> Value:
        """Return what the last one's ``ready`` says once more, out of gates of its own: ``ready``
        goes to its unit, and the ports behind wait for this."""
        *others, port = ports
        waits: Value = Const(0, 1)
        for j, (before, granted) in enumerate(zip(others, goes, strict=True)):
            some = []
            for b in range(0, self.config.scratchpad_banks, 2):
                m.submodules[f"{name}_waits{j}_{b}"] = gate = Gate(
                    lambda mine, mine1, other, other1: (mine and other) or (mine1 and other1)
                )
                m.d.comb += gate.bits.eq(Cat(port.banks[b : b + 2], before.banks[b : b + 2]))
                some.append(gate.out)
            waits |= before.valid & Cat(some).any() & granted
        return ~waits

    def _choose(
        self, m: Module, claims: list[_Claim], bank: int, name: str
    ) -> tuple[Signal, Value]:
        """Return whether a port has the bank, a cycle later, and its number."""
        wanted = Signal(name=f"{name}_wanted")
        wants = Signal(len(claims), name=f"{name}_wants")
        m.d.comb += wants.eq(Cat(claim.want[bank] & claim.granted for claim in claims))
        m.d.sync += wanted.eq(wants.any())
        # No chain of conditions: synthesis would make enables and resets of it, which come late.
        # The last port has the bank if no other has: whether it wants it is in ``wanted``.
        *others, last = (~wants[:i].any() for i in range(len(claims)))
        owns = [*(want & free for want, free in zip(wants, others, strict=False)), last]
        return wanted, _number(owns)

    def _beats(self, m: Module, writer: int) -> list[Value]:
        """Return data and mask of a write port's granules, a cycle later."""
        port = self.write_ports[writer]
        data = self._later(m, port.data, f"write{writer}_data")
        mask = self._later(m, port.mask, f"write{writer}_mask")
        return [
            Cat(data.word_select(lane, _WORD), mask.word_select(lane, GRANULE))
            for lane in range(self.writers[writer])
        ]

    def _pick(
        self,
        m: Module,
        platform: object,
        index: Value,
        values: list[Value],
        name: str,
        together: int,
    ) -> Value:
        """Return the one of ``values`` that ``index`` named a cycle before; so many bits
        ``together`` are chosen by a register of their own."""
        if technology(platform) == GENERIC:
            together = len(values[0])
        places = range(0, len(values[0]), together)
        indices = copies(m, platform, index, len(places), name=f"{name}_index")
        parts = []
        for place, own in zip(places, indices, strict=True):
            part = [value[place : place + together] for value in values]
            parts.append(select(m, platform, own, part, name=f"{name}_{place}"))
        return Cat(parts)

    def _later(self, m: Module, value: Value, name: str) -> Signal:
        result = Signal(len(value), name=name, reset_less=True)
        m.d.sync += result.eq(value)
        return result


def _number(bits: list[Value]) -> Value:
    """Return the number of the only bit that is set, as wide as that of the last one."""
    width = (len(bits) - 1).bit_length()
    return Cat(
        reduce(or_, (bit for number, bit in enumerate(bits) if number >> place & 1))
        for place in range(width)
    )
