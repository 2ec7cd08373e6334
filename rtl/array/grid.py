"""The systolic array: rows by columns of PEs, and the hops between them."""

from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..hierarchy import Repeated
from ..isa import Mode
from .pe import PE
from .ports import drain_layout, fill_layout, stream_layout

__all__ = ["Grid"]


class Grid(wiring.Component):
    """PEs that pass weights to the right, operands down and sums to the left, a hop a cycle.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
    offset : ``In(signed(10))``
        `offset_of` the mode; both are still while a command's weights and sums are in the array.
    stream : ``In(stream_layout).array(rows)``
        Weights, into column 0.
    fill : ``In(fill_layout).array(cols)``
        Operands, into row 0. All columns are filled in step.
    filled : ``Out(1).array(rows)``
        Pulses for each operand word that has reached the row: a weight that enters the row in the
        next cycle finds it in every column.
    release : ``Out(1).array(rows)``
        Pulses when a hop marked ``release``, with or without a weight, has left the last column:
        every PE of the row has read the weights that came before it, and its own.
    drain : ``Out(drain_layout).array(rows)``
        Sums, out of column 0: the first beat 9 cycles after the visit's last weight entered, then
        one a cycle, column 0 first.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "mode": In(Mode),
                "offset": In(signed(10)),
                "stream": In(stream_layout(config)).array(config.rows),
                "fill": In(fill_layout(config)).array(config.cols),
                "filled": Out(1).array(config.rows),
                "release": Out(1).array(config.rows),
                "drain": Out(drain_layout()).array(config.rows),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self._config.rows, self._config.cols
        pes = [[PE(self._config) for _ in range(cols)] for _ in range(rows)]
        for r, row in enumerate(pes):
            for c, pe in enumerate(row):
                m.submodules[f"pe_{r}_{c}"] = Repeated(pe, "pe")
                m.d.comb += [
                    pe.mode.eq(self.mode),
                    pe.offset.eq(self.offset),
                    pe.stream_i.eq(row[c - 1].stream_o if c else self.stream[r]),
                    pe.fill_i.eq(pes[r - 1][c].fill_o if r else self.fill[c]),
                ]
                if c + 1 < cols:
                    m.d.comb += pe.drain_i.eq(row[c + 1].drain_o)
            m.d.comb += [
                self.filled[r].eq(row[0].fill_o.valid),
                self.release[r].eq(row[-1].stream_o.release),
                self.drain[r].eq(row[0].drain_o),
            ]
        return m
