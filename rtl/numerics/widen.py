"""What becomes of a MATMUL's inputs on their way to the array: the mode, and numbers widened to it.

Every widening is exact: `array_mode` pairs no formats for which it would not be.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from ..isa import Format, Mode, array_mode

__all__ = ["mode_of", "widen"]

_E4M3 = data.StructLayout({"fraction": 3, "exponent": 4, "sign": 1})
_E5M2 = data.StructLayout({"fraction": 2, "exponent": 5, "sign": 1})


def mode_of(m: Module, stream_format, in_format) -> tuple[Signal, Signal]:
    """Return the `Mode` for two input formats, as a signal, and whether there is one.

    Parameters
    ----------
    m : Module
    stream_format, in_format : ``Format``, or its 8 bits
    """
    mode, known = Signal(Mode, name="mode"), Signal(name="mode_known")
    pairs: dict[Mode, list[str]] = {}
    for stream in Format:
        for resident in Format:
            found = array_mode(stream, resident)
            if found is not None:
                pairs.setdefault(found, []).append(f"{resident.value:08b}{stream.value:08b}")
    with m.Switch(Cat(Value.cast(stream_format), Value.cast(in_format))):
        for found, patterns in pairs.items():
            with m.Case(*patterns):
                m.d.comb += [mode.eq(found), known.eq(1)]
    return mode, known


def widen(m: Module, raw, source, mode, *, name: str) -> Signal:
    """Return a number widened to the array's mode: 16 bits, combinationally.

    Parameters
    ----------
    m : Module
    raw : Value
        The number in its low bits; what lies above does not matter. At least 16 bits.
    source : ``Format``, or its 8 bits
    mode : ``Mode``
    name : str
        Prefix of the signals, unique in the module.

    Returns
    -------
    Signal
        FP16 or BF16; in `Mode.INT8` and `Mode.INT4` the integer is in the low 8 or 4 bits.
    """
    source = Value.cast(source)
    wide = Signal(16, name=f"{name}_wide")
    byte = Signal(8, name=f"{name}_byte")
    to_float = Signal(name=f"{name}_to_float")
    m.d.comb += [
        byte.eq(Mux(source == Format.INT4.value, Cat(raw[:4], raw[3].replicate(4)), raw[:8])),
        to_float.eq((mode == Mode.FP16) | (mode == Mode.BF16)),
        wide.eq(Cat(byte, raw[8:16])),
    ]
    with m.If(to_float & (source != Format.FP16.value) & (source != Format.BF16.value)):
        with m.If((source == Format.E5M2.value) & (mode == Mode.FP16)):
            m.d.comb += wide.eq(Cat(Const(0, 8), byte))
        with m.Else():
            m.d.comb += wide.eq(_to_float(m, byte, source, mode, name))
    return wide


def _to_float(m: Module, byte: Signal, source, mode, name: str) -> Value:
    """Return an integer or FP8 as FP16 or BF16: none is subnormal there (but E5M2 in FP16)."""
    sign = byte[7]
    special = Signal(name=f"{name}_special")  # an infinity or NaN
    nan = Signal(name=f"{name}_nan")
    # The number is magnitude * 2^weight.
    magnitude = Signal(8, name=f"{name}_magnitude")
    weight = Signal(signed(6), name=f"{name}_weight")
    m.d.comb += magnitude.eq((byte ^ sign.replicate(8)) + sign)
    with m.Switch(source):
        with m.Case(Format.E4M3.value):
            fields = data.View(_E4M3, byte)
            hidden = fields.exponent.any()
            m.d.comb += [
                magnitude.eq(Cat(fields.fraction, hidden)),
                weight.eq(Mux(hidden, fields.exponent, 1) - 10),
                special.eq(byte[:7].all()),
                nan.eq(1),
            ]
        with m.Case(Format.E5M2.value):
            fields = data.View(_E5M2, byte)
            hidden = fields.exponent.any()
            m.d.comb += [
                magnitude.eq(Cat(fields.fraction, hidden)),
                weight.eq(Mux(hidden, fields.exponent, 1) - 17),
                special.eq(fields.exponent.all()),
                nan.eq(fields.fraction.any()),
            ]
    lead = Signal(3, name=f"{name}_lead")
    aligned = Signal(8, name=f"{name}_aligned")
    exponent = Signal(8, name=f"{name}_exponent")
    m.d.comb += [
        aligned.eq(magnitude << ~lead),  # 7 - lead
        exponent.eq(weight + lead + Mux(mode == Mode.BF16, 127, 15)),
    ]
    for bit in range(8):  # the last one that is set wins
        with m.If(magnitude[bit]):
            m.d.comb += lead.eq(bit)
    number, fraction = Signal(16, name=f"{name}_number"), aligned[:7]
    with m.If(mode == Mode.BF16):
        m.d.comb += number.eq(Cat(fraction, exponent, sign))
        with m.If(special):
            m.d.comb += number.eq(Cat(Const(0, 6), nan, Const(0xFF, 8), sign))
    with m.Else():
        m.d.comb += number.eq(Cat(Const(0, 3), fraction, exponent[:5], sign))
        with m.If(special):
            m.d.comb += number.eq(Cat(Const(0, 9), nan, Const(0x1F, 5), sign))
    with m.If(~magnitude.any() & ~special):
        m.d.comb += number.eq(Cat(Const(0, 15), sign))
    return number
