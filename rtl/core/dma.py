"""The load unit and the store unit: copies between card memory and the scratchpad."""

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import GRANULE, CardConfig
from ..elastic import Elastic
from ..memory.bus import Bus, burst_beats, request_layout
from .ports import READ_LATENCY, ReadPort, UnitPort, WritePort, banks_of
from .transfer import TransferWalk

__all__ = ["LoadUnit", "StoreUnit"]

LOAD_BEATS = 128
"""A load asks for another burst while it waits for at most this many beats, a cycle ago."""

LOAD_BURSTS = 32
"""Bursts whose beats a load waits for, at most."""

STORE_BURSTS = 32
"""Bursts that a store may have begun and not seen written."""

STORE_WORDS = 16
"""Words that a store gathers before memory takes them: a burst where a word is a granule."""


def _lanes(config: CardConfig) -> int:
    """Return the granules of a beat, at least 1."""
    return max(1, config.bus_bytes // GRANULE)


def _request(config: CardConfig, burst: data.View, *, write: int) -> data.View:
    """Return the bus request that moves ``burst``."""
    lanes = _lanes(config)
    lane_bits = (lanes - 1).bit_length()
    first = burst.memory[lane_bits : len(burst.end)]
    beats = (burst.end[lane_bits:] - first)[: len(first)]
    layout = request_layout(config)
    return layout(
        Cat(
            Const(0, lane_bits + (GRANULE - 1).bit_length()),
            burst.memory[lane_bits:],
            Const(1, 1) if config.bus_bytes < GRANULE else Const(0, 0),
            beats,
            Const(write, 1),
        )
    )


def _walk(m: Module, config: CardConfig, unit: UnitPort, idle: Value) -> TransferWalk:
    """Add the walk that runs the iterations of ``unit``."""
    m.submodules.walk = walk = TransferWalk(config)
    connect(m, flipped(unit.start), walk.start)
    m.d.comb += [
        walk.idle.eq(idle),
        unit.error.eq(walk.error),
        unit.status.eq(walk.status),
    ]
    return walk


class LoadUnit(wiring.Component):
    """Copies rows from card memory to the scratchpad (LOAD).

    Asks for a burst a cycle as long as it waited a cycle ago for at most `LOAD_BEATS` beats and
    `LOAD_BURSTS` - 2 bursts, and writes a beat a cycle, three cycles after it came. Rows and
    iterations follow each other without waiting for data. A beat of several granules is one write
    whose mask leaves out what lies outside the row, so the write's address may be before the row's,
    modulo the scratchpad's size. See `TransferWalk` for the checks and for what happens before an
    error.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort())``
        Iterations with a `TransferBody`. ``done`` comes when the data are written.
    bus : ``Out(Bus(config))``
        Reads only.
    write : ``Out(WritePort(config, granules))``
        As many granules as a beat has, at least 1.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "bus": Out(Bus(config)),
                "write": Out(WritePort(config, _lanes(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        lanes = _lanes(config)
        lane_bits = (lanes - 1).bit_length()
        halves = config.bus_bytes < GRANULE
        bus = self.bus
        most = LOAD_BEATS + 2 * burst_beats(config)

        target_layout = data.StructLayout(
            {
                "address": unsigned(config.granule_addr_width),
                "last_beat": range(burst_beats(config)),
                "head": unsigned(lane_bits),
                "tail": unsigned(lane_bits),
                "last": unsigned(1),
            }
        )
        m.submodules.targets = targets = SyncFIFOBuffered(
            width=target_layout.size, depth=LOAD_BURSTS
        )
        waiting = Signal(range(most + 1))
        walk = _walk(m, config, self.unit, (waiting == 0) & ~self.write.valid)

        # The arbiter's choice takes long.
        m.submodules.requests = requests = Elastic(request_layout(config))
        burst = walk.burst.payload
        request = _request(config, burst, write=0)
        room = Signal()
        may_ask = Signal()  # a cycle late: it may have asked for one more
        asked = Signal()
        pushed = target_layout(targets.w_data)
        m.d.comb += [
            room.eq(may_ask & requests.source.ready),
            walk.burst.ready.eq(room),
            asked.eq(walk.burst.valid & room),
            requests.source.valid.eq(asked),
            requests.source.payload.eq(request),
            bus.request.payload.eq(requests.target.payload),
            bus.request.valid.eq(requests.target.valid),
            requests.target.ready.eq(bus.request.ready),
            targets.w_en.eq(asked),
            pushed.address.eq(burst.scratchpad - burst.memory[:lane_bits]),
            pushed.last_beat.eq(request.last_beat),
            pushed.head.eq(burst.memory[:lane_bits]),
            pushed.tail.eq(burst.end[:lane_bits]),
            pushed.last.eq(burst.last),
            # Loads do not write to memory.
            bus.write.valid.eq(0),
        ]

        # Beats that have come: there is room for all that it waits for. A read port with a clock
        # would promise the old word where one is written, which takes logic behind a block RAM.
        depth = 1 << (most - 1).bit_length()
        m.submodules.beats = beats = Memory(
            shape=unsigned(8 * config.bus_bytes), depth=depth, init=[]
        )
        beats_write, beats_read = beats.write_port(), beats.read_port(domain="comb")
        came, read = Signal(range(depth)), Signal(range(depth))
        here = Signal()  # the next beat is in ``word``
        word = Signal(8 * config.bus_bytes, reset_less=True)
        m.d.comb += [
            beats_write.addr.eq(came),
            beats_write.data.eq(bus.read.payload),
            beats_write.en.eq(bus.read.valid),
            beats_read.addr.eq(read),
        ]
        with m.If(bus.read.valid):
            m.d.sync += came.eq(came + 1)

        m.d.sync += may_ask.eq((waiting <= LOAD_BEATS) & (targets.level < LOAD_BURSTS - 1))

        target = target_layout(targets.r_data)
        beat = Signal(range(burst_beats(config)))
        take, whole = Signal(), Signal()  # a beat is taken, and makes a write
        final = Signal()
        # Half a granule has a register of its own, and time until the other comes: then whether
        # there is a place for it does not come from the scratchpad, which would be late.
        free = ~self.write.valid | (~beat[0] if halves else self.write.ready)
        m.d.comb += [
            take.eq(here & targets.r_rdy & free),
            whole.eq(take & beat[0] if halves else take),
            final.eq(beat == target.last_beat),
            targets.r_en.eq(take & final),
        ]
        with m.If(take | ~here):
            m.d.sync += [here.eq(came != read), word.eq(beats_read.data)]
            with m.If(came != read):
                m.d.sync += read.eq(read + 1)
        with m.If(take):
            m.d.sync += beat.eq(beat + 1)
            with m.If(final):
                m.d.sync += beat.eq(0)
        m.d.sync += waiting.eq(waiting + asked * (request.last_beat + 1) - take)

        last = Signal()
        m.d.sync += self.unit.done.eq(self.write.valid & self.write.ready & last)
        with m.If(self.write.ready):
            m.d.sync += self.write.valid.eq(0)
        data_now: Value = word
        if halves:
            low = Signal(8 * config.bus_bytes, reset_less=True)
            data_now = Cat(low, word)
            with m.If(~beat[0]):
                m.d.sync += low.eq(word)
        place = beat[1:] if halves else beat << lane_bits
        address = (target.address + place)[: config.granule_addr_width]
        banks = banks_of(m, config, address, lanes)
        with m.If(whole):
            m.d.sync += [
                self.write.valid.eq(1),
                last.eq(target.last & final),
                self.write.address.eq(address),
                self.write.banks.eq(banks),
                self.write.data.eq(data_now),
                self.write.mask.eq(
                    Cat(
                        (
                            ((beat != 0) | (target.head <= lane)) & (~final | (target.tail >= lane))
                        ).replicate(GRANULE)
                        for lane in range(lanes)
                    )
                ),
            ]
        return m


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
                "read": Out(ReadPort(config, _lanes(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        lanes = _lanes(config)
        lane_bits = (lanes - 1).bit_length()
        bus = self.bus
        word_bits = 8 * GRANULE * lanes

        # One entry a burst that is not written yet: whether it is its iteration's last.
        m.submodules.begun = begun = SyncFIFOBuffered(width=1, depth=STORE_BURSTS)
        m.submodules.requests = requests = SyncFIFO(
            width=request_layout(config).size, depth=STORE_BURSTS
        )
        m.submodules.words = words = SyncFIFOBuffered(width=word_bits + lanes, depth=STORE_WORDS)

        walk = _walk(m, config, self.unit, begun.level == 0)
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
        spare = Signal(init=1)  # there is room for another word
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
            *([self.read.needed.eq(~0)] if _lanes(config) > 1 else []),
            self.read.address.eq(ask.target.payload.address),
            self.read.banks.eq(ask.target.payload.banks),
            ask.target.ready.eq(self.read.ready),
            free.eq(~reading | (issue & last_word)),
            walk.burst.ready.eq(free & begun.w_rdy & requests.w_rdy),
            take.eq(walk.burst.valid & walk.burst.ready),
            begun.w_en.eq(take),
            begun.w_data.eq(burst.last),
            requests.w_en.eq(take),
            requests.w_data.eq(_request(config, burst, write=1)),
        ]
        with m.If(issue):
            m.d.sync += [
                index.eq(index - lane_first + lanes),
                address.eq(address - lane_first + lanes),
                reading.eq(~last_word),
                last_word.eq(index[lane_bits:] + 1 == end[lane_bits:]),
            ]
        with m.If(take):
            m.d.sync += [
                reading.eq(1),
                index.eq(burst.memory[: len(index)]),
                end.eq(burst.end),
                last_word.eq(burst.memory[lane_bits : len(index)] == burst.end[lane_bits:]),
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
            words.w_en.eq(tag.mask.any()),
            words.w_data.eq(Cat(self.read.data, tag.mask)),
        ]

        complete = Signal(range(STORE_BURSTS + 1))
        m.submodules.asking = asking = Elastic(request_layout(config))  # as in `LoadUnit`
        m.d.comb += [
            asking.source.payload.eq(requests.r_data),
            asking.source.valid.eq(complete != 0),
            requests.r_en.eq(asking.source.valid & asking.source.ready),
            bus.request.payload.eq(asking.target.payload),
            bus.request.valid.eq(asking.target.valid),
            asking.target.ready.eq(bus.request.ready),
        ]
        m.d.sync += complete.eq(complete + push_last - requests.r_en)

        beat = bus.write.payload
        m.d.comb += bus.write.valid.eq(words.r_rdy)
        if config.bus_bytes < GRANULE:
            half = Signal()
            with m.If(bus.write.valid & bus.write.ready):
                m.d.sync += half.eq(~half)
            m.d.comb += [
                beat.data.eq(words.r_data.word_select(half, 8 * config.bus_bytes)),
                beat.mask.eq(~0),
                words.r_en.eq(bus.write.ready & half),
            ]
        else:
            m.d.comb += [
                beat.data.eq(words.r_data),
                beat.mask.eq(Cat(bit.replicate(GRANULE) for bit in words.r_data[word_bits:])),
                words.r_en.eq(bus.write.ready),
            ]
        leaves = words.r_rdy & words.r_en
        m.d.sync += [
            held.eq(held + issue - leaves),
            spare.eq(leaves | ~((held == STORE_WORDS) | (issue & (held == STORE_WORDS - 1)))),
        ]

        m.d.comb += begun.r_en.eq(bus.written)
        m.d.sync += self.unit.done.eq(bus.written & begun.r_data)
        return m
