"""What runs commands of the VECTOR queue."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from .ports import ReadPort, UnitPort, WritePort

__all__ = ["VectorPart"]


class VectorPart(wiring.Component):
    """The ports of the vector unit and of each of its parts.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort())``
        Iterations, with the body of the part's command.
    read : ``Out(ReadPort(config))``
    write : ``Out(WritePort(config))``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "read": Out(ReadPort(config)),
                "write": Out(WritePort(config)),
            }
        )
