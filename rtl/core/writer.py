"""The end of an epilogue lane: where each result goes, and the granules they make."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Flag
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

# A result or a visit's mark on its way; ``close``: it ends its visit, ``done``: its iteration.
_MARKS = {"close": 1, "done": 1, "turn": 1, "size": 3}
_TAKEN = data.StructLayout(
    _MARKS | {"result": 1, "empty": 1, "present": 1, "nibbles": 1, "flags": len(Flag)}
)
_PLACED = data.StructLayout(_MARKS | {"valid": 1, "write": 1})


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
        known = Signal()  # the place of its next column is, too
        come = self.visit.payload
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
            empty.eq(room & present & ~brings & known),
            self.ready.eq(room & brings & known),
            result.eq(self.valid & self.ready),
            leave.eq((result & self.last) | empty),
            self.visit.ready.eq(~present | leave),
        ]
        with m.If(self.visit.ready):
            m.d.sync += [
                visit.eq(come),
                present.eq(self.visit.valid),
                brings.eq(self.visit.valid & ~come.empty),
                starts.eq(self.visit.valid & come.block_new & come.block_first),
                follows.eq(self.visit.valid & come.block_new & ~come.block_first),
                # The walk stands at the end of the block if this visit had results.
                known.eq(~come.block_new | (brings & ~come.block_first)),
            ]
        with m.Else():
            m.d.sync += known.eq(walk.ready)

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
        place = Signal(32, reset_less=True)
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
                    place.eq(base + offset),
                    value.eq(Mux(nibbles, number[:4], number)),
                    byte_present.eq(column_present),
                ]
        self._pack(m, placed, place, value, room)
        return m

    def _pack(self, m: Module, placed, place, value, room):
        """Collect placed results while they stay in one granule and one visit.

        There is ``room`` while all that is on its way fits into the queue of granules.
        """
        granule_bits = (GRANULE - 1).bit_length()
        bits = granule_bits + self._config.granule_addr_width
        target = place[granule_bits:bits]
        good = Signal()
        m.d.comb += good.eq(placed.write & ~place[bits:].any())
        m.d.sync += self.error.eq(Mux(placed.write & ~good, Mux(placed.turn, 2, 1), 0))

        held, closed = Signal(), Signal(reset_less=True)
        address = Signal(self._config.granule_addr_width, reset_less=True)
        some, done = Signal(reset_less=True), Signal(reset_less=True)
        flush, fresh = Signal(), Signal()
        m.d.comb += [
            flush.eq(held & (closed | (good & (address != target)))),
            fresh.eq(flush | ~held),
        ]
        with m.If(placed.valid):
            m.d.sync += [
                held.eq(good | placed.done | ~fresh),
                closed.eq(placed.close),
                done.eq(placed.done),
                some.eq(good | (some & ~fresh)),
            ]
        with m.Elif(flush):
            m.d.sync += held.eq(0)
        with m.If(placed.valid & good):
            m.d.sync += address.eq(target)

        # Bytes that a result does not cover may have any value in their place of the word.
        one, four = placed.size == 1, placed.size == 4
        low, *high = (value.word_select(i, 8) for i in range(4))
        moved = [
            low,
            Mux(one, low, high[0]),
            Mux(four, high[1], low),
            Mux(four, high[2], Mux(one, low, high[0])),
        ]
        covered = Signal(4)
        m.d.comb += covered.eq(Cat(1, ~one, four, four) << place[:2])
        data_bytes, mask = [], []
        for i in range(GRANULE):
            byte = Signal(8, name=f"byte{i}", reset_less=True)
            here = Signal(name=f"here{i}", reset_less=True)
            hit = placed.valid & good & (place[2:granule_bits] == i // 4) & covered[i % 4]
            with m.If(hit):
                m.d.sync += [byte.eq(moved[i % 4]), here.eq(1)]
            with m.Elif(placed.valid & fresh):
                m.d.sync += [byte.eq(0), here.eq(0)]
            data_bytes.append(byte)
            mask.append(here)

        layout = lane_write_layout(self._config)
        m.submodules.granules = granules = SyncFIFO(width=layout.size, depth=_WAITING)
        packed = {
            "address": address,
            "data": Cat(data_bytes),
            "mask": Cat(mask),
            "some": some,
            "done": done,
        }
        m.d.comb += [
            granules.w_en.eq(flush),
            granules.w_data.eq(Cat(packed[name] for name, _ in layout)),
            self.write.valid.eq(granules.r_rdy),
            self.write.payload.eq(granules.r_data),
            granules.r_en.eq(self.write.ready),
        ]
        # One for each of the stages before it may still come.
        m.d.sync += room.eq(granules.level < _WAITING // 2)
