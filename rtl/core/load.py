"""The load unit: copies from card memory to the scratchpad."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..elastic import Elastic
from ..memory.bus import Bus, burst_beats, request_layout
from .bursts import lanes_of, request_of, walk_of
from .ports import UnitPort, WritePort, banks_of

__all__ = ["LoadUnit"]

LOAD_BEATS = 128
"""A load asks for another burst while it waited two cycles ago for at most this many beats."""

LOAD_BURSTS = 32
"""Bursts whose beats a load waits for, at most."""


class LoadUnit(wiring.Component):
    """Copies rows from card memory to the scratchpad (LOAD).

    Asks for a burst a cycle as long as it waited lately for at most `LOAD_BEATS` beats and
    `LOAD_BURSTS` - 2 bursts, and writes a beat a cycle, four cycles after it came. Rows and
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
                "write": Out(WritePort(config, lanes_of(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        lanes = lanes_of(config)
        lane_bits = (lanes - 1).bit_length()
        halves = config.bus_bytes < GRANULE
        bus = self.bus
        most = LOAD_BEATS + 3 * burst_beats(config)

        target_layout = data.StructLayout(
            {
                "address": unsigned(config.granule_addr_width),
                "last_beat": range(burst_beats(config)),
                "head": unsigned(lane_bits),
                "tail": unsigned(lane_bits),
                "last": unsigned(1),
            }
        )
        # Bursts that are asked for. A place is written until one is.
        m.submodules.targets = targets = Memory(shape=target_layout, depth=LOAD_BURSTS, init=[])
        pushed, following = targets.write_port(), targets.read_port(domain="comb")
        bursts = Signal(range(LOAD_BURSTS + 1))
        waiting = Signal(range(most + 1))  # for beats, but for those of ``new``
        new = Signal(range(burst_beats(config) + 1))
        walk = walk_of(m, config, self.unit, ~Cat(waiting, new, self.write.valid).any())

        # The arbiter's choice takes long.
        m.submodules.requests = requests = Elastic(request_layout(config))
        burst = walk.burst.payload
        request = request_of(config, burst, write=0)
        room = Signal()
        may_ask = Signal()  # a cycle late: it may have asked for one more
        asked = Signal()
        m.d.comb += [
            room.eq(may_ask & requests.source.ready),
            walk.burst.ready.eq(room),
            asked.eq(walk.burst.valid & room),
            requests.source.valid.eq(asked),
            requests.source.payload.eq(request),
            bus.request.payload.eq(requests.target.payload),
            bus.request.valid.eq(requests.target.valid),
            requests.target.ready.eq(bus.request.ready),
            pushed.en.eq(may_ask),
            pushed.data.address.eq(burst.scratchpad - burst.memory[:lane_bits]),
            pushed.data.last_beat.eq(request.last_beat),
            pushed.data.head.eq(burst.memory[:lane_bits]),
            pushed.data.tail.eq(burst.end[:lane_bits]),
            pushed.data.last.eq(burst.last),
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
        # The next beat, and the one behind it: block RAM is slow, and those who want it far away.
        here, word = Signal(), Signal(8 * config.bus_bytes, reset_less=True)
        behind, read_word = Signal(), Signal(8 * config.bus_bytes, reset_less=True)
        m.d.comb += [
            beats_write.addr.eq(came),
            beats_write.data.eq(bus.read.payload),
            beats_write.en.eq(bus.read.valid),
            beats_read.addr.eq(read),
        ]
        with m.If(bus.read.valid):
            m.d.sync += came.eq(came + 1)

        # The burst whose beats come. Which one is its last is found out a cycle ahead.
        target = Signal(target_layout, reset_less=True)
        named, fresh, final = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        another, go_on, went_on = Signal(), Signal(), Signal()
        take, whole = Signal(), Signal()  # a beat is taken, and makes a write
        # Which half of a granule comes, where a beat is that. The first has a register of its own.
        comes_low, comes_high = Signal(init=1), Signal()
        item_layout = data.StructLayout(
            {
                "address": unsigned(config.granule_addr_width),
                "banks": unsigned(config.scratchpad_banks),
                "data": unsigned(len(self.write.data)),
                "mask": unsigned(lanes),
                "last": unsigned(1),
            }
        )
        item = Signal(item_layout)
        place = self._write(m, item, whole)
        move, fetch, some = Signal(), Signal(), Signal()
        m.d.comb += [
            some.eq(came != read),
            move.eq(take | ~here),
            fetch.eq(move | ~behind),
            take.eq(here & named & (place | ~comes_high if halves else place)),
            whole.eq(take & comes_high if halves else take),
            go_on.eq(~named | (take & final)),
            another.eq(following.addr != pushed.addr),
        ]
        m.d.sync += [
            pushed.addr.eq(pushed.addr + asked),
            went_on.eq(go_on & another),
            bursts.eq(bursts + asked - went_on),
            may_ask.eq((waiting <= LOAD_BEATS) & (bursts < LOAD_BURSTS - 2)),
        ]
        with m.If(move):
            m.d.sync += [here.eq(behind), word.eq(read_word)]
        with m.If(fetch):
            m.d.sync += [behind.eq(some), read_word.eq(beats_read.data), read.eq(read + some)]
        with m.If(take):
            m.d.sync += [comes_low.eq(comes_high), comes_high.eq(comes_low)]
        with m.If(go_on):
            m.d.sync += [
                following.addr.eq(following.addr + another),
                target.eq(following.data),
                named.eq(another),
                fresh.eq(1),
                final.eq(following.data.last_beat == 0),
            ]
        with m.Elif(take):
            m.d.sync += [
                target.last_beat.eq(target.last_beat - 1),
                fresh.eq(fresh & ~whole),
                final.eq(target.last_beat == 1),
            ]
            with m.If(whole):
                m.d.sync += target.address.eq(target.address + lanes)
        m.d.sync += [
            new.eq(Mux(asked, request.last_beat + 1, 0)),
            waiting.eq(waiting + new - take),
        ]

        data_now: Value = word
        if halves:
            low = Signal(8 * config.bus_bytes, reset_less=True)
            data_now = Cat(low, word)
            with m.If(comes_low):
                m.d.sync += low.eq(word)
        m.d.comb += [
            item.address.eq(target.address),
            item.banks.eq(banks_of(m, config, target.address, lanes)),
            item.data.eq(data_now),
            item.mask.eq(
                Cat(
                    (~fresh | (target.head <= lane)) & (~final | (target.tail >= lane))
                    for lane in range(lanes)
                )
            ),
            item.last.eq(target.last & final),
        ]
        return m

    def _write(self, m: Module, item: data.View, whole: Value) -> Value:
        """Write an ``item`` when it is ``whole``; return whether there is a place for it.

        Of halves one is whole every other cycle at most, and waits in one register. Of others one
        comes in every cycle, and has a second place: the end of the one before would be late, as it
        comes from the scratchpad.
        """
        write = self.write
        if self.config.bus_bytes < GRANULE:
            held = Signal(item.shape(), name="held", reset_less=True)
            # ``vacant`` is not ``write.valid``: one has many loads, the other is wanted early.
            stays, vacant = Signal(), Signal(init=1)
            m.d.comb += stays.eq(whole | (write.valid & ~write.ready))
            m.d.sync += [write.valid.eq(stays), vacant.eq(~stays)]
            # Whether there is a beat is not asked where it goes: that would be late.
            with m.If(vacant):
                m.d.sync += held.eq(item)
            place: Value = ~write.valid
        else:
            m.submodules.writes = writes = Elastic(item.shape())
            held, place = writes.target.payload, writes.source.ready
            m.d.comb += [
                writes.source.valid.eq(whole),
                writes.source.payload.eq(item),
                writes.target.ready.eq(write.ready),
                write.valid.eq(writes.target.valid),
            ]
        m.d.comb += [
            write.address.eq(held.address),
            write.banks.eq(held.banks),
            write.data.eq(held.data),
            write.mask.eq(Cat(bit.replicate(GRANULE) for bit in held.mask)),
        ]
        m.d.sync += self.unit.done.eq(write.valid & write.ready & held.last)
        return place
