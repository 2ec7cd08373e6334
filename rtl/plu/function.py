"""The contract of a PLU function: one 32-bit lane in, one out, a declared latency and format."""

from typing import ClassVar

from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..isa import Format

__all__ = ["PluFunction", "SlotSignature"]


class SlotSignature(wiring.Signature):
    """Ports of the slot and of each function in it, seen from the epilogue.

    Members
    -------
    ce : ``Out(1)``
        Clock enable: while it is low, nothing in the slot changes.
    parameter : ``Out(ArrayLayout(32, 3))``
        The command's parameters; they stand still while values are inside.
    valid_i : ``Out(1)``
    value_i : ``Out(32)``
    valid_o : ``In(1)``
        ``valid_i`` as it was ``latency`` cycles with ``ce`` high ago.
    value_o : ``In(32)``
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "ce": Out(1),
                "parameter": Out(data.ArrayLayout(unsigned(32), 3)),
                "valid_i": Out(1),
                "value_i": Out(32),
                "valid_o": In(1),
                "value_o": In(32),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotSignature)


class PluFunction(wiring.Component):
    """Base of the functions. A subclass declares the two attributes and elaborates.

    It takes and returns one value in each cycle with ``ce`` high, in order, and has no effect
    other than its output. A NaN it returns is 0x7FC00000; its input has no other.

    Attributes
    ----------
    latency : int
        Cycles with ``ce`` high from a value to its result, at least 1.
    format : Format
        Format of the lane at both ends.

    Members
    -------
    slot : ``In(SlotSignature())``
    """

    latency: ClassVar[int]
    format: ClassVar[Format]

    def __init__(self) -> None:
        super().__init__({"slot": In(SlotSignature())})
