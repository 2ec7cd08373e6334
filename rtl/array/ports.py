"""What moves through the array: the stream along a row, the fill down a column, the drain."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from ..config import CardConfig
from ..numerics.widen import halfway_layout
from .prepare import OPERAND, weight_layout

__all__ = [
    "SEGMENT",
    "drain_layout",
    "factor_layout",
    "fill_layout",
    "operand_layout",
    "pick_layout",
    "stream_layout",
    "visit_layout",
]

SEGMENT = 24
"""Bits of one of the accumulator's four segments."""


def stream_layout(config: CardConfig) -> data.StructLayout:
    """Layout of one weight on its way along a row.

    ``value`` is widened to the array's mode: 16 bits of FP16 or BF16, or INT8 or INT4 in the low
    bits with anything above. ``valid``: a weight is here. ``first`` and ``last`` mark the ends of
    its visit. ``address`` is the ring address of its operand. A weight of zero (an escape, too)
    adds nothing. ``release``, with or without a weight: the engine will not read the oldest
    `RELEASE_WORDS` words of the ring again.
    """
    return data.StructLayout(
        {
            "value": unsigned(16),
            "address": range(config.operand_depth),
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
            "release": unsigned(1),
        }
    )


def fill_layout(config: CardConfig) -> data.StructLayout:
    """Layout of one operand word on its way down a column.

    The word is widened to the array's mode: two INT8 or four INT4 numbers of columns next to each
    other, the first one lowest; one FP16 or BF16 number, or what is to become one.
    """
    return data.StructLayout(
        {"value": halfway_layout(), "address": range(config.operand_depth), "valid": unsigned(1)}
    )


def pick_layout(config: CardConfig) -> data.StructLayout:
    """Layout of what a PE needs of a weight first: where its operand is. As in `stream_layout`."""
    return data.StructLayout(
        {"address": range(config.operand_depth), "valid": unsigned(1), "release": unsigned(1)}
    )


def factor_layout() -> data.StructLayout:
    """Layout of what a PE needs of a weight when its operand is there; void if not ``valid``."""
    return data.StructLayout(
        {
            "weight": weight_layout(),
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
        }
    )


def operand_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a prepared operand word (`PrepareOperand`) on its way down a column."""
    return data.StructLayout(
        {"value": unsigned(OPERAND), "address": range(config.operand_depth), "valid": unsigned(1)}
    )


def drain_layout() -> data.StructLayout:
    """Layout of one beat of a drain: half an accumulator.

    A PE drains two beats: segments 0 and 1, then 2 and 3. ``carry[i]`` belongs to the segment
    above ``segment[i]`` and is still to be added. INT8: each beat is one 48-bit signed sum (its
    ``carry[1]`` is void), column 0 first. INT4: each segment is a 24-bit signed sum (both carries
    are void). FP16 and BF16: the two beats make one 96-bit signed sum in units of 2^-48, or of
    2^anchor. The flags are those of the whole sum in both beats. ``nan``, ``inf_pos``, ``inf_neg``:
    a product was so; a sum with both infinities is NaN. ``below``, ``above``: a product left the
    window; those above set an infinity, too. Where not ``valid`` all is 0.
    """
    return data.StructLayout(
        {
            "segment": data.ArrayLayout(unsigned(SEGMENT), 2),
            "carry": data.ArrayLayout(unsigned(1), 2),
            "nan": unsigned(1),
            "inf_pos": unsigned(1),
            "inf_neg": unsigned(1),
            "below": unsigned(1),
            "above": unsigned(1),
            "valid": unsigned(1),
        }
    )


def visit_layout() -> data.StructLayout:
    """Layout of what a row engine tells its epilogue lane about each visit, in order.

    ``address``: scratchpad byte address of column 0 of the iteration. ``slot``: which of the
    engine's rows this is in its block. ``slice_first``, ``slice_last``: the visit is of the first,
    the last slice of K; partial sums are kept from the one to the other. ``block_first``: it
    belongs to the first column block of its iteration. ``block_new``: it is the first of its
    column block, in any slice. ``empty``: no results will come; an engine without any row in a
    block sends one such visit, with both slice marks. ``iteration_last``: the last one.
    """
    return data.StructLayout(
        {
            "address": unsigned(32),
            "bias": unsigned(32),
            "scale": unsigned(32),
            "slot": unsigned(8),
            "slice_first": unsigned(1),
            "slice_last": unsigned(1),
            "block_first": unsigned(1),
            "block_new": unsigned(1),
            "empty": unsigned(1),
            "iteration_last": unsigned(1),
        }
    )
