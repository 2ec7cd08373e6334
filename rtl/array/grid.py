"""The systolic array: rows by columns of PEs, and the hops between them."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..hierarchy import Repeated
from ..isa import Mode
from .pe import PE
from .ports import (
    drain_layout,
    factor_layout,
    fill_layout,
    operand_layout,
    pick_layout,
    stream_layout,
)
from .prepare import PrepareOperand, PrepareWeight

__all__ = ["Grid", "Mesh"]


class Mesh(wiring.Component):
    """PEs and the wires between them, nothing else.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
    pick, factor : ``In(pick_layout).array(rows)``, ``In(factor_layout).array(rows)``
        Into column 0.
    fill : ``In(operand_layout).array(cols)``
        Into row 0.
    filled, release, drain : ``Out``
        As those of `Grid`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "mode": In(Mode),
                "pick": In(pick_layout(config)).array(config.rows),
                "factor": In(factor_layout()).array(config.rows),
                "fill": In(operand_layout(config)).array(config.cols),
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
                    pe.pick_i.eq(row[c - 1].pick_o if c else self.pick[r]),
                    pe.factor_i.eq(row[c - 1].factor_o if c else self.factor[r]),
                    pe.fill_i.eq(pes[r - 1][c].fill_o if r else self.fill[c]),
                ]
                if c + 1 < cols:
                    m.d.comb += pe.drain_i.eq(row[c + 1].drain_o)
            m.d.comb += [
                self.filled[r].eq(row[0].fill_o.valid),
                self.release[r].eq(row[-1].pick_o.release),
                self.drain[r].eq(row[0].drain_o),
            ]
        return m


class Grid(wiring.Component):
    """PEs that pass weights to the right, operands down and sums to the left, a hop a cycle.

    Weights and operands are prepared before they enter the array (`prepare`): a weight while the
    PEs read its operand.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``
    offset : ``In(signed(10))``
        `offset_of` the mode; both are still from two cycles before a command's first weight or
        operand on, while its weights and sums are in the array.
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
        Sums, out of column 0: the first beat 11 cycles after the visit's last weight entered, then
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
        config = self._config
        mesh = Mesh(config)
        m.submodules.mesh = Repeated(mesh, "mesh")
        # Registers on the way to all corners of the array, where others are: in PEs, too.
        mode, offset = Signal(Mode), Signal.like(self.offset)
        m.d.sync += [mode.eq(self.mode), offset.eq(self.offset)]
        m.d.comb += mesh.mode.eq(mode)
        for r, (weight, pick, factor) in enumerate(
            zip(self.stream, mesh.pick, mesh.factor, strict=True)
        ):
            prepare = PrepareWeight()
            m.submodules[f"weight_{r}"] = Repeated(prepare, "prepare_weight")
            marks = Cat(weight.valid, weight.first, weight.last)
            for i in range(PrepareWeight.LATENCY):
                delayed = Signal(3, name=f"marks_{r}_{i}")
                m.d.sync += delayed.eq(marks)
                marks = delayed
            m.d.comb += [
                prepare.mode.eq(mode),
                prepare.offset.eq(offset),
                prepare.value.eq(weight.value),
                pick.address.eq(weight.address),
                pick.valid.eq(weight.valid),
                pick.release.eq(weight.release),
                factor.weight.eq(prepare.weight),
                Cat(factor.valid, factor.first, factor.last).eq(marks),
                self.filled[r].eq(mesh.filled[r]),
                self.release[r].eq(mesh.release[r]),
                self.drain[r].eq(mesh.drain[r]),
            ]
        for c, (raw, fill) in enumerate(zip(self.fill, mesh.fill, strict=True)):
            operand = PrepareOperand()
            m.submodules[f"operand_{c}"] = Repeated(operand, "prepare_operand")
            place = Cat(raw.address, raw.valid)
            for i in range(PrepareOperand.LATENCY):
                delayed = Signal(len(place), name=f"place_{c}_{i}")
                m.d.sync += delayed.eq(place)
                place = delayed
            m.d.comb += [
                operand.mode.eq(mode),
                operand.value.eq(raw.value),
                fill.value.eq(operand.word),
                Cat(fill.address, fill.valid).eq(place),
            ]
        return m
