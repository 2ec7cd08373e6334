"""Moves the beats of accepted bursts through the storage port."""

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..tech.gate import Gate
from .address import COLUMN_BYTES
from .arbiter import burst_layout
from .bus import STORAGE_LATENCY, Storage, burst_beats, write_layout

__all__ = ["Mover"]

_ANSWER = 6
"""Cycles from a beat's turn to its read data: with these, ideal memory answers after 8 cycles."""

_ACCESS = _ANSWER - STORAGE_LATENCY
"""Cycles from a beat's turn to its access."""


class Mover(wiring.Component):
    """Takes bursts in order and moves one beat a cycle.

    All bytes move here, in the order in which bursts were accepted, for both kinds of memory. HBM
    only says how many columns have been transferred; a beat waits until its columns have.

    Parameters
    ----------
    config : CardConfig
    depth : int
        Bursts that may be outstanding.

    Members
    -------
    burst : ``In(stream)``
        With ``ideal``, a burst is taken only in the cycle before its first beat's turn. ``ready``
        comes from a register and from ``halt``. ``valid`` is late, and decides little itself.
    channel : ``In``
        Channel of that burst.
    ideal : ``In(1)``
        Move at once.
    halt : ``In(1)``
        Take nothing.
    done : ``In``
        A bit a channel: one more of its columns has been transferred.
    pop, pop_requester, write_beat, read_valid, read_data, read_requester, written
        The other side of `Arbiter`.
    storage : ``Out(Storage(config))``
    idle : ``Out(1)``
        No burst is outstanding.
    """

    def __init__(self, config: CardConfig, *, depth: int = 16) -> None:
        self.config = config
        self.depth = depth
        super().__init__(
            {
                "burst": In(stream.Signature(burst_layout(config))),
                "channel": In(1),
                "ideal": In(1),
                "halt": In(1),
                "done": In(config.hbm_channels),
                "pop": Out(1),
                "pop_requester": Out(2),
                "write_beat": In(write_layout(config)),
                "read_valid": Out(1),
                "read_data": Out(8 * config.bus_bytes),
                "read_requester": Out(2),
                "written": Out(4),
                "storage": Out(Storage(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        beats = burst_beats(config)
        beat_bits = (config.bus_bytes - 1).bit_length()
        step_bits = (beats - 1).bit_length()
        columns = max(config.bus_bytes // COLUMN_BYTES, 1)  # of a beat
        within = max(COLUMN_BYTES // config.bus_bytes, 1)  # beats of a column

        # Outstanding bursts. The oldest, which moves, is in registers; the others are queued.
        item = data.StructLayout({"burst": burst_layout(config), "channel": unsigned(1)})
        m.submodules.queue = queue = Memory(shape=item, depth=self.depth, init=[])
        queue_write = queue.write_port()
        queue_read = queue.read_port(domain="comb")
        taken, following = Signal(item), Signal(item)
        head = Signal(item, reset_less=True)
        requester, request = head.burst.requester, head.burst.request
        valid, queued = Signal(), Signal()
        level = Signal(range(self.depth))  # of the queue
        put = Signal(range(self.depth))
        get = Signal(range(self.depth))
        begins = Signal(reset_less=True)  # the beat is the first of a column
        last = Signal(reset_less=True)  # and this one the last of the burst
        left = Signal(range(beats), reset_less=True)
        offset = Signal(step_bits, reset_less=True)
        move, finish, accept, wait = Signal(), Signal(), Signal(), Signal()
        ready = Signal(init=1)
        m.d.comb += [
            finish.eq(move & last),
            queued.eq(level != 0),
            self.burst.ready.eq(ready & ~self.halt),
            accept.eq(self.burst.valid & self.burst.ready),
            taken.burst.eq(self.burst.payload),
            taken.channel.eq(self.channel),
            queue_write.addr.eq(put),
            queue_write.data.eq(taken),
            queue_write.en.eq(1),  # until ``put`` goes on; that place is free
            queue_read.addr.eq(get),
            following.eq(Mux(queued, queue_read.data, taken)),
        ]
        with m.If(~valid | finish):
            m.d.sync += [
                valid.eq(accept | queued),
                head.eq(following),
                begins.eq(1),
                last.eq(following.burst.request.last_beat == 0),
                left.eq(following.burst.request.last_beat),
                offset.eq(following.burst.request.address[beat_bits:8]),
                get.eq(get + queued),
            ]
        with m.Else():
            with m.If(move):
                m.d.sync += [
                    begins.eq(offset[: (within - 1).bit_length()] == within - 1),
                    last.eq(left == 1),
                    left.eq(left - 1),
                    offset.eq(offset + 1),
                ]
        leaves = Signal()
        m.submodules.wait = waits = Gate(lambda valid, may, *_: valid and may)
        m.submodules.change = changes = Gate(lambda valid, may, less, _: (valid and may) != less)
        may_wait = self.burst.ready & (queued | (valid & ~finish))
        for gate in (waits, changes):
            m.d.comb += gate.bits.eq(Cat(self.burst.valid, may_wait, leaves))
        m.d.comb += [leaves.eq(queued & (~valid | finish)), wait.eq(waits.out)]
        m.d.sync += put.eq(put + wait)
        with m.If(changes.out):
            m.d.sync += level.eq(level + Mux(leaves, -1, 1))
        with m.If(self.ideal):  # it always moves, and never queues: nothing is here, or the last
            single = self.burst.payload.request.last_beat == 0
            m.d.sync += ready.eq(Mux(ready, ~accept | single, left == 1))
        with m.Else():
            fills = accept & (level == self.depth - 2)
            m.d.sync += ready.eq(leaves | (ready & ~fills))

        # A beat that begins a column waits until that has been transferred; of the wide bus, until
        # both of its columns have.
        channel = head.channel if config.hbm_channels > 1 else Const(0, 1)
        here = Signal(init=not config.hbm_channels)
        for number in range(config.hbm_channels):
            count = Signal(range(8 * self.depth + 1), name=f"columns_{number}")
            mine = channel == number
            # Whether there are enough is found out a cycle ahead.
            enough = Signal(name=f"enough_{number}")
            uses = move & begins & mine & ~self.ideal
            most = count + self.done[number]
            m.d.sync += [
                count.eq(most - Mux(uses, columns, 0)),
                enough.eq(self.ideal | Mux(uses, most >= 2 * columns, most >= columns)),
            ]
            with m.If(mine):
                m.d.comb += here.eq(enough)
        m.d.comb += move.eq(valid & (~begins | here))

        # The way to the storage port and back.
        what = data.StructLayout(
            {"write": unsigned(1), "last": unsigned(1), "requester": unsigned(2)}
        )
        stages = [Signal(what, name=f"stage_{i}", reset_less=True) for i in range(_ANSWER + 1)]
        addresses = [
            Signal(len(self.storage.address), name=f"address_{i}", reset_less=True)
            for i in range(_ACCESS)
        ]
        enables = Signal(_ANSWER + 1)
        m.d.sync += [
            enables.eq(Cat(move, enables)[: len(enables)]),
            stages[0].write.eq(request.write),
            stages[0].last.eq(last),
            stages[0].requester.eq(requester),
            addresses[0].eq(Cat(offset, request.address[8:])),
        ]
        m.d.sync += [later.eq(earlier) for earlier, later in itertools.pairwise(stages)]
        m.d.sync += [later.eq(earlier) for earlier, later in itertools.pairwise(addresses)]
        before, access = stages[_ACCESS - 3], stages[_ACCESS - 1]
        after, back = stages[_ANSWER - 1 :]
        accessed = enables[_ANSWER - 1]
        m.d.comb += [
            self.pop.eq(enables[_ACCESS - 3] & before.write),
            self.pop_requester.eq(before.requester),
            self.storage.enable.eq(enables[_ACCESS - 1]),
            self.storage.write.eq(access.write),
            self.storage.address.eq(addresses[-1]),
            self.storage.write_data.eq(self.write_beat.data),
            self.storage.write_mask.eq(self.write_beat.mask),
            self.written.eq(Mux(accessed & after.write & after.last, 1, 0) << after.requester),
            self.read_requester.eq(back.requester),
            self.idle.eq(~valid & ~enables.any()),
        ]
        # Nothing decides about the data: storage and requesters lie all over the device.
        m.d.sync += [
            self.read_valid.eq(accessed & ~after.write),
            self.read_data.eq(self.storage.read_data),
        ]
        return m
