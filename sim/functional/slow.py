"""MATMUL once more, one element at a time, from ``rtl/isa/``. For tests only."""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.isa import BITS, ENTRIES, Encoding, Flag, Format
from ..golden.slow import SlowSum, dot, round_to

__all__ = ["INTEGERS", "field", "matmul_results", "to_fraction"]

Body = dict[str, Any]

INTEGERS = {Format.INT4, Format.INT8}
ROUNDING = {
    Format.FP16: (11, -24, 5),
    Format.BF16: (8, -133, 120),
    Format.E4M3: (4, -9, 5),
    Format.E5M2: (3, -16, 13),
    Format.FP32: (24, -149, 104),
}


def field(memory: bytes, address: int, offset: int, bits: int) -> int:
    """An unsigned number of some bits, so many bits after the lowest of an address."""
    address += offset // 8
    return int.from_bytes(memory[address : address + 5], "little") >> offset % 8 & (1 << bits) - 1


def _raw(value: int, fmt: Format) -> int:
    """Bits as the golden models take them."""
    bits = BITS[fmt]
    return value - (1 << bits) if fmt in INTEGERS and value >> bits - 1 else value


def _read_stream(
    memory: bytes, address: int, count: int, fmt: Format, encoding: Encoding
) -> list[tuple[int, int]]:
    """Return (index, raw value) of a stream, entry by entry."""
    entries, k = [], -1
    bits, per_granule = BITS[fmt], ENTRIES[encoding][BITS[fmt]]
    marks = -(-per_granule * bits // 8) * 8
    for i in range(count):
        granule, place = address + 16 * (i // per_granule), i % per_granule
        if encoding is Encoding.DENSE:
            k = i
        elif encoding is Encoding.DELTA:
            k += field(memory, granule, marks + 8 * place, 8) + 1
        elif encoding is Encoding.SPARSE_2_4:
            k = 4 * (i // 2) + field(memory, granule, marks + 2 * place, 2)
        elif encoding is Encoding.SPARSE_1_4:
            k = 4 * i + field(memory, granule, marks + 2 * place, 2)
        else:
            k = 8 * i + field(memory, granule, marks + 3 * place, 3)
        entries.append((k, _raw(field(memory, granule, bits * place, bits), fmt)))
    return entries


def _read_x(memory: bytes, base: int, body: Body, j: int, k: int) -> int:
    """Return raw element k of column j."""
    fmt = Format(body["in_format"])
    run_length = body["run_bytes"] * 8 // BITS[fmt]
    q, rest = divmod(k, run_length)
    at = base + j // body["n_inner"] * body["x_outer_stride"]
    at += j % body["n_inner"] * body["x_inner_stride"]
    at += q // body["runs_inner"] * body["x_run_outer_stride"]
    at += q % body["runs_inner"] * body["x_run_stride"]
    return _raw(field(memory, at, rest * BITS[fmt], BITS[fmt]), fmt)


def _single(value: Fraction) -> Fraction:
    rounded = round_to(value, *ROUNDING[Format.FP32])
    assert rounded is not None
    return rounded


def to_fraction(bits: int) -> Fraction:
    """Return the number that FP32 bits stand for."""
    return Fraction(struct.unpack("<f", struct.pack("<I", bits))[0])


def _result_of(body: Body, slices: list[tuple[SlowSum, int, int]]) -> tuple[Fraction | float, Flag]:
    """One result as a number, and the flags; from (sum, bias bits, scale bits) of each slice.

    Operands are such that no FP32 number is infinite.
    """
    out_format = Format(body["out_format"])
    integers = {Format(body["stream_format"]), Format(body["in_format"])} <= INTEGERS
    flags = Flag(0)
    for total, _, _ in slices:
        flags |= (Flag.BELOW if total.below else 0) | (Flag.ABOVE if total.above else 0)
    if body["flags"]:
        value = to_fraction(slices[0][1])
        for total, _, scale in slices:
            value = _single(value + _single(_single(total.value) * to_fraction(scale)))
    else:
        _, bias, scale = slices[-1]
        value = sum((total.value for total, _, _ in slices), Fraction(0))
        if integers:
            value += bias - (1 << 32) if bias >> 31 else bias
            if out_format is Format.INT32:
                clipped = max(Fraction(-(2**31)), min(Fraction(2**31 - 1), value))
                return clipped, flags | (Flag.OVERFLOW if clipped != value else 0)
            value = _single(_single(value) * to_fraction(scale))
        else:
            value = _single(_single(_single(value) * to_fraction(scale)) + to_fraction(bias))
    if body["function"]:
        value = max(value, Fraction(0))
    if out_format in INTEGERS:
        clamped = round(value) + body["zero_point"]
        clamped = min(max(clamped, body["clamp_low"]), body["clamp_high"])
        half = 1 << BITS[out_format] - 1
        return (clamped + half) % (2 * half) - half, flags
    rounded = round_to(value, *ROUNDING[out_format])
    if out_format is Format.E4M3 and rounded is not None and abs(rounded) > 448:
        rounded = None
    if rounded is None:
        flags |= Flag.OVERFLOW
        if out_format is Format.E4M3:
            return math.nan, flags | Flag.NAN
        return math.copysign(math.inf, value), flags
    return rounded, flags


def matmul_results(
    body: Body, operand: Sequence[int], scratchpad: npt.NDArray[np.uint8]
) -> tuple[dict[tuple[int, int], Fraction | float], Flag]:
    """Return the results as numbers by address (of INT4, by half byte), and the OR of the flags."""
    memory = bytes(scratchpad)
    base, x, out = operand
    stream_format, in_format = Format(body["stream_format"]), Format(body["in_format"])
    names = stream_format.name.lower(), in_format.name.lower()
    slices = -(-body["k"] // body["slice"])
    columns = [[_read_x(memory, x, body, j, k) for k in range(body["k"])] for j in range(body["n"])]
    results, flags = {}, Flag(0)
    for i in range(body["entries"]):
        rows = []
        for s in range(slices):
            at = base + 16 * (s * body["entries"] + i)
            stream, count, offset, bias, scale = struct.unpack("<HHIII", memory[at : at + 16])
            entries = _read_stream(
                memory, base + 16 * stream, count, stream_format, Encoding(body["encoding"])
            )
            rows.append((entries, s * body["slice"], bias, scale))
        if not rows[-1][0]:
            continue
        for j, column in enumerate(columns):
            sums = [
                (
                    dot(
                        [value for _, value in entries],
                        [column[start + k] for k, _ in entries],
                        *names,
                        body["anchor"],
                    ),
                    bias,
                    scale,
                )
                for entries, start, bias, scale in rows
            ]
            value, raised = _result_of(body, sums)
            flags |= raised
            half = j % 2 if body["out_format"] == Format.INT4.value else 0
            at = out + offset + (j - half) // body["n_inner"] * body["out_outer_stride"]
            at += (j - half) % body["n_inner"] * body["out_inner_stride"]
            results[at, half] = value
    return results, flags
