"""What the units of `numerics`, and others, share: stage enables, shifts, FP32 fields."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

__all__ = [
    "CANONICAL_NAN",
    "FP32",
    "carry",
    "coarse_shift",
    "fine_shift",
    "is_normal",
    "normalise",
    "pack_rounded",
    "shift_left",
    "shift_right",
    "shift_sticky",
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


def carry(m: Module, enables, value, name: str):
    """Return ``value`` from registers, of as many stages as there are enables."""
    value = Value.cast(value)
    for number, enable in enumerate(enables, 1):
        step = Signal(len(value), name=f"{name}_{number}", reset_less=True)
        with m.If(enable):
            m.d.sync += step.eq(value)
        value = step
    return value


def shift_sticky(m: Module, value, below, amount, distances, name: str):
    """Shift ``value`` right by those of the falling ``distances`` that are in ``amount``.

    Returns the shifted value, and ``below`` ORed with all bits that were shifted out.
    """
    for distance in distances:
        shift = amount[distance.bit_length() - 1]
        step = Signal(len(value), name=f"{name}_{distance}")
        m.d.comb += step.eq(Mux(shift, value[distance:], value))
        below = below | (shift & value[:distance].any())
        value = step
    return value, below


def coarse_shift(flags):
    """Return how far, in units of four bits, to shift left until the first flag is at the top.

    ``flags`` say, from the highest four bits down, where there is a one; at most eight.
    """
    flags = Cat(flags)
    flag = [flags[i] if i < len(flags) else Const(0, 1) for i in range(8)]
    by_4 = ~flags[:4].any()
    pair = [flag[i] | flag[i + 1] for i in range(0, 8, 2)]
    by_2 = Mux(by_4, ~pair[2], ~pair[0])
    by_1 = Mux(by_4, Mux(by_2, ~flag[6], ~flag[4]), Mux(by_2, ~flag[2], ~flag[0]))
    return Cat(by_1, by_2, by_4)


def fine_shift(top):
    """Return how far to shift left, at most 3, until the first one of four bits is at the top."""
    by_2 = ~top[3] & ~top[2]
    by_1 = ~top[3] & (top[2] | ~top[1])
    return Cat(by_1, by_2)


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


def shift_left(m: Module, value, amount, distances, name: str):
    """Shift ``value`` left by those of the falling ``distances`` whose bits are in ``amount``, of
    which the last one has the lowest."""
    for bit, distance in zip(reversed(range(len(distances))), distances, strict=True):
        step = Signal(len(value), name=f"{name}_{distance}")
        m.d.comb += step.eq(Mux(amount[bit], value.shift_left(distance), value))
        value = step
    return value


def pack_rounded(exponent, significand, half, below):
    """Return exponent and fraction of a number rounded to nearest even, as one integer.

    ``exponent`` is the biased exponent, ``significand`` the bits with the hidden one; that is 0 of
    a subnormal number and of zero, and ``exponent`` void. The carry of the rounding adds 1 to the
    exponent, up to infinity.
    """
    hidden = significand[-1]
    number = Cat(significand[:-1], Mux(hidden, exponent, 0))
    return number + (half & (below | significand[0]))
