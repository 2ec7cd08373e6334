"""Faults that only a MATMUL can have."""

import numpy as np

from ...rtl.config import GRANULE, MAX_K, RELEASE_WORDS
from ...rtl.isa import (
    ENTRIES,
    MIN_ANCHOR,
    Encoding,
    Format,
    MatmulFlag,
    Mode,
    Opcode,
    Status,
)
from .checks import matmul_mode
from .fault_target import FAR, Kind, Target

__all__ = ["MATMUL_KINDS"]

SCALED = MatmulFlag.BLOCK_SCALE.value


def _long(t: Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL:
        return None
    t.body["k"] = t.choose(MAX_K + 1, 65535)
    return Status.BAD_LENGTH


def _broken_runs(t: Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL or t.body["k"] == 1:
        return None
    if t.body["run_bytes"] * 8 == t.bits("in"):
        return None
    t.body["k"] -= 1
    return Status.BAD_LENGTH


def _slice(t: Target) -> Status | None:
    """A slice that is too long, or not a whole number of the ring's units."""
    if t.opcode is not Opcode.MATMUL or t.body["k"] <= RELEASE_WORDS:
        return None
    if t.body["k"] > t.config.operand_depth and t.rng.random() < 0.5:
        t.body["slice"] = t.choose(t.body["k"], 65535)
        t.body["entries"] = t.config.rows + t.choose(1, 100)
    else:
        t.body["slice"] = t.choose(*set(range(1, t.body["k"])) - set(range(0, MAX_K, 16)))
    return Status.BAD_LENGTH


def _many_entries(t: Target) -> Status | None:
    """More partial sums than there is memory for."""
    if t.opcode is not Opcode.MATMUL or t.body["slice"] >= t.body["k"]:
        return None
    wide = t.body["flags"] & SCALED and matmul_mode(t.body) is Mode.INT4
    most = t.config.rows * (t.config.partial_rows // (2 if wide else 1))
    t.body["entries"] = t.choose(most + 1, 2 * most + 1, 65535)
    return Status.BAD_LENGTH


def _pair(t: Target) -> Status | None:
    """Formats that have a path each, but not together."""
    if t.opcode is not Opcode.MATMUL:
        return None
    kinds = [Format.FP16.value, Format.BF16.value]
    if t.body["in_format"] in kinds:
        t.body["stream_format"] = sum(kinds) - t.body["in_format"]
    elif matmul_mode(t.body) in (Mode.FP16, Mode.BF16) or t.body["flags"] & SCALED:
        t.body["out_format"] = Format.INT32.value
    else:
        t.body["anchor"] = t.choose(-1, 1, MIN_ANCHOR)
    return Status.BAD_FORMAT


def _odd_pairs(t: Target) -> Status | None:
    """INT4 results of which two in different bytes would share one."""
    if t.opcode is not Opcode.MATMUL or t.body["n"] < 2:
        return None
    t.body["out_format"] = Format.INT4.value
    t.body["n_inner"] = t.choose(*range(1, t.body["n"], 2))
    return Status.BAD_FORMAT


def _misaligned_entry(t: Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL or t.bits("out") <= 8:
        return None
    t.entry()[0]["out_offset"] ^= 1
    return Status.BAD_ALIGNMENT


def _far_window(t: Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL or t.body["n"] <= t.body["n_inner"]:
        return None
    name = t.choose("x", "out")
    t.body[f"{name}_outer_stride"] = t.choose(-FAR, FAR - GRANULE)
    return Status.BAD_ADDRESS


def _far_entry(t: Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL:
        return None
    if t.rng.random() < 0.5:
        t.entry(last=True)[0]["out_offset"] ^= np.uint32(FAR)
    else:
        t.entry()[0]["stream"] = 65535
    return Status.BAD_ADDRESS


def _scale(t: Target) -> Status | None:
    if t.opcode is not Opcode.MATMUL:
        return None
    entry, _ = t.entry()
    entry["scale"] = t.choose(0, 1, 0x7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001) | t.choose(0, FAR)
    return Status.BAD_SCALE


def _index(t: Target) -> Status | None:
    """A count that is wrong, an index beyond the slice, or two out of order."""
    if t.opcode is not Opcode.MATMUL:
        return None
    entry, s = t.entry()
    length = min(t.body["slice"], t.body["k"] - s * t.body["slice"])
    encoding = Encoding(t.body["encoding"])
    if encoding is Encoding.DENSE:
        entry["count"] = length + 1 if length == 1 else t.choose(length - 1, length + 1)
        return Status.BAD_INDEX
    bits = t.bits("stream")
    per_granule = ENTRIES[encoding][bits]
    # What tells the first entries' indices.
    at = int(entry["stream"]) * GRANULE + -(-per_granule * bits // 8)
    raw = t.blob()
    if encoding is Encoding.DELTA and length < 256:
        raw[at] = 255
    elif encoding is Encoding.SPARSE_2_4 and entry["count"] > 1:
        raw[at] = raw[at] & 0xF0 | t.choose(0b0000, 0b0101, 0b0001, 0b1011, 0b1111)
    elif encoding in (Encoding.SPARSE_1_4, Encoding.SPARSE_1_8) and length < 4:
        raw[at] |= 3
    else:
        return None
    return Status.BAD_INDEX


MATMUL_KINDS: tuple[Kind, ...] = (
    _long,
    _broken_runs,
    _slice,
    _many_entries,
    _pair,
    _odd_pairs,
    _misaligned_entry,
    _far_window,
    _far_entry,
    _scale,
    _index,
)
"""All of them."""
