"""The walk over the directory: which visits an engine makes, and the streams that they name."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import LANES, DirectoryEntry, Mode
from ..tech.gate import Gate
from .command import chosen, stream_command_layout
from .stream_port import EngineFetch
from .stream_walk import GRANULES_AHEAD, VISITS_AHEAD, StreamWalk, address_shape, outside

__all__ = ["Walk", "engine_start_layout", "step_layout"]


def engine_start_layout(config: CardConfig) -> data.StructLayout:
    """Layout of an iteration's start: granule address of the blob, byte address of the output."""
    return data.StructLayout({"blob": unsigned(28), "output": unsigned(32)})


def step_layout() -> data.StructLayout:
    """Layout of a visit on its way from the walk to the decoder.

    ``empty``: it has no weights. ``length_less``: numbers in the visit's slice, or in all if the
    engine has no row in the block, less 1; ``entry`` is void then. ``final``: it is the engine's
    last visit of its slice. The rest is as in `visit_layout`.
    """
    return data.StructLayout(
        {
            "entry": DirectoryEntry,
            "length_less": unsigned(16),
            "slot": unsigned(8),
            "slice_first": unsigned(1),
            "slice_last": unsigned(1),
            "block_first": unsigned(1),
            "block_new": unsigned(1),
            "iteration_last": unsigned(1),
            "empty": unsigned(1),
            "final": unsigned(1),
        }
    )


def _known_layout() -> data.StructLayout:
    """Layout of what the walk knows of a visit before its entry has arrived; ``empty``: that the
    engine has no row."""
    return data.StructLayout(
        {name: field.shape for name, field in step_layout() if name != "entry"}
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
    output : ``Out(32)``
        From the cycle after a visit was taken on, its iteration's.
    granule, granule_valid, granule_ready : ``Out(128)``, ``Out(1)``, ``In(1)``
        The granules of their streams, one stream after the other. As a stream, but nothing is
        valid in a cycle in which a visit is taken: both are read from one memory.
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
                "output": Out(32),
                "granule": Out(8 * GRANULE),
                "granule_valid": Out(1),
                "granule_ready": In(1),
                "busy": Out(1),
                "error": Out(2),
            }
        )
        self._address = address_shape(config)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._held = Signal(range(VISITS_AHEAD + 1))  # entries held or asked for
        self._next_held = Signal.like(self._held)
        self._flying = Signal(range(VISITS_AHEAD + 1))  # entries asked for that have not arrived
        self._next_flying = Signal.like(self._flying)
        self._blob = Signal(self._address, reset_less=True)
        # A directory entry is asked for: now, and in the cycle before, when it is counted. Two are
        # never asked for in two cycles one after the other.
        self._asked_entry, self._asked_before = Signal(), Signal()
        # What the port answered in the cycle before: it comes from far.
        self._entry_valid, self._granule_valid = Signal(), Signal()
        self._data = Signal(8 * GRANULE, reset_less=True)
        m.d.sync += [
            self._entry_valid.eq(self.fetch.entry_valid),
            self._granule_valid.eq(self.fetch.granule_valid),
            self._data.eq(self.fetch.data),
            self._asked_before.eq(self._asked_entry),
        ]
        m.submodules.streams = self._streams = streams = StreamWalk(self._config)
        want_entry, entry_address, entry_error = self._visits(m)

        # Entries go first, as few as they are, but not before a stream that has just begun. What
        # is asked for waits in a register: what the port does is not seen in the same cycle.
        asking, is_entry, free, entry_first = Signal(), Signal(reset_less=True), Signal(), Signal()
        address = Signal(self._config.granule_addr_width, reset_less=True)
        m.d.comb += [
            *(streams.commands[turn].eq(self.commands[turn]) for turn in range(2)),
            streams.blob.eq(self._blob),
            streams.entry.eq(self._data),
            streams.entry_valid.eq(self._entry_valid),
            streams.granted.eq(free & (~want_entry | streams.roomy)),
            free.eq(~asking),
            entry_first.eq(want_entry & ~streams.hurry),
            self._asked_entry.eq(free & entry_first),
            self.fetch.valid.eq(asking),
            self.fetch.entry.eq(is_entry),
            self.fetch.address.eq(address),
        ]
        # ``ready`` is late. A granule that is wanted is granted where no entry goes first.
        m.submodules.asks = asks = Gate(
            lambda now, ready, entry, granule: not ready if now else entry or granule
        )
        m.d.comb += asks.bits.eq(Cat(asking, self.fetch.ready, entry_first, streams.wanted))
        m.d.sync += [asking.eq(asks.out), self.error.eq(streams.error | entry_error)]
        with m.If(free):
            m.d.sync += [
                is_entry.eq(entry_first),
                address.eq(Mux(entry_first, entry_address, streams.address)),
            ]
        return m

    def _visits(self, m: Module) -> tuple[Value, Value, Value]:
        """Step from visit to visit. Returns the request for the next entry, its address, and what
        is wrong with it, as ``error``.

        A visit takes three cycles or more. In the first one its place is worked out, and what would
        be left after it. In the second one its entry is asked for, and it is found out whether the
        row, the slice and the block end with it.

        A register that is set in several cases has one condition for all of them, and chooses
        among the values: so it takes an enable, and not a multiplexer more.
        """
        config = self._config
        rows = config.rows

        # Where the walk is: iteration, column block, slice of K, and the engine's row in it.
        walking, settled, sure = Signal(), Signal(), Signal()
        turn = Signal()  # of the iteration that is walked, or is next
        # The row's entry has been asked for, and may be if it has one.
        requested, next_requested, may_ask = Signal(), Signal(), Signal()
        # Its output waits until its first visit is taken; so does the next iteration.
        output, unseen = Signal(32, reset_less=True), Signal()
        k_less, n, slice_less, entries, deal_on = chosen(
            m, self.commands, turn, "k_less", "n", "slice_less", "entries", "deal_on"
        )
        columns = Signal(16, reset_less=True)
        k_left = Signal(16, reset_less=True)  # less 1
        slice_base = Signal(self._address, reset_less=True)  # of the slice's entries
        next_row = Signal(range(rows), reset_less=True)  # the engine's first one of the block
        slot = Signal(range((1 << 16) // rows + 2), reset_less=True)
        block_first, block_new, slice_first = (
            Signal(name=name, reset_less=True)
            for name in ("block_first", "block_new", "slice_first")
        )
        block_columns = Signal(range(max(LANES.values()) * config.cols + 1))
        with m.Switch(self.mode):
            for mode, lanes in LANES.items():
                with m.Case(mode):
                    m.d.comb += block_columns.eq(lanes * config.cols)

        # How many rows come behind this one, and what is left after the slice and the block: less
        # than nothing where it is the last one.
        row = Signal(17)
        behind = Signal(signed(17), reset_less=True)
        k_after = Signal(signed(17), reset_less=True)
        columns_after = Signal(signed(17), reset_less=True)
        entry, is_outside = Signal(self._address, reset_less=True), Signal(reset_less=True)
        place = Signal(self._address)
        m.d.comb += [row.eq(slot * rows + next_row), place.eq(slice_base + row)]
        m.d.sync += [
            behind.eq(entries + ~row),
            k_after.eq(k_left + ~Cat(slice_less, Const(0, 1))),
            columns_after.eq(columns - block_columns),
            entry.eq(place),
            is_outside.eq(outside(config, place)),
            settled.eq(walking),
            sure.eq(settled),
        ]
        # What is wide is looked at a cycle later: it is not needed before the entry is asked for.
        absent, slice_last, near = Signal(), Signal(), Signal()
        row_last, block_ends, block_last = (
            Signal(name=name, reset_less=True) for name in ("row_last", "block_ends", "block_last")
        )
        low = len(next_row)
        m.d.comb += [
            absent.eq(behind < 0),
            near.eq(~behind[low:-1].any() & (behind[:low] < rows)),
            slice_last.eq(k_after < 0),
        ]
        m.d.sync += [
            row_last.eq(absent | near),
            block_ends.eq(absent | (near & slice_last)),
            block_last.eq((columns_after < 0) | (columns_after == 0)),
        ]

        # Rows are dealt anew, or on from where the block or the iteration before ended.
        dealt = Signal()
        addr_width = config.granule_addr_width
        blob = Signal(self._address)
        start, step = Signal(), Signal()
        # While one may start, as a register says, all that a start sets is set again and again: the
        # start itself comes late.
        idle, next_walking, next_unseen = Signal(init=1), Signal(), Signal()
        m.d.comb += [
            self.start.ready.eq(idle),
            start.eq(self.start.valid & idle),
            blob.eq(self.start.payload.blob[:addr_width]),
            blob[-1].eq(self.start.payload.blob[addr_width:].any()),
        ]
        with m.If(idle):
            m.d.sync += [output.eq(self.start.payload.output), self._blob.eq(blob)]
        m.d.comb += next_requested.eq(requested | self._asked_entry)
        m.d.sync += requested.eq(next_requested & ~step)
        with m.If(step):
            m.d.sync += [settled.eq(0), sure.eq(0)]
        with m.If(idle | step):
            m.d.sync += [
                slot.eq(Mux(idle | row_last, 0, slot + 1)),
                block_new.eq(idle | block_ends),
            ]
        with m.If(idle | (step & row_last)):
            m.d.sync += [
                k_left.eq(Mux(idle | block_ends, k_less, k_after)),
                slice_base.eq(Mux(idle, blob, Mux(block_ends, self._blob, slice_base + entries))),
                slice_first.eq(idle | block_ends),
            ]
        with m.If(idle | (step & block_ends)):
            m.d.sync += [columns.eq(Mux(idle, n, columns_after)), block_first.eq(idle)]
        m.d.comb += next_walking.eq(start | (walking & ~(step & block_ends & block_last)))
        with m.If(step & block_ends):
            m.d.sync += [dealt.eq(1), turn.eq(turn ^ block_last)]
        # Where the next block begins: as far behind the engine's last row as rows, or where it is.
        with m.If((start & ~(deal_on & dealt)) | (step & block_ends)):
            m.d.sync += next_row.eq(Mux(start, self.index, (~behind + Mux(absent, 0, rows))[:low]))

        # At first only one entry is asked for: a second one would hold up the first one's stream.
        filler, may_fill = Signal(), Signal()
        unread, next_unread = (Signal(range(VISITS_AHEAD + 1)) for _ in range(2))
        begun, next_begun = Signal(), Signal()
        m.d.comb += [
            next_unread.eq(unread + self._asked_before - self._streams.begun),
            next_begun.eq(~idle & (begun | self._streams.begun)),
        ]
        m.d.sync += [
            unread.eq(next_unread),
            begun.eq(next_begun),
            may_ask.eq(
                (walking & ~step & ~next_requested & ~self._next_held[-1])
                & (~next_unread.any() | (next_begun & ~next_unread[-1]))
            ),
            may_fill.eq(absent & ~self._next_flying.any() & ~self._next_held[-1]),
        ]
        m.d.comb += [
            filler.eq(sure & may_fill),
            step.eq(sure & (requested | may_fill)),
            # None is on its way when a walk begins.
            self._streams.turn.eq(turn ^ ~walking),
        ]
        known = Signal(_known_layout())
        m.d.comb += [
            # K is still whole where an engine is absent.
            known.length_less.eq(Mux(absent | slice_last, k_left, slice_less)),
            known.slot.eq(slot),
            known.slice_first.eq(slice_first | absent),
            known.slice_last.eq(slice_last | absent),
            known.block_first.eq(block_first),
            known.block_new.eq(block_new),
            known.iteration_last.eq(block_ends & block_last),
            known.empty.eq(absent),
            known.final.eq(row_last),
        ]
        first_taken = self._join(m, step, filler, known)
        shown = Signal(32, reset_less=True)
        m.d.comb += self.output.eq(shown)
        with m.If(first_taken):
            m.d.sync += shown.eq(output)
        m.d.comb += next_unseen.eq(start | (unseen & ~first_taken))
        m.d.sync += [
            walking.eq(next_walking),
            unseen.eq(next_unseen),
            idle.eq(~next_walking & ~next_unseen & ~self._next_flying.any()),
        ]
        m.d.comb += self.busy.eq(walking | self._held.any())
        is_wrong = settled & ~absent & ~requested & is_outside
        wrong = Mux(turn, 2, 1) & is_wrong.replicate(2)
        return may_ask & ~absent & ~is_outside, entry, wrong

    def _join(self, m: Module, step, filler, known) -> Value:
        """Keep what arrives, and put entries next to what the walk knew of their visits before;
        an absent visit (``filler``) has one, too, that is void. Returns
        whether an iteration's first one is taken."""
        held = self._held
        entry_valid, granule_valid = self._entry_valid, self._granule_valid
        words = 1 << GRANULES_AHEAD.bit_length()
        m.submodules.known = visits = Memory(shape=_known_layout(), depth=VISITS_AHEAD, init=[])
        m.submodules.arrived = arrived = Memory(
            shape=unsigned(8 * GRANULE), depth=2 * words, init=[]
        )
        visits_in, visits_out = visits.write_port(), visits.read_port(domain="comb")
        # Whether an entry is empty is half told when it arrives: it would be late when it is read.
        m.submodules.some = some = Memory(shape=unsigned(4), depth=VISITS_AHEAD, init=[])
        some_in, some_out = some.write_port(), some.read_port(domain="comb")
        count = data.View(DirectoryEntry, self._data).count
        arrived_in, arrived_out = arrived.write_port(), arrived.read_port(domain="comb")
        entry_to, entry_from = (Signal(range(VISITS_AHEAD), name=n) for n in ("to", "from"))
        granule_to, granule_from = (Signal(range(words), name=n) for n in ("into", "out_of"))
        level = Signal(range(words))  # granules
        # Entries that are here, and whether there are any.
        here, next_here, waiting = Signal.like(held), Signal.like(held), Signal()
        take_visit, take_granule = Signal(), Signal()
        visit = self.visit.payload
        m.d.comb += [
            self._next_flying.eq(self._flying + self._asked_before - entry_valid),
            self._next_held.eq(held + (self._asked_before | (step & filler)) - take_visit),
            visits_in.en.eq(step),
            visits_in.data.eq(known),
            visits_out.addr.eq(entry_from),
            arrived_in.en.eq(entry_valid | granule_valid),
            arrived_in.addr.eq(Mux(entry_valid, entry_to, granule_to)),
            arrived_in.addr[-1].eq(entry_valid),
            arrived_in.data.eq(self._data),
            some_in.en.eq(entry_valid),
            some_in.addr.eq(entry_to),
            some_in.data.eq(Cat(count.word_select(i, 4).any() for i in range(4))),
            some_out.addr.eq(entry_from),
            next_here.eq(here + (entry_valid | (step & filler)) - take_visit),
            self.visit.valid.eq(waiting),
            take_visit.eq(waiting & self.visit.ready),
            arrived_out.addr.eq(Mux(take_visit, entry_from, granule_from)),
            arrived_out.addr[-1].eq(take_visit),
            visit.entry.eq(arrived_out.data),
            self.granule.eq(arrived_out.data),
            self.granule_valid.eq(level.any() & ~take_visit),
            take_granule.eq(self.granule_valid & self.granule_ready),
            *(visit[name].eq(visits_out.data[name]) for name, _ in _known_layout()),
            visit.empty.eq(visits_out.data.empty | ~some_out.data.any()),
        ]
        m.d.sync += [
            here.eq(next_here),
            waiting.eq(next_here.any()),
            visits_in.addr.eq(visits_in.addr + step),
            entry_to.eq(entry_to + (entry_valid | (step & filler))),
            entry_from.eq(entry_from + take_visit),
            granule_to.eq(granule_to + granule_valid),
            granule_from.eq(granule_from + take_granule),
            level.eq(level + granule_valid - take_granule),
            self._streams.taken.eq(take_granule),
            held.eq(self._next_held),
            self._flying.eq(self._next_flying),
        ]
        first = Signal(init=1)
        with m.If(take_visit):
            m.d.sync += first.eq(visit.iteration_last)
        return take_visit & first
