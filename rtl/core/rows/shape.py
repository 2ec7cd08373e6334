"""What a ROWS command means for the parts that run it: counts, and what its formats are."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...config import GRANULE, CardConfig
from ...isa import BITS, Format, RowsBody, RowsFlag, RowsOp

__all__ = ["IN_FORMATS", "OUT_FORMATS", "TABLE_BYTES", "RowShape", "shape_layout"]

IN_FORMATS = (Format.INT8, Format.INT32, Format.FP16, Format.BF16, Format.FP32)
OUT_FORMATS = (
    *(Format.INT8, Format.INT4, Format.FP16, Format.BF16),
    *(Format.E4M3, Format.E5M2, Format.FP32),
)
TABLE_BYTES = 8
"""Of a column of the table."""


def shape_layout(config: CardConfig) -> data.StructLayout:
    """Layout of what `RowShape` derives.

    A beat is the numbers that are worked on in a cycle: ``config.row_lanes``, but 4 of 8 lanes
    where the input or the output has 32 bits (``half_beats``), because the scratchpad reads and
    writes no more.

    ``beats``, ``in_granules``, ``out_granules``, ``table_granules``: of a row, less 1. ``tail``: a
    bit for each lane that the last beat of a row fills. ``in_size``: log2 of the bytes of an input
    number. ``out_size``: log2 of the bits of a result, less 2. ``integer``: the input is.
    """
    return data.StructLayout(
        {
            "beats": unsigned(16),
            "in_granules": unsigned(14),
            "out_granules": unsigned(14),
            "table_granules": unsigned(15),
            "tail": unsigned(config.row_lanes),
            "half_beats": unsigned(1),
            "in_size": unsigned(2),
            "out_size": unsigned(2),
            "integer": unsigned(1),
            "affine": unsigned(1),
            "softmax": unsigned(1),
            "normalize": unsigned(1),
            "quantize": unsigned(1),
            "table": unsigned(1),
            "defer": unsigned(1),
            "scales": unsigned(1),
        }
    )


class RowShape(wiring.Component):
    """Derives what is constant in a command from its body, a cycle later.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(RowsBody)``
    shape : ``Out(shape_layout(config))``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__({"command": In(RowsBody), "shape": Out(shape_layout(config))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        body, shape = self.command, self.shape
        lanes = self.config.row_lanes

        in_size, out_size = Signal(2), Signal(2)
        m.d.comb += [
            in_size.eq(_choose(body.in_format, {f: BITS[f].bit_length() - 4 for f in IN_FORMATS})),
            out_size.eq(
                _choose(body.out_format, {f: BITS[f].bit_length() - 3 for f in OUT_FORMATS})
            ),
        ]
        before = Signal(16)  # the numbers before the last one
        half = Signal()
        m.d.comb += before.eq(body.length - 1)
        if lanes == 8:
            m.d.comb += half.eq((in_size == 2) | (out_size == 3))
            m.d.sync += [
                shape.half_beats.eq(half),
                shape.beats.eq(Mux(half, before >> 2, before >> 3)),
            ]
        else:
            m.d.sync += shape.beats.eq(before >> (lanes - 1).bit_length())
        place = before[: (lanes - 1).bit_length()]
        for lane in range(lanes):
            filled = place >= lane
            if lanes == 8:
                filled = Mux(half, (place[:2] >= lane) if lane < 4 else 0, filled)
            m.d.sync += shape.tail[lane].eq(filled)

        def among(size: Signal, smallest: int) -> Value:
            """The index of the last number's granule: of ``smallest << size`` bits each."""
            per_granule = (8 * GRANULE // smallest).bit_length() - 1
            return (before << size) >> per_granule

        flags = body.flags
        op = {op: body.op == op.value for op in RowsOp}
        defer = op[RowsOp.SOFTMAX] & (flags & RowsFlag.DEFER).any()
        tabled = (op[RowsOp.AFFINE] | op[RowsOp.NORMALIZE]) & (flags & RowsFlag.TABLE).any()
        m.d.sync += [
            shape.in_granules.eq(among(in_size, 8)),
            shape.out_granules.eq(among(out_size, 4)),
            shape.table_granules.eq(before >> (GRANULE // TABLE_BYTES).bit_length() - 1),
            shape.in_size.eq(in_size),
            shape.out_size.eq(out_size),
            shape.integer.eq(
                Cat(body.in_format == f.value for f in (Format.INT8, Format.INT32)).any()
            ),
            shape.affine.eq(op[RowsOp.AFFINE]),
            shape.softmax.eq(op[RowsOp.SOFTMAX]),
            shape.normalize.eq(op[RowsOp.NORMALIZE]),
            shape.quantize.eq(op[RowsOp.QUANTIZE]),
            shape.table.eq(tabled),
            shape.defer.eq(defer),
            shape.scales.eq(defer | op[RowsOp.QUANTIZE]),
        ]
        return m


def _choose(form: Value, sizes: dict[Format, int]) -> Value:
    """Return the size of a format's numbers, 0 for one that has none."""
    result: Value = Cat(0, 0)
    for choice, size in sizes.items():
        result = Mux(form == choice.value, size, result)
    return result
