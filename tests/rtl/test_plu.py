# amaranth: UnusedElaboratable=no
"""The PLU slot with functions of different latency."""

from typing import ClassVar

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from deepseek.rtl.isa import Format, Function
from deepseek.rtl.numerics.pipeline import stage_enables
from deepseek.rtl.plu.function import PluFunction
from deepseek.rtl.plu.relu import Relu
from deepseek.rtl.plu.slot import PluSlot


class AddSlowly(PluFunction):
    """Adds the second parameter, in three cycles."""

    latency: ClassVar[int] = 3
    format: ClassVar[Format] = Format.FP32

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slot = self.slot
        value = slot.value_i
        for i, enable in enumerate(
            stage_enables(m, slot.ce, slot.valid_i, slot.valid_o, self.latency)
        ):
            step = Signal(32, name=f"step{i}", reset_less=True)
            with m.If(enable):
                m.d.sync += step.eq(value + slot.parameter[1] if i == 1 else value)
            value = step
        m.d.comb += slot.value_o.eq(value)
        return m


class Slowest(AddSlowly):
    """The same in five cycles."""

    latency: ClassVar[int] = 5


@pytest.mark.parametrize("functions", [{Function.RELU: Relu}, {Function.RELU: AddSlowly}])
@pytest.mark.parametrize("pad", [False, True])
def test_slot(functions, pad):
    """The selected function's results come in order, after the slowest one's latency."""
    extra = max(Function, key=lambda function: function.value).value + 1
    known = dict(functions)
    if pad:
        # A code that no command has yet; the slot only needs its name and value.
        known[type("Code", (), {"name": "SLOWEST", "value": extra})()] = Slowest
    slot = PluSlot(known)
    assert slot.latency == max(function.latency for function in known.values())
    r = np.random.default_rng(1)
    references = {
        Relu: lambda x: 0 if x >> 31 else x,
        AddSlowly: lambda x: (x + 77) & 0xFFFFFFFF,
    }

    async def bench(ctx):
        for parameter, word in enumerate((5, 77, 6)):
            ctx.set(slot.slot.parameter[parameter], word)
        for code in Function:
            ctx.set(slot.function, code.value)
            await ctx.tick()
            sent, got, history = [], [], [None] * slot.latency
            for _ in range(200):
                ce, valid = (int(x < 0.7) for x in r.random(2))
                value = int(r.integers(1 << 32))
                ctx.set(slot.slot.ce, ce)
                ctx.set(slot.slot.valid_i, valid)
                ctx.set(slot.slot.value_i, value)
                if ctx.get(slot.slot.valid_o):
                    assert history[0] is not None
                    if ce:
                        got.append(ctx.get(slot.slot.value_o))
                else:
                    assert history[0] is None
                if ce:
                    history = [*history[1:], value if valid else None]
                    sent += [value] if valid else []
                await ctx.tick()
            assert len(sent) > 50
            known_function = functions.get(code)
            reference = references[known_function] if known_function else lambda x: x
            expected = [reference(value) for value in sent]
            assert got == expected[: len(got)]
            assert len(got) > 50
            ctx.set(slot.slot.valid_i, 0)
            ctx.set(slot.slot.ce, 1)
            await ctx.tick().repeat(slot.latency)

    simulator = Simulator(slot)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


def test_refusals():
    """A slot without functions, or with one that it cannot hold, is refused."""

    class Half(Relu):
        format: ClassVar[Format] = Format.FP16

    class Instant(Relu):
        latency: ClassVar[int] = 0

    with pytest.raises(ValueError, match="functions must"):
        PluSlot({})
    with pytest.raises(ValueError, match="functions must"):
        PluSlot({Function.NONE: Relu})
    with pytest.raises(ValueError, match=r"format must be FP32, not <Format\.FP16"):
        PluSlot({Function.RELU: Half})
    with pytest.raises(ValueError, match="latency must be at least 1, not 0"):
        PluSlot({Function.RELU: Instant})
