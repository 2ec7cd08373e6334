"""What the units of `numerics`, and others, share: stage enables, shifts, FP32 fields."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data

__all__ = [
    "CANONICAL_NAN",
    "FP32",
    "is_normal",
    "normalise",
    "pack_rounded",
    "shift_right",
    "stage_enables",
]

CANONICAL_NAN = 0x7FC0_0000
"""The only FP32 NaN that the units make."""

FP32 = data.StructLayout({"fraction": unsigned(23), "exponent": unsigned(8), "sign": unsigned(1)})
"""Fields of an FP32 word."""


def is_normal(word):
    """Return whether the 32 bits of an FP32 number are those of a normal one."""
    exponent = data.View(FP32, word).exponent
    return exponent.any() & ~exponent.all()


def stage_enables(m: Module, ce, valid_i, valid_o, latency: int) -> list:
    """Carry ``valid_i`` along ``latency`` stages to ``valid_o``; return the stages' enables.

    An enable is low in a stage without a value, so that an idle unit toggles nothing.
    """
    valid = Signal(latency)
    with m.If(ce):
        m.d.sync += valid.eq(Cat(valid_i, valid))
    m.d.comb += valid_o.eq(valid[-1])
    return [ce & present for present in (valid_i, *valid[:-1])]


def shift_right(m: Module, value, amount, name: str):
    """Return ``value >> amount``, and whether the lower half and all of the bits below it ask for
    rounding: the highest bit shifted out, and the OR of the others.

    ``amount`` is at most ``len(value) + 1``.
    """
    room = len(value) + 1
    wide = Signal(len(value) + room, name=name)
    m.d.comb += wide.eq(Cat(Const(0, room), value) >> amount)
    return wide[room:], wide[room - 1], wide[: room - 1].any()


def normalise(m: Module, value, distances, name: str, room=None):
    """Shift ``value`` left by each of the falling ``distances`` at whose width its top is zero,
    and which ``room``, if given, still allows.

    Returns the shifted value, what is left of ``room``, and how far it was shifted.
    """
    shifts = []
    for distance in distances:
        shift = Signal(name=f"{name}_by_{distance}")
        step = Signal(len(value), name=f"{name}_{distance}")
        zero = ~value[-distance:].any()
        if room is None:
            m.d.comb += shift.eq(zero)
        else:
            m.d.comb += shift.eq(zero & (room >= distance))
            left = Signal(len(room), name=f"{name}_room_{distance}")
            m.d.comb += left.eq(room - Cat(Const(0, distance.bit_length() - 1), shift))
            room = left
        m.d.comb += step.eq(Mux(shift, value.shift_left(distance), value))
        shifts.append(shift)
        value = step
    return value, room, Cat(Const(0, distances[-1].bit_length() - 1), *reversed(shifts))


def pack_rounded(exponent, significand, half, below):
    """Return exponent and fraction of a number rounded to nearest even, as one integer.

    ``exponent`` is the biased exponent (at least 1), ``significand`` the bits with the hidden one,
    or without it for a subnormal number: the hidden bit adds 1 to ``exponent - 1``, and so does
    the carry of the rounding, up to infinity.
    """
    bits = len(significand) - 1
    base = Cat(Const(0, bits), (exponent - 1)[: len(exponent)])
    return base + significand + (half & (below | significand[0]))
