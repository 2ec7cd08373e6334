"""The end of an epilogue lane: where each result goes, and the granules they make."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..array.command import chosen
from ..config import GRANULE, CardConfig
from ..isa import Flag
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


# A column's place: its offset, that of the first column of its inner row, how many columns of
# the inner row follow it, and how many columns are left with it (0: it is beyond the last).
_WALK = {"offset": 32, "row": 32, "inner": 16, "columns": 16}
_WORDS = GRANULE // 4

_PLACED = data.StructLayout({"valid": 1, "write": 1, "close": 1, "done": 1, "turn": 1, "size": 3})


def _walk_signals(name: str, **options) -> dict[str, Signal]:
    return {
        field: Signal(width, name=f"{name}_{field}", **options) for field, width in _WALK.items()
    }


def _granule_signals(config: CardConfig, name: str) -> dict[str, Signal]:
    """Return registers for a lane's write, in words of at most 32 bits."""
    widths = {"address": config.granule_addr_width, "done": 1}
    for i in range(_WORDS):
        widths |= {f"word{i}": 32, f"mask{i}": 4}
    return {
        field: Signal(width, name=f"{name}_{field}", reset_less=True)
        for field, width in widths.items()
    }


class ResultWriter(wiring.Component):
    """Walks over the columns of each visit, and packs their results into granules.

    Column j lies at ``visit.address + (j // n_inner) * outer_stride + (j % n_inner) *
    inner_stride``. Nibbles share bytes: column j, for odd j, goes to the high half of column
    j - 1's byte; a high half without a column is 0. A visit begins with an even column then, and
    has an even number.

    All visits with results of one block walk over the same columns; the next block starts where
    they ended. A block that had none is stepped over when the next one is announced, a column a
    cycle. Iterations go where the two ``layouts`` say by turns, the first one after a reset where
    the first does.

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
        ``result_flags`` of a result whose column is below ``n``, in the cycle after it was taken;
        of an iteration of the first or the second layout.
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
        visit = self.visit.payload
        turn = Signal()  # of the iteration of the visit
        names = ("n", "n_inner", "inner_stride", "outer_stride", "size", "nibbles")
        layout = dict(zip(names, chosen(m, self.layouts, turn, *names), strict=True))
        nibbles = layout["nibbles"]
        move = Signal()  # the packer takes what is placed
        behind = Signal()  # the walk is still before a block that has had no results
        free = move & self.visit.valid & ~behind
        empty, result, leave = Signal(), Signal(), Signal()
        m.d.comb += [
            empty.eq(free & visit.empty),
            self.ready.eq(free & ~visit.empty),
            result.eq(self.valid & self.ready),
            leave.eq((result & self.last) | empty),
            self.visit.ready.eq(leave),
        ]

        present, address = self._walk(m, layout, result, empty, behind)
        for i, flags in enumerate(self.flags):
            m.d.sync += flags.eq(Mux(result & present & (turn == i), self.result_flags, 0))
        with m.If(leave):
            m.d.sync += turn.eq(turn ^ visit.iteration_last)

        # The first of two nibbles waits for the second, in the place of both.
        placed = Signal(_PLACED)
        place = Signal(32, reset_less=True)
        value = Signal(32, reset_less=True)
        second, byte_present = Signal(), Signal(reset_less=True)
        with m.If(move):
            m.d.sync += [
                placed.valid.eq(empty | (result & (second | ~nibbles))),
                placed.write.eq(result & Mux(nibbles, second & byte_present, present)),
                placed.close.eq(leave),
                placed.done.eq(leave & visit.iteration_last),
                placed.turn.eq(turn),
                placed.size.eq(layout["size"]),
            ]
        with m.If(result):
            m.d.sync += second.eq(nibbles & ~second)
            with m.If(second):
                m.d.sync += value[4:8].eq(Mux(present, self.result[:4], 0))
            with m.Else():
                m.d.sync += [
                    place.eq(address),
                    value.eq(Mux(nibbles, self.result[:4], self.result)),
                    byte_present.eq(present),
                ]
        self._pack(m, placed, place, value, move)
        return m

    def _walk(self, m: Module, layout, result, empty, behind):
        """Step from column to column with ``result``, from block to block with either.

        Drives ``behind``; returns whether the column is one of the ``n``, and its address.
        """
        visit = self.visit.payload
        start = _walk_signals("start", reset_less=True)  # of the block
        here = _walk_signals("here", reset_less=True)  # the next column of this visit
        block, column = _walk_signals("block"), _walk_signals("column")
        n_inner = layout["n_inner"]
        first = {"offset": 0, "row": 0, "inner": n_inner - 1, "columns": layout["n"]}
        inside = Signal()  # the visit, or the stepping over, has begun
        ended = Signal()  # ``here`` is where the block ends, but inside a visit
        skipped = Signal(8)
        skip, skip_last = Signal(), Signal()
        m.d.comb += [
            behind.eq(visit.block_new & ~visit.block_first & ~ended),
            skip.eq(self.visit.valid & behind),
            skip_last.eq(skipped == self.block_columns - 1),
        ]
        with m.If(skip):
            m.d.sync += skipped.eq(Mux(skip_last, 0, skipped + 1))
        with m.If((result & self.last) | (skip & skip_last)):
            m.d.sync += ended.eq(1)
        with m.Elif(empty & visit.block_new):
            m.d.sync += ended.eq(0)

        for field in _WALK:
            next_block = Mux(visit.block_first, first[field], here[field])
            m.d.comb += [
                block[field].eq(Mux(visit.block_new & ~behind, next_block, start[field])),
                column[field].eq(Mux(inside, here[field], block[field])),
            ]
            with m.If(empty | (result & ~inside)):
                m.d.sync += start[field].eq(block[field])

        below = Signal(32)
        m.d.comb += below.eq(column["row"] + layout["outer_stride"])
        with m.If(result | skip):
            with m.If(column["inner"] == 0):
                m.d.sync += [
                    here["offset"].eq(below),
                    here["row"].eq(below),
                    here["inner"].eq(n_inner - 1),
                ]
            with m.Else():
                m.d.sync += [
                    here["offset"].eq(column["offset"] + layout["inner_stride"]),
                    here["row"].eq(column["row"]),
                    here["inner"].eq(column["inner"] - 1),
                ]
            m.d.sync += [
                here["columns"].eq(column["columns"] - column["columns"].any()),
                inside.eq(Mux(skip, ~skip_last, ~self.last)),
            ]
        return column["columns"].any(), visit.address + column["offset"]

    def _pack(self, m: Module, placed, place, value, move):
        """Collect placed results while they stay in one granule and one visit."""
        granule_bits = (GRANULE - 1).bit_length()
        bits = granule_bits + self._config.granule_addr_width
        target = place[granule_bits:bits]
        good = Signal()
        m.d.comb += good.eq(placed.write & ~place[bits:].any())
        m.d.sync += self.error.eq(Mux(move & placed.write & ~good, Mux(placed.turn, 2, 1), 0))

        held, closed = Signal(), Signal(reset_less=True)
        granule = _granule_signals(self._config, "granule")
        full = Signal()
        flush, fresh = Signal(), Signal()
        m.d.comb += [
            flush.eq(held & (closed | (good & (granule["address"] != target)))),
            fresh.eq(flush | ~held),
            move.eq(~(held & full)),
        ]

        covered = Signal(4)
        cover, moved = Signal(32), Signal(32)
        m.d.comb += [
            covered.eq(Cat(1, placed.size != 1, placed.size == 4, placed.size == 4) << place[:2]),
            cover.eq(Cat(byte.replicate(8) for byte in covered)),
            moved.eq(value << Cat(Const(0, 3), place[:2])),
        ]
        with m.If(move):
            with m.If(placed.valid):
                m.d.sync += [
                    held.eq(good | placed.done | ~fresh),
                    closed.eq(placed.close),
                    granule["done"].eq(placed.done),
                ]
            with m.Elif(flush):
                m.d.sync += held.eq(0)
            with m.If(placed.valid & good):
                m.d.sync += granule["address"].eq(target)
            for i in range(_WORDS):
                word, mask = granule[f"word{i}"], granule[f"mask{i}"]
                with m.If(placed.valid & good & (place[2:granule_bits] == i)):
                    m.d.sync += [
                        word.eq(Mux(fresh, 0, word & ~cover) | moved),
                        mask.eq(Mux(fresh, 0, mask) | covered),
                    ]
                with m.Elif(placed.valid & fresh):
                    m.d.sync += [word.eq(0), mask.eq(0)]

        # Two places, so that `move` comes from registers.
        slots = [_granule_signals(self._config, f"slot{i}") for i in range(2)]
        head, level = Signal(), Signal(range(3))
        push, pop = Signal(), Signal()
        out = {field: Mux(head, slots[1][field], slots[0][field]) for field in granule}
        m.d.comb += [
            full.eq(level == 2),
            push.eq(flush & move),
            pop.eq(self.write.valid & self.write.ready),
            self.write.valid.eq(level.any()),
            self.write.payload.address.eq(out["address"]),
            self.write.payload.data.eq(Cat(out[f"word{i}"] for i in range(_WORDS))),
            self.write.payload.mask.eq(Cat(out[f"mask{i}"] for i in range(_WORDS))),
            self.write.payload.done.eq(out["done"]),
        ]
        m.d.sync += [level.eq(level + push - pop), head.eq(head ^ pop)]
        for i, slot in enumerate(slots):
            with m.If(push & ((head ^ level[0]) == i)):
                m.d.sync += [slot[field].eq(granule[field]) for field in granule]
