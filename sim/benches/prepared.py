"""A processing element behind the preparation of its inputs, as a grid has it."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...rtl.array.pe import PE
from ...rtl.array.ports import drain_layout, fill_layout, operand_layout, stream_layout
from ...rtl.array.prepare import PrepareOperand, PrepareWeight
from ...rtl.config import CardConfig
from ...rtl.isa import Mode

__all__ = ["PreparedPE"]


class PreparedPE(wiring.Component):
    """One PE of a `Grid`.

    Members
    -------
    mode, offset, stream, fill : ``In``
        As those of `Grid`, of one row and column.
    prepared : ``Out(operand_layout)``
        What enters the PE of ``fill``.
    fill_o, drain_i, drain_o :
        As those of `PE`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "mode": In(Mode),
                "offset": In(signed(10)),
                "stream": In(stream_layout(config)),
                "fill": In(fill_layout(config)),
                "prepared": Out(operand_layout(config)),
                "fill_o": Out(operand_layout(config)),
                "drain_i": In(drain_layout()),
                "drain_o": Out(drain_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pe = pe = PE(self._config)
        m.submodules.weight = weight = PrepareWeight()
        m.submodules.operand = operand = PrepareOperand()

        def late(value: Any, cycles: int, name: str) -> Any:
            for i in range(cycles):
                step = Signal(len(value), name=f"{name}{i}")
                m.d.sync += step.eq(value)
                value = step
            return value

        given, factor = self.stream, pe.factor_i
        marks = Cat(given.valid, given.first, given.last)
        place = Cat(self.fill.address, self.fill.valid)
        m.d.comb += [
            *(part.mode.eq(self.mode) for part in (pe, weight, operand)),
            weight.offset.eq(self.offset),
            weight.value.eq(given.value),
            pe.pick_i.address.eq(given.address),
            pe.pick_i.valid.eq(given.valid),
            pe.pick_i.release.eq(given.release),
            factor.weight.eq(weight.weight),
            Cat(factor.valid, factor.first, factor.last).eq(
                late(marks, PrepareWeight.LATENCY, "marks")
            ),
            operand.value.eq(self.fill.value),
            self.prepared.value.eq(operand.word),
            Cat(self.prepared.address, self.prepared.valid).eq(
                late(place, PrepareOperand.LATENCY, "place")
            ),
            pe.fill_i.eq(self.prepared),
            self.fill_o.eq(pe.fill_o),
            pe.drain_i.eq(self.drain_i),
            self.drain_o.eq(pe.drain_o),
        ]
        return m
