"""The store unit: copies from the scratchpad to card memory."""

import itertools

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..elastic import Elastic
from ..memory.bus import Bus, request_layout, write_layout
from ..tech.gate import Gate
from .bursts import lanes_of, request_of, walk_of
from .ports import READ_LATENCY, ReadPort, UnitPort, banks_of

__all__ = ["StoreUnit"]

STORE_BURSTS = 32
"""Bursts that a store may have begun and not seen written."""

STORE_WORDS = 16
"""Words that a store gathers before memory takes them: a burst where a word is a granule."""


class StoreUnit(wiring.Component):
    """Copies rows from the scratchpad to card memory (STORE).

    Reads a beat, or a granule if that is wider, a cycle; asks memory to write a burst when all of
    its data wait for it, so that a slow scratchpad never holds the bus. Rows and iterations follow
    each other without a gap, up to `STORE_BURSTS` bursts that are not written yet. See
    `TransferWalk` for the checks and for what happens before an error.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort())``
        Iterations with a `TransferBody`. ``done`` comes when memory has the data.
    bus : ``Out(Bus(config))``
        Writes only.
    read : ``Out(ReadPort(config, granules))``
        As many granules as a beat holds, at least one.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "bus": Out(Bus(config)),
                "read": Out(ReadPort(config, lanes_of(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        lanes = lanes_of(config)
        lane_bits = (lanes - 1).bit_length()
        bus = self.bus
        word_bits = 8 * GRANULE * lanes

        # The bursts that are not written yet. Their places are written until one is begun.
        entry_layout = data.StructLayout(
            {"request": request_layout(config), "last": unsigned(1)}  # of its iteration
        )
        m.submodules.bursts = bursts = Memory(shape=entry_layout, depth=STORE_BURSTS, init=[])
        entry, asked_of, oldest = (
            bursts.write_port(),
            bursts.read_port(domain="comb"),
            bursts.read_port(domain="comb"),
        )
        begun = Signal(range(STORE_BURSTS + 1))
        may_begin = Signal()  # a cycle late: one more may have begun
        m.submodules.words = words = Memory(
            shape=unsigned(word_bits + lanes), depth=STORE_WORDS, init=[]
        )
        word_in, word_out = words.write_port(), words.read_port(domain="comb")
        words_in, words_out = Signal(range(2 * STORE_WORDS)), Signal(range(2 * STORE_WORDS))

        walk = walk_of(m, config, self.unit, begun == 0)
        burst = walk.burst.payload

        # The burst that is being read, word by word: the granules of one beat lie side by side in
        # the scratchpad, too.
        reading = Signal()
        index = Signal(len(burst.end), reset_less=True)
        end = Signal(len(burst.end), reset_less=True)
        address = Signal(config.granule_addr_width, reset_less=True)
        held = Signal(range(STORE_WORDS + 1))
        issue = Signal()
        free = Signal()
        take = Signal()
        last_word = Signal(reset_less=True)
        spare, next_spare = Signal(init=1), Signal()  # there is room for another word
        # The last word is asked for, as soon as `ask` takes it: found out a cycle ahead.
        ends, starts_last, then_last = Signal(), Signal(), Signal()
        lane_first = index[:lane_bits]
        lane_last = Mux(last_word, end[:lane_bits], lanes - 1)
        tag_layout = data.StructLayout({"mask": unsigned(lanes), "burst_last": unsigned(1)})
        m.submodules.ask = ask = Elastic(
            data.StructLayout(
                {"address": len(address), "banks": config.scratchpad_banks, "tag": tag_layout}
            )
        )
        source = ask.source.payload
        first = Signal.like(address)
        m.d.comb += [
            first.eq(address - lane_first),
            ask.source.valid.eq(reading & spare),
            source.address.eq(first),
            source.banks.eq(banks_of(m, config, first, lanes)),
            source.tag.mask.eq(
                Cat((lane >= lane_first) & (lane <= lane_last) for lane in range(lanes))
            ),
            source.tag.burst_last.eq(last_word),
            issue.eq(ask.source.valid & ask.source.ready),
            self.read.valid.eq(ask.target.valid),
            *([self.read.needed.eq(~0)] if lanes > 1 else []),
            self.read.address.eq(ask.target.payload.address),
            self.read.banks.eq(ask.target.payload.banks),
            ask.target.ready.eq(self.read.ready),
            free.eq(~reading | (ends & ask.source.ready)),
            walk.burst.ready.eq(free & may_begin),
            take.eq(walk.burst.valid & walk.burst.ready),
            entry.data.request.eq(request_of(config, burst, write=1)),
            entry.data.last.eq(burst.last),
            entry.en.eq(may_begin),
        ]
        m.d.sync += [
            entry.addr.eq(entry.addr + take),
            begun.eq(begun + take - bus.written),
            may_begin.eq(begun < STORE_BURSTS - 1),
        ]
        m.submodules.ending = ending = Gate(  # ``take`` is late
            lambda take, starts, goes_on, spare: (starts if take else goes_on) and spare
        )
        goes_on = Mux(issue, ~last_word & then_last, reading & last_word)
        m.d.comb += [
            starts_last.eq(burst.memory[lane_bits : len(index)] == burst.end[lane_bits:]),
            then_last.eq(index[lane_bits:] + 1 == end[lane_bits:]),
            ending.bits.eq(Cat(take, starts_last, goes_on, next_spare)),
        ]
        m.d.sync += [spare.eq(next_spare), ends.eq(ending.out)]
        with m.If(issue):
            m.d.sync += [
                index.eq(index - lane_first + lanes),
                address.eq(address - lane_first + lanes),
                reading.eq(~last_word),
                last_word.eq(then_last),
            ]
        with m.If(take):
            m.d.sync += [
                reading.eq(1),
                index.eq(burst.memory[: len(index)]),
                end.eq(burst.end),
                last_word.eq(starts_last),
                address.eq(burst.scratchpad),
            ]

        # What each read is for travels beside it.
        tags = [Signal(tag_layout, name=f"tag{step}") for step in range(READ_LATENCY)]
        tag = tags[-1]
        push_last = Signal()
        accepted = self.read.valid & self.read.ready
        m.d.sync += [
            tags[0].eq(Mux(accepted, ask.target.payload.tag.as_value(), 0)),
            *(later.eq(earlier) for earlier, later in itertools.pairwise(tags)),
            push_last.eq(tag.burst_last),
        ]
        m.d.comb += [
            word_in.en.eq(tag.mask.any()),
            word_in.addr.eq(words_in),
            word_in.data.eq(Cat(self.read.data, tag.mask)),
            word_out.addr.eq(words_out),
        ]

        complete = Signal(range(STORE_BURSTS + 1))
        m.submodules.asking = asking = Elastic(request_layout(config))  # as in `LoadUnit`
        asked = Signal()
        m.d.comb += [
            asking.source.payload.eq(asked_of.data.request),
            asking.source.valid.eq(complete != 0),
            asked.eq(asking.source.valid & asking.source.ready),
            bus.request.payload.eq(asking.target.payload),
            bus.request.valid.eq(asking.target.valid),
            asking.target.ready.eq(bus.request.ready),
        ]
        m.d.sync += [
            asked_of.addr.eq(asked_of.addr + asked),
            complete.eq(complete + push_last - asked),
        ]

        beat = Signal(write_layout(config), reset_less=True)
        some, move, leaves = Signal(), Signal(), Signal()
        m.d.comb += [
            some.eq(words_in != words_out),
            move.eq(~bus.write.valid | bus.write.ready),
            bus.write.payload.eq(beat),
        ]
        with m.If(move):
            m.d.sync += [
                bus.write.valid.eq(some),
                beat.data.eq(word_out.data),
                beat.mask.eq(Cat(bit.replicate(GRANULE) for bit in word_out.data[word_bits:])),
            ]
        if config.bus_bytes < GRANULE:
            half = Signal()
            with m.If(move):
                m.d.sync += [
                    half.eq(half ^ some),
                    beat.data.eq(word_out.data.word_select(half, 8 * config.bus_bytes)),
                    beat.mask.eq(~0),
                ]
            m.d.comb += leaves.eq(move & some & half)
        else:
            m.d.comb += leaves.eq(move & some)
        m.d.sync += [words_in.eq(words_in + word_in.en), words_out.eq(words_out + leaves)]
        m.d.sync += held.eq(held + issue - leaves)
        full = (held == STORE_WORDS) | (issue & (held == STORE_WORDS - 1))
        m.d.comb += next_spare.eq(leaves | ~full)

        m.d.sync += [
            oldest.addr.eq(oldest.addr + bus.written),
            self.unit.done.eq(bus.written & oldest.data.last),
        ]
        return m
