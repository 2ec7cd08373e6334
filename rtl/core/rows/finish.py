"""The second look at a row: its results, and for SOFTMAX the sum of its powers."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...config import CardConfig
from ...hierarchy import Repeated
from ...isa import RowsBody
from ...numerics.delay import delayed
from ...numerics.pipeline import FP32
from ..ports import ReadPort
from .lane import RowLane
from .lanes import join, levels
from .pack import RowPacker, granule_layout
from .reader import RowReader, TableReader
from .shape import shape_layout

__all__ = ["RowFinish", "pass_layout"]

_PASSES = 4
"""Passes between the request of their first granule and their last result."""

_ONE = 0x3F800000
_MINUS_ZERO = 1 << 31  # added to a number, it changes nothing
_UNITS = 32  # powers are cut to multiples of 2^-32


def pass_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a pass over a row: where it reads and writes, and how many numbers take part.

    ``shift``, ``factor``: as in `factors_layout`.
    ``sums``: the powers are summed. ``writes``: the results are written.
    """
    return data.StructLayout(
        {
            "source": unsigned(config.granule_addr_width),
            "target": unsigned(config.granule_addr_width),
            "take": unsigned(16),
            "shift": unsigned(32),
            "factor": unsigned(32),
            "sums": unsigned(1),
            "writes": unsigned(1),
        }
    )


class RowFinish(wiring.Component):
    """Makes the results of rows, a beat a cycle, also from one pass to the next.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(RowsBody)``
    shape : ``In(shape_layout(config))``
    start : ``In(stream)``
        A pass, `pass_layout`.
    table : ``In``
        Address of the table, in granules.
    read, read_table : ``Out(ReadPort(config))``
    summed : ``Out(1)``
        Pulses with ``sum``, for each pass that sums.
    sum : ``Out(49)``
        In units of 2^-32.
    nan : ``Out(1)``
        With ``sum``: there is none.
    granule : ``Out(stream)``
        `granule_layout`.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "command": In(RowsBody),
                "shape": In(shape_layout(config)),
                "start": In(stream.Signature(pass_layout(config))),
                "table": In(config.granule_addr_width),
                "read": Out(ReadPort(config)),
                "read_table": Out(ReadPort(config)),
                "summed": Out(1),
                "sum": Out(49),
                "nan": Out(1),
                "granule": Out(stream.Signature(granule_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, command, shape = self.config, self.command, self.shape
        lanes = config.row_lanes
        tag_layout = data.StructLayout({"take": unsigned(16), "slot": unsigned(2)})
        m.submodules.reader = reader = RowReader(config, tag_layout.size)
        m.submodules.table_reader = table_reader = TableReader(config)
        m.submodules.packer = packer = RowPacker(config)
        connect(m, reader.read, flipped(self.read))
        connect(m, table_reader.read, flipped(self.read_table))
        connect(m, packer.granule, flipped(self.granule))
        m.d.comb += [
            reader.shape.eq(shape),
            table_reader.shape.eq(shape),
            packer.shape.eq(shape),
        ]

        # A pass keeps what it needs in a slot until its last result.
        slots = [
            Signal(pass_layout(config), name=f"slot{i}", reset_less=True) for i in range(_PASSES)
        ]
        slot = Signal(range(_PASSES))
        used = Signal(range(_PASSES + 1))
        room, begin, end = Signal(), Signal(), Signal()
        asked = data.View(tag_layout, reader.row.payload.tag)
        m.d.comb += [
            room.eq((used != _PASSES) & (table_reader.row.ready | ~shape.table)),
            reader.row.valid.eq(self.start.valid & room),
            reader.row.payload.source.eq(self.start.payload.source),
            asked.take.eq(self.start.payload.take),
            asked.slot.eq(slot),
            self.start.ready.eq(reader.row.ready & room),
            begin.eq(self.start.valid & self.start.ready),
            table_reader.row.valid.eq(begin & shape.table),
            table_reader.row.payload.source.eq(self.table),
        ]
        m.d.sync += used.eq(used + begin - end)
        with m.If(begin):
            m.d.sync += slot.eq(slot + 1)
            with m.Switch(slot):
                for i, kept in enumerate(slots):
                    with m.Case(i):
                        m.d.sync += kept.eq(self.start.payload)

        # A beat enters when its numbers and its columns are there.
        ce, enter = Signal(), Signal()
        beat, columns = reader.beat, table_reader.beat
        m.d.comb += [
            ce.eq(packer.room),
            enter.eq(beat.valid & (columns.valid | ~shape.table)),
            beat.ready.eq(ce & enter),
            columns.ready.eq(ce & enter & shape.table),
        ]
        given = data.View(tag_layout, beat.payload.tag)
        rest, left = Signal(16, reset_less=True), Signal(16)
        size = Mux(shape.half_beats, lanes // 2, lanes)
        m.d.comb += left.eq(Mux(beat.payload.first, given.take, rest))
        with m.If(ce & enter):
            m.d.sync += rest.eq(Mux(left > size, left - size, 0))

        # What goes along with a beat.
        mark_layout = data.StructLayout({"slot": 2, "last": 1, "take": lanes})
        entering = Signal(mark_layout)
        m.d.comb += [
            entering.slot.eq(given.slot),
            entering.last.eq(beat.payload.last),
            entering.take.eq(Cat((left > lane) & (lane < size) for lane in range(lanes))),
        ]

        def after(mark, cycles: int, name: str):
            return data.View(mark_layout, delayed(m, ce, mark, cycles, name))

        at_shift = after(entering, RowLane.SHIFT, "at_shift")
        at_factor = after(at_shift, RowLane.FACTOR - RowLane.SHIFT, "at_factor")
        at_plain = after(at_factor, RowLane.PLAIN - RowLane.FACTOR, "at_plain")
        at_power = after(at_plain, RowLane.POWER - RowLane.PLAIN, "at_power")
        at_gain = data.View(mark_layout, Mux(shape.softmax, at_power, at_plain))
        at_result = after(at_gain, RowLane.RESULT, "at_result")

        def of(mark, field: str) -> Value:
            return Array(getattr(kept, field) for kept in slots)[mark.slot]

        shift, factor, gain = Signal(32), Signal(32), Signal(32)
        shifts = shape.softmax | shape.normalize
        m.d.comb += [
            shift.eq(Mux(shifts, of(at_shift, "shift"), _MINUS_ZERO)),
            factor.eq(command.a_scale),
            gain.eq(command.b_scale),
        ]
        with m.If(shape.normalize):
            m.d.comb += factor.eq(of(at_factor, "factor"))
        with m.If(shape.quantize):
            m.d.comb += factor.eq(_ONE)
        with m.If(shape.quantize | (shape.softmax & ~shape.defer)):
            m.d.comb += gain.eq(of(at_gain, "factor"))

        # Columns of the table, from where a beat enters; SOFTMAX has none.
        scales = [column.scale for column in columns.payload]
        biases = [column.bias for column in columns.payload]
        late_scales = delayed(m, ce, Cat(scales), RowLane.PLAIN, "scales")
        offsets = shape.table & ~(shape.affine & shape.integer)
        late_biases = delayed(m, ce, Cat(biases), RowLane.PLAIN + RowLane.OFFSET, "biases")

        units = []
        for i in range(lanes):
            lane = RowLane(config)
            m.submodules[f"lane{i}"] = Repeated(lane, "row_lane")
            m.d.comb += [
                lane.ce.eq(ce),
                lane.command.eq(command),
                lane.shape.eq(shape),
                lane.valid_i.eq(enter),
                lane.number.eq(beat.payload.lanes[i]),
                lane.bias.eq(Mux(shape.table & shape.affine, biases[i], 0)),
                lane.shift.eq(shift),
                lane.factor.eq(factor),
                lane.take.eq(at_power.take[i]),
                lane.gain.eq(Mux(shape.table, late_scales.word_select(i, 32), gain)),
                lane.offset.eq(Mux(offsets, late_biases.word_select(i, 32), 0)),
                packer.lanes[i].eq(lane.result),
            ]
            units.append(lane)
        self._elaborate_sum(m, ce, units, of(at_power, "sums"), at_power)

        out = units[0].valid_o & ce
        m.d.comb += [
            packer.valid_i.eq(out & of(at_result, "writes")),
            packer.last.eq(at_result.last),
            packer.target.eq(of(at_result, "target")),
            end.eq(out & at_result.last),
        ]
        return m

    def _elaborate_sum(self, m: Module, ce, lanes: list, sums, mark) -> None:
        """Cut the powers to multiples of 2^-32 and add them up."""
        depth = 1 + levels(len(lanes))
        valid = Signal(depth)
        with m.If(ce):
            m.d.sync += valid.eq(Cat(lanes[0].powered & self.shape.softmax & sums, valid))
        cut, nans = [], []
        for i, lane in enumerate(lanes):
            # A power of exponent 2^0 is 1, and no power is larger.
            fields = data.View(FP32, lane.power)
            units = Signal(_UNITS + 1, name=f"units{i}", reset_less=True)
            nan = Signal(name=f"nan{i}", reset_less=True)
            below = Signal(8, name=f"below{i}")
            m.d.comb += below.eq(127 - fields.exponent)
            wide = Cat(Const(0, _UNITS - 23), fields.fraction, Const(1, 1))
            with m.If(ce):
                m.d.sync += [
                    units.eq(Mux(below > _UNITS, 0, wide >> below[:6])),
                    nan.eq(fields.exponent.all()),
                ]
            cut.append(units)
            nans.append(nan)
        total = join(m, ce, cut, lambda a, b: a + b, "total")
        none = join(m, ce, nans, lambda a, b: a | b, "none")
        last = delayed(m, ce, mark.last, depth, "sum_last")
        fresh = Signal(init=1)
        m.d.sync += self.summed.eq(ce & valid[-1] & last)
        sum_, nan = Signal(49, reset_less=True), Signal(reset_less=True)
        with m.If(ce & valid[-1]):
            m.d.sync += [
                sum_.eq(Mux(fresh, 0, sum_) + total),
                nan.eq((~fresh & nan) | none),
                fresh.eq(last),
            ]
        m.d.comb += [self.sum.eq(sum_), self.nan.eq(nan)]
