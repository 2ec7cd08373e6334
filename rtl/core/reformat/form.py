"""What follows from a `ReformatBody`: its faults, and the sizes that the unit works with."""

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data

from ...config import GRANULE
from ...isa import BITS, Format, ReformatBody, ReformatOp
from ..transfer import misaligned

__all__ = ["FORMATS", "bad_alignment", "bad_format", "bad_length", "form_layout", "make_form"]

FORMATS = {
    ReformatOp.TRANSPOSE: tuple(fmt for fmt in Format if BITS[fmt] >= 8),
    ReformatOp.COMPRESS: (Format.INT8, Format.E4M3, Format.E5M2, Format.FP16, Format.BF16),
    ReformatOp.EXPAND: (Format.E4M3, Format.E5M2, Format.INT8, Format.E2M1),
}
"""Formats that each operation takes."""


def form_layout() -> data.StructLayout:
    """Layout of what the unit keeps of a body.

    ``transpose``, ``compress``, ``expand``: the operation. ``size``: a number has 2^size bytes
    (E2M1: 0). ``places_log``: log2 of the numbers in a granule. ``row_granules``: of an input
    row. ``column_granules``: of ``rows`` numbers. ``expanded_granules``: of a row in BF16.
    ``scale_granules``: of its scales. ``tail``: numbers in the last granule of an input row.
    ``tail_byte``: the last byte that counts in the last granule of an output row (but of streams).
    """
    return data.StructLayout(
        {
            "transpose": unsigned(1),
            "compress": unsigned(1),
            "expand": unsigned(1),
            "size": unsigned(2),
            "places_log": unsigned(3),
            "row_granules": unsigned(16),
            "column_granules": unsigned(16),
            "expanded_granules": unsigned(16),
            "scale_granules": unsigned(16),
            "tail": unsigned(6),
            "tail_byte": unsigned(4),
        }
    )


def make_form(m: Module, body: ReformatBody) -> Signal:
    """Return the form of a body (`form_layout`), combinationally."""
    form = Signal(form_layout(), name="form_now")
    last = Signal(16, name="form_last")  # of a row's numbers, counted from 0
    last_row = Signal(16, name="form_last_row")
    last_granule = Signal(16, name="form_last_granule")
    last_column_granule = Signal(16, name="form_last_column_granule")
    m.d.comb += [
        form.transpose.eq(body.op == ReformatOp.TRANSPOSE.value),
        form.compress.eq(body.op == ReformatOp.COMPRESS.value),
        form.expand.eq(body.op == ReformatOp.EXPAND.value),
        last.eq(body.length - 1),
        last_row.eq(body.rows - 1),
        form.row_granules.eq(last_granule + 1),
        form.column_granules.eq(last_column_granule + 1),
        form.expanded_granules.eq(last[3:] + 1),
        form.scale_granules.eq(last[9:] + 1),
    ]
    with m.Switch(body.in_format):
        for bits in sorted(set(BITS.values())):
            with m.Case(*(fmt.value for fmt in Format if BITS[fmt] == bits)):
                places = 8 * GRANULE // bits
                log = places.bit_length() - 1
                size = max(bits // 8, 1).bit_length() - 1
                m.d.comb += [
                    form.size.eq(size),
                    form.places_log.eq(log),
                    last_granule.eq(last[log:]),
                    last_column_granule.eq(last_row[log:]),
                    form.tail.eq(last[:log] + 1),
                    form.tail_byte.eq((last_row << size) | ((1 << size) - 1)),
                ]
    with m.If(form.expand):
        m.d.comb += form.tail_byte.eq(Cat(1, last[:3]))
    return form


def bad_length(body: ReformatBody) -> Value:
    """Return whether a count is zero."""
    return Cat(bound == 0 for bound in (body.rows, body.length, body.batch)).any()


def bad_format(m: Module, body: ReformatBody) -> Value:
    """Return whether there is no such operation, or not on numbers of this format."""
    known = Signal(name="format_known")
    with m.Switch(Cat(body.in_format, body.op)):
        for op, formats in FORMATS.items():
            with m.Case(*(f"{op.value:08b}{fmt.value:08b}" for fmt in formats)):
                m.d.comb += known.eq(1)
    return ~known


def bad_alignment(form, body: ReformatBody, operand) -> Value:
    """Return whether an address or a stride is not aligned as the operation needs it."""
    strides = (body.in_stride, body.in_batch_stride, body.out_stride, body.out_batch_stride)
    index = (operand[0], body.index_stride, body.index_batch_stride)
    odd = Cat(Value.cast(value)[0] for value in index).any()
    return (
        misaligned(operand[1], operand[2], *strides)
        | (~form.transpose & odd)
        | (form.expand & misaligned(*index))
    )
