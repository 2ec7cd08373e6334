"""Card memory in the block RAM of an FPGA."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..hierarchy import Repeated
from ..tech.copy import copies
from .bus import STORAGE_LATENCY, Storage

__all__ = ["BlockStorage", "StorageLane"]

_PORTS = ("card", "host")

_HOST_LATENCY = STORAGE_LATENCY + 2
"""Cycles from the first one of the host's read to its data, which may come from far away."""

_DEEPEST = 1 << 14
"""Words of the deepest shape of a block RAM."""


class StorageLane(wiring.Component):
    """One byte of each beat.

    Block RAMs are far from each other, and slow to answer. So a lane has registers of its own in
    front of its RAMs and behind them, and one more on the host's way there and back.

    Parameters
    ----------
    depth : int
        Bytes, a power of two.

    Members
    -------
    card, host : ports
        Each with what follows. The host writes a cycle later than the card.
    address : which byte is read, and may be written
    write, mask, data : it is written with both bits high
    answer : ``Out(8)``, seen from the lane
        The byte that ``address`` named `STORAGE_LATENCY` cycles before, of the host two more; void
        where a port wrote it in the cycle in which it was read.
    """

    def __init__(self, *, depth: int) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, not {depth!r}")
        self.depth = depth
        port = wiring.Signature(
            {
                "address": Out(range(depth)),
                "write": Out(1),
                "mask": Out(1),
                "data": Out(8),
                "answer": In(8),
            }
        )
        super().__init__({name: In(port) for name in _PORTS})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bank_depth = min(self.depth, _DEEPEST)
        bank_bits = (bank_depth - 1).bit_length()
        banks = self.depth // bank_depth
        memories = [Memory(shape=unsigned(8), depth=bank_depth, init=[]) for _ in range(banks)]
        for i, memory in enumerate(memories):
            m.submodules[f"bank_{i}"] = memory
        for name in _PORTS:
            port = getattr(self, name)

            def register(width: int, what: str, name: str = name) -> Signal:
                return Signal(width, name=f"{name}_{what}", reset_less=True)

            asked_address, asked_data = port.address, port.data
            asked_write = port.write & port.mask
            if name == "host":
                asked = register(len(asked_address) + 9, "asked")
                m.d.sync += asked.eq(Cat(asked_data, asked_write, asked_address))
                asked_data, asked_write, asked_address = asked[:8], asked[8], asked[9:]
            data = register(8, "data")
            m.d.sync += data.eq(asked_data)
            addresses = copies(m, platform, asked_address, banks, name=f"{name}_address")
            answers = []
            for i, (memory, address) in enumerate(zip(memories, addresses, strict=True)):
                write = register(1, f"write_{i}")
                word, answer = register(8, f"word_{i}"), register(8, f"answer_{i}")
                # A synchronous read port promises the old word while the other port writes, which
                # no block RAM does with two ports that write, and there would be none. Of a
                # register behind a read, yosys makes a port without that promise (memory
                # -no-rw-check).
                writer, reader = memory.write_port(), memory.read_port(domain="comb")
                m.d.comb += [
                    writer.addr.eq(address),
                    writer.data.eq(data),
                    writer.en.eq(write),
                    reader.addr.eq(address),
                ]
                m.d.sync += [
                    write.eq(asked_write & (asked_address[bank_bits:] == i)),
                    word.eq(reader.data),
                    answer.eq(word),
                ]
                answers.append(answer)
            found: Value = answers[0]
            if banks > 1:
                number = addresses[0][bank_bits:]
                bank_of_word = register(len(number), "bank_of_word")
                bank_of_answer = register(len(number), "bank_of_answer")
                m.d.sync += [bank_of_word.eq(number), bank_of_answer.eq(bank_of_word)]
                found = Array(answers)[bank_of_answer]
            if name == "host":
                told = register(8, "told")
                m.d.sync += told.eq(found)
                found = told
            m.d.comb += port.answer.eq(found)
        return m


class BlockStorage(wiring.Component):
    """All of card memory in true dual-port RAM, a port for the card and one for the host.

    What a port reads of a byte that the other one writes in the same cycle is void, and so is what
    remains of two writes to the same byte in the same cycle.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    card : ``In(Storage(config))``
    host : ``In(Storage(config))``
        An access is held until ``host_ready``; ``read_data`` comes in the cycle after it. What is
        read is the memory of the access's first cycles, and a write may be seen two cycles late.
    host_ready : ``Out(1)``
        From a register: in the second cycle of a write. A read takes `STORAGE_LATENCY` + 2 cycles.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        port = Storage(config)
        super().__init__({"card": In(port), "host": In(port), "host_ready": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.bus_bytes
        card, host, ready = self.card, self.host, self.host_ready
        writes = {"card": card.enable & card.write, "host": ready & host.write}
        for i in range(width):
            lane = StorageLane(depth=self.config.memory_bytes // width)
            m.submodules[f"lane_{i}"] = Repeated(lane, "storage_lane")
            for name in _PORTS:
                port, own = getattr(self, name), getattr(lane, name)
                m.d.comb += [
                    own.address.eq(port.address),
                    own.write.eq(writes[name]),
                    own.mask.eq(port.write_mask[i]),
                    own.data.eq(port.write_data.word_select(i, 8)),
                    port.read_data.word_select(i, 8).eq(own.answer),
                ]
        waited = Signal(_HOST_LATENCY - 2)  # the first bit of them in the second cycle of a read
        waiting = host.enable & ~ready
        m.d.sync += [
            waited.eq(Mux(waiting & ~host.write, Cat(Const(1, 1), waited), 0)),
            ready.eq(waiting & (host.write | waited[-1])),
        ]
        return m
