"""Reading rows of the scratchpad: granules ahead of their use, cut into beats."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from ...config import GRANULE, CardConfig
from ...numerics.delay import delayed
from ..ports import READ_LATENCY, ReadPort
from .shape import TABLE_BYTES, shape_layout

__all__ = ["RowReader", "TableReader", "column_layout", "request_layout"]

_AHEAD = 8
"""Granules read ahead: more than the cycles from a request to its use."""

_BITS = 8 * GRANULE


def request_layout(config: CardConfig, tag: int) -> data.StructLayout:
    """Layout of a row to read: ``source``, its first granule, and a ``tag`` of so many bits."""
    return data.StructLayout({"source": unsigned(config.granule_addr_width), "tag": unsigned(tag)})


def column_layout() -> data.StructLayout:
    """Layout of a column of the table."""
    return data.StructLayout({"bias": unsigned(32), "scale": unsigned(32)})


class _Fetch(wiring.Component):
    """Reads the granules of one row after the other, as far ahead as there is room.

    Parameters
    ----------
    config : CardConfig
    tag : int
        Bits that go with a row.

    Members
    -------
    row : ``In(stream)``
        ``source``: address of a row's first granule; ``tag``. Taken a cycle after the last granule
        of the row before is requested.
    count : ``In``
        Granules of a row, less 1.
    read : ``Out(ReadPort(config))``
    granule : ``Out(stream)``
        ``data``, whether it is a row's ``last``, and the row's ``tag``.
    """

    def __init__(self, config: CardConfig, tag: int = 0) -> None:
        self.config = config
        granule = data.StructLayout(
            {"data": unsigned(_BITS), "last": unsigned(1), "tag": unsigned(tag)}
        )
        super().__init__(
            {
                "row": In(stream.Signature(request_layout(config, tag))),
                "count": In(15),
                "read": Out(ReadPort(config)),
                "granule": Out(stream.Signature(granule)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        busy = Signal()
        address = Signal(self.config.granule_addr_width, reset_less=True)
        rest = Signal(15, reset_less=True)
        tag = Signal(len(self.row.payload.tag), reset_less=True)
        last, issue = Signal(), Signal()
        # Granules that are requested, or wait.
        ahead = Signal(range(_AHEAD + 1))
        m.submodules.waiting = waiting = SyncFIFOBuffered(
            width=len(self.granule.payload.as_value()), depth=_AHEAD + 1
        )
        m.d.comb += [
            self.read.valid.eq(busy & (ahead != _AHEAD)),
            self.read.address.eq(address),
            issue.eq(self.read.valid & self.read.ready),
            last.eq(rest == 0),
            self.row.ready.eq(~busy),
        ]
        with m.If(issue):
            m.d.sync += [address.eq(address + 1), rest.eq(rest - 1), busy.eq(~last)]
        with m.If(self.row.ready):
            m.d.sync += [
                busy.eq(self.row.valid),
                address.eq(self.row.payload.source),
                tag.eq(self.row.payload.tag),
                rest.eq(self.count),
            ]

        beside = delayed(m, 1, Cat(last, tag), READ_LATENCY, "beside")
        taken = Signal()
        m.d.sync += ahead.eq(ahead + issue - taken)
        m.d.comb += [
            waiting.w_en.eq(self.read.data_valid),
            waiting.w_data.eq(Cat(self.read.data, beside)),
            self.granule.valid.eq(waiting.r_rdy),
            self.granule.payload.eq(waiting.r_data),
            taken.eq(self.granule.valid & self.granule.ready),
            waiting.r_en.eq(taken),
        ]
        return m


class RowReader(wiring.Component):
    """Reads rows of numbers, one after the other, as beats of ``config.row_lanes`` numbers.

    A beat a cycle, also from one row to the next.

    Parameters
    ----------
    config : CardConfig
    tag : int
        Bits that go with a row.

    Members
    -------
    shape : ``In(shape_layout(config))``
    row : ``In(stream)``
        `request_layout`.
    read : ``Out(ReadPort(config))``
    beat : ``Out(stream)``
        ``lanes``: the numbers, each in the low bits of its 32. ``first``, ``last``: of the row.
        ``tag``: the row's.
    """

    def __init__(self, config: CardConfig, tag: int) -> None:
        self.config = config
        self._tag = tag
        beat = data.StructLayout(
            {
                "lanes": data.ArrayLayout(unsigned(32), config.row_lanes),
                "first": unsigned(1),
                "last": unsigned(1),
                "tag": unsigned(tag),
            }
        )
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "row": In(stream.Signature(request_layout(config, tag))),
                "read": Out(ReadPort(config)),
                "beat": Out(stream.Signature(beat)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, beat = self.shape, self.beat
        lanes = self.config.row_lanes
        m.submodules.fetch = fetch = _Fetch(self.config, self._tag)
        connect(m, flipped(self.row), fetch.row)
        connect(m, fetch.read, flipped(self.read))
        granule = fetch.granule

        # The rest of a granule moves down from beat to beat.
        rest = Signal(_BITS, reset_less=True)
        most = GRANULE // min(lanes, 4)
        cut = Signal(range(most))  # beats of the granule that are gone
        cuts = Signal(range(most))  # beats of a granule, less 1
        count = Signal(16)  # beats of the row that are gone
        tag = Signal(self._tag, reset_less=True)
        step, last = Signal(), Signal()
        m.d.comb += [
            fetch.count.eq(shape.in_granules),
            last.eq(count == shape.beats),
            step.eq(beat.valid & beat.ready),
            granule.ready.eq(~beat.valid | (step & (last | (cut == cuts)))),
            beat.payload.first.eq(count == 0),
            beat.payload.last.eq(last),
            beat.payload.tag.eq(tag),
        ]
        sizes = [8, 16, 32]
        with m.Switch(shape.in_size):
            for size, bits in enumerate(sizes):
                with m.Case(size) if size < 2 else m.Default():
                    beats = max(1, _BITS // (bits * lanes))
                    m.d.sync += cuts.eq(beats - 1)
                    if lanes == 8 and bits < 32:
                        with m.If(shape.half_beats):
                            m.d.sync += cuts.eq(2 * beats - 1)
        with m.If(step):
            m.d.sync += [count.eq(Mux(last, 0, count + 1)), cut.eq(cut + 1)]
        with m.If(granule.ready):
            m.d.sync += [
                beat.valid.eq(granule.valid),
                rest.eq(granule.payload.data),
                tag.eq(granule.payload.tag),
                cut.eq(0),
            ]
        with m.Elif(step):
            with m.Switch(shape.in_size):
                for size, bits in enumerate(sizes[:2]):
                    with m.Case(size):
                        if lanes == 8:
                            m.d.sync += rest.eq(
                                Mux(shape.half_beats, rest >> 4 * bits, rest >> 8 * bits)
                            )
                        else:
                            m.d.sync += rest.eq(rest >> lanes * bits)
                with m.Default():
                    m.d.sync += rest.eq(rest >> 32 * min(lanes, 4))

        for lane in range(lanes):
            choices = [rest[lane * bits : (lane + 1) * bits] for bits in sizes]
            number = beat.payload.lanes[lane]
            with m.Switch(shape.in_size):
                for size, choice in enumerate(choices):
                    with m.Case(size) if size < 2 else m.Default():
                        m.d.comb += number.eq(choice)
        return m


class TableReader(wiring.Component):
    """Reads the table again and again, as beats of ``config.row_lanes`` columns.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    shape : ``In(shape_layout(config))``
    row : ``In(stream)``
        The table's `request_layout`, for each row.
    read : ``Out(ReadPort(config))``
    beat : ``Out(stream)``
        `column_layout` for each lane.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "row": In(stream.Signature(request_layout(config, 0))),
                "read": Out(ReadPort(config)),
                "beat": Out(stream.Signature(data.ArrayLayout(column_layout(), config.row_lanes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, beat = self.shape, self.beat
        lanes = self.config.row_lanes
        m.submodules.fetch = fetch = _Fetch(self.config)
        connect(m, flipped(self.row), fetch.row)
        connect(m, fetch.read, flipped(self.read))
        granule = fetch.granule
        columns = GRANULE // TABLE_BYTES
        step = Signal()
        m.d.comb += [fetch.count.eq(shape.table_granules), step.eq(beat.valid & beat.ready)]
        if lanes == 1:
            # Two beats a granule, but one of the last if the row has an odd number of columns.
            count, second = Signal(16), Signal()
            last = Signal()
            rest = Signal(_BITS, reset_less=True)
            m.d.comb += [
                last.eq(count == shape.beats),
                granule.ready.eq(~beat.valid | (step & (last | second))),
                beat.payload.eq(rest),
            ]
            with m.If(step):
                m.d.sync += [
                    count.eq(Mux(last, 0, count + 1)),
                    second.eq(1),
                    rest.eq(rest >> _BITS // columns),
                ]
            with m.If(granule.ready):
                m.d.sync += [
                    beat.valid.eq(granule.valid),
                    rest.eq(granule.payload.data),
                    second.eq(0),
                ]
            return m

        # One or more granules a beat.
        granules = lanes // columns
        parts = [Signal(_BITS, name=f"part{i}", reset_less=True) for i in range(granules)]
        place = Signal(range(granules))
        taken, whole = Signal(), Signal()
        end: Value = Const(granules - 1)
        if lanes == 8:
            end = Mux(shape.half_beats, granules // 2 - 1, granules - 1)
        m.d.comb += [
            granule.ready.eq(~beat.valid | beat.ready),
            taken.eq(granule.valid & granule.ready),
            whole.eq(granule.payload.last | (place == end)),
            beat.payload.eq(Cat(parts)),
        ]
        with m.If(beat.ready):
            m.d.sync += beat.valid.eq(0)
        with m.If(taken):
            m.d.sync += [beat.valid.eq(whole), place.eq(Mux(whole, 0, place + 1))]
            with m.Switch(place):
                for i, part in enumerate(parts):
                    with m.Case(i):
                        m.d.sync += part.eq(granule.payload.data)
        return m
