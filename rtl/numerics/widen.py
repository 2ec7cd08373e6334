"""What becomes of a MATMUL's inputs on their way to the array: the mode, and numbers widened to it.

Every widening is exact: `array_mode` pairs no formats for which it would not be.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from ..isa import Format, Mode, array_mode

__all__ = [
    "begin_widening",
    "describe_number",
    "finish_widening",
    "halfway_layout",
    "low_bits",
    "mode_of",
    "normalize",
    "number_layout",
    "parts_layout",
    "widen",
    "widen_halfway",
]

_E4M3 = data.StructLayout({"fraction": 3, "exponent": 4, "sign": 1})
_E5M2 = data.StructLayout({"fraction": 2, "exponent": 5, "sign": 1})


def mode_of(m: Module, stream_format, in_format) -> tuple[Signal, Signal]:
    """Return the `Mode` for two input formats, as a signal, and whether there is one; if not,
    the mode is void.

    Parameters
    ----------
    m : Module
    stream_format, in_format : ``Format``, or its 8 bits
    """
    mode, known = Signal(Mode, name="mode"), Signal(name="mode_known")
    paired = Signal(name="mode_paired")
    pairs: dict[Mode, list[str]] = {}
    for stream in Format:
        for resident in Format:
            found = array_mode(stream, resident)
            if found is not None:
                pairs.setdefault(found, []).append(f"{resident.value:03b}{stream.value:03b}")
    formats = [Value.cast(each) for each in (stream_format, in_format)]
    with m.Switch(Cat(low_bits(each) for each in formats)):
        for found, patterns in pairs.items():
            with m.Case(*patterns):
                m.d.comb += [mode.eq(found), paired.eq(1)]
    m.d.comb += known.eq(paired & ~Cat(each[3:] for each in formats).any())
    return mode, known


def low_bits(source) -> Value:
    """Return the three bits of a ``Format``, or its 8 bits, in which those of inputs differ."""
    return Value.cast(source)[:3]


def number_layout() -> data.StructLayout:
    """Layout of what is to be known of a format to widen its numbers; of INT8 nothing.

    ``is_wide``: it has 16 bits.
    """
    return data.StructLayout({"is_int4": 1, "is_e4m3": 1, "is_e5m2": 1, "is_wide": 1})


def describe_number(m: Module, source, *, name: str) -> data.View:
    """Return `number_layout` of an input's ``Format``, or its 8 bits, combinationally."""
    number = Signal(number_layout(), name=name)
    source = low_bits(source)
    m.d.comb += [
        number.is_int4.eq(source == Format.INT4.value),
        number.is_e4m3.eq(source == Format.E4M3.value),
        number.is_e5m2.eq(source == Format.E5M2.value),
        number.is_wide.eq((source == Format.FP16.value) | (source == Format.BF16.value)),
    ]
    return number


def halfway_layout() -> data.StructLayout:
    """Layout of a number between `begin_widening` and `finish_widening`.

    ``convert``: it is ``sign``, and in the bits of ``number`` what `parts_layout` has. Else it is
    ``number`` as it is.
    """
    return data.StructLayout({"number": 16, "sign": 1, "convert": 1})


def parts_layout() -> data.StructLayout:
    """Layout of the magnitude of a number that is to be converted.

    ``magnitude``: 8 bits, ``weight``: the exponent of the lowest one, less 1. ``special``: it is
    an infinity or, with ``nan``, a NaN; ``magnitude`` is not 0 then.
    """
    return data.StructLayout({"magnitude": 8, "weight": signed(6), "special": 1, "nan": 1})


def widen(m: Module, raw, source, mode, *, name: str) -> Signal:
    """Return a number widened to the array's mode: 16 bits, combinationally.

    Parameters
    ----------
    m : Module
    raw : Value
        The number in its low bits; what lies above does not matter. At least 16 bits.
    source : ``Format``, or its 8 bits
        Of an input that `array_mode` pairs in this mode.
    mode : ``Mode``
    name : str
        Prefix of the signals, unique in the module.

    Returns
    -------
    Signal
        FP16 or BF16; in `Mode.INT8` and `Mode.INT4` the integer is in the low 8 or 4 bits.
    """
    halfway = widen_halfway(m, raw, source, mode, name=name)
    return finish_widening(m, halfway, mode, name=name)


def widen_halfway(m: Module, raw, source, mode, *, name: str) -> data.View:
    """Return the first half of what `widen` does, combinationally (`halfway_layout`)."""
    number = describe_number(m, source, name=f"{name}_number")
    extended = Mux(number.is_int4, raw[3].replicate(4), raw[4:8])
    return begin_widening(m, Cat(raw[:4], extended, raw[8:16]), number, mode, name=name)


def begin_widening(m: Module, raw, number, mode, *, name: str) -> data.View:
    """Return the first half of what `widen` does (`halfway_layout`), for a register behind it.

    The format is given by its `number_layout`; INT4 is extended to 8 bits.
    """
    halfway = Signal(halfway_layout(), name=f"{name}_halfway")
    byte = Signal(8, name=f"{name}_byte")
    is_e4m3, is_e5m2 = number.is_e4m3, number.is_e5m2
    m.d.comb += [
        byte.eq(raw[:8]),
        halfway.sign.eq(byte[7]),
    ]
    parts = Signal(parts_layout(), name=f"{name}_parts")
    m.d.comb += [
        parts.magnitude.eq((byte ^ byte[7].replicate(8)) + byte[7]),
        parts.weight.eq(-1),
    ]
    for used, layout, bias in ((is_e4m3, _E4M3, 11), (is_e5m2, _E5M2, 18)):
        fields = data.View(layout, byte)
        hidden = fields.exponent.any()
        with m.If(used):
            m.d.comb += [
                parts.magnitude.eq(Cat(fields.fraction, hidden)),
                parts.weight.eq(Cat(fields.exponent[0] | ~hidden, fields.exponent[1:]) - bias),
            ]
    with m.If(is_e4m3):
        m.d.comb += [parts.special.eq(byte[:7].all()), parts.nan.eq(1)]
    with m.Elif(is_e5m2):
        m.d.comb += [parts.special.eq(byte[2:7].all()), parts.nan.eq(byte[:2].any())]

    integers = (mode == Mode.INT8) | (mode == Mode.INT4)
    with m.If(is_e5m2 & (mode == Mode.FP16)):
        m.d.comb += halfway.number.eq(Cat(Const(0, 8), byte))
    with m.Elif(integers | number.is_wide):
        m.d.comb += halfway.number.eq(Cat(byte, raw[8:16]))
    with m.Else():
        m.d.comb += [halfway.number.eq(parts), halfway.convert.eq(1)]
    return halfway


def normalize(m: Module, parts, *, name: str) -> tuple[Signal, Signal]:
    """Return the magnitude of `parts_layout` shifted up until its highest bit is set, and the
    exponent of that bit, less 1. A magnitude of 0 stays, with any exponent."""
    lead = Signal(3, name=f"{name}_lead")
    aligned = Signal(8, name=f"{name}_aligned")
    exponent = Signal(signed(8), name=f"{name}_exponent")
    for bit in range(8):  # the last one that is set wins
        with m.If(parts.magnitude[bit]):
            m.d.comb += lead.eq(bit)
    m.d.comb += [
        aligned.eq(parts.magnitude << ~lead),  # 7 - lead
        exponent.eq(parts.weight + lead),
    ]
    return aligned, exponent


def finish_widening(m: Module, halfway, mode, *, name: str) -> Signal:
    """Return the second half of what `widen` does: the number.

    An integer or FP8 number becomes FP16 or BF16; none is subnormal there (but E5M2 in FP16, which
    only gets more bits).
    """
    wide = Signal(16, name=f"{name}_wide")
    parts = data.View(parts_layout(), halfway.number)
    bf16 = Signal(name=f"{name}_bf16")
    m.d.comb += bf16.eq(mode == Mode.BF16)
    aligned, exponent = normalize(m, parts, name=name)
    fraction, sign = aligned[:7], halfway.sign
    with m.If(~halfway.convert):
        m.d.comb += wide.eq(halfway.number)
    with m.Elif(parts.special):
        nan = parts.nan
        m.d.comb += wide.eq(
            Mux(
                bf16,
                Cat(Const(0, 6), nan, Const(0xFF, 8), sign),
                Cat(Const(0, 9), nan, Const(0x1F, 5), sign),
            )
        )
    with m.Elif(~parts.magnitude.any()):
        m.d.comb += wide.eq(Cat(Const(0, 15), sign))
    with m.Else():
        m.d.comb += wide.eq(
            Mux(
                bf16,
                # The bias less 1 is a power of two: it turns one bit round.
                Cat(fraction, exponent[:7], ~exponent[7], sign),
                Cat(Const(0, 3), fraction, exponent[:4], ~exponent[4], sign),
            )
        )
    return wide
