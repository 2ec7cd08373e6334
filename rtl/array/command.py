"""What row engines need of a command, worked out once for all of them."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data

from ..isa import BITS, ENTRIES, INPUT_FORMATS, OUTPUT_FORMATS, Encoding, MatmulFlag
from ..numerics.widen import describe_number, low_bits, number_layout

__all__ = ["chosen", "describe_streams", "stream_command_layout"]

_PLACE_BITS = {
    Encoding.DENSE: 0,
    Encoding.DELTA: 8,
    Encoding.SPARSE_2_4: 2,
    Encoding.SPARSE_1_4: 2,
    Encoding.SPARSE_1_8: 3,
}
"""Bits that tell an entry's k."""

_LOW_BITS = {Encoding.SPARSE_2_4: 3, Encoding.SPARSE_1_4: 3, Encoding.SPARSE_1_8: 7}
"""The low bits of the last k of a group."""


def stream_command_layout() -> data.StructLayout:
    """Layout of what row engines need of a command.

    ``n`` and ``entries`` are those of `MatmulBody`; ``k_less`` and ``slice_less`` its ``k`` and
    ``slice``, less 1. ``number`` describes the stream's format.
    ``odd_bits``: bits of a result's address that must be zero. ``deal_on``: `MatmulFlag.DEAL_ON`.
    ``dense``: streams name no k.
    ``pairs``: two entries share a group; ``low_bits``: the low bits of the last k of a group. Where
    things lie in a granule: it has ``per_granule`` entries with values of ``nibbles`` half-bytes;
    what tells their k begins at bit ``places``, and has ``place_bits`` bits, of which
    ``place_mask`` has as many ones.
    """
    return data.StructLayout(
        {
            "k_less": unsigned(16),
            "n": unsigned(16),
            "slice_less": unsigned(16),
            "entries": unsigned(16),
            "number": number_layout(),
            "odd_bits": unsigned(2),
            "deal_on": unsigned(1),
            "dense": unsigned(1),
            "pairs": unsigned(1),
            "low_bits": unsigned(3),
            "per_granule": unsigned(6),
            "nibbles": unsigned(3),
            "place_bits": unsigned(4),
            "places": unsigned(7),
            "place_mask": unsigned(8),
        }
    )


def describe_streams(m: Module, body) -> Signal:
    """Return `stream_command_layout` of a `MatmulBody`, combinationally; void if that breaks its
    rules. Three bits tell its formats and its encoding."""
    result = Signal(stream_command_layout(), name="streams")
    for name in ("n", "entries"):
        m.d.comb += result[name].eq(body[name])
    for name in ("k", "slice"):
        m.d.comb += result[f"{name}_less"].eq(body[name] - 1)
    with m.Switch(low_bits(body.out_format)):
        for bits in (16, 32):
            with m.Case(*(f.value for f in OUTPUT_FORMATS if BITS[f] == bits)):
                m.d.comb += result.odd_bits.eq(bits // 8 - 1)

    widths = {bits: Signal(name=f"has_{bits}_bits") for bits in (4, 8, 16)}
    with m.Switch(low_bits(body.stream_format)):
        with m.Case(*(f.value for f in INPUT_FORMATS if BITS[f] == 4)):
            m.d.comb += widths[4].eq(1)
        with m.Case(*(f.value for f in INPUT_FORMATS if BITS[f] == 8)):
            m.d.comb += widths[8].eq(1)
        with m.Default():
            m.d.comb += widths[16].eq(1)
    m.d.comb += result.number.eq(describe_number(m, body.stream_format, name="stream_number"))
    for bits, used in widths.items():
        with m.If(used):
            m.d.comb += result.nibbles.eq(bits // 4)

    m.d.comb += result.deal_on.eq(body.flags[MatmulFlag.DEAL_ON.value.bit_length() - 1])
    encoding_bits = body.encoding[:3]
    m.d.comb += result.dense.eq(encoding_bits == Encoding.DENSE.value)
    m.d.comb += result.pairs.eq(encoding_bits == Encoding.SPARSE_2_4.value)
    with m.Switch(encoding_bits):
        for encoding, entries in ENTRIES.items():
            with m.Case(encoding.value):
                m.d.comb += [
                    result.low_bits.eq(_LOW_BITS.get(encoding, 0)),
                    result.place_bits.eq(_PLACE_BITS[encoding]),
                    result.place_mask.eq((1 << _PLACE_BITS[encoding]) - 1),
                ]
                for bits, count in entries.items():
                    with m.If(widths[bits]):
                        start = -(-count * bits // 8) * 8
                        m.d.comb += result.per_granule.eq(count)
                        if encoding is not Encoding.DENSE:
                            m.d.comb += result.places.eq(start)
    return result


def chosen(m: Module, pair, turn, *names: str) -> tuple[Signal, ...]:
    """Return the named fields, as signals, of the one of two structures that ``turn`` says."""
    fields = []
    for name in names:
        field = Signal.like(pair[0][name], name=f"this_{name}")
        m.d.comb += field.eq(Mux(turn, pair[1][name], pair[0][name]))
        fields.append(field)
    return tuple(fields)
