"""The walk over the streams that directory entries name."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import DirectoryEntry
from ..tech.gate import Gate
from .command import chosen, stream_command_layout

__all__ = ["GRANULES_AHEAD", "VISITS_AHEAD", "StreamWalk", "address_shape", "outside"]

VISITS_AHEAD = 4
"""Directory entries that an engine holds or has asked for, beside the one it works on: a power of
two, which the top bit of a count tells."""

GRANULES_AHEAD = 7
"""Granules that an engine holds or has asked for: less than 8, and room for 6 has the top two bits
of the count set."""


def address_shape(config: CardConfig):
    """Shape of a granule's address with room for one step of up to 16 bits beyond the scratchpad,
    and with a top bit that marks a blob outside."""
    return unsigned(max(config.granule_addr_width, 16) + 2)


def outside(config: CardConfig, address):
    """Return whether an address (`address_shape`) is outside the scratchpad."""
    return address[config.granule_addr_width :].any()


class StreamWalk(wiring.Component):
    """Names the granules of streams, one stream after the other in the order of their entries.

    A stream that finds nothing before it is asked for when its entry is here; the step to its
    second granule is made in the cycle after that.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    commands : ``In(stream_command_layout).array(2)``
        As those of `Walk`.
    blob : ``In``, entry : ``In(DirectoryEntry)``, turn : ``In(1)``, entry_valid : ``In(1)``
        An entry is here, of an iteration of this turn, whose blob begins at this address.
    begun : ``Out(1)``
        A stream begins, or an empty entry is done with.
    hurry, roomy : ``Out(1)``
        A stream waits for its next granule and there is plenty of room; there is plenty of room.
    wanted, address : ``Out``
        A granule is wanted, and its address.
    granted : ``In(1)``
        It is asked for, if it is wanted: not in two cycles one after the other.
    taken : ``In(1)``
        Pulses when a granule has made room.
    error : ``Out(2)``
        As that of `Walk`; combinational.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        address = address_shape(config)
        super().__init__(
            {
                "commands": In(stream_command_layout()).array(2),
                "blob": In(address),
                "entry": In(DirectoryEntry),
                "turn": In(1),
                "entry_valid": In(1),
                "begun": Out(1),
                "hurry": Out(1),
                "roomy": Out(1),
                "wanted": Out(1),
                "address": Out(address),
                "granted": In(1),
                "taken": In(1),
                "error": Out(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        shape = address_shape(config)
        address = Signal(shape, reset_less=True)
        left = Signal(16, reset_less=True)  # values whose granules have not been asked for
        # There are none; one too many. What arrives finds nothing before it.
        idle, behind, at_once = Signal(init=1), Signal(), Signal(init=1)
        next_idle = Signal()
        turn = Signal(reset_less=True)
        asked, begins, stepped, may_step = (
            Signal(name=name) for name in ("asked", "begins", "stepped", "may_step")
        )

        # Streams that wait. What finds nothing before it does not: a register says so, as it
        # decides much.
        layout = data.StructLayout({"address": shape, "count": 16, "turn": 1})
        m.submodules.streams = streams = Memory(shape=layout, depth=VISITS_AHEAD, init=[])
        write, read = streams.write_port(), streams.read_port(domain="comb")
        level, next_level = (Signal(range(VISITS_AHEAD + 1)) for _ in range(2))
        found, next_one, leaves = Signal(layout), Signal(layout), Signal()
        m.d.comb += [
            found.address.eq(self.blob + self.entry.stream),
            found.count.eq(self.entry.count),
            found.turn.eq(self.turn),
            write.data.eq(found),
            write.en.eq(self.entry_valid & ~at_once),
            leaves.eq(idle & ~at_once),
            next_level.eq(level + write.en - leaves),
            next_one.eq(Mux(at_once, found, read.data)),
            self.begun.eq(leaves | (at_once & self.entry_valid)),
        ]
        m.d.sync += [
            level.eq(next_level),
            write.addr.eq(write.addr + write.en),
            read.addr.eq(read.addr + leaves),
        ]
        (per_granule,) = chosen(m, self.commands, turn, "per_granule")
        with m.If(self.begun):
            m.d.sync += turn.eq(next_one.turn)
        # Synthesis would find that what is asked for at once begins, and take that for the step.
        m.submodules.moves = moves = Gate(lambda now, may, granted, _: now or (may and granted))
        m.d.comb += [
            moves.bits.eq(Cat(self.begun | behind, may_step, self.granted)),
            next_idle.eq(
                Mux(
                    idle,
                    ~(self.begun & next_one.count.any()),
                    (stepped | behind) & (left <= per_granule),
                )
            ),
        ]
        m.d.sync += [
            idle.eq(next_idle),
            at_once.eq(next_idle & ~next_level.any()),
            behind.eq(idle & asked),
        ]
        with m.If(moves.out):
            m.d.sync += [
                address.eq(Mux(idle, next_one.address, address + 1)),
                left.eq(Mux(idle, next_one.count, left - per_granule)),
            ]

        # What is asked for is counted a cycle later.
        room, next_room = (Signal(range(GRANULES_AHEAD + 1), init=GRANULES_AHEAD) for _ in range(2))
        some_room, asked_before = Signal(init=1), Signal()
        m.d.comb += [
            self.roomy.eq(room[1:].all()),
            self.hurry.eq(self.roomy & Mux(idle, at_once & self.entry_valid, ~behind)),
            begins.eq(
                at_once & self.entry_valid & found.count.any() & ~outside(config, found.address)
            ),
            may_step.eq(~idle & ~behind & some_room & ~outside(config, address)),
            self.wanted.eq(may_step | (some_room & begins)),
            self.address.eq(Mux(idle, found.address, address)),
            asked.eq(self.granted & self.wanted),
            # The first granule that is asked for at once is not among these.
            stepped.eq(self.granted & may_step),
            next_room.eq(room - asked_before + self.taken),
        ]
        m.d.sync += [
            asked_before.eq(asked),
            room.eq(next_room),
            some_room.eq(next_room.any()),
        ]
        with m.If(~idle & outside(config, address)):
            m.d.comb += self.error.bit_select(turn, 1).eq(1)
        return m
