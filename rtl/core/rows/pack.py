"""Results of rows, packed into granules."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from ...config import GRANULE, CardConfig
from .shape import shape_layout

__all__ = ["RowPacker", "granule_layout"]

_WAITING = 8
"""Granules that wait to be written."""


def granule_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a granule to write, and whether it is the ``last`` of its row."""
    return data.StructLayout(
        {
            "address": unsigned(config.granule_addr_width),
            "data": unsigned(8 * GRANULE),
            "last": unsigned(1),
        }
    )


class RowPacker(wiring.Component):
    """Packs the results of rows, a beat a cycle, and fills a row's last granule up with zeros.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    shape : ``In(shape_layout(config))``
    valid_i : ``In(1)``
        Only while ``room`` is high.
    lanes : ``In(data.ArrayLayout(unsigned(32), config.row_lanes))``
        Results, each in its low bits.
    last : ``In(1)``
        The last beat of a row.
    target : ``In``
        Address of the first granule of the row.
    room : ``Out(1)``
    granule : ``Out(stream)``
        `granule_layout`.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "valid_i": In(1),
                "lanes": In(data.ArrayLayout(unsigned(32), config.row_lanes)),
                "last": In(1),
                "target": In(config.granule_addr_width),
                "room": Out(1),
                "granule": Out(stream.Signature(granule_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, shape = self.config, self.shape
        layout = granule_layout(config)
        m.submodules.waiting = waiting = SyncFIFOBuffered(width=layout.size, depth=_WAITING)
        # Two more than those in the buffer may come after a cycle without room.
        m.d.comb += [
            self.room.eq(waiting.level <= _WAITING - 3),
            self.granule.valid.eq(waiting.r_rdy),
            self.granule.payload.eq(waiting.r_data),
            waiting.r_en.eq(self.granule.valid & self.granule.ready),
        ]

        lanes = [
            Mux(~self.last | shape.tail[lane], self.lanes[lane], 0)
            for lane in range(config.row_lanes)
        ]
        # A granule is made of pieces as large as the smallest beat.
        width = 4 * min(config.row_lanes, 4)
        pieces = 8 * GRANULE // width
        place = Signal(range(pieces))  # beats of the granule that are there
        size = Signal(range(pieces + 1))  # beats in a granule
        collected = Signal(layout, reset_less=True)
        numbers = data.ArrayLayout(unsigned(width), pieces)(collected.data)
        with m.Switch(shape.out_size):
            for log in range(4):
                beat = Cat(lane[: 4 << log] for lane in lanes)
                with m.Case(log) if log < 3 else m.Default():
                    if config.row_lanes < 8:
                        self._fill(m, numbers, beat, 1 << log, place, size)
                    else:
                        with m.If(shape.half_beats):
                            self._fill(m, numbers, beat, 1 << log, place, size)
                        if log < 3:  # otherwise there are only half beats
                            with m.Else():
                                self._fill(m, numbers, beat, 2 << log, place, size)

        first, whole, push = Signal(init=1), Signal(), Signal()
        m.d.comb += whole.eq(self.last | (place + 1 == size))
        m.d.sync += push.eq(self.valid_i & whole)
        with m.If(self.valid_i):
            m.d.sync += [collected.last.eq(self.last), place.eq(Mux(whole, 0, place + 1))]
            with m.If(place == 0):
                m.d.sync += collected.address.eq(Mux(first, self.target, collected.address + 1))
            with m.If(whole):
                m.d.sync += first.eq(self.last)
        m.d.comb += [waiting.w_en.eq(push), waiting.w_data.eq(collected)]
        return m

    def _fill(self, m: Module, numbers, beat, count: int, place, size) -> None:
        """Put a beat of ``count`` pieces where it belongs; the first one clears the others."""
        pieces, width = len(numbers), len(numbers[0])
        m.d.sync += size.eq(pieces // count)
        with m.If(self.valid_i):
            for i in range(pieces):
                at = i % count * width
                with m.If(place == i // count):
                    m.d.sync += numbers[i].eq(beat[at : at + width])
                with m.Elif(place == 0):
                    m.d.sync += numbers[i].eq(0)
