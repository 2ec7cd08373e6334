"""Widening of inputs: every number of every format, against `ml_dtypes`."""

import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from deepseek.rtl.isa import BITS, INPUT_FORMATS, Format, Mode, array_mode
from deepseek.rtl.numerics.widen import mode_of, widen

DTYPES = {
    Format.INT4: ml_dtypes.int4,
    Format.INT8: np.int8,
    Format.E4M3: ml_dtypes.float8_e4m3fn,
    Format.E5M2: ml_dtypes.float8_e5m2,
}
FLOATS = {Mode.FP16: np.float16, Mode.BF16: ml_dtypes.bfloat16}


class _Widen(wiring.Component):
    raw: In(16)
    source: In(unsigned(8))
    mode: In(Mode)
    wide: Out(16)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.wide.eq(widen(m, self.raw, self.source, self.mode, name="number"))
        return m


def _widened(source: Format, mode: Mode) -> np.ndarray:
    """Return what every number of a format becomes; what lies above it is set at random."""
    dut = _Widen()
    count = 1 << BITS[source]
    above = np.random.default_rng(1).integers(0, 1 << 16, count) >> BITS[source]
    result = np.zeros(count, np.uint16)

    async def bench(ctx):
        ctx.set(dut.source, source.value)
        ctx.set(dut.mode, mode)
        for i in range(count):
            ctx.set(dut.raw, i | int(above[i]) << BITS[source])
            result[i] = ctx.get(dut.wide)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return result


@pytest.mark.parametrize("mode", FLOATS)
@pytest.mark.parametrize("source", DTYPES)
def test_to_float(source, mode):
    numbers = np.arange(1 << BITS[source], dtype=np.uint8).view(DTYPES[source])
    wanted = numbers.astype(np.float32).astype(FLOATS[mode])
    assert np.array_equal(wanted.astype(np.float32), numbers.astype(np.float32), equal_nan=True)
    found = _widened(source, mode).view(FLOATS[mode])
    nan = np.isnan(wanted.astype(np.float32))
    assert np.array_equal(np.isnan(found.astype(np.float32)), nan)
    assert np.array_equal(found.view(np.uint16)[~nan], wanted.view(np.uint16)[~nan])


def test_integers():
    byte = np.arange(256)
    assert np.array_equal(_widened(Format.INT8, Mode.INT8) & 0xFF, byte)
    nibble = np.arange(16)
    assert np.array_equal(_widened(Format.INT4, Mode.INT4) & 0xF, nibble)
    assert np.array_equal(_widened(Format.INT4, Mode.INT8) & 0xFF, nibble | 0xF0 * (nibble > 7))


@pytest.mark.parametrize(("source", "mode"), [(Format.FP16, Mode.FP16), (Format.BF16, Mode.BF16)])
def test_unchanged(source, mode):
    dut = _Widen()

    async def bench(ctx):
        ctx.set(dut.source, source.value)
        ctx.set(dut.mode, mode)
        for number in range(0, 1 << 16, 251):
            ctx.set(dut.raw, number)
            assert ctx.get(dut.wide) == number

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_modes():
    """Every pair of formats, unknown ones included."""
    m = Module()
    stream, resident = Signal(8), Signal(8)
    mode, known = mode_of(m, stream, resident)

    async def bench(ctx):
        for a in range(10):
            for b in range(10):
                ctx.set(stream, a)
                ctx.set(resident, b)
                formats = [Format(x) if x <= 7 else None for x in (a, b)]
                wanted = None if None in formats else array_mode(*formats)
                assert ctx.get(known) == (wanted is not None)
                if wanted is not None:
                    assert ctx.get(mode) == wanted

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


def test_pairs():
    """The mode holds the numbers of both formats, and no other with more lanes does."""
    assert array_mode(Format.INT4, Format.INT4) is Mode.INT4
    assert array_mode(Format.INT4, Format.INT8) is Mode.INT8
    assert array_mode(Format.INT8, Format.FP16) is Mode.FP16
    assert array_mode(Format.E4M3, Format.E5M2) is Mode.FP16
    assert array_mode(Format.INT4, Format.BF16) is Mode.BF16
    assert array_mode(Format.BF16, Format.FP16) is None
    for stream in INPUT_FORMATS:
        for resident in INPUT_FORMATS:
            assert array_mode(stream, resident) is array_mode(resident, stream)
