"""The card's memory: four requesters, HBM or an ideal memory, and the port to the bytes."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import CardConfig
from .address import decode, row_bits
from .arbiter import REQUESTERS, Arbiter
from .bus import Bus, Storage
from .channel import Channel
from .mover import Mover
from .timing import HBM3_6400, Timing

__all__ = ["MemorySystem"]

_DEPTH = 16
"""Bursts outstanding. No channel ever holds more than are outstanding, so none overflows."""


class MemorySystem(wiring.Component):
    """Serves bursts of four requesters, round robin, one at a time in the order of acceptance.

    Bytes move in that order over the storage port, one beat a cycle, so every read returns what
    the writes accepted before it left. A write burst is accepted only when all of its data are
    here; while it waits at the head of its requester, later requests of that one wait too.

    Ideal memory returns the first beat of a read 8 cycles after the burst was accepted, and moves
    a beat every cycle without gaps. HBM moves a beat when the columns that hold it have passed the
    device's pins, plus the same 7 cycles for the storage port. It stores nothing: only its time is
    modelled, by a controller and a device for each channel. Up to 16 bursts in one direction are
    accepted before those in the other, because turning the data bus round costs time.

    Parameters
    ----------
    config : CardConfig
    timing : Timing
        Of the HBM.

    Members
    -------
    fetch, load0, load1, store : ``In(Bus(config))``
        Only the `WRITERS` among them may write.
    storage : ``Out(Storage(config))``
    ideal : ``In(1)``
        Ideal memory instead of HBM. Changes only while ``idle`` and with ``halt``, or in reset.
        Ignored where the card has no HBM channel: its memory is ideal.
    halt : ``In(1)``
        Accept no burst; accepted ones finish.
    flush : ``In(1)``
        Forget write data whose burst was not accepted. Only with ``halt`` and ``idle``, when the
        requesters are reset.
    idle : ``Out(1)``
        No accepted burst is outstanding.
    read_beat, write_beat : ``Out(1)``
        Events: a beat moved over the storage port.
    row_hit, activate, refresh : ``Out``
        Events of HBM, counted over the channels in this cycle: column commands that found their
        row in use, activates, refreshes. Zero with ``ideal``.
    illegal : ``Out(1)``
        The controller broke a rule of the DRAM. Stays until reset. Only where the
        RTL is simulated: no device has the model of the DRAM that tells.
    """

    def __init__(self, config: CardConfig, *, timing: Timing = HBM3_6400) -> None:
        if config.hbm_channels not in (0, 1, 2):
            raise ValueError(f"hbm_channels must be 0, 1 or 2, not {config.hbm_channels!r}")
        self.config = config
        self.timing = timing
        count = range(config.hbm_channels + 1)
        super().__init__(
            {
                **{name: In(Bus(config)) for name in REQUESTERS},
                "storage": Out(Storage(config)),
                "ideal": In(1),
                "halt": In(1),
                "flush": In(1),
                "idle": Out(1),
                "read_beat": Out(1),
                "write_beat": Out(1),
                "row_hit": Out(count),
                "activate": Out(count),
                "refresh": Out(count),
                "illegal": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.arbiter = arbiter = Arbiter(config)
        m.submodules.mover = mover = Mover(config, depth=_DEPTH)
        for name in REQUESTERS:
            connect(m, flipped(getattr(self, name)), getattr(arbiter, name))
        connect(m, arbiter.burst, mover.burst)
        connect(m, mover.storage, flipped(self.storage))

        request = arbiter.burst.payload.request
        ideal = self.ideal if config.hbm_channels else Const(1, 1)
        channel_of, access = Const(0, 1), {}
        if config.hbm_channels:
            channel_of, access = decode(config, request.address, request.last_beat)
        accepted = arbiter.burst.valid & mover.burst.ready & ~ideal
        channels = []
        for number in range(config.hbm_channels):
            channel = Channel(row_bits=row_bits(config), timing=self.timing, depth=_DEPTH)
            m.submodules[f"channel_{number}"] = channel
            channels.append(channel)
            payload = channel.request.payload
            m.d.comb += [
                channel.request.valid.eq(accepted & (channel_of == number)),
                *(getattr(payload, field).eq(value) for field, value in access.items()),
                payload.write.eq(request.write),
                mover.done[number].eq(channel.done),
            ]

        any_illegal = Signal()
        m.d.comb += [
            arbiter.batch.eq(~ideal),
            arbiter.flush.eq(self.flush),
            arbiter.pop.eq(mover.pop),
            arbiter.pop_requester.eq(mover.pop_requester),
            mover.write_beat.eq(arbiter.write_beat),
            arbiter.read_valid.eq(mover.read_valid),
            arbiter.read_data.eq(mover.read_data),
            arbiter.read_requester.eq(mover.read_requester),
            arbiter.written.eq(mover.written),
            mover.channel.eq(channel_of),
            mover.ideal.eq(ideal),
            mover.halt.eq(self.halt),
            self.idle.eq(mover.idle),
            self.read_beat.eq(self.storage.enable & ~self.storage.write),
            self.write_beat.eq(self.storage.enable & self.storage.write),
            any_illegal.eq(Cat(channel.illegal for channel in channels).any()),
        ]
        with m.If(~ideal):
            m.d.comb += [
                self.row_hit.eq(sum(channel.row_hit for channel in channels)),
                self.activate.eq(sum(channel.activate for channel in channels)),
                self.refresh.eq(sum(channel.refresh for channel in channels)),
            ]
        with m.If(any_illegal):
            m.d.sync += self.illegal.eq(1)
        return m
