"""The PLU slot of the epilogue: every function of the instruction set, one of them selected."""

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..isa import Format, Function
from .function import PluFunction, SlotSignature
from .relu import Relu

__all__ = ["FUNCTIONS", "PluSlot"]

FUNCTIONS: Mapping[Function, type[PluFunction]] = {Function.RELU: Relu}
"""Which component computes each function of the instruction set."""


class PluSlot(wiring.Component):
    """Passes each value through the selected function.

    Functions that are not selected see no values. A function that is faster than the slowest is
    padded, so that ``latency`` is one number. `Function.NONE`, and any function that is not
    among ``functions``, passes values unchanged.

    Parameters
    ----------
    functions : mapping from `Function` to subclass of `PluFunction`
        At least one, all with format FP32.

    Attributes
    ----------
    latency : int
        Cycles with ``ce`` high from a value to its result.

    Members
    -------
    function : ``In(8)``
        Code of a `Function`; stands still from the cycle before the first value until the last has
        left.
    slot : ``In(SlotSignature())``
    """

    def __init__(self, functions: Mapping[Function, type[PluFunction]] = FUNCTIONS) -> None:
        if not functions or Function.NONE in functions:
            raise ValueError(
                f"functions must name at least one function but NONE, not {functions!r}"
            )
        for function in functions.values():
            if function.format != Format.FP32:
                raise ValueError(f"a function's format must be FP32, not {function.format!r}")
            if function.latency < 1:
                raise ValueError(
                    f"a function's latency must be at least 1, not {function.latency!r}"
                )
        self._functions = dict(functions)
        self.latency = max(function.latency for function in functions.values())
        super().__init__({"function": In(8), "slot": In(SlotSignature())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slot = self.slot
        valid = Signal(self.latency)
        with m.If(slot.ce):
            m.d.sync += valid.eq(Cat(slot.valid_i, valid))
        m.d.comb += slot.valid_o.eq(valid[-1])

        # Each function joins one delay line at the distance from its end that pads it.
        joins: dict[int, list] = {}
        for code, function in self._functions.items():
            name = code.name.lower()
            m.submodules[name] = component = function()
            selected = Signal(name=f"{name}_selected")
            m.d.sync += selected.eq(self.function == code.value)
            m.d.comb += [
                component.slot.ce.eq(slot.ce),
                component.slot.parameter.eq(slot.parameter),
                component.slot.valid_i.eq(slot.valid_i & selected),
                component.slot.value_i.eq(slot.value_i),
            ]
            joins.setdefault(function.latency, []).append((selected, component.slot.value_o))
        value = slot.value_i
        present = slot.valid_i
        for stage in range(1, self.latency + 1):
            delayed = Signal(32, name=f"delayed{stage}", reset_less=True)
            with m.If(slot.ce & present):
                m.d.sync += delayed.eq(value)
            value = delayed
            for selected, result in joins.get(stage, ()):
                value = Mux(selected, result, value)
            present = valid[stage - 1]
        m.d.comb += slot.value_o.eq(value)
        return m
