"""Parts of the array with what stands between them: designs for benches."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...rtl.array.fill import Fill
from ...rtl.array.pe import PE
from ...rtl.array.ports import drain_layout, fill_layout, operand_layout, stream_layout
from ...rtl.array.prepare import PrepareOperand, PrepareWeight
from ...rtl.config import CardConfig
from ...rtl.isa import Mode
from ...rtl.numerics.widen import finish_widening, mode_of

__all__ = ["PreparedPE", "WidenedFill", "word_layout"]


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


def word_layout(config: CardConfig) -> data.StructLayout:
    """Layout of one column's port of `WidenedFill`: `fill_layout` with a word that is widened."""
    fields = {name: field.shape for name, field in fill_layout(config)}
    return data.StructLayout(fields | {"value": unsigned(16)})


class WidenedFill(wiring.Component):
    """The fill path, and the widening of its words, which `PrepareOperand` finishes.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    fill : ``Out(word_layout).array(cols)``

    The others are those of `Fill`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        self._fill = Fill(config)
        members = dict(self._fill.signature.members)
        super().__init__(members | {"fill": Out(word_layout(config)).array(config.cols)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fill = fill = self._fill
        connect(m, flipped(self.start), fill.start)
        connect(m, fill.read, flipped(self.read))
        mode, body = Signal(Mode), self.body
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += mode.eq(mode_of(m, body.stream_format, body.in_format)[0])
        m.d.comb += [
            fill.body.eq(body),
            fill.release.eq(self.release),
            *(getattr(self, name).eq(getattr(fill, name)) for name in ("done", "error", "status")),
        ]
        for c, (port, inner) in enumerate(zip(self.fill, fill.fill, strict=True)):
            m.d.comb += [
                port.value.eq(finish_widening(m, inner.value, mode, name=f"column_{c}")),
                port.address.eq(inner.address),
                port.valid.eq(inner.valid),
            ]
        return m
