"""What moves through the array: the stream along a row, the fill down a column, the drain."""

from amaranth.hdl import unsigned
from amaranth.lib import data

from ..config import CardConfig

__all__ = ["SEGMENT", "drain_layout", "fill_layout", "stream_layout", "visit_layout"]

SEGMENT = 24
"""Bits of one of the accumulator's four segments."""


def stream_layout(config: CardConfig) -> data.StructLayout:
    """Layout of one weight on its way along a row.

    ``valid``: a weight is here. ``first`` and ``last`` mark the ends of its visit. ``address`` is
    the ring address of its operand. A weight of zero (an escape, too) adds nothing. ``release``
    ends the engine's work on a column block, with or without a weight.
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
    """Layout of one operand word on its way down a column."""
    return data.StructLayout(
        {"value": unsigned(16), "address": range(config.operand_depth), "valid": unsigned(1)}
    )


def drain_layout() -> data.StructLayout:
    """Layout of one beat of a drain: half an accumulator.

    A PE drains two beats: segments 0 and 1, then 2 and 3. ``carry[i]`` belongs to the segment
    above ``segment[i]`` and is still to be added. INT8: each beat is one 48-bit signed sum (its
    ``carry[1]`` is void): lane 0 first. FP16: the two beats make one 96-bit signed sum in units of
    2^-48. ``nan``, ``inf_pos``, ``inf_neg`` are set in both beats if any product was so; a sum
    with both infinities is NaN.
    """
    return data.StructLayout(
        {
            "segment": data.ArrayLayout(unsigned(SEGMENT), 2),
            "carry": data.ArrayLayout(unsigned(1), 2),
            "nan": unsigned(1),
            "inf_pos": unsigned(1),
            "inf_neg": unsigned(1),
            "valid": unsigned(1),
        }
    )


def visit_layout() -> data.StructLayout:
    """Layout of what a row engine tells its epilogue lane about each visit, in order.

    ``address``: scratchpad byte address of column 0 of the iteration. ``block_first``: the visit
    belongs to the first column block of its iteration. ``block_new``: it is the first of its
    column block. ``empty``: no results will come. ``iteration_last``: the last of the iteration.
    """
    return data.StructLayout(
        {
            "address": unsigned(32),
            "bias": unsigned(32),
            "scale": unsigned(32),
            "block_first": unsigned(1),
            "block_new": unsigned(1),
            "empty": unsigned(1),
            "iteration_last": unsigned(1),
        }
    )
