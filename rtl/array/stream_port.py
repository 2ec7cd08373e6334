"""A scratchpad read port shared by the row engines that it feeds."""

import itertools

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..core.ports import READ_LATENCY, ReadPort, banks_of
from ..tech import KEEP
from ..tech.select import select

__all__ = ["EngineFetch", "StreamPort"]


class EngineFetch(wiring.Signature):
    """How a row engine fetches granules, seen from the engine.

    Members
    -------
    valid, address, entry, ready : request; ``entry`` tells a directory entry from a stream granule
    entry_valid, granule_valid, data : response, in the order of the requests
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(config.granule_addr_width),
                "entry": Out(1),
                "ready": In(1),
                "entry_valid": In(1),
                "granule_valid": In(1),
                "data": In(8 * GRANULE),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineFetch) and self.config == other.config


class StreamPort(wiring.Component):
    """Round-robin arbiter of a scratchpad read port.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    engine : ``In(EngineFetch).array(rows / stream_ports)``
    read : ``Out(ReadPort)``
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        self._engines = config.rows // config.stream_ports
        super().__init__(
            {
                "engine": In(EngineFetch(config)).array(self._engines),
                "read": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, engines = self._config, self._engines
        tag = data.StructLayout({"engine": range(max(engines, 2)), "entry": 1, "valid": 1})

        # A request waits in a register for its bank, so that the arbitration is a cycle of its own.
        held = Signal(tag)
        asked = [Signal(tag, name=f"asked{step}") for step in range(READ_LATENCY)]
        answered = asked[-1]
        address = Signal(config.granule_addr_width, reset_less=True)
        banks = Signal(config.scratchpad_banks, reset_less=True)
        last = Signal(range(max(engines, 2)))
        free = ~held.valid | self.read.ready
        # Kept: synthesis would choose words by what decides this, in more steps.
        chosen = Signal((engines - 1).bit_length(), attrs=KEEP)
        m.d.comb += [
            self.read.valid.eq(held.valid),
            self.read.address.eq(address),
            self.read.banks.eq(banks),
        ]
        with m.Switch(last):
            for turn in range(engines):
                with m.Case(turn):
                    # The last assignment wins: the engine after the last one served is first.
                    for step in reversed(range(engines)):
                        candidate = (turn + 1 + step) % engines
                        with m.If(self.engine[candidate].valid):
                            m.d.comb += chosen.eq(candidate)
        requested = Cat(engine.valid for engine in self.engine).any()
        # Banks are found before the choice: its result is late.
        words = [
            Cat(engine.entry, engine.address, banks_of(m, config, engine.address))
            for engine in self.engine
        ]
        word = select(m, platform, chosen, words, name="word")
        with m.If(free):
            m.d.comb += Array(engine.ready for engine in self.engine)[chosen].eq(1)
            m.d.sync += [
                held.valid.eq(requested),
                held.engine.eq(chosen),
                Cat(held.entry, address, banks).eq(word),
            ]
            with m.If(requested):
                m.d.sync += last.eq(chosen)

        m.d.sync += [
            asked[0].eq(held),
            asked[0].valid.eq(held.valid & self.read.ready),
            *(later.eq(earlier) for earlier, later in itertools.pairwise(asked)),
        ]
        for i, engine in enumerate(self.engine):
            mine = answered.valid & (answered.engine == i)
            m.d.comb += [
                engine.data.eq(self.read.data),
                engine.entry_valid.eq(mine & answered.entry),
                engine.granule_valid.eq(mine & ~answered.entry),
            ]
        return m
