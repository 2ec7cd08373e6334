"""The walk over the directory: which visits an engine makes, and the streams that they name."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import LANES, DirectoryEntry, Mode
from .command import chosen, stream_command_layout
from .stream_port import EngineFetch

__all__ = ["Walk", "engine_start_layout", "step_layout"]

_VISITS_AHEAD = 4
"""Directory entries that an engine holds or has asked for, beside the one it works on."""

_GRANULES_AHEAD = 7
"""Granules that an engine holds or has asked for."""


def engine_start_layout(config: CardConfig) -> data.StructLayout:
    """Layout of an iteration's start: granule address of the blob, byte address of the output."""
    return data.StructLayout({"blob": unsigned(28), "output": unsigned(32)})


def step_layout() -> data.StructLayout:
    """Layout of a visit on its way from the walk to the decoder.

    ``absent``: the engine has no row in the block, and ``entry`` is void. ``length``: numbers in
    the visit's slice, or in all if it is absent. ``final``: it is the engine's last visit of its
    slice. ``output`` is the iteration's. The rest is as in `visit_layout`.
    """
    return data.StructLayout(
        {
            "entry": DirectoryEntry,
            "output": unsigned(32),
            "length": unsigned(16),
            "slot": unsigned(8),
            "slice_first": unsigned(1),
            "slice_last": unsigned(1),
            "block_first": unsigned(1),
            "block_new": unsigned(1),
            "iteration_last": unsigned(1),
            "absent": unsigned(1),
            "final": unsigned(1),
        }
    )


class Walk(wiring.Component):
    """Finds the visits of one engine, and fetches their directory entries and streams.

    `MatmulBody` says which visits these are: of each column block the slices in order, and of each
    slice the engine's rows; an engine without a row in a block has one visit there, an absent one.
    Directory entries are fetched ahead of the granules of streams, and these ahead of the decoder.
    An iteration may start as soon as the visits of the one before are known; iterations belong to
    the two ``commands`` by turns, the first one after a reset to the first.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    index : ``In``
        Which engine this is.
    start : ``In(stream)``
        Starts an iteration (`engine_start_layout`).
    commands : ``In(stream_command_layout).array(2)``
        Each is still from its iteration's ``start`` until the iteration has ended.
    mode : ``In(Mode)``
        Still while iterations run.
    fetch : ``Out(EngineFetch)``
    visit : ``Out(stream)``
        The visits (`step_layout`).
    granule : ``Out(stream)``
        The granules of their streams, one stream after the other.
    busy : ``Out(1)``
        Not all visits are on ``visit`` yet.
    error : ``Out(2)``
        Pulses, in an iteration of the first or the second command, when a granule is outside the
        scratchpad.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "index": In(range(config.rows)),
                "start": In(stream.Signature(engine_start_layout(config))),
                "commands": In(stream_command_layout()).array(2),
                "mode": In(Mode),
                "fetch": Out(EngineFetch(config)),
                "visit": Out(stream.Signature(step_layout())),
                "granule": Out(stream.Signature(8 * GRANULE)),
                "busy": Out(1),
                "error": Out(2),
            }
        )
        # An address with room for one step of up to 16 bits beyond the scratchpad, and with a top
        # bit that marks a blob outside.
        self._address = unsigned(max(config.granule_addr_width, 16) + 2)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.error.eq(0)
        self._known_layout = data.StructLayout(
            {name: field.shape for name, field in step_layout() if name != "entry"}
        )
        self._known = SyncFIFO(width=self._known_layout.size, depth=_VISITS_AHEAD)
        self._flying = Signal(range(_VISITS_AHEAD + 1))  # entries asked for that have not arrived
        self._arriving = Signal()  # the turn of their iteration
        self._blob = Signal(self._address, reset_less=True)
        self._asked_entry = Signal()  # a directory entry is asked for in this cycle
        self._asked_granule = Signal()
        self._streaming = Signal()  # granules of a stream are still to be asked for
        self._begun = Signal()  # a stream begins, or an empty entry is done with
        want_granule, granule_address, room = self._streams(m)
        want_entry, entry_address = self._visits(m)

        # Entries go first, as few as they are, but not before a stream that has just begun. What
        # is asked for waits in a register: what the port does is not seen in the same cycle.
        hurry = want_granule & (room >= _GRANULES_AHEAD - 1)
        asking, is_entry, free = Signal(), Signal(reset_less=True), Signal()
        address = Signal(self._config.granule_addr_width, reset_less=True)
        m.d.comb += [
            free.eq(~asking),
            self._asked_entry.eq(free & want_entry & ~hurry),
            self._asked_granule.eq(free & want_granule & (~want_entry | hurry)),
            self.fetch.valid.eq(asking),
            self.fetch.entry.eq(is_entry),
            self.fetch.address.eq(address),
        ]
        with m.If(free):
            m.d.sync += [
                asking.eq(self._asked_entry | self._asked_granule),
                is_entry.eq(self._asked_entry),
                address.eq(Mux(self._asked_entry, entry_address, granule_address)),
            ]
        with m.Elif(self.fetch.ready):
            m.d.sync += asking.eq(0)
        return m

    def _outside(self, address):
        return address[self._config.granule_addr_width :].any()

    def _visits(self, m: Module) -> tuple[Signal, Signal]:
        """Step from visit to visit. Returns the request for the next entry, and its address.

        A visit takes two cycles or more. In the first one its place is worked out, and what would
        be left after it; then it is known whether the row, the slice and the block end with it. A
        block takes one more, before its first visit.
        """
        config = self._config
        rows = config.rows

        # Where the walk is: iteration, column block, slice of K, and the engine's row in it.
        walking, entering, settled = Signal(), Signal(), Signal()
        turn = Signal()  # of the iteration that is walked, or is next
        requested = Signal()  # the row's entry has been asked for
        output = Signal(32, reset_less=True)
        k, n, length, entries, deal_on = chosen(
            m, self.commands, turn, "k", "n", "slice", "entries", "deal_on"
        )
        columns = Signal(16, reset_less=True)
        k_left = Signal(16, reset_less=True)
        left = Signal(signed(17), reset_less=True)  # rows from this one on
        block_left = Signal(signed(17), reset_less=True)  # from the engine's first in the block on
        slice_end = Signal(self._address, reset_less=True)  # behind the slice's entries
        slot = Signal(8, reset_less=True)
        block_first, block_new, slice_first = (
            Signal(name=name, reset_less=True)
            for name in ("block_first", "block_new", "slice_first")
        )
        block_columns = Signal(range(max(LANES.values()) * config.cols + 1))
        with m.Switch(self.mode):
            for mode, lanes in LANES.items():
                with m.Case(mode):
                    m.d.comb += block_columns.eq(lanes * config.cols)

        # What is left after this row, slice and block; zero or less where it is the last.
        rows_after = Signal(signed(17), reset_less=True)
        k_after = Signal(signed(17), reset_less=True)
        columns_after = Signal(signed(17), reset_less=True)
        entry, absent = Signal(self._address, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            rows_after.eq(left - rows),
            k_after.eq(k_left - length),
            columns_after.eq(columns - block_columns),
            entry.eq(slice_end - left),
            absent.eq(left <= 0),
            settled.eq(walking & ~entering),
        ]
        row_last, slice_last, block_last, block_ends = (
            Signal(name=name) for name in ("row_last", "slice_last", "block_last", "block_ends")
        )
        m.d.comb += [
            row_last.eq(rows_after <= 0),
            slice_last.eq(k_after <= 0),
            block_last.eq(columns_after <= 0),
            block_ends.eq(absent | (row_last & slice_last)),
        ]

        # Rows are dealt anew, or on from where the block or the iteration before ended.
        dealt, next_row = Signal(), Signal(range(rows), reset_less=True)
        addr_width = config.granule_addr_width
        m.d.comb += self.start.ready.eq(~walking & ~self._flying.any())
        step = Signal()
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += [
                walking.eq(1),
                entering.eq(1),
                requested.eq(0),
                output.eq(self.start.payload.output),
                self._blob.eq(self.start.payload.blob[:addr_width]),
                self._blob[-1].eq(self.start.payload.blob[addr_width:].any()),
                columns.eq(n),
                block_first.eq(1),
            ]
            with m.If(~(deal_on & dealt)):
                m.d.sync += next_row.eq(self.index)
        with m.If(self._asked_entry):
            m.d.sync += requested.eq(1)
        with m.If(entering):
            first_left = entries - next_row
            m.d.sync += [
                entering.eq(0),
                k_left.eq(k),
                left.eq(first_left),
                block_left.eq(first_left),
                slice_end.eq(self._blob + entries),
                slot.eq(0),
                block_new.eq(1),
                slice_first.eq(1),
            ]
        with m.If(step):
            m.d.sync += [
                settled.eq(0),
                requested.eq(0),
                slot.eq(slot + 1),
                block_new.eq(0),
                left.eq(rows_after),
            ]
            with m.If(row_last):
                m.d.sync += [
                    k_left.eq(k_after),
                    left.eq(block_left),
                    slice_end.eq(slice_end + entries),
                    slot.eq(0),
                    slice_first.eq(0),
                ]
            with m.If(block_ends):
                m.d.sync += [
                    walking.eq(~block_last),
                    entering.eq(~block_last),
                    dealt.eq(1),
                    next_row.eq(Mux(absent, -left, -rows_after)),
                    turn.eq(turn ^ block_last),
                    columns.eq(columns_after),
                    block_first.eq(0),
                ]
        filler = Signal()
        held = self._join(m, step, filler)
        steps = data.View(self._known_layout, self._known.w_data)
        m.d.comb += [
            filler.eq(settled & absent & ~self._flying.any() & (held != _VISITS_AHEAD)),
            step.eq(settled & (filler | requested) & self._known.w_rdy),
            steps.output.eq(output),
            # K is still whole where an engine is absent.
            steps.length.eq(Mux(absent | slice_last, k_left, length)),
            steps.slot.eq(slot),
            steps.slice_first.eq(slice_first | absent),
            steps.slice_last.eq(slice_last | absent),
            steps.block_first.eq(block_first),
            steps.block_new.eq(block_new),
            steps.iteration_last.eq(block_ends & block_last),
            steps.absent.eq(absent),
            steps.final.eq(row_last),
            self.busy.eq(walking | self._known.r_rdy),
            # None is on its way when a walk begins.
            self._arriving.eq(turn ^ ~walking),
        ]

        # At first only one entry is asked for: a second one would hold up the first one's stream.
        unread, begun, outside = Signal(range(_VISITS_AHEAD + 1)), Signal(), Signal()
        m.d.sync += [
            unread.eq(unread + self._asked_entry - self._begun),
            begun.eq(~self.start.ready & (begun | self._begun)),
        ]
        may_ask = (held != _VISITS_AHEAD) & (~unread.any() | (begun & (unread != _VISITS_AHEAD)))
        wanted = settled & ~absent & ~requested
        m.d.comb += outside.eq(self._outside(entry))
        with m.If(wanted & outside):
            m.d.sync += self.error.bit_select(turn, 1).eq(1)
        return may_ask & wanted & ~outside, entry

    def _join(self, m: Module, step, filler) -> Signal:
        """Put entries next to what the walk knows of their visits; an absent visit has one, too,
        of what is on the bus (``filler``). Returns how many are held or asked for."""
        m.submodules.known = known = self._known
        m.submodules.entries = entries = SyncFIFO(width=8 * GRANULE, depth=_VISITS_AHEAD)
        held = Signal(range(_VISITS_AHEAD + 1))
        visit = self.visit.payload
        described = data.View(self._known_layout, known.r_data)
        filled = step & filler
        m.d.comb += [
            known.w_en.eq(step),
            entries.w_data.eq(self.fetch.data),
            entries.w_en.eq(self.fetch.entry_valid | filled),
            self.visit.valid.eq(known.r_rdy & entries.r_rdy),
            known.r_en.eq(self.visit.valid & self.visit.ready),
            entries.r_en.eq(known.r_en),
            visit.entry.eq(entries.r_data),
        ]
        m.d.comb += [visit[name].eq(described[name]) for name, _ in self._known_layout]
        m.d.sync += [
            held.eq(held + self._asked_entry + filled - entries.r_en),
            self._flying.eq(self._flying + self._asked_entry - self.fetch.entry_valid),
        ]
        return held

    def _streams(self, m: Module):
        """Fetch the streams that the entries name. Returns the request for a granule, its address,
        and for how many granules there is room."""
        address = Signal(self._address, reset_less=True)
        left = Signal(signed(17))  # values whose granules have not been asked for
        turn = Signal(reset_less=True)

        layout = data.StructLayout({"address": self._address, "count": 16, "turn": 1})
        m.submodules.streams = streams = SyncFIFO(width=layout.size, depth=_VISITS_AHEAD)
        arriving = data.View(DirectoryEntry, self.fetch.data)
        found, queued = Signal(layout), data.View(layout, streams.r_data)
        idle, outside = Signal(), Signal()
        m.d.comb += [
            idle.eq(left <= 0),
            self._streaming.eq(~idle),
            found.address.eq(self._blob + arriving.stream),
            found.count.eq(arriving.count),
            found.turn.eq(self._arriving),
            streams.w_data.eq(found),
            streams.w_en.eq(self.fetch.entry_valid),
            streams.r_en.eq(idle),
            self._begun.eq(idle & streams.r_rdy),
        ]
        with m.If(self._begun):
            m.d.sync += [address.eq(queued.address), left.eq(queued.count), turn.eq(queued.turn)]
        (per_granule,) = chosen(m, self.commands, turn, "per_granule")

        m.submodules.granules = granules = SyncFIFO(width=8 * GRANULE, depth=_GRANULES_AHEAD)
        room = Signal(range(_GRANULES_AHEAD + 1), init=_GRANULES_AHEAD)
        m.d.comb += outside.eq(self._outside(address))
        with m.If(self._asked_granule):
            m.d.sync += [address.eq(address + 1), left.eq(left - per_granule)]
        with m.If(~idle & outside):
            m.d.sync += self.error.bit_select(turn, 1).eq(1)
        m.d.comb += [
            granules.w_en.eq(self.fetch.granule_valid),
            granules.w_data.eq(self.fetch.data),
            self.granule.payload.eq(granules.r_data),
            self.granule.valid.eq(granules.r_rdy),
            granules.r_en.eq(self.granule.ready),
        ]
        taken = Signal()
        m.d.sync += [
            taken.eq(granules.r_en & granules.r_rdy),
            room.eq(room - self._asked_granule + taken),
        ]
        return ~idle & room.any() & ~outside, address, room
