"""The end of an epilogue lane: where each result goes, and the granules they make."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Flag
from ..tech.gate import Gate
from .columns import ColumnWalk
from .output import lane_write_layout
from .running import columns_layout

__all__ = ["ResultWriter", "place_layout"]


def place_layout() -> data.StructLayout:
    """Layout of what the writer needs of a visit's descriptor (`array.ports.visit_layout`).

    ``empty``: the visit has no results for the writer.
    """
    return data.StructLayout(
        {
            "address": unsigned(32),
            "block_first": unsigned(1),
            "block_new": unsigned(1),
            "empty": unsigned(1),
            "iteration_last": unsigned(1),
        }
    )


_WAITING = 16  # granules: the depth of distributed RAM
_GROUP = 6  # bits
_GRANULE_BITS = (GRANULE - 1).bit_length()

# A result or a visit's mark on its way; ``close``: it ends its visit, ``done``: its iteration.
_MARKS = {"close": 1, "done": 1, "turn": 1, "size": 3}
_TAKEN = data.StructLayout(
    _MARKS | {"result": 1, "empty": 1, "present": 1, "nibbles": 1, "flags": len(Flag)}
)
_PLACED = data.StructLayout(_MARKS | {"valid": 1, "write": 1})
_SENT = data.StructLayout({"close": 1, "done": 1, "valid": 1, "good": 1})


class ResultWriter(wiring.Component):
    """Walks over the columns of each visit, and packs their results into granules.

    Column j lies at ``visit.address + (j // n_inner) * outer_stride + (j % n_inner) *
    inner_stride``. Nibbles share bytes: column j, for odd j, goes to the high half of column
    j - 1's byte; a high half without a column is 0. A visit begins with an even column then, and
    has an even number.

    `ColumnWalk` says how the visits go over the columns.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    layouts : ``In(columns_layout).array(2)``
        Each is still while visits of its iteration are open.
    block_columns : ``In(8)``
        Columns of a block. Still while visits are open.
    visit : ``In(stream.Signature(place_layout()))``
        Taken with the last result of the visit. Addresses and strides are multiples of a result's
        size.
    valid, last, result, result_flags : ``In(1)``, ``In(1)``, ``In(32)``, ``In(4)``
        A result, and whether it is the last of its visit. Taken while ``ready`` is high.
    ready : ``Out(1)``
        May depend on ``valid``.
    write : ``Out(stream.Signature(lane_write_layout(config)))``
    error : ``Out(2)``
        Pulses, in an iteration of the first or the second layout, for a result outside the
        scratchpad; it is not written.
    flags : ``Out(4).array(2)``
        ``result_flags`` of a result whose column is below ``n``, two cycles after it was taken, or
        later; of an iteration of the first or the second layout.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layouts": In(columns_layout()).array(2),
                "block_columns": In(8),
                "visit": In(stream.Signature(place_layout())),
                "valid": In(1),
                "last": In(1),
                "result": In(32),
                "result_flags": In(len(Flag)),
                "ready": Out(1),
                "write": Out(stream.Signature(lane_write_layout(config))),
                "error": Out(2),
                "flags": Out(len(Flag)).array(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The oldest visit, in registers.
        visit = Signal(place_layout(), reset_less=True)
        present, brings, starts, follows = (
            Signal(name=name) for name in ("present", "brings", "starts", "follows")
        )
        # Whether it takes a result, or leaves without, or there is none: all made a cycle ahead.
        takes, passes = Signal(), Signal(init=1)
        come = self.visit.payload
        # The next visit comes: late, and with much behind it.
        m.submodules.moves = moves = Gate(
            lambda valid, takes, last, passes: (valid and takes and last) or passes
        )
        m.submodules.walk = walk = ColumnWalk(self._config)
        room = Signal()
        empty, result, leave = Signal(), Signal(), Signal()
        m.d.comb += [
            *(port.eq(layout) for port, layout in zip(walk.layouts, self.layouts, strict=True)),
            walk.block_columns.eq(self.block_columns),
            walk.starts.eq(starts),
            walk.follows.eq(follows),
            walk.result.eq(result),
            walk.leave.eq(leave),
            walk.iteration_last.eq(visit.iteration_last),
            empty.eq(passes & present),
            self.ready.eq(takes),
            result.eq(self.valid & takes),
            leave.eq((result & self.last) | empty),
            moves.bits.eq(Cat(self.valid, takes, self.last, passes)),
            self.visit.ready.eq(moves.out),
        ]
        comes_known = Signal()  # the place of the next visit's first column is
        next_present, next_brings, next_known = (
            Signal(name=name) for name in ("next_present", "next_brings", "next_known")
        )
        m.d.comb += [
            # The walk stands at the end of the block if this visit had results.
            comes_known.eq(~come.block_new | (brings & ~come.block_first)),
            next_present.eq(Mux(self.visit.ready, self.visit.valid, present)),
            next_brings.eq(Mux(self.visit.ready, self.visit.valid & ~come.empty, brings)),
            next_known.eq(Mux(self.visit.ready, comes_known, walk.ready)),
        ]
        m.d.sync += [
            present.eq(next_present),
            brings.eq(next_brings),
            takes.eq(room & next_brings & next_known),
            passes.eq(~next_present | (room & ~next_brings & next_known)),
        ]
        # Made a cycle ahead: whether a visit with a new block is open.
        next_new = Signal()
        m.d.comb += next_new.eq(
            Mux(self.visit.ready, self.visit.valid & come.block_new, starts | follows)
        )
        m.d.comb += walk.next_new.eq(next_new)
        with m.If(self.visit.ready):
            m.d.sync += [
                visit.eq(come),
                starts.eq(self.visit.valid & come.block_new & come.block_first),
                follows.eq(self.visit.valid & come.block_new & ~come.block_first),
            ]

        taken = Signal(_TAKEN)
        base, offset, number = (
            Signal(32, name=name, reset_less=True) for name in ("base", "offset", "number")
        )
        m.d.sync += [
            taken.result.eq(result),
            taken.empty.eq(empty),
            taken.close.eq(leave),
            taken.done.eq(leave & visit.iteration_last),
            taken.turn.eq(walk.turn),
            taken.size.eq(walk.layout.size),
            taken.nibbles.eq(walk.layout.nibbles),
            taken.present.eq(walk.present),
            taken.flags.eq(self.result_flags),
            base.eq(visit.address),
            offset.eq(walk.offset),
            number.eq(self.result),
        ]
        for i, flags in enumerate(self.flags):
            raised = taken.result & taken.present & (taken.turn == i)
            m.d.sync += flags.eq(Mux(raised, taken.flags, 0))

        # The first of two nibbles waits for the second, in the place of both.
        placed = Signal(_PLACED)
        # The lower bits of its place, and of groups of the others whether any is set.
        spad_bits = (self._config.scratchpad_bytes - 1).bit_length()
        total, place = Signal(32), Signal(spad_bits, reset_less=True)
        beyond = Signal(-(-(32 - spad_bits) // _GROUP), reset_less=True)
        m.d.comb += total.eq(base + offset)
        value = Signal(32, reset_less=True)
        nibbles, column_present = taken.nibbles, taken.present
        second, byte_present = Signal(), Signal(reset_less=True)
        m.d.sync += [placed[name].eq(taken[name]) for name in _MARKS]
        m.d.sync += [
            placed.valid.eq(taken.empty | (taken.result & (second | ~nibbles))),
            placed.write.eq(taken.result & Mux(nibbles, second & byte_present, taken.present)),
        ]
        with m.If(taken.result):
            m.d.sync += second.eq(nibbles & ~second)
            with m.If(second):
                m.d.sync += value[4:8].eq(Mux(column_present, number[:4], 0))
            with m.Else():
                m.d.sync += [
                    place.eq(total),
                    beyond.eq(
                        Cat(total[low : low + _GROUP].any() for low in range(spad_bits, 32, _GROUP))
                    ),
                    value.eq(Mux(nibbles, number[:4], number)),
                    byte_present.eq(column_present),
                ]
        m.d.sync += self.error.eq(Mux(placed.write & beyond.any(), Mux(placed.turn, 2, 1), 0))
        self._pack(m, placed, place, beyond, value, room)
        return m

    def _pack(self, m: Module, placed, place, beyond, value, room):
        """Collect placed results while they stay in one granule and one visit.

        There is ``room`` while all that is on its way, and what is taken in the next cycle, fits
        into the queue of granules.
        """
        # Their bytes go to where they belong in a granule. Bytes that a result does not cover may
        # have any value in their place of the word.
        sent, good = Signal(_SENT), Signal()
        granule = Signal(self._config.granule_addr_width, reset_less=True)
        moved, hits = Signal(32, reset_less=True), Signal(GRANULE)
        one, four = placed.size == 1, placed.size == 4
        low, *high = (value.word_select(i, 8) for i in range(4))
        covered = Signal(4)
        m.d.comb += [
            covered.eq(Cat(1, ~one, four, four) << place[:2]),
            good.eq(placed.write & ~beyond.any()),
        ]
        m.d.sync += [
            *(sent[name].eq(placed[name]) for name in ("close", "done", "valid")),
            sent.good.eq(good),
            granule.eq(place[_GRANULE_BITS:]),
            moved.eq(
                Cat(
                    low,
                    Mux(one, low, high[0]),
                    Mux(four, high[1], low),
                    Mux(four, high[2], Mux(one, low, high[0])),
                )
            ),
            hits.eq(
                Cat(
                    good & (place[2:_GRANULE_BITS] == i // 4) & covered[i % 4]
                    for i in range(GRANULE)
                )
            ),
        ]

        # Whether one is in another granule is found out before, as much depends on it.
        address, next_address = (  # of what is packed
            Signal.like(granule, name=name, reset_less=True) for name in ("address", "next_address")
        )
        differs = Signal(reset_less=True)
        m.d.comb += next_address.eq(Mux(sent.good, granule, address))
        m.d.sync += [
            address.eq(next_address),
            differs.eq(next_address != place[_GRANULE_BITS:]),
        ]
        held, closed, open_ = Signal(), Signal(reset_less=True), Signal()  # held and not closed
        some, done = Signal(reset_less=True), Signal(reset_less=True)
        flush, fresh, anew = Signal(), Signal(), Signal()
        m.d.comb += [
            flush.eq(held & (closed | (sent.good & differs))),
            fresh.eq(~open_ | (sent.good & differs)),
            anew.eq(sent.valid & fresh),
        ]
        with m.If(sent.valid):
            m.d.sync += [
                held.eq(sent.good | sent.done | ~fresh),
                closed.eq(sent.close),
                open_.eq((sent.good | sent.done | ~fresh) & ~sent.close),
                done.eq(sent.done),
                some.eq(sent.good | (some & ~fresh)),
            ]
        with m.Elif(flush):
            m.d.sync += held.eq(0)
        data_bytes, mask = [], []
        for i in range(GRANULE):
            byte = Signal(8, name=f"byte{i}", reset_less=True)
            here = Signal(name=f"here{i}", reset_less=True)
            with m.If(hits[i]):
                m.d.sync += [byte.eq(moved.word_select(i % 4, 8)), here.eq(1)]
            with m.Elif(anew):
                m.d.sync += [byte.eq(0), here.eq(0)]
            data_bytes.append(byte)
            mask.append(here)

        layout = lane_write_layout(self._config)
        m.submodules.granules = granules = Memory(shape=layout, depth=_WAITING, init=[])
        write, read = granules.write_port(), granules.read_port(domain="comb")
        level, leaves = Signal(range(_WAITING + 1)), Signal()
        waits = Signal()  # there is one
        packed = {
            "address": address,
            "data": Cat(data_bytes),
            "mask": Cat(mask),
            "some": some,
            "done": done,
        }
        m.d.comb += [
            write.en.eq(flush),
            *(write.data[name].eq(value) for name, value in packed.items()),
            self.write.valid.eq(waits),
            self.write.payload.eq(read.data),
            leaves.eq(self.write.valid & self.write.ready),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + flush),
            read.addr.eq(read.addr + leaves),
            waits.eq(flush | level[1:].any() | (level[0] & ~leaves)),
        ]
        with m.If(flush & ~leaves):
            m.d.sync += level.eq(level + 1)
        with m.Elif(leaves & ~flush):
            m.d.sync += level.eq(level - 1)
        # One for each of the stages before it may still come.
        m.d.comb += room.eq(level < _WAITING // 2)
